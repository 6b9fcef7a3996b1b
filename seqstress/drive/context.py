"""One client's view of the server: its correlation ID, its stream, and who hears what comes on it."""

from collections.abc import Sequence

from gevent.event import Event

from seqstress.drive.exchange import Exchange, StrayReply
from seqstress.drive.session import Session
from seqstress.protocol import Call, CorrelationId, EndCause, Reply, Stray, Stream, StreamEnd


class Conversation:
    """One stream of a context; hands what happens on it to the exchange under way.

    Implements ``StreamListener``: the transport calls it from the greenlet that reads the connection, so that in
    lockstep the next step leaves at once, without waking the user's greenlet.
    """

    __slots__ = ("_context", "_exchange", "_first_sequence", "stream", "woken")

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._exchange: Exchange | None = None
        self._first_sequence = context.sequences
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
            self._context.strays.append(StrayReply(self._stray_kind(reply), reply, at_ns))
            return
        self._send(exchange.on_reply(reply, at_ns))
        if exchange.ending is not None or exchange.is_pausing:
            self.woken.set()

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """See ``StreamListener``."""
        self.stream = None
        if self._exchange is not None and self._exchange.ending is None:
            self._exchange.on_end(end, at_ns)
            self.woken.set()
        elif end.cause not in (EndCause.LOCAL, EndCause.COMPLETED):
            self._context.broken_idle.append(end)

    # -- for the executor ---------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, now_ns: int) -> None:
        """Let ``exchange`` speak on this stream from now on."""
        self.woken.clear()
        self._exchange = exchange
        self._send(exchange.start(now_ns))

    def tick(self, exchange: Exchange, now_ns: int) -> None:
        """Let ``exchange`` look at the clock."""
        self._send(exchange.tick(now_ns))

    def _send(self, calls: Sequence[Call]) -> None:
        if calls and self.stream is not None:  # where it has ended, on_end has told the exchange
            self.stream.send(calls)

    def _stray_kind(self, reply: Reply) -> Stray:
        kind = self._exchange.stray_kind(reply) if self._exchange is not None else Stray.ORPHAN
        context = self._context
        if kind is Stray.ORPHAN and any(
            reply.request_id.startswith(context.request_prefix(number))
            for number in range(self._first_sequence, context.sequences)
        ):
            return Stray.DUPLICATE  # of an earlier exchange on this stream: all its steps were answered
        return kind


class Context:
    """What one client knows across its plans. Streams stay open across them, unless the scenario says otherwise."""

    __slots__ = (
        "_conversation",
        "_session",
        "_user",
        "broken_idle",
        "correlation_id",
        "index",
        "left_open",
        "sequences",
        "strays",
    )

    def __init__(self, session: Session, user: int, index: int) -> None:
        self._session = session
        self._user = user
        self._conversation: Conversation | None = None
        self.index = index
        self.sequences = 0
        """How many sequences it has begun: their numbers are part of the request ids."""
        self.correlation_id: CorrelationId | None = None
        """The ID it keeps under the policy ``fixed``; None before the first plan and after it was retired."""
        self.left_open: str | None = None
        """The key of a sequence that the server may still hold under ``correlation_id``."""
        self.strays: list[StrayReply] = []
        """Answers that came while no exchange was under way; whoever records them empties it."""
        self.broken_idle: list[StreamEnd] = []
        """How streams ended, not by us, while no exchange was under way; likewise."""

    def __repr__(self) -> str:
        return f"<Context {self._user}.{self.index} {self._conversation}>"

    def request_prefix(self, sequence: int) -> str:
        """The part of a request id before the step's number."""
        return self._session.request_prefix(self._user, self.index, sequence)

    def converse(self) -> Conversation:
        """The open stream; opens one where there is none (blocks this greenlet). Raises ConnectError."""
        conversation = self._conversation
        if conversation is None or conversation.stream is None or not conversation.stream.is_open:
            conversation = self._conversation = Conversation(self)
            conversation.stream = self._session.transport.open_stream(self._session.target.binding, conversation)
        return conversation

    def half_close(self) -> None:
        """End the stream in good order: what is under way on it is still served."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.stream is not None and conversation.stream.is_open:
            conversation.stream.half_close()

    def reset(self) -> None:
        """Cancel the stream: what is under way on it is given up."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.stream is not None:
            conversation.stream.reset()
