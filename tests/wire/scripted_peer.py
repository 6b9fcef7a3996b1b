"""The server's side of scripted HTTP/2 conversations: frames from hyperframe, header blocks from hpack.

Deliberately not h2: a test must be able to send what h2 would refuse to.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import gevent
import hpack
from gevent import socket
from gevent.event import Event
from h2.settings import SettingCodes
from hyperframe import frame as hyperframe

from seqstress.protocol import Binding, Dtype, Reply, StreamEnd, TensorSpec
from seqstress.wire.framing import frame
from seqstress.wire.machine import Machine

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST_HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "peer")]
RESPONSE_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
INPUT = TensorSpec("INPUT", Dtype.INT32, (1, 1))
BINDING = Binding("accumulator", "", INPUT, INPUT._replace(name="OUTPUT"), False)
MAX_CONCURRENT = int(SettingCodes.MAX_CONCURRENT_STREAMS)
INITIAL_WINDOW = int(SettingCodes.INITIAL_WINDOW_SIZE)
MAX_FRAME = int(SettingCodes.MAX_FRAME_SIZE)


class Script:
    """Makes a server's bytes; header compression has a state, so one Script serves one connection."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def settings(self, settings: dict[int, int] | None = None) -> bytes:
        return hyperframe.SettingsFrame(0, settings=settings or {}).serialize()

    def block(self, headers: Sequence[tuple[str, str]]) -> bytes:
        return self._encoder.encode(headers)

    def headers(
        self, stream_id: int, headers: Sequence[tuple[str, str]] = RESPONSE_HEADERS, end: bool = False
    ) -> bytes:
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return hyperframe.HeadersFrame(stream_id, self.block(headers), flags=flags).serialize()

    def trailers(self, stream_id: int, status: str = "0", message: str = "") -> bytes:
        return self.headers(stream_id, [("grpc-status", status), ("grpc-message", message)], end=True)

    def data(self, stream_id: int, payload: bytes, end: bool = False, pad: int | None = None) -> bytes:
        flags = ["END_STREAM"] if end else []
        if pad is None:
            return hyperframe.DataFrame(stream_id, payload, flags=flags).serialize()
        return hyperframe.DataFrame(stream_id, payload, pad_length=pad, flags=[*flags, "PADDED"]).serialize()

    def messages(self, stream_id: int, *messages: bytes) -> bytes:
        return self.data(stream_id, b"".join(map(frame, messages)))

    def window_update(self, stream_id: int, increment: int) -> bytes:
        return hyperframe.WindowUpdateFrame(stream_id, window_increment=increment).serialize()

    def reset(self, stream_id: int, code: int = 8) -> bytes:
        return hyperframe.RstStreamFrame(stream_id, error_code=code).serialize()

    def goaway(self, last_stream_id: int, code: int = 0, debug: bytes = b"") -> bytes:
        return hyperframe.GoAwayFrame(
            0, last_stream_id=last_stream_id, error_code=code, additional_data=debug
        ).serialize()

    def ping(self) -> bytes:
        return hyperframe.PingFrame(0, opaque_data=b"pingpong").serialize()


class FrameReader:
    """Cuts a client's bytes into frames, past the preface."""

    def __init__(self) -> None:
        self._bytes = b""
        self._is_past_preface = False
        self._decoder = hpack.Decoder()

    def feed(self, data: bytes) -> list[hyperframe.Frame]:
        self._bytes += data
        frames = []
        if not self._is_past_preface and len(self._bytes) >= len(PREFACE):
            assert self._bytes.startswith(PREFACE)
            self._bytes = self._bytes[len(PREFACE) :]
            self._is_past_preface = True
        while self._is_past_preface and len(self._bytes) >= 9:
            parsed, length = hyperframe.Frame.parse_frame_header(memoryview(self._bytes[:9]))
            if len(self._bytes) < 9 + length:
                break
            parsed.parse_body(memoryview(self._bytes[9 : 9 + length]))
            self._bytes = self._bytes[9 + length :]
            if isinstance(parsed, hyperframe.HeadersFrame):
                parsed.headers = dict(self._decoder.decode(parsed.data))
            frames.append(parsed)
        return frames


