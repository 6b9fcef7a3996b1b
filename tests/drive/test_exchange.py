"""Literal histories: what an exchange sends, and which fate each step gets."""

import pytest

from seqstress.drive.exchange import Conditions, Ending, Exchange
from seqstress.plan.recipe import PacingMode
from seqstress.protocol import (
    Cause,
    EndCause,
    Expect,
    Reply,
    ReplyKind,
    SequencePlan,
    ServerState,
    Step,
    Stray,
    StreamEnd,
)
from seqstress.verdict.slots import SlotBook
from tests.drive.histories import (
    MS,
    S,
    answer,
    empty,
    error,
    exchange,
    fates,
    leave,
    rules,
    run,
    unstarted,
    valid,
    value,
)

LOCKSTEP = {"pacing": PacingMode.LOCKSTEP}
PACED = {"pacing": PacingMode.PACED}
BROKEN = StreamEnd(EndCause.DISCONNECTED, None, "connection reset by peer")


class TestSending:
    def test_pipelined_sends_all_steps_of_all_sequences_at_once(self) -> None:
        assert run(exchange(valid(1, 2), valid(3))) == ["a.0", "a.1", "b.0"]

    def test_reuse_after_answer_holds_the_second_sequence_back_until_the_first_one_is_answered(self) -> None:
        subject = exchange(valid(1, 2), valid(3), reuse_after_answer=True)
        assert run(subject) == ["a.0", "a.1"]
        assert answer(subject, value("a.0", 1), 1 * MS) == []
        assert answer(subject, value("a.1", 3), 2 * MS) == ["b.0"]

    def test_lockstep_sends_the_next_step_with_the_answer_to_the_one_before(self) -> None:
        subject = exchange(valid(1, 2), valid(3), **LOCKSTEP)
        assert run(subject) == ["a.0"]
        assert answer(subject, value("a.0", 1), 1 * MS) == ["a.1"]
        assert answer(subject, value("a.1", 3), 2 * MS) == ["b.0"]
        assert answer(subject, value("b.0", 3), 3 * MS) == []
        assert subject.ending is Ending.ANSWERED

    def test_paced_waits_for_the_think_time_after_the_answer(self) -> None:
        subject = exchange(valid(1, 2, think_us=10_000), **PACED)
        assert run(subject) == ["a.0"]
        assert answer(subject, value("a.0", 1), 5 * MS) == []
        assert subject.is_pausing
        assert subject.wake_ns == 15 * MS
        assert subject.tick(14 * MS) == []
        assert leave(subject, subject.tick(16 * MS), 16 * MS) == ["a.1"]
        assert subject.records[1].due_ns == 15 * MS

    def test_every_call_carries_the_flags_and_the_value_of_its_step(self) -> None:
        calls = exchange(valid(5, 6, 7)).start(0)
        assert [(call.start, call.end, call.value, call.correlation_id) for call in calls] == [
            (True, False, 5, 7),
            (False, False, 6, 7),
            (False, True, 7, 7),
        ]


