"""The exact account of everything sent and received: per pattern and, for the audit, per class of answer.
Mergeable."""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Final, cast

from seqstress.metrics.histogram import Histogram
from seqstress.protocol import START_ERROR, Cause, Fate, Reply, ReplyKind, Stray
from seqstress.verdict.failure import Failure

FAILURES_KEPT = 50
"""Full failure records that a worker keeps per fate and per stray; the rest is only counted."""


class AnswerClass(IntEnum):
    """What the server's own counters make of a request that it answered; each answered request has exactly
    one."""

    VALUE = 0
    """Answered with an output, also with a wrong or malformed one: a success."""
    EMPTY = 1
    """No output and no error where one was due: how a cancelled request is delivered (counted CANCELED), or a
    success."""
    START_ERROR = 2
    """Refused at enqueue: no counter moves."""
    REJECTED = 3
    """Timed out in the backlog: a failure with the reason REJECTED."""
    BACKEND = 4
    """The backend failed as a whole, or its stub is dead: a failure with the reason BACKEND."""
    ENQUEUE_ERROR = 5
    """Another error without a model's name: refused before it was queued, no counter moves."""
    MODEL_ERROR = 6
    """Another error with a model's name, an error of the model for this request: Triton counts it as a
    success."""

    @property
    def label(self) -> str:
        """The name in reports and on the wire between workers."""
        return self.name.lower()


# For the path of every step: an enum's member costs 0.1 µs to look up, a global 0.02.
_VALUE_CLASS: Final = AnswerClass.VALUE
_VALUE_REPLY: Final = ReplyKind.VALUE


def classify_answer(reply: Reply, decoupled: bool = False) -> AnswerClass:
    """The class of a request by its final answer (on a decoupled model an EMPTY one only closes the step's
    answers)."""
    if reply.kind is not ReplyKind.ERROR:
        return AnswerClass.EMPTY if reply.kind is ReplyKind.EMPTY and not decoupled else AnswerClass.VALUE
    if START_ERROR in reply.text:
        return AnswerClass.START_ERROR
    if "timeout of the corresponding sequence" in reply.text:
        return AnswerClass.REJECTED
    if "Failed to process" in reply.text or "is not healthy" in reply.text:
        return AnswerClass.BACKEND
    return AnswerClass.MODEL_ERROR if reply.model else AnswerClass.ENQUEUE_ERROR


class SequenceEnd(IntEnum):
    """How a sequence ended for us: exactly one each."""

    FINISHED = 0
    """Every step ended ``ok``."""
    FAILED = 1
    """Some step ended neither ``ok`` nor ``aborted``."""
    ABORTED = 2
    """Given up, half-way or before its first step, when the user or the run was stopped, or behind a failure of its
    plan, with no failed step of its own."""
    NOT_SENT = 3
    """Its plan could not be sent, though nobody stopped it: there was no connection, or no ID left."""

    @property
    def label(self) -> str:
        """The name in reports and on the wire between workers."""
        return self.name.lower()