class Conversation:
    """A machine and the script of its peer, with the peer's SETTINGS exchanged."""

    def __init__(self, settings: dict[int, int] | None = None, *, widen: bool = True, **windows: int) -> None:
        self.machine = Machine(**windows)
        self.script = Script()
        self._reader = FrameReader()
        self.hello = self.frames()
        self.events = self.machine.receive(self.script.settings(settings))
        if widen:
            self.machine.receive(self.script.window_update(0, 1 << 20))
        self.frames()

    def frames(self) -> list[hyperframe.Frame]:
        """What the machine has to say, all of it."""
        frames = []
        while self.machine.has_output:
            frames += self._reader.feed(self.machine.take().data)
        return frames

    def open(self, count: int = 1) -> int:
        """Open streams whose response headers are in; the id of the last."""
        for _ in range(count):
            stream_id = self.machine.open(REQUEST_HEADERS)
            assert self.machine.receive(self.script.headers(stream_id)) == []
        self.frames()
        return stream_id

    def sent_bytes(self, stream_id: int) -> bytes:
        """The DATA that the machine has for a stream now."""
        return b"".join(
            sent.data
            for sent in self.frames()
            if isinstance(sent, hyperframe.DataFrame) and sent.stream_id == stream_id
        )


class RecordingListener:
    """Keeps everything that it is told, in order; tests wait on it."""

    def __init__(self) -> None:
        self.sent = 0
        self.replies: list[Reply] = []
        self.end: StreamEnd | None = None
        self.told: list[str] = []
        self._changed = Event()

    def on_sent(self, count: int, at_ns: int) -> None:
        assert at_ns > 0
        self.sent += count
        self._tell("sent")

    def on_reply(self, reply: Reply, at_ns: int) -> None:
        assert at_ns > 0
        self.replies.append(reply)
        self._tell("reply")

    def on_end(self, end: StreamEnd, at_ns: int) -> None:
        assert at_ns > 0
        self.end = end
        self._tell("end")

    def wait(self, condition: Callable[["RecordingListener"], bool], timeout: float = 20) -> None:
        with gevent.Timeout(timeout):
            while not condition(self):
                self._changed.wait()
                self._changed.clear()

    def _tell(self, what: str) -> None:
        assert "end" not in self.told, f"{what} after the end"
        self.told.append(what)
        self._changed.set()


class Peer:
    """A scripted server on a real socket; each connection runs ``serve(peer, sock)`` in a greenlet."""

    def __init__(self, serve: Callable[["PeerConnection"], None], settings: dict[int, int] | None) -> None:
        self.accepted: list[PeerConnection] = []
        self._serve = serve
        self._settings = settings
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._greenlets = [gevent.spawn(self._accept)]

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            connection = PeerConnection(sock, self._settings)
            self.accepted.append(connection)
            self._greenlets.append(gevent.spawn(self._run, connection))

    def _run(self, connection: "PeerConnection") -> None:
        with contextlib.suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        gevent.killall(self._greenlets)
        self._listener.close()
        for connection in self.accepted:
            connection.sock.close()


class PeerConnection:
    """The server's end of one connection: reads frames, sends scripted bytes."""

    def __init__(self, sock: socket.socket, settings: dict[int, int] | None) -> None:
        self.sock = sock
        self.script = Script()
        self.open_streams: set[int] = set()
        self.frames: list[hyperframe.Frame] = []
        self._reader = FrameReader()
        self._settings = settings

    def greet(self) -> None:
        self.sock.sendall(self.script.settings(self._settings))

    def read(self) -> Iterator[hyperframe.Frame]:
        """Every frame of the client until it closes."""
        while data := self.sock.recv(65536):
            for received in self._reader.feed(data):
                self.frames.append(received)
                if isinstance(received, hyperframe.HeadersFrame):
                    self.open_streams.add(received.stream_id)
                elif isinstance(received, hyperframe.RstStreamFrame):
                    self.open_streams.discard(received.stream_id)
                yield received

    def serve_until(self, condition: Callable[[hyperframe.Frame], bool]) -> hyperframe.Frame:
        """The first frame for which the condition holds."""
        return next(received for received in self.read() if condition(received))
