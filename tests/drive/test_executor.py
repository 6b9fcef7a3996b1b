"""Whole plans of a user against scripted servers: what is sent, recorded and kept for the next plan."""

import time
from collections.abc import Iterator, Sequence

import gevent
import gevent.socket
import pytest

from seqstress.drive import executor as executor_module
from seqstress.drive.context import STRAYS_HELD
from seqstress.drive.executor import Executor
from seqstress.drive.recording import PlanOutcome
from seqstress.drive.session import Session
from seqstress.errors import StreamClosedError
from seqstress.plan.ids import IdsExhaustedError
from seqstress.protocol import Call, EndCause, Fate, Plan, Reply, SequencePlan, ServerState, Stray, StreamEnd
from seqstress.scenario import Scenario
from seqstress.triton.preflight import Strategy, Target
from seqstress.verdict.ledger import SequenceEnd
from tests.drive.histories import empty, error, unstarted, valid, value
from tests.drive.scripted import BINDING, ScriptedStream, ScriptedTransport, Server, accumulator

BROKEN = StreamEnd(EndCause.DISCONNECTED, None, "connection reset by peer")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "FIRST_RETRY_S", 0.001)


def session_on(server: Server, refusals: int = 0, **scenario: object) -> Session:
    story = Scenario.from_plain({"name": "t", "model": {"name": "m"}, "timeout_s": 0.05, **scenario})
    target = Target(BINDING, slots=4, idle_limit_ns=10**9, strategy=Strategy.DIRECT, warnings=())
    return Session(story, target, ScriptedTransport(server, refusals), run_nonce=1, worker=0)


def plan(*sequences: SequencePlan, number: int = 0) -> Plan:
    return Plan("valid", 0, number, (1, 0, 0, 0, number), sequences)


def streams(session: Session) -> list[ScriptedStream]:
    assert isinstance(session.transport, ScriptedTransport)
    return session.transport.streams


def calls(session: Session) -> Iterator[Call]:
    return (call for stream in streams(session) for call in stream.calls)


def silent(_stream: ScriptedStream, _call: Call) -> list[Reply | StreamEnd]:
    return []


def test_a_healthy_plan_is_all_ok_and_balances() -> None:
    session = session_on(accumulator())
    outcome = Executor(session, 0, 1).run(plan(valid(1, 2, 3), valid(4)))
    assert [record.fate for record in outcome.records] == [Fate.OK] * 4
    assert [sequence.end for sequence in outcome.sequences] == [SequenceEnd.FINISHED] * 2
    assert outcome.state is ServerState.CLEAN
    assert session.ledger.imbalances() == []
    assert session.ledger.answered == 4


def test_request_ids_are_unique_over_users_contexts_and_plans() -> None:
    session = session_on(accumulator())
    for user in range(2):
        executor = Executor(session, user, 1)
        for number in range(2):
            executor.run(plan(valid(1, 2), valid(3), number=number))
    ids = [call.request_id for call in calls(session)]
    assert len(ids) == len(set(ids)) == 12


def test_a_context_keeps_its_stream_and_a_fixed_id_across_plans() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1)))
    executor.run(plan(valid(1), number=1))
    assert len(streams(session)) == 1
    assert len({call.correlation_id for call in calls(session)}) == 1


def test_fresh_ids_are_new_for_each_plan_and_shared_by_its_sequences() -> None:
    session = session_on(accumulator(), ids={"policy": "fresh"})
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1), valid(2)))
    executor.run(plan(valid(1), number=1))
    first, second, third = (call.correlation_id for call in calls(session))
    assert first == second != third


def test_a_stream_per_sequence_is_half_closed_after_its_plan() -> None:
    session = session_on(accumulator(), stream="per_sequence")
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1)))
    executor.run(plan(valid(1), number=1))
    assert [stream.was_half_closed for stream in streams(session)] == [True, True]


def test_a_silent_server_is_a_timeout_after_which_stream_and_id_are_given_up() -> None:
    session = session_on(silent)
    executor = Executor(session, 0, 1)
    outcome = executor.run(plan(valid(1, 2)))
    assert [record.fate for record in outcome.records] == [Fate.TIMEOUT] * 2
    assert streams(session)[0].was_half_closed  # and listened to: a late answer is not a lost one
    assert outcome.state is ServerState.CLEAN  # of the next ID
    executor.run(plan(valid(1), number=1))
    first, _, second = (call.correlation_id for call in calls(session))
    assert first != second
    assert len(streams(session)) == 2