class TestFates:
    def test_right_answers_are_ok_and_leave_the_server_clean(self) -> None:
        subject = exchange(valid(1, 2))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        answer(subject, value("a.1", 3), 2 * MS)
        assert fates(subject) == ["ok", "ok"]
        assert subject.leaves is ServerState.CLEAN
        assert [record.service_us for record in subject.records] == [999, 1999]

    def test_an_unfinished_sequence_leaves_the_server_open(self) -> None:
        subject = exchange(valid(1, leaves=ServerState.OPEN))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        assert subject.leaves is ServerState.OPEN

    def test_another_value_is_a_wrong_result_and_the_sequence_goes_on(self) -> None:
        subject = exchange(valid(1, 2), **LOCKSTEP)
        run(subject)
        assert answer(subject, value("a.0", 99), 1 * MS) == ["a.1"]
        answer(subject, value("a.1", 3), 2 * MS)
        assert fates(subject) == ["wrong_result", "ok"]

    def test_an_answer_without_output_is_malformed(self) -> None:
        subject = exchange(valid(1))
        run(subject)
        answer(subject, empty("a.0"), 1 * MS)
        assert fates(subject) == ["malformed"]

    def test_the_due_start_error_is_ok(self) -> None:
        subject = exchange(unstarted(1))
        run(subject)
        answer(subject, error("a.0"), 1 * MS)
        assert fates(subject) == ["ok"]
        assert subject.leaves is ServerState.CLEAN

    def test_an_answer_where_the_start_error_was_due_is_a_missing_error_with_unknown_state(self) -> None:
        subject = exchange(unstarted(1))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        assert fates(subject) == ["missing_error"]
        assert subject.leaves is ServerState.UNKNOWN

    def test_a_start_error_without_a_cause_is_unexpected_and_ends_the_sequence(self) -> None:
        subject = exchange(valid(1, 2, 3), **LOCKSTEP)
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        assert answer(subject, error("a.1"), 2 * MS) == []
        assert fates(subject) == ["ok", "unexpected_error", "-"]
        assert subject.ending is Ending.ANSWERED
        assert subject.leaves is ServerState.CLEAN

    def test_a_plan_goes_on_with_its_next_sequence_after_a_dropped_one(self) -> None:
        subject = exchange(valid(1, 2, 3), valid(4), **LOCKSTEP)
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        assert answer(subject, error("a.1"), 2 * MS) == ["b.0"]

    def test_another_error_is_unexpected_and_the_sequence_is_still_ended(self) -> None:
        subject = exchange(valid(1, 2), **LOCKSTEP)
        run(subject)
        assert answer(subject, error("a.0", "model is broken"), 1 * MS) == ["a.1"]
        answer(subject, value("a.1", 2), 2 * MS)
        assert fates(subject) == ["unexpected_error", "wrong_result"]
        assert subject.leaves is ServerState.UNKNOWN

    def test_a_start_error_after_the_idle_limit_by_our_clock_is_expired(self) -> None:
        subject = exchange(valid(1, 2), **LOCKSTEP)
        run(subject)
        second = subject.on_reply(value("a.0", 1), 1_200 * MS)  # a long backlog
        leave(subject, second, 1_200 * MS)
        answer(subject, error("a.1"), 1_201 * MS)
        assert fates(subject) == ["ok", "expired"]
        assert subject.records[1].cause is Cause.IDLE

    def test_steps_behind_an_expired_one_expire_for_the_same_cause(self) -> None:
        subject = exchange(valid(1, 2, 3))
        calls = subject.start(1)
        subject.on_sent(1, 1)
        subject.on_sent(2, 1_500 * MS)  # the connection was stalled for longer than the idle limit
        assert len(calls) == 3
        answer(subject, value("a.0", 1), 1_501 * MS)
        answer(subject, error("a.1"), 1_502 * MS)
        answer(subject, error("a.2"), 1_503 * MS)
        assert fates(subject) == ["ok", "expired", "expired"]
        assert {record.cause for record in subject.records[1:]} == {Cause.IDLE}

    def test_steps_behind_one_that_timed_out_in_the_backlog_expire(self) -> None:
        subject = exchange(valid(1, 2, 3))
        run(subject)
        answer(subject, error("a.0", "timeout of the corresponding sequence has been expired"), 1 * MS)
        answer(subject, error("a.1"), 2 * MS)
        answer(subject, error("a.2"), 3 * MS)
        assert fates(subject) == ["unexpected_error", "expired", "expired"]
        assert {record.cause for record in subject.records[1:]} == {Cause.BACKLOG_TIMEOUT}

    def test_no_answer_by_the_deadline_is_a_timeout_of_everything_open(self) -> None:
        subject = exchange(valid(1, 2))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        subject.tick(5 * S)
        assert subject.ending is None
        subject.tick(5 * S + 1)
        assert fates(subject) == ["ok", "timeout"]
        assert subject.ending is Ending.GIVEN_UP
        assert subject.leaves is ServerState.UNKNOWN

    def test_a_step_that_the_peer_never_read_is_a_timeout_too(self) -> None:
        subject = exchange(valid(1))
        subject.start(1)
        subject.tick(5 * S + 1)
        assert fates(subject) == ["timeout"]

    def test_a_start_that_our_own_sequences_kept_waiting_is_queued_with_all_behind_it(self) -> None:
        slots = SlotBook(1, S)
        slots.started("another", 0)
        subject = exchange(valid(1, 2), slots=slots)
        run(subject, 1)
        subject.tick(5 * S + 1)
        assert fates(subject) == ["queued", "queued"]

    def test_a_later_step_is_a_timeout_even_under_overload(self) -> None:
        slots = SlotBook(1, S)
        slots.started("another", 0)
        subject = exchange(valid(1, 2), slots=slots)
        run(subject, 1)
        answer(subject, value("a.0", 1), 1 * MS)
        subject.tick(5 * S + 1 * MS)
        assert fates(subject) == ["ok", "timeout"]

    def test_steps_behind_a_start_that_our_own_load_kept_waiting_have_their_deadline_from_its_answer(self) -> None:
        slots = SlotBook(1, S)
        slots.started("another", 0)
        subject = exchange(valid(1, 2), slots=slots)
        run(subject, 1)
        answer(subject, value("a.0", 1), 4 * S)
        subject.tick(5 * S + 1)
        assert subject.ending is None
        subject.tick(9 * S)
        assert fates(subject) == ["ok", "timeout"]

    def test_a_broken_stream_disconnects_everything_open(self) -> None:
        subject = exchange(valid(1, 2))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        subject.on_end(BROKEN, 2 * MS)
        assert fates(subject) == ["ok", "disconnected"]
        assert subject.ending is Ending.BROKEN
        assert subject.stream_end == BROKEN

    def test_a_stop_aborts_what_is_open_and_leaves_the_rest_unsent(self) -> None:
        subject = exchange(valid(1, 2), **LOCKSTEP)
        run(subject)
        subject.abort(1 * MS)
        assert fates(subject) == ["aborted", "-"]
        assert subject.ending is Ending.ABORTED

    def test_nothing_is_fed_into_an_exchange_that_has_ended(self) -> None:
        subject = exchange(valid(1))
        run(subject)
        subject.abort(1 * MS)
        subject.on_end(BROKEN, 2 * MS)
        subject.tick(9 * S)
        assert fates(subject) == ["aborted"]
        assert subject.stream_end is None


