"""One TCP connection to the server, on gevent: a reader greenlet, and writes joined per turn of the event
loop.

All bytes go through :class:`~seqstress.wire.machine.Machine`. Nobody who sends ever waits: what the socket or
the windows do not take stays queued, in order, until they do.
"""

import contextlib
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event as GeventEvent

from seqstress.errors import ConnectError
from seqstress.protocol import EndCause, StreamEnd
from seqstress.wire.callback import guarded
from seqstress.wire.endpoint import Endpoint
from seqstress.wire.events import Closed, Event, MessagesReceived, Opened, Sent, StreamEnded
from seqstress.wire.machine import Machine, MachineState
from seqstress.wire.tls import TlsLayer

_log = logging.getLogger(__name__)
_READ_SIZE = 65536
_READABLE, _WRITABLE = 1, 2  # libev's EV_READ and EV_WRITE


class Receiver(Protocol):
    """Who owns one call on a connection is told about it; times are monotonic nanoseconds. Never blocks."""

    def on_sent(self, count: int, at_ns: int) -> None:
        """The next ``count`` messages have been handed to the kernel."""

    def on_messages(self, messages: list[bytes], at_ns: int) -> None:
        """Whole messages came in."""

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        """The call is over; nothing follows."""


class Connection:
    """An open connection; its calls are known by their stream ids.

    Receivers are called in the reader greenlet (messages, ends), in the hub (sent) or in the greenlet that
    resets or closes. One that raises is logged, and the connection goes on for the others.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sock: gevent_socket.socket,
        tls: TlsLayer | None,
        machine: Machine,
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self.endpoint = endpoint
        self.machine = machine
        self.opened = GeventEvent()
        """Set once the peer's SETTINGS are in, or the connection is closed."""
        self.end: StreamEnd | None = None
        """Why the connection is over."""
        self._socket = sock
        self._tls = tls
        self._on_closed = on_closed
        self._receivers: dict[int, Receiver] = {}
        self._unsent = memoryview(b"")
        self._handed_over = 0  # bytes of the machine's output that the kernel has
        self._unreported: deque[Sent] = deque()
        self._is_flush_due = False
        self._is_write_broken = False
        self._loop = gevent.get_hub().loop
        self._readable: Any = self._loop.io(sock.fileno(), _READABLE)
        self._writable: Any = self._loop.io(sock.fileno(), _WRITABLE)
        self._reader = gevent.spawn(self._read)
        self._reader.name = f"wire-reader-{endpoint}"
        self._schedule_flush()

    def __repr__(self) -> str:
        return f"<Connection {self.endpoint} unsent={len(self._unsent)} {self.machine!r}>"

    @property
    def can_open(self) -> bool:
        """Whether the peer takes one more call."""
        return self.end is None and self.machine.can_open

    @property
    def is_draining(self) -> bool:
        """Whether the peer has said GOAWAY: open calls go on, new ones need another connection."""
        return self.machine.state is MachineState.DRAINING

    @property
    def stream_count(self) -> int:
        """How many calls are open."""
        return self.machine.stream_count

    def open(self, headers: Sequence[tuple[str, str]], receiver: Receiver) -> int:
        """Start a call; its stream id."""
        stream_id = self.machine.open(headers)
        self._receivers[stream_id] = receiver
        self._schedule_flush()
        return stream_id

    def send(self, stream_id: int, messages: Iterable[bytes]) -> None:
        """Queue framed messages; they leave at the end of this turn of the loop, with all others."""
        self.machine.send(stream_id, messages)
        if not self._is_flush_due:
            self._schedule_flush()

    def end_call(self, stream_id: int) -> None:
        """Half-close the call behind what is queued."""
        self.machine.end(stream_id)
        self._schedule_flush()

    def reset(self, stream_id: int) -> None:
        """Cancel the call; its receiver is told before this returns."""
        at_ns = time.monotonic_ns()
        self._dispatch(self.machine.reset(stream_id), at_ns)
        self._end_early([stream_id], StreamEnd(EndCause.LOCAL, None, "reset by us"), at_ns)
        self._schedule_flush()

    def close(self) -> None:
        """End all calls (LOCAL) and the connection; what the kernel takes at once still leaves. Idempotent."""
        if self.end is not None:
            return
        events = self.machine.close()
        self._flush()
        self._dispatch(events, time.monotonic_ns())

    def _schedule_flush(self) -> None:
        if not self._is_flush_due and not self._unsent and self.end is None:
            self._is_flush_due = True
            self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        """Hand over what there is, as far as the kernel takes it; the rest when the socket is writable."""
        self._is_flush_due = False
        if self.end is not None or self._is_write_broken:
            return
        try:
            while self._unsent or self._fill():
                try:
                    count = self._socket.send(self._unsent)
                except BlockingIOError:
                    count = 0
                self._unsent = self._unsent[count:]
                if self._unsent:
                    self._writable.start(self._flush)
                self._report_sent(count)
                if self._unsent or self.end is not None:  # a listener may have closed us
                    return
            self._writable.stop()
        except OSError:
            # What the peer said before may still be unread: the reader finds the end behind it.
            self._is_write_broken = True
            self._writable.stop()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _fill(self) -> bool:
        """Take the machine's next output; whether there is any."""
        data, sent = self.machine.take()
        if self._tls is not None:
            data = self._tls.encrypt(data) if data else self._tls.take_records()
            # A message is in the kernel when the records of the whole batch are.
            position = self._handed_over + len(data)
            sent = [mark._replace(position=position) for mark in sent]
        self._unreported += sent
        self._unsent = memoryview(data)
        return bool(data)

    def _report_sent(self, count: int) -> None:
        self._handed_over += count
        if not self._unreported or self._unreported[0].position > self._handed_over:
            return
        at_ns = time.monotonic_ns()
        while self._unreported and self._unreported[0].position <= self._handed_over:
            stream_id, messages, _ = self._unreported.popleft()
            if receiver := self._receivers.get(stream_id):
                guarded(receiver.on_sent, messages, at_ns)

    def _read(self) -> None:
        """The reader greenlet: read, understand, tell, until the connection is over."""
        try:
            self._read_on()
        except Exception as error:  # noqa: BLE001 - the root of a greenlet; every stream must still end
            _log.exception("the reader of %r failed", self)
            self._lost(f"our own reader failed: {error!r}")

    def _read_on(self) -> None:
        hub = gevent.get_hub()
        if self._tls is not None:
            self._received(b"", time.monotonic_ns())  # what came in behind the handshake
        while self.end is None:
            hub.wait(self._readable)
            try:
                data = self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lost(f"the connection broke: {error}")
                return
            if data:
                self._received(data, time.monotonic_ns())
            else:
                self._lost("the server closed the connection")

    def _received(self, data: bytes, at_ns: int) -> None:
        is_over = False
        if self._tls is not None:
            try:
                data, is_over = self._tls.decrypt(data)
            except ssl.SSLError as error:
                self._lost(f"TLS: {error}")
                return
        self._dispatch(self.machine.receive(data), at_ns)
        if is_over:
            self._lost("the server closed the TLS session")
        elif self.machine.state is MachineState.DRAINING and not self.machine.stream_count:
            self.close()
        elif self.machine.has_output or self._tls is not None:
            self._schedule_flush()

    def _lost(self, text: str) -> None:
        self._dispatch(self.machine.lose(text), time.monotonic_ns())

    def _dispatch(self, events: list[Event], at_ns: int) -> None:
        """Tell the receivers. One that was told the end, or reset its call meanwhile, is told nothing more."""
        for event in events:
            match event:
                case MessagesReceived(stream_id, messages):
                    if receiver := self._receivers.get(stream_id):
                        guarded(receiver.on_messages, messages, at_ns)
                case StreamEnded(stream_id, end):
                    if receiver := self._receivers.pop(stream_id, None):
                        guarded(receiver.on_end, end, at_ns)
                case Opened():
                    self.opened.set()
                case Closed(end):
                    self._tear_down(end, at_ns)

    def _end_early(self, stream_ids: list[int], end: StreamEnd, at_ns: int) -> None:
        """Tell receivers whose end is known to the machine, but waits behind what is being dispatched just now."""
        for stream_id in stream_ids:
            if receiver := self._receivers.pop(stream_id, None):
                guarded(receiver.on_end, end, at_ns)

    def _tear_down(self, end: StreamEnd, at_ns: int) -> None:
        """Nothing is read or written any more, but for a last GOAWAY where we found the peer at fault."""
        if self.end is not None:
            return
        if end.cause is EndCause.PROTOCOL:
            self._flush()
        self.end = end
        self._readable.close()
        self._writable.close()
        self._socket.close()
        self.opened.set()
        self._on_closed(self)
        self._end_early(list(self._receivers), end, at_ns)
        if gevent.getcurrent() is not self._reader:
            self._reader.kill(block=False)


