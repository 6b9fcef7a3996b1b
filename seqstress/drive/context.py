"""One client's view of the server: its correlation ID, its stream, and who hears what comes on it."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from gevent.event import Event

from seqstress.drive.exchange import Exchange, StrayReply
from seqstress.drive.session import Session
from seqstress.errors import StreamClosedError
from seqstress.protocol import Call, CorrelationId, Reply, Stray, Stream, StreamEnd

STRAYS_HELD = 1000
"""How many stray answers wait for the next plan to record them; a flood is recorded as it comes."""
_LONGEST_NUMBER = 20
"""Digits; what a server returns as a request id may be anything."""


class Conversation:
    """One stream of a context; hands what happens on it to the exchange under way.

    Implements ``StreamListener``: the transport calls it from the greenlet that reads the connection, so that in
    lockstep the next step leaves at once, without waking the user's greenlet.
    """

    __slots__ = ("_context", "_current_sequence", "_exchange", "_first_sequence", "stream", "woken")

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._exchange: Exchange | None = None
        self._first_sequence = self._current_sequence = context.sequences
        self.stream: Stream | None = None
        """None before it is opened and after it has ended."""
        self.woken = Event()
        """Set when the greenlet that runs the plan has something to do."""

    def __repr__(self) -> str:
        return f"<Conversation {self._exchange or 'idle'} on {self.stream}>"

    # -- StreamListener -----------------------------------------------------------------------------------------

    def on_sent(self, count: int, at_ns: int) -> None:
        """See ``StreamListener``."""
        if self._exchange is not None:
            self._exchange.on_sent(count, at_ns)

    def on_reply(self, reply: Reply, at_ns: int) -> None:
        """See ``StreamListener``."""
        exchange = self._exchange
        if exchange is None or exchange.ending is not None:
            kind = exchange.stray_kind(reply) if exchange is not None else Stray.ORPHAN
            self._context.heard(StrayReply(kind, reply, at_ns))
            return
        calls = exchange.on_reply(reply, at_ns)
        if calls:
            self._send(calls)
        elif exchange.ending is not None or exchange.is_pausing:
            self.woken.set()

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """See ``StreamListener``."""
        self.stream = None
        if self._exchange is not None and self._exchange.ending is None:
            self._exchange.on_end(end, at_ns)
            self.woken.set()

    # -- for the executor ---------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, now_ns: int) -> None:
        """Let ``exchange`` speak on this stream from now on."""
        self.woken.clear()
        self._exchange = exchange
        self._current_sequence = self._context.sequences - len(exchange.keys)
        self._send(exchange.start(now_ns))

    def tick(self, exchange: Exchange, now_ns: int) -> None:
        """Let ``exchange`` look at the clock."""
        self._send(exchange.tick(now_ns))

    def asked_before(self, request_id: str) -> bool:
        """Whether ``request_id`` is one of an earlier exchange on this stream."""
        prefix, dot, _ = request_id.rpartition(".")
        number = prefix.rpartition(".")[2]
        if not (number.isdecimal() and len(number) < _LONGEST_NUMBER):
            return False
        context, sequence = self._context, int(number)
        known = self._first_sequence <= sequence < self._current_sequence
        return known and context.request_prefix(sequence) == prefix + dot

    def _send(self, calls: Sequence[Call]) -> None:
        if calls and self.stream is not None:  # where it has ended, on_end has told the exchange
            with suppress(StreamClosedError):  # it has ended, and on_end is on its way
                self.stream.send(calls)


class Context:
    """What one client knows across its plans. Streams stay open across them, unless the scenario says otherwise."""

    __slots__ = (
        "_closing",
        "_conversation",
        "_session",
        "_user",
        "correlation_id",
        "index",
        "is_unattended",
        "left_open",
        "record_strays",
        "sequences",
        "strays",
    )

    def __init__(self, session: Session, user: int, index: int) -> None:
        self._session = session
        self._user = user
        self._conversation: Conversation | None = None
        self._closing: deque[tuple[int, Conversation]] = deque()  # half-closed ones, each with its deadline
        self.index = index
        self.sequences = 0
        """How many sequences it has begun: their numbers are part of the request ids."""
        self.correlation_id: CorrelationId | None = None
        """The ID it keeps under the policy ``fixed``; None before the first plan and after it was retired."""
        self.left_open: str | None = None
        """The key of a sequence that the server may still hold under ``correlation_id``."""
        self.strays: list[StrayReply] = []
        """Answers that came while no exchange was under way; whoever records them empties it."""
        self.record_strays: Callable[[], object] = lambda: None
        """Empties ``strays`` into the ledger; set by the owner."""
        self.is_unattended = False
        """Whether no plan comes any more that would record them."""

    def __repr__(self) -> str:
        return f"<Context {self._user}.{self.index} {self._conversation}>"

    def request_prefix(self, sequence: int) -> str:
        """The part of a request id before the step's number."""
        return self._session.request_prefix(self._user, self.index, sequence)

    def converse(self) -> Conversation:
        """The open stream; opens one where there is none (blocks this greenlet). Raises ConnectError."""
        self._give_up_closing()
        conversation = self._conversation
        if conversation is not None and conversation.stream is not None and conversation.stream.is_draining:
            self.half_close()
            conversation = None
        if conversation is None or conversation.stream is None or not conversation.stream.is_open:
            conversation = self._conversation = Conversation(self)
            conversation.stream = self._session.transport.open_stream(self._session.target.binding, conversation)
        return conversation

    def half_close(self) -> None:
        """End the stream in good order: what is under way on it is still served, for as long as the timeout."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.stream is not None and conversation.stream.is_open:
            session = self._session
            self._closing.append((session.clock() + session.rules.timeout_ns, conversation))
            conversation.stream.half_close()

    def reset(self) -> None:
        """Cancel the stream: what is under way on it is given up."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.stream is not None:
            conversation.stream.reset()

    def heard(self, stray: StrayReply) -> None:
        """An answer came while no exchange was under way."""
        self.strays.append(stray)
        if self.is_unattended or len(self.strays) >= STRAYS_HELD:
            self.record_strays()

    def _give_up_closing(self) -> None:
        """Reset streams that the server has not ended in time: with a stream per sequence they would pile up."""
        closing, now_ns = self._closing, self._session.clock()
        while closing and (closing[0][1].stream is None or closing[0][0] <= now_ns):
            stream = closing.popleft()[1].stream
            if stream is not None:
                stream.reset()