def test_a_broken_stream_disconnects_and_the_user_goes_on_with_another_id() -> None:
    healthy = accumulator()

    def breaks_once(stream: ScriptedStream, call: Call) -> list[Reply | StreamEnd]:
        return [BROKEN] if stream is streams(session)[0] else list(healthy(stream, call))

    session = session_on(breaks_once)
    executor = Executor(session, 0, 1)
    first = executor.run(plan(valid(1, 2)))
    second = executor.run(plan(valid(3), number=1))
    assert [record.fate for record in first.records] == [Fate.DISCONNECTED] * 2
    assert [record.fate for record in second.records] == [Fate.OK]
    assert first.failures[0].stream_end == BROKEN
    assert session.ledger.imbalances() == []


def test_without_a_connection_the_plan_is_not_sent_and_the_next_one_is() -> None:
    session = session_on(accumulator(), refusals=1)
    executor = Executor(session, 0, 1)
    assert executor.run(plan(valid(1, 2))).records == []
    assert executor.run(plan(valid(1), number=1)).records[0].fate is Fate.OK
    account = session.ledger.pattern("valid")
    assert (account.steps_planned, account.steps_sent, account.steps_not_sent) == (3, 1, 2)
    assert session.ledger.imbalances() == []


def test_only_what_could_not_be_sent_counts_as_not_sent() -> None:
    def refuses_what_comes_second(_stream: ScriptedStream, call: Call) -> list[Reply | StreamEnd]:
        return [error(call.request_id) if not call.start else value(call.request_id, call.value)]

    session = session_on(refuses_what_comes_second, refusals=1, pacing={"mode": "lockstep"})
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1, 2), valid(3)))
    dropped = executor.run(plan(valid(1, 2, 3), valid(4), number=1))
    assert [sequence.end for sequence in dropped.sequences] == [SequenceEnd.FAILED, SequenceEnd.FINISHED]
    ends = session.ledger.pattern("valid").sequence_ends
    assert ends[SequenceEnd.NOT_SENT] == 2
    assert session.ledger.pattern("valid").steps_not_sent == 3 + 1
    assert session.ledger.imbalances() == []


def test_a_sequence_that_a_timeout_kept_from_being_sent_is_aborted() -> None:
    session = session_on(silent, pacing={"mode": "lockstep"})
    outcome = Executor(session, 0, 1).run(plan(valid(1), valid(2)))
    assert [sequence.end for sequence in outcome.sequences] == [SequenceEnd.FAILED, SequenceEnd.ABORTED]


def test_a_killed_user_leaves_aborted_steps_and_a_balanced_account() -> None:
    session = session_on(silent, timeout_s=60)
    executor = Executor(session, 0, 1)
    greenlet = gevent.spawn(executor.run, plan(valid(1, 2)))
    gevent.idle()
    greenlet.kill()
    account = session.ledger.pattern("valid")
    assert account.fates[Fate.ABORTED] == 2
    assert account.sequence_ends[SequenceEnd.ABORTED] == 1
    assert session.ledger.imbalances() == []
    assert streams(session)[0].was_reset


@pytest.mark.parametrize(
    ("reply", "fate"),
    [
        (value("", 999), Fate.WRONG_RESULT),
        (empty(""), Fate.MALFORMED),
        (error("", "the model is broken"), Fate.UNEXPECTED_ERROR),
        (error(""), Fate.UNEXPECTED_ERROR),
    ],
)
def test_whatever_the_server_answers_is_an_outcome_with_a_record(reply: Reply, fate: Fate) -> None:
    session = session_on(lambda _stream, call: [reply._replace(request_id=call.request_id)])
    outcome = Executor(session, 0, 1).run(plan(valid(1)))
    assert [record.fate for record in outcome.records] == [fate]
    (failure,) = session.ledger.failures
    assert (failure.fate, failure.step, failure.plan) == (fate, 0, 0)
    assert failure.exchange[0].replies
    assert session.ledger.imbalances() == []


def test_a_missing_start_error_is_recorded_and_the_state_unknown() -> None:
    session = session_on(lambda _stream, call: [value(call.request_id, 1)])
    outcome = Executor(session, 0, 1).run(plan(unstarted(1)))
    assert [record.fate for record in outcome.records] == [Fate.MISSING_ERROR]
    assert outcome.state is ServerState.UNKNOWN