class TestDecoupled:
    def plan(self, answers: tuple[int, ...]) -> SequencePlan:
        return SequencePlan(0, (Step(True, True, 3, Expect.ANSWERS, answers),), ServerState.CLEAN)

    @pytest.mark.parametrize("answers", [(), (1,), (1, 2, 3)])
    def test_all_answers_up_to_the_final_flag_belong_to_the_step(self, answers: tuple[int, ...]) -> None:
        subject = exchange(self.plan(answers), decoupled=True)
        run(subject)
        for number in answers:
            answer(subject, value("a.0", number, final=False), 1 * MS)
        assert subject.ending is None
        answer(subject, empty("a.0"), 2 * MS)
        assert fates(subject) == ["ok"]

    def test_a_missing_answer_is_a_wrong_result(self) -> None:
        subject = exchange(self.plan((1, 2)), decoupled=True)
        run(subject)
        answer(subject, value("a.0", 1, final=False), 1 * MS)
        answer(subject, empty("a.0"), 2 * MS)
        assert fates(subject) == ["wrong_result"]

    def test_without_a_final_flag_the_step_times_out(self) -> None:
        subject = exchange(self.plan((1,)), decoupled=True)
        run(subject)
        answer(subject, value("a.0", 1, final=False), 1 * MS)
        subject.tick(5 * S + 1)
        assert fates(subject) == ["timeout"]


class TestStrays:
    def kinds(self, subject: object) -> list[Stray]:
        return [stray.kind for stray in subject.strays]  # type: ignore[attr-defined]

    def test_a_second_answer_is_a_duplicate(self) -> None:
        subject = exchange(valid(1, 2))
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        answer(subject, value("a.0", 1), 1 * MS)
        assert self.kinds(subject) == [Stray.DUPLICATE]

    def test_an_answer_to_a_request_that_was_never_sent_is_an_orphan(self) -> None:
        subject = exchange(valid(1, 2), **LOCKSTEP)
        run(subject)
        answer(subject, value("z.0", 1), 1 * MS)
        answer(subject, value("a.1", 3), 1 * MS)  # planned, but not sent yet
        assert self.kinds(subject) == [Stray.ORPHAN, Stray.ORPHAN]
        assert fates(subject) == ["-", "-"]

    def test_answers_out_of_order_are_strays_but_judged(self) -> None:
        subject = exchange(valid(1, 2))
        run(subject)
        answer(subject, value("a.1", 3), 1 * MS)
        answer(subject, value("a.0", 1), 2 * MS)
        assert self.kinds(subject) == [Stray.OUT_OF_ORDER]
        assert fates(subject) == ["ok", "ok"]
        assert subject.ending is Ending.ANSWERED

    def test_an_answer_after_giving_up_is_late(self) -> None:
        subject = exchange(valid(1))
        run(subject)
        subject.tick(5 * S + 1)
        assert subject.stray_kind(value("a.0", 1)) is Stray.LATE

    def test_an_error_without_an_id_belongs_to_the_oldest_open_step_where_the_transport_drops_ids(self) -> None:
        subject = exchange(unstarted(1), unstarted(2), tells_error_ids=False)
        run(subject)
        answer(subject, error(""), 1 * MS)
        answer(subject, error(""), 2 * MS)
        assert fates(subject) == ["ok", "ok"]
        assert self.kinds(subject) == []

    def test_an_error_without_an_id_is_an_orphan_where_the_transport_tells_ids(self) -> None:
        subject = exchange(unstarted(1))
        run(subject)
        answer(subject, error(""), 1 * MS)
        assert self.kinds(subject) == [Stray.ORPHAN]

    def test_a_value_without_an_id_is_an_orphan_on_every_transport(self) -> None:
        subject = exchange(valid(1), tells_error_ids=False)
        run(subject)
        answer(subject, Reply("", ReplyKind.VALUE, 1, "", "m", True), 1 * MS)
        assert self.kinds(subject) == [Stray.ORPHAN]


