"""The scenario as a frozen, typed value: every key with its meaning, type and default."""

import json
from enum import Enum
from hashlib import sha256
from typing import Annotated, Final

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from seqstress.plan.recipe import SEED_COMMON, Contexts, Ids, Mix, Pacing, SequenceShape
from seqstress.plan.section import Section
from seqstress.protocol import Dtype


class Model(Section):
    """The model that the steps go to. What is null here comes from the model's own configuration."""

    name: Annotated[str, Field(min_length=1)]
    version: str = ""
    """Empty = the server's choice."""
    input: str | None = None
    """Name of the input tensor; null = the model's only one."""
    output: str | None = None
    """Name of the output tensor; null = the model's only one."""
    dtype: Dtype | None = None
    """Datatype of both tensors; BYTES holds decimal integers."""
    shape: tuple[PositiveInt, ...] | None = None
    """Shape of both tensors without the batch dimension; null = the model's, variable dimensions being 1."""
    oracle: str = "accumulator"
    """What computes the expected answers."""
    idle_limit_s: PositiveFloat | None = None
    """The idle limit that you expect the model to have: a contradiction is an error."""
    slots: PositiveInt | None = None
    """The number of sequences that you expect the model to hold at once: a contradiction is an error."""


class Load(Section):
    """How many users there are and when the run ends."""

    users: Annotated[PositiveInt, Field(le=1_000_000)] = 8
    spawn_rate: PositiveFloat = 8
    """Users started per second."""
    iterations: PositiveInt | None = None
    """Plans that each user sends before it ends; null = no limit."""
    run_time_s: PositiveFloat | None = None
    """Seconds after which the run ends; null = no limit."""


class IdReuse(Enum):
    """When a START may reuse the ID of a sequence before it."""

    AT_ONCE = "at_once"
    """Right behind the END. The two may then overlap: Triton forgets an ID when its END is enqueued."""
    AFTER_ANSWER = "after_answer"
    """When the END was answered: what a model that keeps its state by ID needs."""


class StreamUse(Enum):
    """How long a gRPC stream is used."""

    PER_CONTEXT = "per_context"
    """One stream per context, for as long as it works."""
    PER_SEQUENCE = "per_sequence"
    """A new stream for each plan, as the seed of this tool does it."""


class Metric(Enum):
    """A figure of the run that a threshold can limit."""

    STEP_P50_US = "step_p50_us"
    STEP_P95_US = "step_p95_us"
    STEP_P99_US = "step_p99_us"
    STEP_MAX_US = "step_max_us"
    SEQUENCE_P50_US = "sequence_p50_us"
    SEQUENCE_P95_US = "sequence_p95_us"
    SEQUENCE_P99_US = "sequence_p99_us"
    SEQUENCE_MAX_US = "sequence_max_us"
    STEPS_PER_S = "steps_per_s"
    SEQUENCES_PER_S = "sequences_per_s"


class Threshold(Section):
    """A limit that the run must keep, else the verdict is FAIL."""

    metric: Metric
    at_most: NonNegativeFloat | None = None
    at_least: NonNegativeFloat | None = None
    pattern: str | None = None
    """null = all patterns together."""


Share = Annotated[float, Field(ge=0, le=1)]
NOTHING: Final[dict[str, float]] = {}


class Scenario(Section):
    """One story for the server: what to send, how fast, and what to make of the answers."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=64)]
    description: str = ""
    model: Model
    load: Load = Load()
    contexts: Contexts = Contexts()
    mix: Mix = Mix()
    sequence: SequenceShape = SequenceShape()
    ids: Ids = Ids()
    id_reuse: IdReuse = IdReuse.AT_ONCE
    stream: StreamUse = StreamUse.PER_CONTEXT
    pacing: Pacing = Pacing()
    timeout_s: PositiveFloat = 5.0
    """Longest wait for an answer, from the step's real send."""
    tolerance: NonNegativeFloat = 0.0
    """Absolute difference that a float answer may have from the expected one."""
    exclusive: bool = True
    """Nobody else uses the model, so its counters must agree with ours."""
    allow: dict[str, Share] = NOTHING
    """Fates and stray answers that are no failure up to a share of the steps, 0 to 1."""
    thresholds: tuple[Threshold, ...] = ()

    @property
    def oracle(self) -> str:
        """The name of the oracle."""
        return self.model.oracle

    @property
    def digest(self) -> str:
        """Sixteen hex digits that differ where anything in the scenario does."""
        canonical = json.dumps(self.to_plain(), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    def with_model(self, name: str) -> "Scenario":
        """The same story for another model."""
        return self.model_copy(update={"model": self.model.model_copy(update={"name": name})})

    def with_users(self, users: int) -> "Scenario":
        """The same story with so many users."""
        return self.model_copy(update={"load": self.load.model_copy(update={"users": users})})

    def to_plain(self) -> dict[str, object]:
        """Everything in plain types: JSON, YAML and Locust's messages carry it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_plain(cls, plain: dict[str, object]) -> "Scenario":
        """The scenario that :meth:`to_plain` was asked of, equal to it. Raises pydantic's ValidationError.

        JSON is pydantic's strictest way in: nothing is converted, but lists become tuples and names become
        enums.
        """
        return cls.model_validate_json(json.dumps(_without_unused_defaults(plain), default=str))


def _without_unused_defaults(plain: dict[str, object]) -> dict[str, object]:
    """Without rare contexts nothing is rare: the defaults for them would contradict what was asked."""
    contexts = plain.get("contexts")
    if not isinstance(contexts, dict) or contexts.get("rare") != 0:
        return plain
    mix = plain.get("mix", {"common": SEED_COMMON})
    if isinstance(mix, dict):
        mix = {"rare": {}, **mix}
    return {**plain, "contexts": {"rare_share": 0.0, **contexts}, "mix": mix}


def scenario_schema() -> dict[str, object]:
    """The JSON Schema of scenario files, for editors; rules across keys are not in it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