def test_answers_between_plans_are_strays_of_the_next_record() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    outcome = executor.run(plan(valid(1)))
    stream = streams(session)[0]
    stream.deliver(value(outcome.records[0].call.request_id, 1))
    stream.deliver(value("never asked", 1))
    executor.run(plan(valid(1), number=1))
    assert session.ledger.strays[Stray.DUPLICATE] == 1
    assert session.ledger.strays[Stray.ORPHAN] == 1


def test_a_duplicate_of_an_earlier_plan_on_the_same_stream_is_known() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    first = executor.run(plan(valid(1)))
    executor.run(plan(valid(1), number=1))
    streams(session)[0].deliver(value(first.records[0].call.request_id, 1))
    executor.close()
    assert session.ledger.strays[Stray.DUPLICATE] == 1
    assert session.ledger.strays[Stray.ORPHAN] == 0


def test_an_answer_after_the_deadline_is_late() -> None:
    session = session_on(silent)
    executor = Executor(session, 0, 1)
    outcome = executor.run(plan(valid(1)))
    streams(session)[0].deliver(value(outcome.records[0].call.request_id, 1))
    executor.close()
    assert session.ledger.strays[Stray.LATE] == 1


def test_close_ends_the_streams_in_good_order() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1)))
    executor.close()
    assert streams(session)[0].was_half_closed


def test_failures_beyond_the_room_are_counted_but_not_kept() -> None:
    session = session_on(lambda _stream, call: [value(call.request_id, 999)])
    executor = Executor(session, 0, 1)
    for number in range(60):
        executor.run(plan(valid(1), number=number))
    assert session.ledger.pattern("valid").fates[Fate.WRONG_RESULT] == 60
    assert len(session.ledger.failures) == 50


def test_a_duplicate_of_an_earlier_plan_is_known_while_another_one_is_under_way() -> None:
    healthy = accumulator()

    def repeats_its_first_answer(stream: ScriptedStream, call: Call) -> list[Reply | StreamEnd]:
        earlier = [value(stream.calls[0].request_id, 1)] if call is not stream.calls[0] else []
        return [*earlier, *healthy(stream, call)]

    session = session_on(repeats_its_first_answer)
    executor = Executor(session, 0, 1)
    for number in range(3):
        executor.run(plan(valid(1), number=number))
    assert session.ledger.strays[Stray.DUPLICATE] == 2
    assert session.ledger.strays[Stray.ORPHAN] == 0


def test_ids_that_only_look_like_ours_are_orphans() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    asked = executor.run(plan(valid(1))).records[0].call.request_id
    strange = ["", ".", f"1{asked}", f"{asked.rpartition('.')[0]}1.0", f"1.0.0.0.{'9' * 5000}.0", "1.0.0.0.٠.0"]
    for request_id in strange:
        streams(session)[0].deliver(value(request_id, 1))
    executor.close()
    assert session.ledger.strays[Stray.ORPHAN] == len(strange)


def test_an_answer_after_the_last_plan_is_still_counted() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    outcome = executor.run(plan(valid(1)))
    executor.close()
    streams(session)[0].listener.on_reply(value(outcome.records[0].call.request_id, 1), 1)
    assert session.ledger.strays[Stray.DUPLICATE] == 1


def test_half_closed_streams_that_the_server_never_ends_do_not_pile_up() -> None:
    session = session_on(accumulator(), stream="per_sequence", timeout_s=1)
    now_ns = 1
    session.clock = lambda: now_ns
    executor = Executor(session, 0, 1)
    for number in range(3):
        executor.run(plan(valid(1), number=number))
    assert [stream.was_reset for stream in streams(session)] == [False] * 3
    now_ns = 2 * 10**9
    executor.run(plan(valid(1), number=3))
    assert [stream.was_reset for stream in streams(session)] == [True] * 3 + [False]


