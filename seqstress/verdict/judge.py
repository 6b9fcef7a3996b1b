"""What the answers to one step mean: its fate, and whether a START error had a legitimate cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seqstress.protocol import START_ERROR, Cause, Expect, Fate, Reply, ReplyKind, Step, Value

# For the path of every step: an enum's member costs 0.1 µs to look up, a global 0.02.
_VALUE: Final = ReplyKind.VALUE
_ANSWERS: Final = Expect.ANSWERS
_OK: Final = Fate.OK


def judge_step(step: Step, replies: Sequence[Reply], tolerance: float) -> Fate:
    """The fate of a step that was answered in full: ``replies`` are all its answers in order, the last one
    final.

    Gives only OK, WRONG_RESULT, MALFORMED, MISSING_ERROR and UNEXPECTED_ERROR; the last one also for a START
    error, whose legitimate cause, if any, is then told by ``start_error_cause``. ``tolerance`` is absolute
    and for floats only.

    A decoupled model may close its answers with an EMPTY final reply, which then says nothing of its own.
    Where values were due and only an EMPTY came, it is MALFORMED: that is how Triton delivers a request that
    it cancelled because of another stream with the same correlation ID (``Status(CANCELLED)`` with an empty
    text in sequence_batch_scheduler.cc).
    """
    if len(replies) == 1:
        # The usual case, first: one value, as the oracle says.
        reply = replies[0]
        if (
            reply.kind is _VALUE
            and step.expect is _ANSWERS
            and len(step.answers) == 1
            and reply.final
            and step.answers[0] == reply.value
        ):
            return _OK
    if not replies or not replies[-1].final:
        raise ValueError("only a step with its final answer can be judged")
    if step.expect is Expect.START_ERROR:
        return _judge_start_error(replies)
    return _judge_answers(step, replies, tolerance)


def _judge_start_error(replies: Sequence[Reply]) -> Fate:
    errors = [reply for reply in replies if reply.kind is ReplyKind.ERROR]
    served = any(reply.kind in (ReplyKind.VALUE, ReplyKind.MALFORMED) for reply in replies)
    if served or not errors:
        return Fate.MISSING_ERROR
    return Fate.OK if all(START_ERROR in error.text for error in errors) else Fate.UNEXPECTED_ERROR


def _judge_answers(step: Step, replies: Sequence[Reply], tolerance: float) -> Fate:
    if any(reply.kind is ReplyKind.ERROR for reply in replies):
        return Fate.UNEXPECTED_ERROR
    if any(reply.kind is ReplyKind.MALFORMED for reply in replies):
        return Fate.MALFORMED
    if any(reply.kind is ReplyKind.EMPTY for reply in replies[:-1]):
        return Fate.MALFORMED
    values = [reply.value for reply in replies if reply.kind is ReplyKind.VALUE]
    if step.answers and not values:
        return Fate.MALFORMED
    if len(values) != len(step.answers):
        return Fate.WRONG_RESULT
    pairs = zip(step.answers, values, strict=True)
    return Fate.OK if all(_matches(due, value, tolerance) for due, value in pairs) else Fate.WRONG_RESULT


def _matches(expected: Value, observed: Value | tuple[Value, ...] | None, tolerance: float) -> bool:
    """Whether every element of the output is the expected value; an output without elements never is."""
    if isinstance(observed, tuple):
        return bool(observed) and all(_equals(expected, element, tolerance) for element in observed)
    return observed is not None and _equals(expected, observed, tolerance)


def _equals(expected: Value, observed: Value, tolerance: float) -> bool:
    # == is exact between int and float at any magnitude, true for equal infinities and false for NaN.
    if expected == observed:
        return True
    if tolerance <= 0 or (isinstance(expected, int) and isinstance(observed, int)):
        return False
    try:
        return abs(observed - expected) <= tolerance
    except OverflowError:  # an integer beyond the range of floats, so far off in any case
        return False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What our own records say about a step that got the START error although it expected answers.

    All times are monotonic nanoseconds of one clock.
    """

    sent_ns: int
    answered_ns: int
    previous_sent_ns: int | None
    """When the step before it in the sequence was sent; None for the first step of a sequence."""
    previous_answered_ns: int | None
    """When the step before it was answered; None while it is not."""
    idle_limit_ns: int
    lag_ns: int
    """How late our event loop was at most meanwhile: a send or an answer may have been stamped that much
    late."""
    round_trip_ns: int
    """A healthy round trip to this server."""
    interruption: Cause | None = None
    """What is known to have ended this sequence on the server: RESET, DISCONNECT, RELOAD, RESTART,
    BACKLOG_TIMEOUT, or the cause of an earlier step of it that expired: once the server has dropped a
    sequence, every later step gets the error."""


def start_error_cause(evidence: Evidence) -> Cause | None:
    """The legitimate cause of a START error that our own records show; None makes it a real finding.

    Triton drops a sequence when its idle limit has passed since the ARRIVAL of its last request, and only
    then: the time a step waits in the backlog or executes counts as idle (a START that waited longer than the
    limit is dropped at the reaper's next poll, up to 50 ms after it got its slot). We cannot see arrivals,
    but each lies between our send and our receipt of the answer, so the true idle time lies in ``[sent -
    previous_answered, answered - previous_sent]``.

    - A known interruption wins: it explains the error whatever the clock says.
    - IDLE, when the sends lie the limit apart. That includes the step sent at once after the answer to a
      START that had waited in the backlog or executed for longer than the limit: the distance is counted from
      the START's *send*.
    - MAYBE_IDLE in lockstep (the previous step had been answered before this one left): when the widest
      reading reaches the limit. ``answered`` is a tight bound for the arrival here, since the server gives
      the START error at enqueue and nothing of this stream is queued before it. The lag covers a
      ``previous_sent`` that was stamped after the fact.
    - MAYBE_IDLE when pipelined: the error is delivered in stream order, behind steps that still execute, so
      ``answered`` says nothing about the arrival. What can stretch the distance of two arrivals beyond that
      of their sends is our lag and the way to the server: the limit less both must be reached.

    A START error on the first step sent after its own START flag has no previous step: only an interruption
    explains it.
    """
    if evidence.interruption is not None:
        return evidence.interruption
    previous_sent_ns = evidence.previous_sent_ns
    if previous_sent_ns is None:
        return None
    apart_ns = evidence.sent_ns - previous_sent_ns
    if apart_ns >= evidence.idle_limit_ns:
        return Cause.IDLE
    in_lockstep = evidence.previous_answered_ns is not None and evidence.previous_answered_ns <= evidence.sent_ns
    if in_lockstep:
        widest_ns = evidence.answered_ns - previous_sent_ns + evidence.lag_ns
    else:
        widest_ns = apart_ns + evidence.lag_ns + evidence.round_trip_ns
    return Cause.MAYBE_IDLE if widest_ns >= evidence.idle_limit_ns else None
