"""The reference transport: NVIDIA's stock tritonclient behind the same interface, as a cross-check and a
baseline.

What it cannot do, because the stock client does not: an error carries no request id
(:attr:`tells_error_ids`), and a stream that the *server* ends with status OK is not told before it is
half-closed or reset, since the client calls nobody then. ``on_sent`` tells the hand-over to gRPC, not to the
kernel.

Each stream has a client and a TCP connection of its own, as a program written with tritonclient has.
Importing this module loads gRPC's core; it starts nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, cast

import gevent
import grpc
import numpy
import tritonclient.grpc
from gevent import monkey
from tritonclient.utils import InferenceServerException

from seqstress.errors import ConnectError, InputError, StreamClosedError
from seqstress.protocol import Binding, Call, Dtype, EndCause, StreamEnd, StreamListener
from seqstress.wire import grpc_status
from seqstress.wire.callback import guarded
from seqstress.wire.codec import Codec
from seqstress.wire.endpoint import Endpoint, TlsOptions, metadata_headers

_CLOSE_TIMEOUT_S = 0.9
_CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.use_local_subchannel_pool", 1),  # else equal channels share one TCP connection
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_OTHER_THREADS = 10
"""What gevent's thread pool keeps for others: gRPC's own dispatcher, the calls of new clients, names to resolve."""

_NUMPY_DTYPES = {
    Dtype.INT32: numpy.int32,
    Dtype.INT64: numpy.int64,
    Dtype.FP32: numpy.float32,
    Dtype.FP64: numpy.float64,
}
_TRANSPORT_FAILURES = ("socket closed", "stream removed", "connection", "recvmsg", "sendmsg", "broken pipe")
"""What gRPC's core says in UNAVAILABLE when the transport, not the server, ended the call."""


class ReferenceStream:
    """One ModelStreamInfer call of the stock client (see :class:`seqstress.protocol.Stream`).

    The client calls back in a thread, or in a greenlet where gevent has patched threads. Either way what it
    says goes through an inbox to this greenlet's event loop, and the listener is told there, in order.
    """

    def __init__(
        self,
        client: Any,
        codec: Codec,
        listener: StreamListener,
        headers: dict[str, str],
        on_end: Callable[["ReferenceStream"], None],
    ) -> None:
        self._client = client
        self._codec = codec
        self._listener = listener
        self._on_end = on_end
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake: Any = gevent.get_hub().loop.async_()
        self._wake.start(self._deliver)
        self._is_over = False
        self._wants_end = False
        client.start_stream(self._on_response, headers=headers)

    def __repr__(self) -> str:
        return f"<ReferenceStream {'open' if self.is_open else 'closed'} {self._codec!r}>"

    @property
    def is_open(self) -> bool:
        """Whether calls can still be sent."""
        return not self._is_over and not self._wants_end

    @property
    def is_draining(self) -> bool:
        """Never known: gRPC moves new calls to another connection by itself."""
        return False

    def send(self, calls: Sequence[Call]) -> None:
        """Hand ``calls`` to the client's queue in order. Raises StreamClosedError when the stream is over."""
        if not self.is_open:
            raise StreamClosedError("the stream takes no more calls")
        binding = self._codec.binding
        for call in calls:
            tensor = tritonclient.grpc.InferInput(binding.input.name, binding.input.shape, binding.input.dtype.value)
            tensor.set_data_from_numpy(_array(binding, call))
            try:
                self._client.async_stream_infer(
                    binding.model,
                    [tensor],
                    model_version=binding.version,
                    request_id=call.request_id,
                    sequence_id=call.correlation_id,
                    sequence_start=call.start,
                    sequence_end=call.end,
                    enable_empty_final_response=binding.decoupled,
                )
            except InferenceServerException as error:  # the end is in the inbox, or about to be
                raise StreamClosedError(str(error)) from error
        count, at_ns = len(calls), time.monotonic_ns()
        self._post(lambda: self._listener.on_sent(count, at_ns))

    def half_close(self) -> None:
        """Say that no more calls follow; the stock client then waits, in a thread, for what is under way."""
        if self.is_open:
            self._wants_end = True
            _start(self._finish)

    def reset(self) -> None:
        """Cancel the call; the listener is told ``LOCAL`` before this returns, the clean-up runs behind it."""
        self._ended(StreamEnd(EndCause.LOCAL, None, "reset by us"), time.monotonic_ns())

    def _finish(self) -> None:
        self._client.stop_stream()
        end, at_ns = StreamEnd(EndCause.COMPLETED, grpc_status.OK, ""), time.monotonic_ns()
        self._post(lambda: self._ended(end, at_ns))

    def _on_response(self, result: Any, error: InferenceServerException | None) -> None:
        """The stock client's callback: an answer, an in-stream error (no status) or the end of the call."""
        at_ns = time.monotonic_ns()
        if error is not None and error.status() is not None:
            end = _stream_end(error)
            self._post(lambda: self._ended(end, at_ns))
            return
        if error is not None:
            reply = self._codec.reply(error.message(), tritonclient.grpc.service_pb2.ModelInferResponse())
        else:
            reply = self._codec.reply("", result.get_response())
        self._post(lambda: self._listener.on_reply(reply, at_ns))

    def _post(self, tell: Callable[[], None]) -> None:
        self._inbox.append(tell)
        self._wake.send()

    def _deliver(self) -> None:
        while self._inbox and not self._is_over:
            guarded(self._inbox.popleft())

    def _ended(self, end: StreamEnd, at_ns: int) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._wake.stop()
        self._on_end(self)
        guarded(self._listener.on_end, end, at_ns)

    def dispose(self) -> None:
        """Cancel and close the client. Joins its thread without a limit, so nobody waits for this one without."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()


class TritonclientTransport:
    """Streams over the stock tritonclient (see :class:`seqstress.protocol.Transport`)."""

    tells_error_ids = False

    def __init__(
        self,
        target: str,
        *,
        tls: TlsOptions | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        connect_timeout_s: float = 5.0,
    ) -> None:
        if tls is not None and not tls.verify:
            raise InputError("TLS: the stock tritonclient cannot skip verification. Give a ca_file")
        self.endpoint = Endpoint.parse(target)
        self._tls = tls
        self._headers = dict(metadata_headers(metadata))
        self._connect_timeout_s = connect_timeout_s
        self._streams: set[ReferenceStream] = set()
        self._disposals: dict[ReferenceStream, _Background] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<TritonclientTransport {self.endpoint} streams={len(self._streams)}>"

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def connections(self) -> int:
        """How many TCP connections that takes: one each."""
        return len(self._streams)

    def open_stream(self, binding: Binding, listener: StreamListener) -> ReferenceStream:
        """Open a stream on a connection of its own. Raises ConnectError."""
        if self._is_closed:
            raise ConnectError("the transport is closed")
        if _is_patched():
            _let_grpc_yield_to_gevent()
        client = self._client()
        if error := self._check(client):
            client.close()
            raise ConnectError(f"{self.endpoint}: {error.message()}")
        stream = ReferenceStream(client, Codec(binding), listener, self._headers, self._dispose)
        self._streams.add(stream)
        if _is_patched():
            _give_threads(len(self._streams) + len(self._disposals))
        return stream

    def close(self) -> None:
        """End every stream (``LOCAL``); waits for gRPC to let go of them, but never for longer than a second."""
        self._is_closed = True
        for stream in list(self._streams):
            stream.reset()
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for disposal in list(self._disposals.values()):
            disposal.join(max(0.0, deadline - time.monotonic()))

    def _dispose(self, stream: ReferenceStream) -> None:
        self._streams.discard(stream)

        def dispose() -> None:
            stream.dispose()
            self._disposals.pop(stream, None)

        self._disposals[stream] = _start(dispose)

    def _check(self, client: Any) -> InferenceServerException | None:
        """Why the server cannot be reached, if so."""

        def call() -> InferenceServerException | None:
            try:
                client.is_server_live(client_timeout=self._connect_timeout_s)
            except InferenceServerException as error:
                return error
            return None

        # Where gevent has not patched threads, gRPC would stop the event loop: a native thread makes the call.
        return call() if _is_patched() else gevent.get_hub().threadpool.apply(call)

    def _client(self) -> Any:
        if self._tls is None:
            return tritonclient.grpc.InferenceServerClient(str(self.endpoint), channel_args=_CHANNEL_OPTIONS)
        options = list(_CHANNEL_OPTIONS)
        if self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        files = self._tls.ca_file, self._tls.key_file, self._tls.cert_file
        return tritonclient.grpc.InferenceServerClient(
            str(self.endpoint),
            creds=grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files)),
            ssl=True,
            channel_args=options,
        )


class _Background(Protocol):
    """What can be waited for: a thread, or a greenlet."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over, at most for ``timeout``."""


