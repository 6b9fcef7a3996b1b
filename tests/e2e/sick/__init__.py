"""Model repositories with one disease each, to show that nothing a server gets wrong escapes the verdict."""

import shutil
from enum import Enum
from pathlib import Path

from seqstress.triton.repository import ACCUMULATOR, ModelSpec, write_repository

MODEL = "sick"
SOURCE = Path(__file__).parent / "sick_accumulator.py"


class Disease(Enum):
    """What the model does wrong. "A trigger" is a step whose value leaves 7 when divided by 50."""

    NOT_RESET_AT_START = "not_reset_at_start"
    """START adds to what the slot's last sequence left, where that one was not ended."""
    OFF_BY_ONE = "off_by_one"
    """A trigger's answer, and all after it in the sequence, is one too high."""
    MISSING_OUTPUT = "missing_output"
    """A trigger is answered without any output tensor."""
    WRONG_DTYPE = "wrong_dtype"
    """A trigger is answered in INT64."""
    WRONG_SHAPE = "wrong_shape"
    """A trigger is answered with two elements."""
    ERROR_NOW_AND_THEN = "error_now_and_then"
    """A trigger is answered with an error, though it is counted in."""
    HANGS = "hangs"
    """A trigger, and all that come to the model after it, is never answered."""
    SWAPPED_IN_BATCH = "swapped_in_batch"
    """The first two answers of a batch change places."""
    SHARED_STATE = "shared_state"
    """All sequences share one sum, which any START sets and any END forgets (a step after that is refused)."""


def sick_repository(directory: Path, disease: Disease) -> str:
    """Write a repository with one INT32 model of 4 direct slots that suffers from ``disease``; return its name."""
    spec = ModelSpec(
        MODEL,
        max_batch_size=4,
        execute_delay_us=3_000,
        source=SOURCE,
        parameters=(("disease", disease.value),),
    )
    write_repository(directory, [spec])
    shutil.copyfile(ACCUMULATOR, directory / MODEL / "1" / "accumulator.py")
    return MODEL
