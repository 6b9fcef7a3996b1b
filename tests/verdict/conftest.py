"""A failure record with everything in it."""

import pytest

from seqstress.protocol import EndCause, Expect, Fate, Step, StreamEnd
from seqstress.verdict.failure import Exchange, Failure


@pytest.fixture
def failure():
    step = Step(True, False, 2**70, Expect.ANSWERS, (2**70, -3), 17)
    return Failure(
        fate=Fate.WRONG_RESULT,
        stray=None,
        cause=None,
        pattern="valid",
        worker=1,
        user=2,
        context=3,
        plan=4,
        seed_path=(2**80, 1, 2),
        correlation_id=2**62,
        request_id="1.2.3",
        sequence=0,
        step=5,
        expected="7",
        observed="8",
        message="wrong",
        at_epoch_s=1.5,
        exchange=(
            Exchange(0, 0, step, "1.2.3", 0, 3, None, ("8",), Fate.WRONG_RESULT),
            Exchange(0, 1, step._replace(value=1.5, expect=Expect.START_ERROR), "1.2.4", None, None, None, (), None),
        ),
        stream_end=StreamEnd(EndCause.STATUS, 14, "gone"),
    )
