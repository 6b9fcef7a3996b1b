"""The default transport: gRPC streams and unary calls over a pool of HTTP/2 connections, all on gevent."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from gevent.event import AsyncResult
from google.protobuf.message import DecodeError, Message

from seqstress.errors import RpcError, StreamClosedError
from seqstress.protocol import Binding, Call, EndCause, StreamEnd, StreamListener
from seqstress.wire import grpc_status
from seqstress.wire.callback import guarded
from seqstress.wire.codec import Codec
from seqstress.wire.connection import Connection, connect
from seqstress.wire.endpoint import Endpoint, TlsOptions, metadata_headers
from seqstress.wire.framing import frame
from seqstress.wire.pool import Pool

M = TypeVar("M", bound=Message)
SERVICE = "/inference.GRPCInferenceService/"


class InferStream:
    """One ModelStreamInfer call of :class:`Http2Transport` (see :class:`seqstress.protocol.Stream`)."""

    def __init__(self, codec: Codec, listener: StreamListener) -> None:
        self._codec = codec
        self._listener = listener
        self._connection: Connection | None = None
        self._stream_id = 0
        self._wants_end = False

    def __repr__(self) -> str:
        return f"<InferStream {self._stream_id} {'open' if self.is_open else 'closed'} {self._codec!r}>"

    def attach(self, connection: Connection, headers: Sequence[tuple[str, str]]) -> None:
        """Start the call on a connection that can take it."""
        self._connection = connection
        self._stream_id = connection.open(headers, self)

    @property
    def is_open(self) -> bool:
        """Whether calls can still be sent."""
        return self._connection is not None and not self._wants_end

    @property
    def is_draining(self) -> bool:
        """Whether the server has said GOAWAY on its connection: what was begun is still served."""
        return self._connection is not None and self._connection.is_draining

    def send(self, calls: Sequence[Call]) -> None:
        """Queue ``calls`` in order and return at once. Raises StreamClosedError when the stream is over."""
        connection = self._connection
        if connection is None or self._wants_end:
            raise StreamClosedError(f"stream {self._stream_id} takes no more calls")
        encode = self._codec.encode
        connection.send(self._stream_id, [encode(call) for call in calls])

    def half_close(self) -> None:
        """Say that no more calls follow; what is under way is still answered."""
        if self._connection is not None:
            self._wants_end = True
            self._connection.end_call(self._stream_id)

    def reset(self) -> None:
        """Cancel the call on the server; the listener is told ``LOCAL`` before this returns."""
        if self._connection is not None:
            self._connection.reset(self._stream_id)

    def on_sent(self, count: int, at_ns: int) -> None:
        """Calls were handed to the kernel."""
        self._listener.on_sent(count, at_ns)

    def on_messages(self, messages: list[bytes], at_ns: int) -> None:
        """Decode and pass on; a listener that fails on one reply still gets the others."""
        for message in messages:
            if self._connection is None:
                return
            guarded(self._listener.on_reply, self._codec.decode(message), at_ns)

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """The stream is over."""
        self._connection = None
        self._listener.on_end(end, at_ns)


class _UnaryCall:
    """One request, one answer: the greenlet that asked waits for ``done``."""

    def __init__(self) -> None:
        self.done: AsyncResult[StreamEnd] = AsyncResult()
        self.messages: list[bytes] = []

    def on_sent(self, count: int, at_ns: int) -> None:
        """Of no interest here."""

    def on_messages(self, messages: list[bytes], at_ns: int) -> None:  # noqa: ARG002
        """Keep the answer until the status is in."""
        self.messages += messages

    def on_end(self, end: StreamEnd, at_ns: int) -> None:  # noqa: ARG002
        """The status is in."""
        self.done.set(end)


class Http2Transport:
    """Streams and unary calls to one server (see :class:`seqstress.protocol.Transport`).

    Makes connections when they are needed, ``streams_per_connection`` calls on each (h2 looks at every stream
    of a connection when one is opened, so many on one are slow to open), fewer where the server allows fewer.
    A connection that broke is not repaired: the next call makes a new one.
    """

    tells_error_ids = True

    def __init__(
        self,
        target: str,
        *,
        tls: TlsOptions | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        streams_per_connection: int = 100,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.endpoint = Endpoint.parse(target)
        context = tls.context() if tls else None
        server_name = (tls and tls.server_name) or self.endpoint.host

        def dial(on_closed: Callable[[Connection], None]) -> Connection:
            return connect(self.endpoint, context, server_name, connect_timeout_s, on_closed)

        self._pool = Pool(dial, streams_per_connection)
        self._codecs: dict[Binding, Codec] = {}
        self._scheme = "https" if tls else "http"
        self._metadata = metadata_headers(metadata)
        self._stream_headers = self._headers("ModelStreamInfer")

    def __repr__(self) -> str:
        return f"<Http2Transport {self.endpoint} {self._pool!r}>"

    @property
    def open_streams(self) -> int:
        """How many calls are open, over all connections."""
        return sum(connection.stream_count for connection in self._pool.connections)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._pool.connections)

    def open_stream(self, binding: Binding, listener: StreamListener) -> InferStream:
        """Open a stream, connecting first where need be (blocks this greenlet). Raises ConnectError."""
        codec = self._codecs.get(binding)
        if codec is None:
            codec = self._codecs[binding] = Codec(binding)
        stream = InferStream(codec, listener)
        stream.attach(self._pool.take(), self._stream_headers)
        return stream

    def unary(self, method: str, request: Message, response_type: type[M], timeout_s: float) -> M:
        """Call ``method`` of the inference service. Raises RpcError, and ConnectError where there is no
        server.

        The deadline counts for the call, and the server is told of it; making a connection has its own.
        """
        connection = self._pool.take()
        call = _UnaryCall()
        deadline = ("grpc-timeout", f"{min(max(1, int(timeout_s * 1000)), 99_999_999)}m")
        stream_id = connection.open([*self._headers(method), deadline], call)
        connection.send(stream_id, [frame(request.SerializeToString())])
        connection.end_call(stream_id)
        try:
            end = call.done.wait(timeout=timeout_s)
        finally:
            connection.reset(stream_id)  # no effect on a call that is over
        if end is None:
            raise RpcError(grpc_status.DEADLINE_EXCEEDED, f"{method}: no answer within {timeout_s:g} s")
        return _answer(method, end, call.messages, response_type)

    def close(self) -> None:
        """End every stream (``LOCAL``) and connection; idempotent, does not block."""
        self._pool.close()

    def _headers(self, method: str) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", SERVICE + method),
            (":authority", str(self.endpoint)),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "seqstress"),
            *self._metadata,
        ]


def _answer(method: str, end: StreamEnd, messages: list[bytes], response_type: type[M]) -> M:
    if end.cause is not EndCause.COMPLETED:
        code = end.status or grpc_status.UNAVAILABLE
        raise RpcError(code, f"{method}: {end.text or end.cause.value}")
    if len(messages) != 1:
        raise RpcError(grpc_status.UNKNOWN, f"{method}: {len(messages)} answers to a unary call")
    try:
        return response_type.FromString(messages[0])
    except DecodeError as error:
        raise RpcError(grpc_status.UNKNOWN, f"{method}: not a {response_type.__name__}: {error}") from error
