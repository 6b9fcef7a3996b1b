"""One HTTP/2 connection that carries gRPC calls, without I/O: bytes and calls in, events and bytes out.

`h2` owns the protocol: SETTINGS, header blocks, resets, pings, the states of streams. Three frame types never
reach it. DATA and WINDOW_UPDATE are the hot path, and the windows must have one owner (see
:mod:`seqstress.wire.flow`). GOAWAY closes an `h2` connection for good, while HTTP/2 lets the streams below
its limit finish (RFC 9113, 6.8).
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from struct import Struct

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from seqstress.protocol import EndCause, StreamEnd
from seqstress.wire.events import Closed, Event, MessagesReceived, Opened, Output, Sent, StreamEnded
from seqstress.wire.flow import DEFAULT_WINDOW, ReceiveWindow, SendWindow, WindowError
from seqstress.wire.framing import FramingError
from seqstress.wire.grpc_status import header_map, outcome, refusal
from seqstress.wire.machine_stream import MachineStream

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 64 << 20
OUTPUT_BATCH = 1 << 20
"""About how many bytes one :meth:`Machine.take` hands out: what more is queued waits unframed."""

REPLY_LIMIT = 256 << 10
"""Bytes that may wait to be taken. Messages are framed when they are taken, so these are replies to PING and SETTINGS,
window updates and headers: a peer that makes us queue that many of them would fill our memory."""

_FRAME_HEADER = Struct(">IBI")  # length (24 bits) and type (8 bits), flags, stream id
_FRAME_HEADER_SIZE = 9
_INCREMENT = Struct(">I")
_STREAM_ID_MASK = 0x7FFFFFFF
_LARGEST_STREAM_ID = 0x7FFFFFFF
_RECEIVED_FRAME_LIMIT = 16384

_DATA, _HEADERS, _SETTINGS, _PUSH_PROMISE, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 4, 5, 7, 8, 9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8


class MachineState(Enum):
    """How far the connection is."""

    OPENING = "opening"
    """The peer has not sent its SETTINGS yet."""
    OPEN = "open"
    DRAINING = "draining"
    """The peer sent GOAWAY: what it accepted goes on, nothing new may start."""
    CLOSED = "closed"


class _ConnectionError(Exception):
    """The peer broke a rule that ends the connection (RFC 9113, section 5.4.1)."""

    def __init__(self, code: ErrorCodes, text: str) -> None:
        self.code = code
        super().__init__(text)


class Machine:
    """The client's side of one connection.

    Every stream that was opened gets exactly one :class:`StreamEnded`, and no event after it. Calls of
    streams that are over do nothing: the peer may have ended them a moment ago. Output is taken with
    :meth:`take`; it is in the order in which it must reach the peer.
    """

    def __init__(self, stream_window: int = STREAM_WINDOW, connection_window: int = CONNECTION_WINDOW) -> None:
        self.state = MachineState.OPENING
        self._streams: dict[int, MachineStream] = {}
        self._ready: dict[int, MachineStream] = {}  # streams with pending bytes and an open window, in turn
        self._output: list[bytes] = []
        self._position = 0  # how many bytes of output there ever were
        self._taken = 0  # how many of them were taken
        self._tail = b""
        self._is_in_header_block = False
        self._next_stream_id = 1
        self._initial_send_window = DEFAULT_WINDOW
        self._largest_sent_frame = 16384
        self._send_window = SendWindow(DEFAULT_WINDOW)
        self._stream_window = stream_window
        self._receive_window = ReceiveWindow(connection_window)
        # Outbound headers are our own, so that checking them for each stream would only cost time.
        self._h2 = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
        self._h2.local_settings = Settings(
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
                SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
            }
        )
        self._h2.initiate_connection()
        self._drain_h2()
        if connection_window > DEFAULT_WINDOW:
            self._grant(0, connection_window - DEFAULT_WINDOW)

    def __repr__(self) -> str:
        pending = sum(stream.pending_size for stream in self._streams.values())
        return (
            f"<Machine {self.state.value} streams={self.stream_count}/{self.stream_limit} "
            f"pending={pending} window={self._send_window.left}>"
        )

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def stream_limit(self) -> int:
        """How many streams the peer allows at once."""
        return self._h2.remote_settings.max_concurrent_streams

    @property
    def can_open(self) -> bool:
        """Whether one more stream may be opened now."""
        return (
            self.state is MachineState.OPEN
            and len(self._streams) < self.stream_limit
            and self._next_stream_id <= _LARGEST_STREAM_ID
        )

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give bytes."""
        return bool(self._output or (self._ready and self._send_window.left > 0))

    def open(self, headers: Sequence[tuple[str, str]]) -> int:
        """Start a call; the id of its stream. The caller has seen :attr:`can_open`."""
        stream_id = self._next_stream_id
        self._h2.send_headers(stream_id, headers)
        self._next_stream_id += 2
        self._drain_h2()
        self._streams[stream_id] = MachineStream(stream_id, self._initial_send_window, self._stream_window)
        return stream_id

    def send(self, stream_id: int, messages: Iterable[bytes]) -> None:
        """Queue framed messages behind those that wait. Not after :meth:`end`."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.queue(messages)
        if stream.is_ready:
            self._ready[stream_id] = stream

    def end(self, stream_id: int) -> None:
        """Half-close: say, behind what waits, that no more messages follow."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.wants_end:
            return
        stream.wants_end = True
        if not stream.pending_size:
            self._send_end(stream)

    def reset(self, stream_id: int) -> list[Event]:
        """Cancel the call: what is not framed yet is never sent."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        return [self._abandon(stream, ErrorCodes.CANCEL, StreamEnd(EndCause.LOCAL, None, "reset by us"))]

    def close(self) -> list[Event]:
        """End the connection in order, as far as one side can: GOAWAY is the last output."""
        if self.state is MachineState.CLOSED:
            return []
        self._h2.close_connection()
        self._drain_h2()
        return self._closed(StreamEnd(EndCause.LOCAL, None, "the connection was closed by us"))

    def lose(self, text: str) -> list[Event]:
        """The transport under the connection broke or ended."""
        return self._closed(StreamEnd(EndCause.DISCONNECTED, None, text))

    def take(self) -> Output:
        """The next bytes for the peer, :data:`OUTPUT_BATCH` or a frame more, as far as the windows allow."""
        sent: list[Sent] = []
        limit = self._position + OUTPUT_BATCH
        while self._ready and self._send_window.left > 0 and self._position < limit:
            stream = self._ready.pop(next(iter(self._ready)))
            data, count = stream.take(min(self._send_window.left, self._largest_sent_frame))
            self._send_window.left -= len(data)
            self._append(_FRAME_HEADER.pack(len(data) << 8, 0, stream.stream_id))
            self._append(data)
            if count:
                sent.append(Sent(stream.stream_id, count, self._position))
            if stream.is_ready:
                self._ready[stream.stream_id] = stream  # behind the others: each in turn
            elif stream.wants_end and not stream.pending_size:
                self._send_end(stream)
        data = b"".join(self._output)
        self._output.clear()
        self._taken = self._position
        return Output(data, sent)

    def receive(self, data: bytes) -> list[Event]:
        """What the peer's next bytes mean, wherever they are cut."""
        events: list[Event] = []
        if self.state is MachineState.CLOSED:
            return events
        if self._tail:
            data = self._tail + data
        position, end = 0, len(data)
        try:
            while end - position >= _FRAME_HEADER_SIZE:
                length, flags, stream_id = _FRAME_HEADER.unpack_from(data, position)
                frame_type, length = length & 0xFF, length >> 8
                if length > _RECEIVED_FRAME_LIMIT or self.state is MachineState.OPENING:
                    self._check_frame(frame_type, length)
                start = position + _FRAME_HEADER_SIZE
                stop = start + length
                if stop > end:
                    break
                stream_id &= _STREAM_ID_MASK
                if self._is_in_header_block:
                    self._is_in_header_block = frame_type != _CONTINUATION or not flags & _END_HEADERS
                    self._receive_by_h2(data[position:stop], events)
                elif frame_type == _DATA:
                    self._receive_data(data, start, stop, flags, stream_id, events)
                elif frame_type == _WINDOW_UPDATE:
                    self._receive_window_update(data, start, stop, stream_id, events)
                elif frame_type == _GOAWAY:
                    self._receive_goaway(data[start:stop], stream_id, events)
                else:
                    self._is_in_header_block = frame_type in (_HEADERS, _PUSH_PROMISE) and not flags & _END_HEADERS
                    self._receive_by_h2(data[position:stop], events)
                position = stop
        except _ConnectionError as error:
            self._h2.close_connection(error.code)
            self._fail(str(error), events)
        except ProtocolError as error:  # h2 has queued a GOAWAY already
            self._fail(f"{type(error).__name__}: {error}", events)
        if self._position - self._taken > REPLY_LIMIT:
            self._output.clear()
            self._fail("the peer asks without end, and reads none of the replies", events)
        self._tail = data[position:]
        return events

    def _check_frame(self, frame_type: int, length: int) -> None:
        """Refuse garbage by its first nine bytes, instead of waiting for the megabytes that it seems to announce."""
        if self.state is MachineState.OPENING and frame_type != _SETTINGS:
            raise _ConnectionError(ErrorCodes.PROTOCOL_ERROR, "the peer does not begin with HTTP/2 SETTINGS")
        if length > _RECEIVED_FRAME_LIMIT:
            raise _ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes")

    def _receive_data(
        self, data: bytes, start: int, stop: int, flags: int, stream_id: int, events: list[Event]
    ) -> None:
        size = stop - start
        try:
            if increment := self._receive_window.consume(size):
                self._grant(0, increment)
        except WindowError as error:
            raise _ConnectionError(ErrorCodes.FLOW_CONTROL_ERROR, f"connection window: {error}") from error
        if flags & _PADDED:
            if not size or data[start] >= size:
                raise _ConnectionError(ErrorCodes.PROTOCOL_ERROR, "padding longer than its DATA frame")
            stop -= data[start]
            start += 1
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_was_open(stream_id, "DATA")
            return
        try:
            increment = stream.receive_window.consume(size)
            if not stream.has_response:
                raise FramingError("DATA before the response headers")
            messages = stream.deframer.feed(data[start:stop])
        except (WindowError, FramingError) as error:
            events.append(self._violated(stream, str(error)))
            return
        if messages:
            events.append(MessagesReceived(stream_id, messages))
        if flags & _END_STREAM:
            events.append(self._violated(stream, "the stream ended without trailers"))
        elif increment:
            self._grant(stream_id, increment)

    def _receive_by_h2(self, frame: bytes, events: list[Event]) -> None:
        for event in self._h2.receive_data(frame):
            self._translate(event, events)
        self._drain_h2()

    def _receive_window_update(self, data: bytes, start: int, stop: int, stream_id: int, events: list[Event]) -> None:
        if stop - start != _INCREMENT.size:
            raise _ConnectionError(ErrorCodes.FRAME_SIZE_ERROR, "a WINDOW_UPDATE that is not 4 bytes long")
        increment = _INCREMENT.unpack_from(data, start)[0] & _STREAM_ID_MASK
        if stream_id == 0:
            if not increment:
                raise _ConnectionError(ErrorCodes.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0 for the connection")
            try:
                self._send_window.widen(increment)
            except WindowError as error:
                raise _ConnectionError(ErrorCodes.FLOW_CONTROL_ERROR, str(error)) from error
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_was_open(stream_id, "WINDOW_UPDATE")
            return
        try:
            if not increment:
                raise WindowError("a WINDOW_UPDATE of 0")
            self._widen(stream, increment)
        except WindowError as error:
            events.append(self._violated(stream, str(error), ErrorCodes.FLOW_CONTROL_ERROR))

    def _receive_goaway(self, payload: bytes, stream_id: int, events: list[Event]) -> None:
        if stream_id != 0 or len(payload) < 8:
            raise _ConnectionError(ErrorCodes.PROTOCOL_ERROR, "a malformed GOAWAY")
        last_stream_id = _INCREMENT.unpack_from(payload)[0] & _STREAM_ID_MASK
        code = _INCREMENT.unpack_from(payload, 4)[0]
        text = f"the server went away ({_error_name(code)}"
        if debug := payload[8:].decode("utf-8", "replace"):
            text += f": {debug}"
        end = StreamEnd(EndCause.GOAWAY, None, text + ")")
        self.state = MachineState.DRAINING
        for stream in [stream for stream in self._streams.values() if stream.stream_id > last_stream_id]:
            self._forget(stream)
            events.append(StreamEnded(stream.stream_id, end))

    def _translate(self, event: h2_events.Event, events: list[Event]) -> None:
        """What an event of h2 means for the calls; the others (pings, priorities, acknowledgements) mean nothing."""
        match event:
            case h2_events.RemoteSettingsChanged():
                self._apply_settings(events)
            case (
                h2_events.ResponseReceived(stream_id=int(stream_id))
                | h2_events.TrailersReceived(stream_id=int(stream_id))
            ) if stream := self._streams.get(stream_id):
                events += self._headers_received(stream, event)
            case h2_events.StreamReset(stream_id=int(stream_id)) if stream := self._streams.get(stream_id):
                self._forget(stream)
                code = int(event.error_code or 0)
                if event.remote_reset:
                    end = StreamEnd(EndCause.RESET, None, f"RST_STREAM {_error_name(code)}")
                else:
                    end = StreamEnd(EndCause.PROTOCOL, None, _error_name(code))
                events.append(StreamEnded(stream_id, end))

    def _headers_received(
        self, stream: MachineStream, event: h2_events.ResponseReceived | h2_events.TrailersReceived
    ) -> list[Event]:
        headers = header_map(event.headers or ())
        if isinstance(event, h2_events.ResponseReceived):
            stream.has_response = True
            end = refusal(headers)
            if end is None and event.stream_ended is None:
                return []
        else:
            end = None
        if end is None:
            end = outcome(headers)
            if stream.deframer.is_inside:
                text = f"the stream ended in the middle of a message (status {end.status}: {end.text})"
                end = StreamEnd(EndCause.PROTOCOL, end.status, text)
        if event.stream_ended is None or not stream.is_ended_locally:
            return [self._abandon(stream, ErrorCodes.NO_ERROR, end)]
        self._forget(stream)
        return [StreamEnded(stream.stream_id, end)]

    def _apply_settings(self, events: list[Event]) -> None:
        settings = self._h2.remote_settings
        self._largest_sent_frame = settings.max_frame_size
        delta = settings.initial_window_size - self._initial_send_window
        self._initial_send_window = settings.initial_window_size
        try:
            for stream in self._streams.values():
                self._widen(stream, delta)
        except WindowError as error:
            raise _ConnectionError(ErrorCodes.FLOW_CONTROL_ERROR, str(error)) from error
        if self.state is MachineState.OPENING:
            self.state = MachineState.OPEN
            events.append(Opened())

    def _check_was_open(self, stream_id: int, frame_name: str) -> None:
        """Frames for streams that are over are late, and fine; frames for streams that never were are not."""
        if not stream_id & 1 or stream_id >= self._next_stream_id:
            raise _ConnectionError(
                ErrorCodes.PROTOCOL_ERROR, f"{frame_name} for stream {stream_id}, which was never opened"
            )

    def _widen(self, stream: MachineStream, increment: int) -> None:
        stream.send_window.widen(increment)
        if stream.is_ready:
            self._ready[stream.stream_id] = stream
        else:
            self._ready.pop(stream.stream_id, None)

    def _send_end(self, stream: MachineStream) -> None:
        stream.is_ended_locally = True
        self._h2.end_stream(stream.stream_id)
        self._drain_h2()

    def _grant(self, stream_id: int, increment: int) -> None:
        header = _FRAME_HEADER.pack(_INCREMENT.size << 8 | _WINDOW_UPDATE, 0, stream_id)
        self._append(header + _INCREMENT.pack(increment))

    def _drain_h2(self) -> None:
        if data := self._h2.data_to_send():
            self._append(data)

    def _append(self, data: bytes) -> None:
        self._output.append(data)
        self._position += len(data)

    def _violated(self, stream: MachineStream, text: str, code: ErrorCodes = ErrorCodes.PROTOCOL_ERROR) -> StreamEnded:
        return self._abandon(stream, code, StreamEnd(EndCause.PROTOCOL, None, text))

    def _abandon(self, stream: MachineStream, code: ErrorCodes, end: StreamEnd) -> StreamEnded:
        """End a stream from our side while the peer's, as far as h2 knows, is open."""
        self._forget(stream)
        self._h2.reset_stream(stream.stream_id, code)
        self._drain_h2()
        return StreamEnded(stream.stream_id, end)

    def _forget(self, stream: MachineStream) -> None:
        del self._streams[stream.stream_id]
        self._ready.pop(stream.stream_id, None)

    def _fail(self, text: str, events: list[Event]) -> None:
        self._drain_h2()
        events += self._closed(StreamEnd(EndCause.PROTOCOL, None, text))

    def _closed(self, end: StreamEnd) -> list[Event]:
        if self.state is MachineState.CLOSED:
            return []
        self.state = MachineState.CLOSED
        events: list[Event] = [StreamEnded(stream_id, end) for stream_id in self._streams]
        self._streams.clear()
        self._ready.clear()
        events.append(Closed(end))
        return events


def _error_name(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"code {code}"
