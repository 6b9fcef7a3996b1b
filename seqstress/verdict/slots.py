"""Which of our own sequences hold or await a slot: whether an unanswered START was queued by our own load."""

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heappop, heappush

REAPER_POLL_NS = 50_000_000
"""How often Triton's reaper looks, at the least (sequence_batch_scheduler.cc, ReaperThread)."""

MARGIN_NS = 100_000_000
"""How far our clock of sends and answers may be from the server's order of arrivals before we trust it."""


_DIPS_KEPT = 4096


@dataclass(slots=True)
class _OpenSequence:
    started_ns: int
    took_over: bool
    """Whether its START took over a slot, instead of passing the backlog."""
    waits: bool
    """Whether there were more open sequences than slots when it started, itself included."""
    served_ns: int | None = None
    """When its START was answered."""


class SlotBook:
    """The open sequences of this process over time, judged by one question: ``was_overloaded``.

    A sequence is *open* from the send of its START until its END is answered or, when it is left behind,
    until the server has reaped it. While more sequences are open than the model has slots, somebody waits,
    rightly and without limit: Triton's backlog is first in, first out, and knows no error. The book errs
    towards "open" (the server frees a slot before we read the answer, and the reaper gets time to poll); what
    that could hide is caught by the order of the backlog.

    It knows the sequences of one process only: of the slots, give it the share that this process can expect. Keys name
    one sequence each, not a correlation ID: an ID that is reused right behind its END is, for the server, a
    second sequence in a second slot. Times are monotonic and should not run backwards between calls. Every
    call is O(log n) amortised; none is on the path of a single step.
    """

    __slots__ = ("_dips", "_holding_until", "_idle_limit_ns", "_open", "_served", "_served_sent_ns", "_slots")

    def __init__(self, slots: int, idle_limit_ns: int) -> None:
        self._slots = slots
        self._idle_limit_ns = idle_limit_ns
        self._open: dict[Hashable, _OpenSequence] = {}
        self._dips: list[int] = []  # when there was a slot for everybody again, in rising order
        # A heap of what was left behind, by the end of its hold; the number breaks ties of keys that have no
        # order.
        self._holding_until: list[tuple[int, int, Hashable]] = []
        self._served: deque[tuple[int, int]] = deque()  # (answered, sent) of STARTs, not yet MARGIN_NS old
        self._served_sent_ns: int | None = None

    def started(self, key: Hashable, at_ns: int, takes_over: Hashable | None = None) -> None:
        """A START was sent. ``takes_over``: the key of the sequence that was left open under the same
        correlation ID: Triton ends it and runs the new one in the same slot, without a wait in the
        backlog."""
        self._advance(at_ns)
        took_over = takes_over is not None  # even if the book has freed its slot: the server may not have, yet
        if took_over:
            self._open.pop(takes_over, None)
        self._open[key] = sequence = _OpenSequence(at_ns, took_over, waits=False)
        sequence.waits = len(self._open) > self._slots

    def ended(self, key: Hashable, at_ns: int) -> None:
        """Its END was answered, or the server said that it does not know the sequence: it holds nothing any
        more."""
        self._advance(at_ns)
        self._free(key, at_ns)

    def abandoned(self, key: Hashable, last_ns: int, at_ns: int) -> None:
        """It is left open, or nothing is known of it after a timeout, reset or disconnect. It holds its slot until
        the idle limit has passed since its last arrival at the server, which was before ``last_ns``, its last send
        or answer; one that waited in the backlog for longer is reaped once it was served."""
        self._advance(at_ns)
        if key in self._open:
            idle_ns = max(last_ns + self._idle_limit_ns, at_ns)
            heappush(self._holding_until, (idle_ns + REAPER_POLL_NS + MARGIN_NS, id(key), key))

    def answered_start(self, key: Hashable, sent_ns: int, at_ns: int) -> None:
        """The START of ``key``, sent at ``sent_ns``, was answered: whoever was sent clearly before it had its
        turn."""
        self._advance(at_ns)
        sequence = self._open.get(key)
        if sequence is not None:
            sequence.served_ns = at_ns
        if sequence is None or not sequence.took_over:  # one that took over a slot proves nothing about the backlog
            self._served.append((at_ns, sent_ns))

    def was_overloaded(self, key: Hashable, sent_ns: int, now_ns: int) -> bool:
        """Whether the START of ``key``, sent at ``sent_ns``, was legitimately waiting for a slot: until now,
        or, once it has been answered, until its answer. In the latter case the steps behind it had only the
        time since that answer.

        True when all the while more of our own sequences were open (itself, other waiting and abandoned ones
        included) than there are slots, and, while it is unanswered, no START sent clearly later was clearly
        served before now: then ours was passed over, which a first-in-first-out backlog never does. "Clearly"
        is MARGIN_NS on both sides. Ask before the sequence is told ``ended`` or ``abandoned``.
        """
        self._advance(now_ns)
        sequence = self._open.get(key)
        if sequence is None or not sequence.waits:
            return False
        place = bisect_right(self._dips, sequence.started_ns)
        first_dip_ns = self._dips[place] if place < len(self._dips) else None
        if sequence.served_ns is not None:
            # The dip that let it in is the end of its wait: the answer comes a little after it.
            return first_dip_ns is None or first_dip_ns >= sequence.served_ns - MARGIN_NS
        was_passed_over = self._served_sent_ns is not None and self._served_sent_ns > sent_ns + MARGIN_NS
        return first_dip_ns is None and not was_passed_over

    def is_open(self, key: Hashable) -> bool:
        """Whether the sequence is open as of the last call."""
        return key in self._open

    @property
    def open_count(self) -> int:
        """How many sequences are open as of the last call."""
        return len(self._open)

    def _advance(self, now_ns: int) -> None:
        while self._holding_until and self._holding_until[0][0] <= now_ns:
            freed_ns, _, key = heappop(self._holding_until)
            self._free(key, freed_ns)
        while self._served and self._served[0][0] <= now_ns - MARGIN_NS:
            sent_ns = self._served.popleft()[1]
            self._served_sent_ns = sent_ns if self._served_sent_ns is None else max(self._served_sent_ns, sent_ns)

    def _free(self, key: Hashable, at_ns: int) -> None:
        if self._open.pop(key, None) is not None and len(self._open) == self._slots:
            self._dips.append(at_ns)
            if len(self._dips) > 2 * _DIPS_KEPT:
                del self._dips[:_DIPS_KEPT]

    def __repr__(self) -> str:
        return f"<SlotBook {len(self._open)} open on {self._slots} slots>"