class PatternAccount:
    """The account of one pattern. Plain counters: the hot methods cost well under a microsecond."""

    __slots__ = (
        "causes",
        "fates",
        "response",
        "sequence",
        "sequence_ends",
        "sequences_planned",
        "service",
        "steps_not_sent",
        "steps_planned",
        "steps_sent",
    )

    def __init__(self) -> None:
        self.steps_planned = 0
        self.steps_sent = 0
        self.steps_not_sent = 0
        self.fates = [0] * len(Fate)
        """Steps by fate."""
        self.causes: dict[Cause, int] = {}
        """Expired steps by cause."""
        self.sequences_planned = 0
        self.sequence_ends = [0] * len(SequenceEnd)
        """Sequences by how they ended."""
        self.service = Histogram()
        """Answered steps: from the real send to the final answer."""
        self.response = Histogram()
        """Answered steps: from the intended time to the final answer, so waiting in the client counts."""
        self.sequence = Histogram()
        """Finished sequences: from the first step's intended time to the last step's final answer."""

    def plan(self, steps: int, sequences: int) -> None:
        """A plan was drawn: this much will be sent or accounted as not sent."""
        self.steps_planned += steps
        self.sequences_planned += sequences

    def sent(self, steps: int) -> None:
        """So many steps were handed to their streams; each is owed a fate."""
        self.steps_sent += steps

    def not_sent(self, steps: int) -> None:
        """So many planned steps will never be sent."""
        self.steps_not_sent += steps

    def answered(self, fate: Fate, service_us: int, response_us: int) -> None:
        """A sent step got its final answer and with it its fate."""
        self.fates[fate] += 1
        self.service.record(service_us)
        self.response.record(response_us)

    def expired(self, cause: Cause, service_us: int, response_us: int) -> None:
        """A sent step got a START error with a legitimate cause."""
        self.answered(Fate.EXPIRED, service_us, response_us)
        self.causes[cause] = self.causes.get(cause, 0) + 1

    def unanswered(self, fate: Fate) -> None:
        """A sent step is given up without a final answer: QUEUED, TIMEOUT, DISCONNECTED or ABORTED."""
        self.fates[fate] += 1

    def sequence_over(self, end: SequenceEnd, duration_us: int | None = None) -> None:
        """A sequence ended; ``duration_us`` of a finished one goes into the histogram."""
        self.sequence_ends[end] += 1
        if duration_us is not None and end is SequenceEnd.FINISHED:
            self.sequence.record(duration_us)

    @property
    def settled(self) -> int:
        """How many steps have their fate."""
        return sum(self.fates)

    @property
    def open_steps(self) -> int:
        """How many sent steps wait for their fate."""
        return self.steps_sent - self.settled

    def merge(self, other: "PatternAccount") -> None:
        """Add everything of ``other``."""
        self.steps_planned += other.steps_planned
        self.steps_sent += other.steps_sent
        self.steps_not_sent += other.steps_not_sent
        self.sequences_planned += other.sequences_planned
        _add(self.fates, other.fates)
        _add(self.sequence_ends, other.sequence_ends)
        for cause, count in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + count
        self.service.merge(other.service)
        self.response.merge(other.response)
        self.sequence.merge(other.sequence)

    def imbalances(self, live: bool) -> Iterator[str]:
        """Every sum that does not hold, in words."""
        yield from _compare(
            "planned", self.steps_planned, "sent + not sent", self.steps_sent + self.steps_not_sent, live
        )
        yield from _compare("sent", self.steps_sent, "the sum of fates", self.settled, live)
        yield from _compare("planned sequences", self.sequences_planned, "ended ones", sum(self.sequence_ends), live)
        expired, causes = self.fates[Fate.EXPIRED], sum(self.causes.values())
        yield from _compare("expired", expired, "the sum of causes", causes, live=False)

    def to_plain(self) -> dict[str, object]:
        """Plain types, counters by label; zeros are left out."""
        return {
            "steps": [self.steps_planned, self.steps_sent, self.steps_not_sent],
            "fates": _labelled(Fate, self.fates),
            "causes": {cause.value: count for cause, count in self.causes.items()},
            "sequences": self.sequences_planned,
            "sequence_ends": _labelled(SequenceEnd, self.sequence_ends),
            "service": self.service.to_plain(),
            "response": self.response.to_plain(),
            "sequence": self.sequence.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "PatternAccount":
        """What ``to_plain`` gave."""
        account = cls()
        account.steps_planned, account.steps_sent, account.steps_not_sent = cast("list[int]", plain["steps"])
        account.fates = _unlabelled(Fate, plain["fates"])
        account.causes = {Cause(label): count for label, count in cast("dict[str, int]", plain["causes"]).items()}
        account.sequences_planned = cast(int, plain["sequences"])
        account.sequence_ends = _unlabelled(SequenceEnd, plain["sequence_ends"])
        account.service = Histogram.from_plain(cast("dict[str, object]", plain["service"]))
        account.response = Histogram.from_plain(cast("dict[str, object]", plain["response"]))
        account.sequence = Histogram.from_plain(cast("dict[str, object]", plain["sequence"]))
        return account


class Ledger:
    """The account of one worker, or, merged, of the whole run.

    Per step the executor touches only the pattern's account and ``answer``. The sums that must hold once a
    run is over, per pattern: planned = sent + not sent; sent = Σ fates; planned sequences = Σ ends; and in
    total Σ answers ≤ sent, and Σ answers = steps answered in time + requests answered late.
    """

    __slots__ = ("_kept", "answers", "failures", "patterns", "strays")

    def __init__(self) -> None:
        self.patterns: dict[str, PatternAccount] = {}
        self.strays = [0] * len(Stray)
        self.answers = [0] * len(AnswerClass)
        """Requests that were answered in full, by class; late answers included, duplicates and orphans
        not."""
        self.failures: list[Failure] = []
        """The first FAILURES_KEPT records per worker and label, in the order of their coming."""
        self._kept: dict[str, int] = {}

    def pattern(self, name: str) -> PatternAccount:
        """The account of a pattern, made at its first use. Hold it: it stays the same object."""
        account = self.patterns.get(name)
        if account is None:
            account = self.patterns[name] = PatternAccount()
        return account

    def answer(self, final: Reply, decoupled: bool = False) -> None:
        """An open step got its final answer: count its class for the audit."""
        # Nearly all answers are values: spare them the call.
        kind = _VALUE_CLASS if final.kind is _VALUE_REPLY else classify_answer(final, decoupled)
        self.answers[kind] += 1

    def stray(self, stray: Stray, reply: Reply, decoupled: bool = False) -> None:
        """An answer that no open step asked for. A late final one still answers its request, so the audit
        counts it too; an answer out of order is that of an open step and counted by ``answer``."""
        self.strays[stray] += 1
        if stray is Stray.LATE and reply.final:
            self.answer(reply, decoupled)

    def has_room(self, label: str) -> bool:
        """Whether a failure of this fate or stray would still be kept: ask before building its record."""
        return self._kept.get(label, 0) < FAILURES_KEPT

    def add_failure(self, failure: Failure) -> None:
        """Keep a full record while there is room for its label."""
        if self.has_room(failure.label):
            self._keep(failure)

    def _keep(self, failure: Failure) -> None:
        self.failures.append(failure)
        self._kept[failure.label] = self._kept.get(failure.label, 0) + 1

    def total(self) -> PatternAccount:
        """All patterns as one account."""
        total = PatternAccount()
        for account in self.patterns.values():
            total.merge(account)
        return total

    @property
    def sent(self) -> int:
        """How many steps were sent."""
        return sum(account.steps_sent for account in self.patterns.values())

    @property
    def answered(self) -> int:
        """How many requests were answered in full, in time or late, by the classes of their answers."""
        return sum(self.answers)

    @property
    def answered_in_time(self) -> int:
        """How many steps have a fate that an answer gave them, by the patterns' accounts."""
        return sum(account.response.count for account in self.patterns.values())

    def imbalances(self, live: bool = False) -> list[str]:
        """Every sum that does not hold, in words. ``live``: while the run goes on, what is still open may be
        missing."""
        found = [
            f"{name}: {text}" for name, account in sorted(self.patterns.items()) for text in account.imbalances(live)
        ]
        if self.answered > self.sent:
            found.append(f"{self.answered} answered requests, but only {self.sent} were sent")
        in_time, late = self.answered_in_time, self.strays[Stray.LATE]
        if not in_time <= self.answered <= in_time + late:
            found.append(
                f"{self.answered} answered requests, but {in_time} steps answered in time and {late} late answers"
            )
        return found

    def merge(self, other: "Ledger") -> None:
        """Add everything of ``other``, another worker's: each has its own room for failures, so none is
        dropped here."""
        for name, account in other.patterns.items():
            self.pattern(name).merge(account)
        _add(self.strays, other.strays)
        _add(self.answers, other.answers)
        for failure in other.failures:
            self._keep(failure)

    def to_plain(self, *, with_failures: bool = True) -> dict[str, object]:
        """Plain types only: what msgpack and JSON can hold. The failure records can be large: leave them out of what
        is told again and again."""
        return {
            "patterns": {name: account.to_plain() for name, account in self.patterns.items()},
            "strays": _labelled(Stray, self.strays),
            "answers": _labelled(AnswerClass, self.answers),
            "failures": [failure.to_plain() for failure in self.failures if with_failures],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "Ledger":
        """What ``to_plain`` gave."""
        ledger = cls()
        patterns = cast("dict[str, dict[str, object]]", plain["patterns"])
        ledger.patterns = {name: PatternAccount.from_plain(account) for name, account in patterns.items()}
        ledger.strays = _unlabelled(Stray, plain["strays"])
        ledger.answers = _unlabelled(AnswerClass, plain["answers"])
        ledger.failures = [Failure.from_plain(row) for row in cast("list[dict[str, object]]", plain["failures"])]
        return ledger

    def __repr__(self) -> str:
        total = self.total()
        return f"<Ledger {total.steps_sent} sent, {total.fates[Fate.OK]} ok, {sum(self.strays)} strays>"


def _compare(name: str, whole: int, parts_name: str, parts: int, live: bool) -> Iterator[str]:
    if parts > whole or (parts < whole and not live):
        yield f"{name} is {whole}, but {parts_name} is {parts}"


def _add(into: list[int], other: Sequence[int]) -> None:
    for index, count in enumerate(other):
        into[index] += count


def _labelled(
    kind: type[Fate] | type[Stray] | type[AnswerClass] | type[SequenceEnd], counts: Sequence[int]
) -> dict[str, int]:
    return {member.label: counts[member] for member in kind if counts[member]}


def _unlabelled(kind: type[Fate] | type[Stray] | type[AnswerClass] | type[SequenceEnd], plain: object) -> list[int]:
    counts = [0] * len(kind)
    for label, count in cast("dict[str, int]", plain).items():
        counts[kind[label.upper()]] = count
    return counts