class TestSlots:
    def test_a_finished_sequence_holds_no_slot(self) -> None:
        slots = SlotBook(4, S)
        subject = exchange(valid(1, 2), slots=slots)
        run(subject)
        assert slots.open_count == 1
        answer(subject, value("a.0", 1), 1 * MS)
        answer(subject, value("a.1", 3), 2 * MS)
        assert slots.open_count == 0

    def test_a_sequence_left_open_holds_its_slot(self) -> None:
        slots = SlotBook(4, S)
        subject = exchange(valid(1, leaves=ServerState.OPEN), slots=slots)
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        assert slots.open_count == 1
        slots.started("next", 2 * S)
        assert slots.open_count == 1  # only the next one: the idle limit has passed

    def test_a_dropped_sequence_holds_no_slot(self) -> None:
        slots = SlotBook(4, S)
        subject = exchange(valid(1, 2), slots=slots, **LOCKSTEP)
        run(subject)
        answer(subject, value("a.0", 1), 1 * MS)
        answer(subject, error("a.1"), 2 * MS)
        assert slots.open_count == 0


class TestWhatAServerMayDoToUs:
    def test_no_failed_sequence_keeps_a_slot_in_the_book_for_ever(self) -> None:
        slots = SlotBook(1, S)
        subject = exchange(valid(1), valid(2), slots=slots)
        run(subject)
        subject.tick(6 * S)
        assert subject.ending is Ending.GIVEN_UP
        slots.started("later", 9 * S)
        assert slots.open_count == 1

    def test_an_end_that_failed_frees_its_slot_at_the_idle_limit(self) -> None:
        slots = SlotBook(1, S)
        subject = exchange(valid(1), valid(2), slots=slots)
        run(subject)
        answer(subject, error("a.0", "boom"), 1 * MS)
        answer(subject, value("b.0", 2), 2 * MS)
        slots.started("later", 3 * S)
        assert slots.open_count == 1

    def test_an_answer_before_the_last_byte_of_its_request_has_left_takes_no_negative_time(self) -> None:
        subject = exchange(valid(1))
        calls = subject.start(1 * MS)
        subject.on_reply(value("a.0", 1), 2 * MS)
        leave(subject, calls, 3 * MS)
        assert subject.records[0].service_us >= 0
        assert fates(subject) == ["ok"]

    def test_a_break_in_a_think_time_disconnects_the_step_that_waits_for_its_turn(self) -> None:
        subject = exchange(valid(1, 2, 3, think_us=10_000), **PACED)
        run(subject)
        answer(subject, value("a.0", 1), 5 * MS)
        subject.on_end(BROKEN, 6 * MS)
        assert fates(subject) == ["ok", "disconnected", "-"]
        assert subject.ending is Ending.BROKEN

    def test_a_break_before_anything_was_sent_is_nobodys_fate(self) -> None:
        steps = tuple(step._replace(think_us=10_000) for step in valid(1, 2).steps)
        subject = exchange(SequencePlan(0, steps, ServerState.CLEAN), **PACED)
        run(subject)
        subject.on_end(BROKEN, 6 * MS)
        assert fates(subject) == ["-", "-"]

    def test_a_start_error_in_the_first_plan_of_a_run_is_not_excused_by_an_unknown_round_trip(self) -> None:
        conditions = Conditions()
        subject = Exchange([valid(1, 2)], [7], ["a."], rules(), conditions, SlotBook(4, S))
        run(subject)
        answer(subject, value("a.0", 1), 2 * MS)
        answer(subject, error("a.1"), 3 * MS)
        assert fates(subject) == ["ok", "unexpected_error"]