def connect(
    endpoint: Endpoint,
    tls: ssl.SSLContext | None,
    server_name: str,
    timeout_s: float,
    on_closed: Callable[[Connection], None],
) -> Connection:
    """A connection whose peer has shown that it speaks HTTP/2. Blocks this greenlet; raises ConnectError."""
    with gevent.Timeout(timeout_s) as timer:
        try:
            return _connect(endpoint, tls, server_name, on_closed)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            raise ConnectError(f"{endpoint}: no connection within {timeout_s:g} s") from None
    raise AssertionError("unreachable")


def _connect(
    endpoint: Endpoint,
    context: ssl.SSLContext | None,
    server_name: str,
    on_closed: Callable[[Connection], None],
) -> Connection:
    try:
        sock = gevent_socket.create_connection((endpoint.host, endpoint.port))
    except OSError as error:
        raise ConnectError(f"{endpoint}: {error.strerror or error}") from error
    try:
        _tune(sock)
        layer = None
        if context is not None:
            layer = TlsLayer(context, server_name)
            layer.handshake(sock)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConnectError(f"{endpoint}: {error}") from error
    except BaseException:
        sock.close()
        raise
    connection = Connection(endpoint, sock, layer, Machine(), on_closed)
    try:
        connection.opened.wait()
    except BaseException:
        connection.close()
        raise
    if connection.end is not None:
        raise ConnectError(f"{endpoint}: not a gRPC server? {connection.end.text}")
    return connection


def _tune(sock: gevent_socket.socket) -> None:
    """Small writes leave at once, and a peer that has vanished without a word is noticed within about 30 s."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if option := getattr(socket, name, None):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if option := getattr(socket, "TCP_USER_TIMEOUT", None):  # Linux, in milliseconds: unacknowledged data
        sock.setsockopt(socket.IPPROTO_TCP, option, 30_000)
