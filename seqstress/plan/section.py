"""The base of every part of a scenario."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of a scenario: no unknown keys, no silent conversions, no NaN and no infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