def test_a_server_that_drops_every_stream_is_not_hammered(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(gevent, "sleep", slept.append)
    session = session_on(lambda _stream, _call: [BROKEN])
    executor = Executor(session, 0, 1)
    for number in range(4):
        executor.run(plan(valid(1), number=number))
    assert slept == [0.001, 0.002, 0.004]


def test_a_stream_that_is_over_before_its_end_was_told_is_no_error() -> None:
    class OverInSecret(ScriptedStream):
        def send(self, _calls: Sequence[Call]) -> None:
            gevent.spawn(self.listener.on_end, BROKEN, 1)
            raise StreamClosedError("the end is on its way")

    session = session_on(silent, timeout_s=60)
    transport = session.transport
    transport.open_stream = lambda _binding, listener: OverInSecret(transport, listener)  # type: ignore[method-assign, arg-type]
    outcome = Executor(session, 0, 1).run(plan(valid(1)))
    assert [record.fate for record in outcome.records] == [Fate.DISCONNECTED]


def test_answers_that_this_process_was_too_busy_to_read_are_no_timeout() -> None:
    """A real socket pair: the kernel holds the answer while the event loop is stopped past the deadline."""
    near, far = gevent.socket.socketpair()

    def by_socket(stream: ScriptedStream, call: Call) -> list[Reply | StreamEnd]:
        far.send(b"!")  # it is in the kernel from here on
        time.sleep(0.1)  # twice the timeout, and nothing of this process runs
        gevent.spawn(lambda: near.recv(1) and stream.deliver(value(call.request_id, 1)))
        return []

    with near, far:
        outcome = Executor(session_on(by_socket), 0, 1).run(plan(valid(1)))
    assert [record.fate for record in outcome.records] == [Fate.OK]


def test_a_flood_on_an_idle_stream_is_counted_but_not_piled_up() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    asked = executor.run(plan(valid(1))).records[0].call.request_id
    for _ in range(3 * STRAYS_HELD):
        streams(session)[0].deliver(value(asked, 1))
    assert session.ledger.strays[Stray.DUPLICATE] == 3 * STRAYS_HELD
    assert len(executor.run(plan(valid(1), number=1)).strays) < STRAYS_HELD


def test_a_stream_on_a_connection_that_goes_away_finishes_its_plan_and_begins_no_other() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1)))
    streams(session)[0].is_draining = True
    outcome = executor.run(plan(valid(2), number=1))
    first, second = streams(session)
    assert first.was_half_closed
    assert [call.value for call in second.calls] == [2]
    assert [record.fate for record in outcome.records] == [Fate.OK]


def test_without_a_connection_a_context_still_knows_what_it_left_open() -> None:
    session = session_on(accumulator())
    executor = Executor(session, 0, 1)
    executor.run(plan(valid(1, leaves=ServerState.OPEN)))
    streams(session)[0].end(BROKEN)
    assert isinstance(session.transport, ScriptedTransport)
    session.transport.refusals = 1
    assert executor.run(plan(valid(2), number=1)).state is ServerState.OPEN


def test_a_worker_without_ids_accounts_for_the_plan_and_says_so() -> None:
    session = session_on(accumulator(), ids={"policy": "fresh", "layout": "dense"})
    told: list[PlanOutcome] = []
    executor = Executor(session, 0, 1, told.append)
    while True:
        try:
            session.ids.allocate()
        except IdsExhaustedError:
            break
    with pytest.raises(IdsExhaustedError):
        executor.run(plan(valid(1, 2)))
    assert session.ledger.pattern("valid").steps_not_sent == 2
    assert session.ledger.imbalances() == []
    assert len(told) == 1


def test_the_outcome_of_a_killed_run_is_told_too() -> None:
    session = session_on(silent, timeout_s=60)
    told: list[PlanOutcome] = []
    greenlet = gevent.spawn(Executor(session, 0, 1, told.append).run, plan(valid(1, 2)))
    gevent.idle()
    greenlet.kill()
    assert [record.fate for record in told[0].records] == [Fate.ABORTED] * 2


def test_a_start_that_our_own_load_kept_waiting_is_cancelled_and_its_answer_is_no_stray() -> None:
    session = session_on(silent)
    for other in range(5):
        session.slots.started(other, session.clock())
    Executor(session, 0, 1).run(plan(valid(1)))
    assert streams(session)[0].was_reset
    assert session.ledger.pattern("valid").fates[Fate.QUEUED] == 1


def test_workers_share_the_slots_by_which_a_start_is_called_queued() -> None:
    alone = session_on(accumulator())
    shared = Session(alone.scenario, alone.target, alone.transport, run_nonce=1, worker=0, workers=3)
    assert repr(alone.slots) == "<SlotBook 0 open on 4 slots>"
    assert repr(shared.slots) == "<SlotBook 0 open on 1 slots>"
