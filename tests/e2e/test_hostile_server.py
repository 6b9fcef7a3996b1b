"""A server that misbehaves is daily bread: every step has its fate, every wait ends, and the users go on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import gevent
import pytest

from seqstress.drive.executor import Executor
from seqstress.drive.session import Session
from seqstress.errors import ConnectError
from seqstress.metrics.histogram import Histogram
from seqstress.plan.mix import UserPlans
from seqstress.protocol import Fate, Stray
from seqstress.scenario import Scenario
from seqstress.triton.control import Control
from seqstress.triton.preflight import examine
from seqstress.verdict.audit import Audit, ModelStatistics, audit
from seqstress.verdict.ledger import Ledger, SequenceEnd
from seqstress.verdict.outcome import Outcome
from seqstress.verdict.rules import verdict
from seqstress.wire.transport import Http2Transport
from tests.e2e.hostile import HostileServer
from tests.e2e.hostile.messages import FLOOD

LONGEST_S = 20
USERS, PLANS = 2, 4
_nonces = count(1)


@pytest.fixture(scope="module")
def messages() -> Iterator[str]:
    with HostileServer("messages") as server:
        yield server.targets["messages"]


@pytest.fixture(scope="module")
def frames() -> Iterator[dict[str, str]]:
    with HostileServer("frames") as server:
        yield server.targets


@dataclass(frozen=True)
class Driven:
    """A run without Locust that is over."""

    ledger: Ledger
    audit: Audit
    outcome: Outcome
    reasons: set[str]
    open_streams: int

    @property
    def fates(self) -> set[str]:
        """What became of steps that did not end ``ok``."""
        fates = self.ledger.total().fates
        return {fate.label for fate in Fate if fates[fate] and fate is not Fate.OK}

    @property
    def strays(self) -> set[str]:
        return {stray.label for stray in Stray if self.ledger.strays[stray]}


def drive(target: str, model: str = "healthy", pattern: str = "valid", **keys: object) -> Driven:
    """Let a few users run a few plans each, in bounded time, and judge it; the account balances in any case."""
    scenario = Scenario.from_plain(
        {
            "name": "hostile",
            "model": {"name": model},
            "contexts": {"common": 1, "rare": 0, "rare_share": 0},
            "mix": {"common": {pattern: 1}},
            "sequence": {"length": {"distribution": "constant", "value": 4}, "value": SMALL},
            "timeout_s": 5,
            **keys,
        }
    )
    before = statistics(target, model)
    transport = Http2Transport(target)
    session = Session(scenario, _target(target, scenario), transport, next(_nonces), worker=0)
    with gevent.Timeout(LONGEST_S):
        gevent.joinall([gevent.spawn(_user, session, number) for number in range(USERS)], raise_error=True)
    open_streams = transport.open_streams
    transport.close()
    ledger = session.ledger
    assert ledger.imbalances() == []
    assert ledger.total().sequences_planned == USERS * PLANS
    after = statistics(target, model)
    audited = audit(ledger, before, after) if before and after else Audit.not_made("no server")
    judged = verdict(ledger, scenario, audited, duration_s=1.0, lag=Histogram())
    return Driven(ledger, audited, judged.outcome, {reason.rule for reason in judged.reasons}, open_streams)


SMALL = {"distribution": "uniform", "low": 0, "high": 1000}


def statistics(target: str, model: str) -> ModelStatistics | None:
    transport = Http2Transport(target)
    try:
        return Control(transport).model_statistics(model)
    except ConnectError:
        return None
    finally:
        transport.close()


def _target(target: str, scenario: Scenario):  # type: ignore[no-untyped-def]
    transport = Http2Transport(target)
    try:
        return examine(Control(transport), scenario, "hostile")
    finally:
        transport.close()


def _user(session: Session, number: int) -> None:
    plans = UserPlans(session.scenario, session.target.binding.input.dtype, (1, 0, number), None)
    executor = Executor(session, number, plans.context_count)
    for _ in range(PLANS):
        plan = plans.draw(plans.choose())
        plans.settle(plan.context, executor.run(plan).state)
    executor.close()


MESSAGE_SINS = {
    "healthy": (set(), set()),
    "slow": (set(), set()),
    "extra_output": (set(), set()),
    "duplicate": (set(), {"duplicate"}),
    "flood": (set(), {"duplicate"}),
    "reorder": (set(), {"out_of_order"}),
    "drop": ({"timeout"}, {"out_of_order"}),
    "wrong_id": ({"timeout"}, {"orphan", "out_of_order"}),
    "empty_id": ({"timeout"}, {"orphan", "out_of_order"}),
    "empty_message": ({"timeout"}, {"orphan", "out_of_order"}),
    "no_protobuf": ({"timeout"}, {"orphan", "out_of_order"}),
    "error_without_id": ({"timeout"}, {"orphan", "out_of_order"}),
    "other_stream": ({"timeout"}, {"orphan", "out_of_order"}),
    "wrong_model": ({"malformed"}, set()),
    "wrong_name": ({"malformed"}, set()),
    "wrong_dtype": ({"malformed"}, set()),
    "wrong_shape": ({"malformed"}, set()),
    "short": ({"malformed"}, set()),
    "no_output": ({"malformed"}, set()),
    "bytes_huge": ({"malformed"}, set()),
    "bytes_letters": ({"malformed"}, set()),
    "wrong_value": ({"wrong_result"}, set()),
    "fp32_nan": ({"wrong_result"}, set()),
    "fp32_inf": ({"wrong_result"}, set()),
    "error": ({"unexpected_error"}, set()),
    "wild_error": ({"unexpected_error"}, set()),
    "start_error": ({"unexpected_error"}, set()),
    "status": ({"disconnected"}, set()),
    "completed": ({"disconnected"}, set()),
}


@pytest.mark.parametrize("sin", MESSAGE_SINS)
def test_what_a_server_says_wrong_is_told_by_its_name(messages: str, sin: str) -> None:
    fates, strays = MESSAGE_SINS[sin]
    driven = drive(messages, sin, timeout_s=0.3 if "timeout" in fates else 5)
    assert (driven.fates, driven.strays) == (fates, strays)
    assert driven.outcome is (Outcome.FAIL if fates or strays else Outcome.PASS)
    assert fates | strays <= driven.reasons
    assert driven.audit.equal or sin == "start_error"  # which the server had counted as served
    assert driven.ledger.total().fates[Fate.OK] >= USERS * PLANS  # every plan had its share of right answers


def test_an_answer_where_an_error_is_due_is_a_missing_error(messages: str) -> None:
    driven = drive(messages, "missing_error", "no_start")
    # What the context does next, it does on a state that it does not know: there values may be wrong as well.
    assert {"missing_error"} <= driven.fates <= {"missing_error", "wrong_result"}
    assert driven.outcome is Outcome.FAIL


def test_every_answer_of_a_flood_is_counted(messages: str) -> None:
    driven = drive(messages, "flood")
    strikes = USERS * (PLANS * 4 // 3)
    assert driven.ledger.strays[Stray.DUPLICATE] == strikes * (FLOOD - 1)
    assert len(driven.ledger.failures) <= 50


@pytest.mark.parametrize("name", ["Port", "OneStream", "TinyWindows", "PingFlood"])
def test_an_odd_but_honest_server_passes(frames: dict[str, str], name: str) -> None:
    driven = drive(frames[name])
    assert driven.fates == set()
    assert (driven.outcome, driven.audit.equal) == (Outcome.PASS, True)


BREAKS = (
    "BadHeaderBlock",
    "Compressed",
    "EarlyTrailers",
    "Garbage",
    "GoawayStorm",
    "HalfFrame",
    "HugePrefix",
    "NoTrailers",
    "Refused",
    "ResetInMessage",
)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_stream_disconnects_its_steps_and_the_users_go_on(frames: dict[str, str], name: str) -> None:
    driven = drive(frames[name])
    assert driven.fates == {"disconnected"}
    assert driven.outcome is Outcome.FAIL
    total = driven.ledger.total()
    assert total.fates[Fate.OK] > 0
    assert all(failure.stream_end for failure in driven.ledger.failures)


@pytest.mark.parametrize("name", ["HalfMessage", "Silent", "Deaf"])
def test_silence_ends_at_the_deadline(frames: dict[str, str], name: str) -> None:
    driven = drive(frames[name], timeout_s=0.3)
    assert driven.fates == {"timeout"}
    assert driven.outcome is Outcome.FAIL


def test_a_proxys_page_is_a_disconnect_for_every_step(frames: dict[str, str]) -> None:
    driven = drive(frames["HttpError"])
    total = driven.ledger.total()
    assert total.fates[Fate.DISCONNECTED] == total.steps_planned
    assert "503" in driven.ledger.failures[0].message


def test_streams_that_the_server_never_ends_are_given_up(frames: dict[str, str]) -> None:
    driven = drive(frames["NeverEnds"], stream="per_sequence", timeout_s=0.001, pacing=PAUSES)
    assert driven.open_streams <= USERS * 2
    assert driven.ledger.total().sequences_planned == USERS * PLANS


PAUSES = {"mode": "paced", "think_ms": {"distribution": "constant", "value": 20}}


def test_without_a_connection_nothing_is_sent_and_nothing_is_lost(frames: dict[str, str]) -> None:
    driven = drive(frames["ClosedAtAccept"])
    total = driven.ledger.total()
    assert total.steps_not_sent == total.steps_planned > 0
    assert total.sequence_ends[SequenceEnd.NOT_SENT] == USERS * PLANS
    assert driven.outcome is Outcome.UNKNOWN
