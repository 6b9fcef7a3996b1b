"""An HTTP/2 server, by hand, that sins beneath gRPC. Each sin has a port; the control plane is honest on all of them.

A sin strikes at the third request of a connection (so that users see right answers on the next one), or as its
docstring says.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import gevent
from gevent import socket
from gevent.server import StreamServer
from hyperframe import frame as hyperframe
from tritonclient.grpc import service_pb2

from seqstress.wire.framing import Deframer, frame
from tests.e2e.hostile.accumulator import Accumulator
from tests.e2e.hostile.control_plane import ControlPlane
from tests.wire.scripted_peer import INITIAL_WINDOW, MAX_CONCURRENT, FrameReader, Script

STRIKE = 3
INFER = "ModelStreamInfer"


class Connection:
    """One client's connection to one sin's port."""

    def __init__(self, sock: socket.socket, port: "Port") -> None:
        self.script = Script()
        self.requests = 0
        """How many inference requests came on it."""
        self._sock = sock
        self._port = port
        self._methods: dict[int, str] = {}
        self._deframers: dict[int, Deframer] = {}
        self._is_deaf = False

    def run(self) -> None:
        """Serve until the client or a sin ends it."""
        self.write(self.script.settings(self._port.settings))
        reader = FrameReader()
        while not self._is_deaf and (data := self._sock.recv(65536)):
            for received in reader.feed(data):
                self._take(received)
        while self._is_deaf:  # it reads no more, until the process ends
            gevent.sleep(1)

    def write(self, data: bytes) -> None:
        """Bytes for the client, of whatever kind."""
        self._sock.sendall(data)

    def say(self, stream_id: int, message: bytes) -> None:
        """An answer, as it should be."""
        self.write(self.script.messages(stream_id, message))

    def deafen(self) -> None:
        """Read nothing any more."""
        self._is_deaf = True

    def hang_up(self) -> None:
        """Close it."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def _take(self, received: hyperframe.Frame) -> None:
        stream_id = received.stream_id
        match received:
            case hyperframe.SettingsFrame() if "ACK" not in received.flags:
                self.write(hyperframe.SettingsFrame(0, flags=["ACK"]).serialize())
            case hyperframe.HeadersFrame():
                method = self._methods[stream_id] = received.headers[":path"].rpartition("/")[2]
                self._deframers[stream_id] = Deframer()
                if method != INFER or not self._port.begin(self, stream_id):
                    self.write(self.script.headers(stream_id))
            case hyperframe.DataFrame():
                if received.data:
                    size = len(received.data)
                    self.write(self.script.window_update(0, size) + self.script.window_update(stream_id, size))
                for message in self._deframers[stream_id].feed(received.data):
                    self._answer(stream_id, message)
                if "END_STREAM" in received.flags and self._methods[stream_id] == INFER and self._port.ends_streams:
                    self.write(self.script.trailers(stream_id))

    def _answer(self, stream_id: int, message: bytes) -> None:
        method, control = self._methods[stream_id], self._port.control
        if method in self._port.unknown:
            self.write(self.script.trailers(stream_id, "12", "no such method"))
            return
        if method != INFER:
            reply = control.answer(method, control.requests()[method].FromString(message))
            self.say(stream_id, reply.SerializeToString())
            self.write(self.script.trailers(stream_id))
            return
        self.requests += 1
        request = service_pb2.ModelInferRequest.FromString(message)
        right = self._port.accumulator.serve(request)
        if not right.error_message:
            control.served[request.model_name] += 1
        self._port.answer(self, stream_id, right.SerializeToString())


class Port:
    """A listening port and its sin; without changes, an honest server."""

    settings: ClassVar[dict[int, int]] = {}
    ends_streams = True
    unknown: tuple[str, ...] = ()
    """Unary methods that it does not know."""

    def __init__(self, deeds: Counter[str]) -> None:
        self.deeds = deeds
        self.control = ControlPlane()
        self.accumulator = Accumulator()
        self.accepted = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.number: int = self._server.server_port

    def begin(self, _connection: Connection, _stream_id: int) -> bool:
        """A stream of inferences was opened; true where that was answered already."""
        return False

    def answer(self, connection: Connection, stream_id: int, message: bytes) -> None:
        """Answer a request whose right answer is ``message``."""
        if connection.requests == STRIKE:
            self.deeds[type(self).__name__] += 1
            self.sin(connection, stream_id, message)
        else:
            connection.say(stream_id, message)

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        """What it does at the third request."""
        connection.say(stream_id, message)

    def welcomes(self) -> bool:
        """Whether it speaks with the connection that it has just accepted."""
        return True

    def _serve(self, sock: socket.socket, _address: Any) -> None:
        self.accepted += 1
        try:
            if self.welcomes():
                Connection(sock, self).run()
        except OSError:
            pass  # the client is gone, or a sin hung up
        finally:
            sock.close()


