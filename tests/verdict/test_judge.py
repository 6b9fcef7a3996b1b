"""Every fate that answers can give, and every legitimate cause of a START error."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.protocol import START_ERROR, Cause, Expect, Fate, Reply, ReplyKind, Step
from seqstress.verdict.judge import Evidence, judge_step, start_error_cause

MS = 1_000_000
REFUSAL = f"inference request for sequence 7 to model 'm' {START_ERROR} on the first request of the sequence"


def step(*answers):
    return Step(False, False, 1, Expect.ANSWERS, answers)


NO_START = Step(False, False, 1, Expect.START_ERROR, ())


def value(observed, final=True):
    return Reply("r", ReplyKind.VALUE, observed, "", "m", final)


def error(text=REFUSAL, model=""):
    return Reply("r", ReplyKind.ERROR, None, text, model, True)


def empty(final=True):
    return Reply("r", ReplyKind.EMPTY, None, "", "m", final)


MALFORMED = Reply("r", ReplyKind.MALFORMED, None, "shape [2]", "m", True)


@pytest.mark.parametrize(
    ("due", "replies", "fate"),
    [
        (step(5), [value(5)], Fate.OK),
        (step(5), [value(6)], Fate.WRONG_RESULT),
        (step(2**63 - 1), [value(2**63 - 2)], Fate.WRONG_RESULT),
        (step(5), [value(5.0)], Fate.OK),
        (step(2**53 + 1), [value(float(2**53))], Fate.WRONG_RESULT),
        (step(5), [value((5, 5))], Fate.OK),
        (step(5), [value((5, 6))], Fate.WRONG_RESULT),
        (step(5), [value(())], Fate.WRONG_RESULT),
        (step(5), [empty()], Fate.MALFORMED),
        (step(5), [MALFORMED], Fate.MALFORMED),
        (step(5), [error("boom", "m")], Fate.UNEXPECTED_ERROR),
        (step(5), [error()], Fate.UNEXPECTED_ERROR),
        (NO_START, [error()], Fate.OK),
        (NO_START, [error("something else")], Fate.UNEXPECTED_ERROR),
        (NO_START, [value(5)], Fate.MISSING_ERROR),
        (NO_START, [empty()], Fate.MISSING_ERROR),
        (NO_START, [MALFORMED], Fate.MISSING_ERROR),
        (NO_START, [value(5, final=False), error()], Fate.MISSING_ERROR),
    ],
)
def test_the_fate_of_an_answered_step(due, replies, fate):
    assert judge_step(due, replies, 0.0) is fate


@pytest.mark.parametrize(
    ("due", "replies", "fate"),
    [
        (step(), [empty()], Fate.OK),
        (step(1), [value(1, final=False), empty()], Fate.OK),
        (step(1, 2), [value(1, final=False), value(2)], Fate.OK),
        (step(1, 2), [value(1, final=False), value(2, final=False), empty()], Fate.OK),
        (step(1, 2), [value(2, final=False), value(1)], Fate.WRONG_RESULT),
        (step(1, 2), [value(1, final=False), empty()], Fate.WRONG_RESULT),
        (step(1), [value(1, final=False), value(1)], Fate.WRONG_RESULT),
        (step(), [value(1)], Fate.WRONG_RESULT),
        (step(1, 2), [empty()], Fate.MALFORMED),
        (step(1), [empty(final=False), value(1)], Fate.MALFORMED),
        (step(1), [value(1, final=False), error("boom", "m")], Fate.UNEXPECTED_ERROR),
        (NO_START, [error()._replace(final=False), empty()], Fate.OK),
    ],
)
def test_the_fate_of_a_decoupled_step(due, replies, fate):
    assert judge_step(due, replies, 0.0) is fate


@pytest.mark.parametrize("replies", [[], [value(1, final=False)]])
def test_an_unfinished_step_is_not_judged(replies):
    with pytest.raises(ValueError, match="final answer"):
        judge_step(step(1), replies, 0.0)


@given(st.floats(allow_nan=True), st.floats(min_value=0, allow_nan=False))
def test_nan_never_equals(other, tolerance):
    assert judge_step(step(other), [value(math.nan)], tolerance) is Fate.WRONG_RESULT
    assert judge_step(step(math.nan), [value(other)], tolerance) is Fate.WRONG_RESULT


def test_the_tolerance_is_absolute_and_for_floats_only():
    assert judge_step(step(1.0), [value(1.25)], 0.25) is Fate.OK
    assert judge_step(step(1.0), [value(1.26)], 0.25) is Fate.WRONG_RESULT
    assert judge_step(step(10), [value(11)], 5.0) is Fate.WRONG_RESULT
    assert judge_step(step(1.5), [value(10**400)], 5.0) is Fate.WRONG_RESULT
    assert judge_step(step(math.inf), [value(math.inf)], 0.0) is Fate.OK


@given(st.integers(), st.integers())
def test_integers_are_exact(due, seen):
    assert (judge_step(step(due), [value(seen)], 1.0) is Fate.OK) == (due == seen)


LOCKSTEP = Evidence(
    sent_ns=500 * MS,
    answered_ns=501 * MS,
    previous_sent_ns=0,
    previous_answered_ns=10 * MS,
    idle_limit_ns=1000 * MS,
    lag_ns=2 * MS,
    round_trip_ns=1 * MS,
)
PIPELINED = replace(LOCKSTEP, previous_answered_ns=None)


def test_a_start_error_without_any_cause_is_a_finding():
    assert start_error_cause(LOCKSTEP) is None
    assert start_error_cause(PIPELINED) is None


def test_sends_the_limit_apart_mean_idle_whatever_executed_meanwhile():
    late = replace(LOCKSTEP, sent_ns=1000 * MS, answered_ns=1001 * MS, previous_answered_ns=999 * MS)
    assert start_error_cause(late) is Cause.IDLE
    assert start_error_cause(replace(late, previous_answered_ns=None)) is Cause.IDLE


def test_a_start_that_waited_in_the_backlog_counts_from_its_send():
    waited = replace(LOCKSTEP, previous_answered_ns=3000 * MS, sent_ns=3000 * MS, answered_ns=3001 * MS)
    assert start_error_cause(waited) is Cause.IDLE


def test_in_lockstep_the_answer_bounds_the_arrival():
    near = replace(LOCKSTEP, sent_ns=990 * MS, answered_ns=998 * MS)
    assert start_error_cause(near) is Cause.MAYBE_IDLE
    assert start_error_cause(replace(near, answered_ns=998 * MS - 1)) is None


def test_pipelined_a_late_answer_proves_nothing():
    behind_slow_steps = replace(PIPELINED, answered_ns=5000 * MS)
    assert start_error_cause(behind_slow_steps) is None
    near = replace(PIPELINED, sent_ns=997 * MS, answered_ns=5000 * MS)
    assert start_error_cause(near) is Cause.MAYBE_IDLE
    assert start_error_cause(replace(near, sent_ns=997 * MS - 1)) is None


def test_a_step_whose_predecessor_was_answered_after_it_left_is_pipelined():
    assert start_error_cause(replace(LOCKSTEP, previous_answered_ns=600 * MS, answered_ns=5000 * MS)) is None


def test_the_first_step_of_a_sequence_has_no_excuse_but_an_interruption():
    first = replace(LOCKSTEP, previous_sent_ns=None, previous_answered_ns=None, answered_ns=9000 * MS)
    assert start_error_cause(first) is None
    assert start_error_cause(replace(first, interruption=Cause.RESTART)) is Cause.RESTART


@pytest.mark.parametrize("cause", list(Cause))
def test_an_interruption_wins_over_the_clock(cause):
    assert start_error_cause(replace(LOCKSTEP, sent_ns=2000 * MS, interruption=cause)) is cause