def _is_patched() -> bool:
    """Whether gevent has taken the place of threads in this process, as in Locust's."""
    return bool(monkey.is_module_patched("threading"))


def _start(target: Callable[[], None]) -> _Background:
    """Run in the background what may block. A patched ``Thread.start`` blocks, which the event loop may not."""
    if _is_patched():
        return cast(_Background, gevent.spawn(target))
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


@cache
def _let_grpc_yield_to_gevent() -> None:
    """Make gRPC's waits yield to gevent's loop. Without it a patched process deadlocks at its first stream."""
    from grpc.experimental import gevent as grpc_gevent

    grpc_gevent.init_gevent()


def _give_threads(channels: int) -> None:
    """Let the event loop's thread pool, of ten at first, have a thread for each channel.

    Under gevent gRPC waits for the next event of a channel in a thread of this pool, for as long as none comes. With
    more channels than threads those of idle channels would keep the others' answers waiting, for ever.
    """
    pool = gevent.get_hub().threadpool
    pool.maxsize = max(pool.maxsize, _OTHER_THREADS + channels)


def _array(binding: Binding, call: Call) -> Any:
    """The input tensor, full of the call's value."""
    if binding.input.dtype is Dtype.BYTES:
        return numpy.full(binding.input.shape, b"%d" % call.value, dtype=object)
    return numpy.full(binding.input.shape, call.value, dtype=_NUMPY_DTYPES[binding.input.dtype])


def _stream_end(error: InferenceServerException) -> StreamEnd:
    """What an error with a status says of the end, as far as gRPC's core lets us know."""
    name = str(error.status()).removeprefix("StatusCode.")
    code: int = grpc.StatusCode[name].value[0]
    text = str(error.message())
    lowered = text.lower()
    if "rst_stream" in lowered:
        return StreamEnd(EndCause.RESET, code, text)
    if code == grpc_status.UNAVAILABLE:
        if "goaway" in lowered:
            return StreamEnd(EndCause.GOAWAY, code, text)
        if any(failure in lowered for failure in _TRANSPORT_FAILURES):
            return StreamEnd(EndCause.DISCONNECTED, None, text)
    return StreamEnd(EndCause.STATUS, code, text)