class OneStream(Port):
    """Honest, but allows one stream per connection."""

    settings: ClassVar = {MAX_CONCURRENT: 1}


class TinyWindows(Port):
    """Honest, but lets 20 bytes of a stream come at a time."""

    settings: ClassVar = {INITIAL_WINDOW: 20}


class NeverEnds(Port):
    """Honest, but never ends a stream that the client has half-closed."""

    ends_streams = False


class NoMetadata(Port):
    """Does not say who it is."""

    unknown = ("ServerMetadata",)


class ClosedAtAccept(Port):
    """Closes every connection but the two that come before the load."""

    def welcomes(self) -> bool:
        return self.accepted <= 2


class Garbage(Port):
    """Noise."""

    def sin(self, connection: Connection, _stream_id: int, _message: bytes) -> None:
        connection.write(bytes(range(256)) * 100)


class BadHeaderBlock(Port):
    """Headers that no decoder takes."""

    def sin(self, connection: Connection, stream_id: int, _message: bytes) -> None:
        connection.write(hyperframe.HeadersFrame(stream_id, b"\xff" * 30, flags=["END_HEADERS"]).serialize())


class ResetInMessage(Port):
    """Half a message, then RST_STREAM."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, frame(message)[:9]) + connection.script.reset(stream_id, 2))


class HalfMessage(Port):
    """Half a message, then silence on the whole connection."""

    def answer(self, connection: Connection, stream_id: int, message: bytes) -> None:
        if connection.requests <= STRIKE:
            super().answer(connection, stream_id, message)

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, frame(message)[:9]))


class HalfFrame(Port):
    """Half a frame, then the connection is closed."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.messages(stream_id, message)[:12])
        connection.hang_up()


class GoawayStorm(Port):
    """Goes away, a hundred times over."""

    def sin(self, connection: Connection, _stream_id: int, _message: bytes) -> None:
        connection.write(connection.script.goaway(0, 11, b"calm down") * 100)


class Refused(Port):
    """REFUSED_STREAM for every stream but the first of a connection."""

    def begin(self, connection: Connection, stream_id: int) -> bool:
        if stream_id == 1:
            return False
        self.deeds["Refused"] += 1
        connection.write(connection.script.reset(stream_id, 7))
        return True


class Silent(Port):
    """Its streams hang: nothing is ever answered."""

    def answer(self, _connection: Connection, _stream_id: int, _message: bytes) -> None:
        self.deeds["Silent"] += 1


class Deaf(Port):
    """Stops reading, and answers nothing any more."""

    def sin(self, connection: Connection, _stream_id: int, _message: bytes) -> None:
        connection.deafen()


class EarlyTrailers(Port):
    """Status OK in the middle of a message."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, frame(message)[:9]))
        connection.write(connection.script.trailers(stream_id))


class NoTrailers(Port):
    """Ends the stream without a status."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, frame(message), end=True))


class Compressed(Port):
    """A message with the compression flag."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, b"\x01" + frame(message)[1:]))


class HugePrefix(Port):
    """Announces a message of 2 GiB."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.data(stream_id, b"\x00\x7f\xff\xff\xff" + message))


class HttpError(Port):
    """A proxy's page in place of every stream."""

    def begin(self, connection: Connection, stream_id: int) -> bool:
        self.deeds["HttpError"] += 1
        headers = [(":status", "503"), ("content-type", "text/html")]
        connection.write(connection.script.headers(stream_id, headers, end=True))
        return True


class PingFlood(Port):
    """Thousands of PINGs, then the right answer."""

    def sin(self, connection: Connection, stream_id: int, message: bytes) -> None:
        connection.write(connection.script.ping() * 5000)
        connection.say(stream_id, message)


def main() -> None:
    """Serve all sins until stdin ends."""
    deeds: Counter[str] = Counter()
    kinds: list[Callable[[Counter[str]], Port]] = [Port, *Port.__subclasses__()]
    ports = [kind(deeds) for kind in kinds]
    print(json.dumps({type(port).__name__: port.number for port in ports}), flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    print(json.dumps(deeds), flush=True)


if __name__ == "__main__":
    main()
