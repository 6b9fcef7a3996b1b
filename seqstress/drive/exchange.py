"""One plan under way on one stream, as a state machine: what to send when, and how each step ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from seqstress.plan.recipe import PacingMode
from seqstress.protocol import (
    START_ERROR,
    Call,
    Cause,
    CorrelationId,
    Expect,
    Fate,
    Reply,
    ReplyKind,
    SequencePlan,
    ServerState,
    Step,
    Stray,
    StreamEnd,
)
from seqstress.verdict.judge import Evidence, judge_step, start_error_cause
from seqstress.verdict.ledger import AnswerClass, classify_answer
from seqstress.verdict.slots import SlotBook


@dataclass(frozen=True, slots=True)
class ExchangeRules:
    """What stays the same for all exchanges of a run."""

    pacing: PacingMode
    reuse_after_answer: bool
    """Whether a sequence waits for the answers of the one before it in its plan."""
    timeout_ns: int
    tolerance: float
    idle_limit_ns: int
    decoupled: bool
    tells_error_ids: bool
    """See ``Transport.tells_error_ids``: where it is false, an error belongs to the oldest open step."""


@dataclass(slots=True)
class Conditions:
    """What a worker knows of its own honesty, for judging by the clock; one object, kept current by its owner."""

    lag_ns: int = 0
    """The worst lateness of the event loop as far back as a judgement by the clock may look."""
    round_trip_ns: int = 1_000_000_000
    """The shortest time from a send to its answer seen so far."""


class StepRecord:
    """What happened to one step: times are monotonic ns, 0 = did not happen."""

    __slots__ = (
        "answered_ns",
        "call",
        "cause",
        "due_ns",
        "fate",
        "handed_ns",
        "is_dropped",
        "place",
        "replies",
        "sent_ns",
        "sequence",
        "step",
    )

    def __init__(self, sequence: int, place: int, step: Step, call: Call) -> None:
        self.sequence = sequence
        """The index of its sequence within the plan."""
        self.place = place
        """Its index within the sequence."""
        self.step = step
        self.call = call
        self.due_ns = 0
        """When it was meant to leave."""
        self.handed_ns = 0
        """When it was given to the stream."""
        self.sent_ns = 0
        """When its last byte was handed to the kernel."""
        self.answered_ns = 0
        self.replies: list[Reply] = []
        self.fate: Fate | None = None
        """None while it is open, and for ever where it was never handed to the stream ("not sent")."""
        self.cause: Cause | None = None
        self.is_dropped = False
        """Whether the answer shows that the server holds no such sequence where we meant one to be open."""

    @property
    def service_us(self) -> int:
        """From the real send to the answer."""
        return (self.answered_ns - self.sent_ns) // 1000

    @property
    def response_us(self) -> int:
        """From the intended send to the answer."""
        return (self.answered_ns - self.due_ns) // 1000


class StrayReply(NamedTuple):
    """An answer that no open step asked for, or that came out of order."""

    kind: Stray
    reply: Reply
    at_ns: int


# For the path of every step: an enum's member costs 0.1 µs to look up, a global 0.02.
_OK: Final = Fate.OK
_PIPELINED: Final = PacingMode.PIPELINED
_PACED: Final = PacingMode.PACED

_SERVED: Final = frozenset({Fate.OK, Fate.WRONG_RESULT})
"""Steps with these fates moved the sequence on at the server."""


class Ending(Enum):
    """How an exchange ended."""

    ANSWERED = "answered"
    """Every step that was sent has its answer."""
    GIVEN_UP = "given_up"
    """A deadline passed: the stream must be given up and the correlation IDs retired."""
    BROKEN = "broken"
    """The stream ended under it: the correlation IDs must be retired."""
    ABORTED = "aborted"
    """The user or the run was stopped: as ``GIVEN_UP``."""


class Exchange:
    """Sends the steps of a plan's sequences in order and gives each that it handed to the stream exactly one fate.

    Feed it with what happens (``start``, ``on_sent``, ``on_reply``, ``on_end``, ``tick``, ``abort``); it returns the
    calls to send now, performs no I/O and reads no clock. ``ending`` is set once nothing is open any more; from then
    on feed it nothing but signs of the end, which it ignores. The next look at the clock is due at ``wake_ns``.

    A sequence whose step got the START error where an answer was due is over for the server: its steps that
    have not left stay unsent. After any other failure the rest is still sent, so that the slot is freed by END.
    """

    def __init__(
        self,
        sequences: Sequence[SequencePlan],
        correlation_ids: Sequence[CorrelationId],
        request_prefixes: Sequence[str],
        rules: ExchangeRules,
        conditions: Conditions,
        slots: SlotBook,
        takes_over: str | None = None,
        asked_before: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.correlation_ids = correlation_ids
        self.keys = request_prefixes
        """One per sequence, unique in the run; ``takes_over`` is that of one which the first one's ID left open."""
        self.records: list[StepRecord] = []
        self.strays: list[StrayReply] = []
        self.ending: Ending | None = None
        self.stream_end: StreamEnd | None = None
        self._sequences = sequences
        self._rules = rules
        self._conditions = conditions
        self._slots = slots
        self._takes_over = takes_over
        self._asked_before = asked_before  # whether a request id is one of an earlier exchange on this stream
        self._by_id: dict[str, StepRecord] = {}
        self._first: list[int] = []  # where each sequence begins in records
        records, by_id = self.records, self._by_id
        for index, sequence in enumerate(sequences):
            self._first.append(len(records))
            prefix, correlation_id = request_prefixes[index], correlation_ids[index]
            for number, step in enumerate(sequence.steps):
                request_id = f"{prefix}{number}"
                call = Call(request_id, correlation_id, step.start, step.end, step.value)
                record = by_id[request_id] = StepRecord(index, number, step, call)
                records.append(record)
        self._first.append(len(self.records))
        self._next = 0  # the first record that was not handed to the stream yet
        self._left = 0  # the first record that the kernel did not take yet
        self._head = 0  # the first record without a fate
        self._handed: list[StepRecord] = []  # in the order of hand-over; steps that were skipped are not in it
        self._open = 0
        self._served_ns = 0  # when a START was answered that our own sequences had kept waiting for a slot
        self._due_ns = 0  # when the next step is to leave; 0 = when an answer comes

    def __repr__(self) -> str:
        state = self.ending.value if self.ending else "open"
        return f"<Exchange {state} {len(self._handed)}/{len(self.records)} handed, {self._open} open>"

    # -- what is fed --------------------------------------------------------------------------------------------

    def start(self, now_ns: int) -> list[Call]:
        """The first calls."""
        first = self.records[0].step.think_us if self._rules.pacing is PacingMode.PACED else 0
        if first:
            self._due_ns = now_ns + first * 1000
            return []
        return self._hand_over(now_ns, now_ns)

    def on_sent(self, count: int, at_ns: int) -> None:
        """The next ``count`` calls have left."""
        for record in self._handed[self._left : self._left + count]:
            if not record.sent_ns:  # the server may have answered what it had seen but half
                record.sent_ns = at_ns
        self._left += count

    def on_reply(self, reply: Reply, at_ns: int) -> list[Call]:
        """Judge an answer; returns the calls that may leave because of it."""
        record = self._by_id.get(reply.request_id)
        if record is None:
            record = self._asked_without_id(reply)
        if record is None or record.fate is not None or not record.handed_ns:
            self.strays.append(StrayReply(self.stray_kind(reply), reply, at_ns))
            return []
        if record is not self._handed[self._head] and not self._rules.decoupled:
            self.strays.append(StrayReply(Stray.OUT_OF_ORDER, reply, at_ns))
        record.replies.append(reply)
        if not reply.final:
            return []
        record.answered_ns = at_ns
        if not record.sent_ns:
            record.sent_ns = record.handed_ns
        self._judge(record)
        self._close(record)
        if self._open and self._rules.pacing is _PIPELINED:
            return []
        return self._after_answer(record, at_ns)

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """The stream is over: every open step is ``disconnected``, and so is one that a think time held back."""
        if self.ending is None:
            self.stream_end = end
            if self.is_pausing and self._handed:
                self._hand_over(at_ns, at_ns)
            self._end_open(Fate.DISCONNECTED, Ending.BROKEN, at_ns)

    def abort(self, now_ns: int) -> None:
        """We give up: every open step is ``aborted``."""
        if self.ending is None:
            self._end_open(Fate.ABORTED, Ending.ABORTED, now_ns)

    def tick(self, now_ns: int) -> list[Call]:
        """The clock was looked at: sends what is due, gives up what is past its deadline."""
        if self.ending is not None:
            return []
        if self._due_ns:
            if now_ns < self._due_ns:
                return []
            due_ns, self._due_ns = self._due_ns, 0
            return self._hand_over(due_ns, now_ns)
        if self._open and now_ns >= self._deadline_ns():
            self._end_open(Fate.TIMEOUT, Ending.GIVEN_UP, now_ns)
        return []

    @property
    def wake_ns(self) -> int:
        """When ``tick`` is due; it may move later, and earlier only by pacing (see ``is_pausing``)."""
        return self._due_ns or self._deadline_ns()

    @property
    def has_timed_out(self) -> bool:
        """Whether a deadline passed that our own load does not explain."""
        return self.ending is Ending.GIVEN_UP and any(record.fate is Fate.TIMEOUT for record in self._handed)

    @property
    def is_pausing(self) -> bool:
        """Whether nothing is open and a think time runs."""
        return self._due_ns > 0

    # -- what it left on the server -----------------------------------------------------------------------------

    @property
    def leaves(self) -> ServerState:
        """What the server still holds of the last sequence, once the exchange has ended."""
        if self.ending is not Ending.ANSWERED:
            return ServerState.UNKNOWN
        last = self._sequences[-1]
        records = self.records[self._first[-2] :]
        if {record.fate for record in records} <= _SERVED:
            return last.leaves
        return ServerState.CLEAN if any(record.is_dropped for record in records) else ServerState.UNKNOWN

    def sequence_records(self, sequence: int) -> list[StepRecord]:
        """The records of one of the plan's sequences."""
        return self.records[self._first[sequence] : self._first[sequence + 1]]

    def stray_kind(self, reply: Reply) -> Stray:
        """What an answer is that no open step of this exchange asked for."""
        record = self._by_id.get(reply.request_id)
        if record is None:
            # All steps of an earlier exchange on a stream that goes on were answered.
            return Stray.DUPLICATE if self._asked_before(reply.request_id) else Stray.ORPHAN
        if not record.handed_ns:
            return Stray.ORPHAN
        return Stray.DUPLICATE if record.answered_ns else Stray.LATE

    # -- inside -------------------------------------------------------------------------------------------------

    def _asked_without_id(self, reply: Reply) -> StepRecord | None:
        """The step that an error belongs to where the transport does not tell."""
        if reply.request_id or self._rules.tells_error_ids or reply.kind is not ReplyKind.ERROR:
            return None
        return self._handed[self._head] if self._head < len(self._handed) else None

    def _judge(self, record: StepRecord) -> None:
        fate = judge_step(record.step, record.replies, self._rules.tolerance)
        record.fate = fate
        if fate is _OK:
            return
        if (
            fate is Fate.UNEXPECTED_ERROR
            and record.step.expect is Expect.ANSWERS
            and START_ERROR in record.replies[-1].text
        ):
            record.is_dropped = True
            record.cause = self._legitimate_cause(record)
            if record.cause is not None:
                record.fate = Fate.EXPIRED

    def _legitimate_cause(self, record: StepRecord) -> Cause | None:
        """Of the START error that ``record`` got."""
        handed = self._handed
        at = next(i for i, other in enumerate(handed) if other is record)
        before = handed[at - 1] if at and handed[at - 1].sequence == record.sequence else None
        # Of this exchange too: before its first record is made, a run would excuse any START error.
        trips_ns = [other.answered_ns - other.sent_ns for other in handed if other.answered_ns and other is not record]
        evidence = Evidence(
            sent_ns=record.sent_ns,
            answered_ns=record.answered_ns,
            previous_sent_ns=before.sent_ns if before else None,
            previous_answered_ns=(before.answered_ns or None) if before else None,
            idle_limit_ns=self._rules.idle_limit_ns,
            lag_ns=self._conditions.lag_ns,
            round_trip_ns=min([self._conditions.round_trip_ns, *trips_ns]),
            interruption=_interruption(before) if before else None,
        )
        return start_error_cause(evidence)

    def _close(self, record: StepRecord) -> None:
        self._open -= 1
        handed, head = self._handed, self._head
        while head < len(handed) and handed[head].fate is not None:
            head += 1
        self._head = head
        step = record.step
        if step.start:
            key = self.keys[record.sequence]
            self._slots.answered_start(key, record.sent_ns, record.answered_ns)
            if self._slots.was_overloaded(key, record.sent_ns, record.answered_ns):
                self._served_ns = record.answered_ns
        if (step.end and record.fate is not Fate.UNEXPECTED_ERROR) or record.is_dropped:
            self._slots.ended(self.keys[record.sequence], record.answered_ns)

    def _after_answer(self, record: StepRecord, at_ns: int) -> list[Call]:
        if record.is_dropped:
            self._next = max(self._next, self._first[record.sequence + 1])
        if self._next == len(self.records):
            if not self._open:
                self._finish(Ending.ANSWERED, at_ns)
            return []
        if self._rules.pacing is _PACED and (think_us := self.records[self._next].step.think_us):
            self._due_ns = at_ns + think_us * 1000
            return []
        return self._hand_over(at_ns, at_ns)

    def _hand_over(self, due_ns: int, now_ns: int) -> list[Call]:
        begin = self._next
        if self._rules.pacing is not _PIPELINED:
            end = begin + 1
        elif self._rules.reuse_after_answer:
            end = self._first[self.records[begin].sequence + 1]
        else:
            end = len(self.records)
        calls = []
        for record in self.records[begin:end]:
            record.due_ns = due_ns
            record.handed_ns = now_ns
            if record.step.start:
                self._slots.started(self.keys[record.sequence], now_ns, self._takes_over)
                self._takes_over = None
            self._handed.append(record)
            calls.append(record.call)
        self._next = end
        self._open += end - begin
        return calls

    def _deadline_ns(self) -> int:
        # Steps behind a START in the backlog wait with it, and that wait is our own load's fault.
        oldest = self._handed[self._head]
        return max(oldest.sent_ns, oldest.handed_ns, self._served_ns) + self._rules.timeout_ns

    def _end_open(self, fate: Fate, ending: Ending, now_ns: int) -> None:
        if fate is Fate.TIMEOUT and self._waits_for_a_slot(now_ns):
            fate = Fate.QUEUED
        for record in self._handed:
            if record.fate is None:
                record.fate = fate
        self._finish(ending, now_ns)

    def _waits_for_a_slot(self, now_ns: int) -> bool:
        """Whether the oldest open step is a START that our own sequences keep out of the slots."""
        oldest = self._handed[self._head]
        return (
            oldest.step.start
            and oldest.sent_ns > 0
            and self._slots.was_overloaded(self.keys[oldest.sequence], oldest.sent_ns, now_ns)
        )

    def _finish(self, ending: Ending, now_ns: int) -> None:
        self.ending = ending
        self._due_ns = 0
        for sequence, key in enumerate(self.keys):
            if self._slots.is_open(key):
                # The server's idle clock runs from arrivals, and the last one lies between its send and its answer.
                records = self.sequence_records(sequence)
                last_ns = max(max(record.handed_ns, record.sent_ns, record.answered_ns) for record in records)
                self._slots.abandoned(key, last_ns, now_ns)


def _interruption(before: StepRecord) -> Cause | None:
    """What the step before shows of the sequence: the server drops one whose request timed out in the backlog."""
    if before.replies and classify_answer(before.replies[-1]) is AnswerClass.REJECTED:
        return Cause.BACKLOG_TIMEOUT
    return before.cause
