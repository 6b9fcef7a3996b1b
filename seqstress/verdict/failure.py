"""Everything known about one failed step or stray answer: what a person reads and what replay sends again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from seqstress.protocol import (
    Cause,
    CorrelationId,
    EndCause,
    Expect,
    Fate,
    Reply,
    ReplyKind,
    Step,
    Stray,
    StreamEnd,
    Value,
)

_TEXT_LIMIT = 2000
"""A server's text is kept up to here: a hostile one must not fill the master's memory."""

_INT64 = range(-(2**63), 2**63)


class Exchange(NamedTuple):
    """One step as it was sent, and what came back. Times are microseconds since the first send of the plan's
    exchange."""

    sequence: int
    """Which sequence of the plan it belongs to."""
    place: int
    """Its place in that sequence."""
    step: Step
    request_id: str
    due_us: int | None
    sent_us: int | None
    """None: never sent."""
    answered_us: int | None
    """None: no (final) answer."""
    replies: tuple[str, ...]
    """Each answer as text (see ``reply_text``), in the order of their coming."""
    fate: Fate | None
    """None: not judged yet when the record was made."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One step that did not end ``ok``, or one stray answer; exactly one of ``fate`` and ``stray`` is set."""

    fate: Fate | None
    stray: Stray | None
    cause: Cause | None
    pattern: str
    worker: int
    user: int
    context: int
    plan: int
    """The plan's number within its context."""
    seed_path: tuple[int, ...]
    correlation_id: CorrelationId
    request_id: str
    sequence: int
    """Which sequence of the plan."""
    step: int
    """The step's place in that sequence; -1 for a stray answer of no step of ours."""
    expected: str
    observed: str
    message: str
    """What happened, in one sentence."""
    at_epoch_s: float
    exchange: tuple[Exchange, ...] = ()
    """The plan as it was sent so far, so that replay does not depend on drawing it again."""
    stream_end: StreamEnd | None = None

    @property
    def label(self) -> str:
        """The fate's or the stray's name."""
        known = self.fate if self.fate is not None else self.stray
        return known.label if known is not None else "unknown"

    @property
    def failure_id(self) -> str:
        """A name that is unique in a run up to repeated strays of one step, and safe as that of a file."""
        step = "x" if self.step < 0 else str(self.step)
        place = f"w{self.worker}-u{self.user}-c{self.context}-p{self.plan}-s{self.sequence}.{step}"
        return f"{place}-{self.label}"

    def to_plain(self) -> dict[str, object]:
        """Plain types that both msgpack and strict JSON can hold."""
        end = self.stream_end
        return {
            "id": self.failure_id,
            "fate": None if self.fate is None else self.fate.label,
            "stray": None if self.stray is None else self.stray.label,
            "cause": None if self.cause is None else self.cause.value,
            "pattern": self.pattern,
            "worker": self.worker,
            "user": self.user,
            "context": self.context,
            "plan": self.plan,
            "seed_path": [_plain_value(part) for part in self.seed_path],
            "correlation_id": self.correlation_id,
            "request_id": self.request_id,
            "sequence": self.sequence,
            "step": self.step,
            "expected": self.expected[:_TEXT_LIMIT],
            "observed": self.observed[:_TEXT_LIMIT],
            "message": self.message[:_TEXT_LIMIT],
            "at_epoch_s": self.at_epoch_s,
            "exchange": [_exchange_to_plain(row) for row in self.exchange],
            "stream_end": None
            if end is None
            else {"cause": end.cause.value, "status": end.status, "text": end.text[:_TEXT_LIMIT]},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "Failure":
        """What ``to_plain`` gave (texts cut to their limit). Raises on anything that is not such a
        mapping."""
        end = cast("Mapping[str, object] | None", plain["stream_end"])
        return cls(
            fate=_member(Fate, plain["fate"]),
            stray=_member(Stray, plain["stray"]),
            cause=None if plain["cause"] is None else Cause(plain["cause"]),
            pattern=str(plain["pattern"]),
            worker=_int(plain["worker"]),
            user=_int(plain["user"]),
            context=_int(plain["context"]),
            plan=_int(plain["plan"]),
            seed_path=tuple(int(_value(part)) for part in _rows(plain["seed_path"])),
            correlation_id=cast(CorrelationId, plain["correlation_id"]),
            request_id=str(plain["request_id"]),
            sequence=_int(plain["sequence"]),
            step=_int(plain["step"]),
            expected=str(plain["expected"]),
            observed=str(plain["observed"]),
            message=str(plain["message"]),
            at_epoch_s=float(cast(float, plain["at_epoch_s"])),
            exchange=tuple(_exchange_from_plain(row) for row in _rows(plain["exchange"])),
            stream_end=None
            if end is None
            else StreamEnd(EndCause(end["cause"]), cast("int | None", end["status"]), str(end["text"])),
        )


def reply_text(reply: Reply) -> str:
    """An answer as a person reads it: its value, or what it was instead."""
    more = "" if reply.final else " (not final)"
    match reply.kind:
        case ReplyKind.VALUE:
            return f"{str(reply.value)[:_TEXT_LIMIT]}{more}"
        case ReplyKind.ERROR:
            return f"error: {reply.text[:_TEXT_LIMIT]}{more}"
        case ReplyKind.EMPTY:
            return f"empty{more}"
        case ReplyKind.MALFORMED:
            return f"malformed: {reply.text[:_TEXT_LIMIT]}{more}"


def expected_text(step: Step) -> str:
    """What the contract says of a step, as a person reads it."""
    if step.expect is Expect.START_ERROR:
        return "the START error"
    return ", ".join(map(str, step.answers)) or "no value"


def _exchange_to_plain(row: Exchange) -> dict[str, object]:
    step = row.step
    return {
        "sequence": row.sequence,
        "place": row.place,
        "start": step.start,
        "end": step.end,
        "value": _plain_value(step.value),
        "expect": step.expect.name.lower(),
        "answers": [_plain_value(answer) for answer in step.answers],
        "think_us": step.think_us,
        "request_id": row.request_id,
        "due_us": row.due_us,
        "sent_us": row.sent_us,
        "answered_us": row.answered_us,
        "replies": [text[:_TEXT_LIMIT] for text in row.replies],
        "fate": None if row.fate is None else row.fate.label,
    }


def _exchange_from_plain(plain: Mapping[str, object]) -> Exchange:
    return Exchange(
        sequence=_int(plain["sequence"]),
        place=_int(plain["place"]),
        step=Step(
            start=bool(plain["start"]),
            end=bool(plain["end"]),
            value=_value(plain["value"]),
            expect=Expect[str(plain["expect"]).upper()],
            answers=tuple(_value(answer) for answer in cast(Sequence[object], plain["answers"])),
            think_us=_int(plain["think_us"]),
        ),
        request_id=str(plain["request_id"]),
        due_us=cast("int | None", plain["due_us"]),
        sent_us=cast("int | None", plain["sent_us"]),
        answered_us=cast("int | None", plain["answered_us"]),
        replies=tuple(map(str, cast(Sequence[object], plain["replies"]))),
        fate=_member(Fate, plain["fate"]),
    )


def _plain_value(value: Value) -> Value | str:
    """BYTES accumulators have integers of any size, msgpack has 64 bits: larger ones travel as decimal
    text."""
    return value if isinstance(value, float) or value in _INT64 else str(value)


def _value(plain: object) -> Value:
    return int(plain) if isinstance(plain, str) else cast(Value, plain)


def _int(plain: object) -> int:
    if not isinstance(plain, int):
        raise ValueError(f"a number was expected, not {plain!r}")
    return plain


def _rows(plain: object) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", plain)


_Label = TypeVar("_Label", Fate, Stray)


def _member(kind: type[_Label], label: object) -> _Label | None:
    return None if label is None else kind[str(label).upper()]
