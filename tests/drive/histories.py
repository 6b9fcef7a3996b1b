"""Small makers of plans, replies and exchanges, so that a test reads like a history."""

from collections.abc import Sequence

from seqstress.drive.exchange import Conditions, Exchange, ExchangeRules
from seqstress.plan.recipe import PacingMode
from seqstress.protocol import START_ERROR, Expect, Reply, ReplyKind, SequencePlan, ServerState, Step
from seqstress.verdict.slots import SlotBook

MS = 1_000_000
S = 1000 * MS


def valid(*values: int, think_us: int = 0, leaves: ServerState = ServerState.CLEAN) -> SequencePlan:
    """A sequence over ``values``; with ``leaves=OPEN`` it has no END."""
    steps, total = [], 0
    for index, value in enumerate(values):
        total += value
        end = index == len(values) - 1 and leaves is ServerState.CLEAN
        steps.append(Step(index == 0, end, value, Expect.ANSWERS, (total,), think_us if index else 0))
    return SequencePlan(0, tuple(steps), leaves)


def unstarted(value: int) -> SequencePlan:
    """One step that the server must refuse."""
    return SequencePlan(0, (Step(False, False, value, Expect.START_ERROR, ()),), ServerState.CLEAN)


def rules(**changes: object) -> ExchangeRules:
    """Pipelined, 5 s timeout, 1 s idle limit, unless changed."""
    settings: dict[str, object] = {
        "pacing": PacingMode.PIPELINED,
        "reuse_after_answer": False,
        "timeout_ns": 5 * S,
        "tolerance": 0.0,
        "idle_limit_ns": S,
        "decoupled": False,
        "tells_error_ids": True,
    }
    return ExchangeRules(**{**settings, **changes})  # type: ignore[arg-type]


def exchange(*sequences: SequencePlan, slots: SlotBook | None = None, **changes: object) -> Exchange:
    """An exchange whose request ids are ``a.0``, ``a.1``, … for the first sequence, ``b.0``, … for the second."""
    prefixes = [f"{letter}." for letter in "abcdef"[: len(sequences)]]
    conditions = Conditions(lag_ns=0, round_trip_ns=MS)
    return Exchange(sequences, [7] * len(sequences), prefixes, rules(**changes), conditions, slots or SlotBook(4, S))


def value(request_id: str, number: int, *, final: bool = True) -> Reply:
    """An answer with an output."""
    return Reply(request_id, ReplyKind.VALUE, number, "", "m", final)


def error(request_id: str, text: str = f"request for sequence 7 to model 'm' {START_ERROR} on it") -> Reply:
    """An in-stream error; the START error unless said otherwise."""
    return Reply(request_id, ReplyKind.ERROR, None, text, "", True)


def empty(request_id: str, *, final: bool = True) -> Reply:
    """An answer without outputs."""
    return Reply(request_id, ReplyKind.EMPTY, None, "", "m", final)


def run(subject: Exchange, at_ns: int = 1) -> list[str]:
    """Start it and let what it sends leave at once; the ids that left."""
    return leave(subject, subject.start(at_ns), at_ns)


def leave(subject: Exchange, calls: Sequence[object], at_ns: int) -> list[str]:
    """Let ``calls`` leave at ``at_ns``; their ids."""
    if calls:
        subject.on_sent(len(calls), at_ns)
    return [call.request_id for call in calls]  # type: ignore[attr-defined]


def answer(subject: Exchange, reply: Reply, at_ns: int) -> list[str]:
    """Let ``reply`` come in and what it releases leave at once; the ids that left."""
    return leave(subject, subject.on_reply(reply, at_ns), at_ns)


def fates(subject: Exchange) -> list[str]:
    """The fates of all steps, ``-`` for those without."""
    return [record.fate.label if record.fate is not None else "-" for record in subject.records]
