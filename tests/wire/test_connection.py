"""The transport on real sockets against a scripted peer: order, back-pressure, ends, sharing, TLS."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent import ssl as gevent_ssl
from gevent.event import Event
from hyperframe import frame as hyperframe
from tritonclient.grpc import service_pb2

from seqstress.errors import ConnectError, InputError, RpcError, StreamClosedError
from seqstress.protocol import Call, EndCause, Reply, StreamEnd
from seqstress.wire.endpoint import TlsOptions
from seqstress.wire.framing import Deframer, frame
from seqstress.wire.transport import Http2Transport
from tests.wire.scripted_peer import BINDING, INITIAL_WINDOW, MAX_CONCURRENT, Peer, PeerConnection, RecordingListener

TLS = Path(__file__).parent / "tls"
Serve = Callable[[PeerConnection], None]
MakePeer = Callable[..., Peer]
MakeTransport = Callable[..., Http2Transport]


@pytest.fixture
def make_peer() -> Iterator[MakePeer]:
    peers = []

    def make(serve: Serve, settings: dict[int, int] | None = None) -> Peer:
        peers.append(Peer(serve, settings))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def make_transport() -> Iterator[MakeTransport]:
    transports = []

    def make(peer: Peer, **options: object) -> Http2Transport:
        transports.append(Http2Transport(peer.target, **options))
        return transports[-1]

    yield make
    for transport in transports:
        transport.close()


def answer(request: service_pb2.ModelInferRequest) -> bytes:
    """Echo the input under the request's id."""
    response = service_pb2.ModelStreamInferResponse()
    response.infer_response.model_name, response.infer_response.id = request.model_name, request.id
    response.infer_response.outputs.add(name="OUTPUT", datatype="INT32", shape=[1, 1])
    response.infer_response.raw_output_contents.extend(request.raw_input_contents)
    return response.SerializeToString()


def echo(connection: PeerConnection) -> None:
    """A server of an echo model; ends a stream when the client has."""
    connection.greet()
    script = connection.script
    deframers: dict[int, Deframer] = {}
    for received in connection.read():
        stream = received.stream_id
        if isinstance(received, hyperframe.HeadersFrame):
            deframers[stream] = Deframer()
            connection.sock.sendall(script.headers(stream))
        elif isinstance(received, hyperframe.DataFrame):
            messages = deframers[stream].feed(received.data)
            requests = [service_pb2.ModelInferRequest.FromString(message) for message in messages]
            if received.data:
                window = script.window_update(stream, len(received.data))
                window += script.window_update(0, len(received.data))
                connection.sock.sendall(window + script.messages(stream, *map(answer, requests)))
            if "END_STREAM" in received.flags:
                connection.open_streams.discard(stream)
                connection.sock.sendall(script.trailers(stream))


def silent(connection: PeerConnection) -> None:
    """Speaks HTTP/2, answers nothing."""
    connection.greet()
    for _ in connection.read():
        pass


def calls(first: int, count: int) -> list[Call]:
    return [Call(f"r{n}", 7, n == 0, False, n) for n in range(first, first + count)]


def ended(listener: RecordingListener) -> bool:
    return listener.end is not None


def values(replies: list[Reply]) -> list[object]:
    return [reply.value for reply in replies]


def test_a_pipelined_sequence_leaves_in_one_frame_and_is_answered_in_order(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(echo)
    transport = make_transport(peer)
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    stream.send(calls(0, 8))
    stream.send(calls(8, 8))
    listener.wait(lambda it: len(it.replies) == 16)
    assert values(listener.replies) == list(range(16))
    assert [reply.request_id for reply in listener.replies] == [f"r{n}" for n in range(16)]
    assert listener.sent == 16
    assert listener.told[0] == "sent"
    frames = [f for f in peer.accepted[0].frames if isinstance(f, hyperframe.DataFrame)]
    assert len(frames) == 1, "one turn of the loop, one write, one frame"


def test_its_headers_are_those_of_a_grpc_call_with_the_metadata(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(echo)
    transport = make_transport(peer, metadata=[("X-Tenant", "a"), ("x-bin", "é")])
    transport.open_stream(BINDING, RecordingListener())
    listener = RecordingListener()
    transport.open_stream(BINDING, listener).half_close()
    listener.wait(ended)
    (headers, _) = [f.headers for f in peer.accepted[0].frames if isinstance(f, hyperframe.HeadersFrame)]
    assert headers == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelStreamInfer",
        ":authority": peer.target,
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "seqstress",
        "x-tenant": "a",
        "x-bin": "w6k",
    }


def test_a_half_closed_stream_answers_what_is_under_way_and_completes(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_peer(echo))
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    stream.send(calls(0, 3))
    stream.half_close()
    assert not stream.is_open
    with pytest.raises(StreamClosedError):
        stream.send(calls(3, 1))
    listener.wait(ended)
    assert values(listener.replies) == [0, 1, 2]
    assert listener.end == StreamEnd(EndCause.COMPLETED, 0, "")
    assert transport.open_streams == 0


def test_a_reset_is_told_at_once_and_reaches_the_peer(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(echo)
    transport = make_transport(peer)
    kept, dropped = RecordingListener(), RecordingListener()
    keeper = transport.open_stream(BINDING, kept)
    stream = transport.open_stream(BINDING, dropped)
    stream.reset()
    assert dropped.end == StreamEnd(EndCause.LOCAL, None, "reset by us")
    stream.reset()
    with pytest.raises(StreamClosedError):
        stream.send(calls(0, 1))
    keeper.send(calls(0, 1))
    kept.wait(lambda it: it.replies)
    assert len(peer.accepted[0].open_streams) == transport.open_streams == 1


def test_a_socket_that_breaks_ends_every_stream_at_once(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    def hang_up(connection: PeerConnection) -> None:
        connection.greet()
        connection.serve_until(lambda received: isinstance(received, hyperframe.DataFrame))
        connection.sock.close()

    transport = make_transport(make_peer(hang_up))
    listeners = [RecordingListener() for _ in range(3)]
    streams = [transport.open_stream(BINDING, listener) for listener in listeners]
    streams[0].send(calls(0, 1))
    for listener in listeners:
        listener.wait(ended)
        assert listener.end.cause is EndCause.DISCONNECTED
    assert (transport.connections, transport.open_streams) == (0, 0)


def test_what_the_peer_said_before_it_closed_is_heard(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    def refuse(connection: PeerConnection) -> None:
        connection.greet()
        received = connection.serve_until(lambda received: isinstance(received, hyperframe.HeadersFrame))
        script = connection.script
        connection.sock.sendall(
            script.headers(received.stream_id) + script.trailers(received.stream_id, "16", "who are you")
        )
        connection.sock.close()

    listener = RecordingListener()
    make_transport(make_peer(refuse)).open_stream(BINDING, listener).send(calls(0, 1))
    listener.wait(ended)
    assert listener.end == StreamEnd(EndCause.STATUS, 16, "who are you")


def test_garbage_ends_its_streams_and_the_next_one_gets_a_new_connection(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    def misbehave(connection: PeerConnection) -> None:
        if len(peer.accepted) > 1:
            echo(connection)
            return
        connection.greet()
        connection.serve_until(lambda received: isinstance(received, hyperframe.HeadersFrame))
        connection.sock.sendall(b"\xff" * 50)
        last = connection.serve_until(lambda received: isinstance(received, hyperframe.GoAwayFrame))
        goodbyes.append(last.error_code)

    goodbyes: list[int] = []
    peer = make_peer(misbehave)
    transport = make_transport(peer)
    first, second = RecordingListener(), RecordingListener()
    transport.open_stream(BINDING, first)
    first.wait(ended)
    assert first.end.cause is EndCause.PROTOCOL
    transport.open_stream(BINDING, second).send(calls(0, 1))
    second.wait(lambda it: it.replies)
    assert (len(peer.accepted), transport.connections) == (2, 1)
    assert goodbyes == [6], "told FRAME_SIZE_ERROR"


def test_a_connection_that_goes_away_finishes_its_streams_and_takes_no_new_one(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    def go_away(connection: PeerConnection) -> None:
        if len(peer.accepted) > 1:
            echo(connection)
            return
        connection.greet()
        received = connection.serve_until(lambda received: isinstance(received, hyperframe.DataFrame))
        script, stream = connection.script, received.stream_id
        connection.sock.sendall(script.goaway(stream) + script.headers(stream))
        going.set()
        resume.wait()
        connection.sock.sendall(script.trailers(stream))
        for _ in connection.read():
            pass
        closed.set()

    going, resume, closed = Event(), Event(), Event()
    peer = make_peer(go_away)
    transport = make_transport(peer)
    old, new = RecordingListener(), RecordingListener()
    transport.open_stream(BINDING, old).send(calls(0, 1))
    going.wait()
    while transport._pool.connections[0].can_open:
        gevent.sleep(0)
    transport.open_stream(BINDING, new).send(calls(0, 1))
    new.wait(lambda it: it.replies)
    resume.set()
    old.wait(ended)
    assert old.end.cause is EndCause.COMPLETED
    closed.wait()
    assert transport.connections == 1, "the old connection is closed after its last stream"


def test_a_peer_that_does_not_read_blocks_nobody_and_loses_nothing(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    def sleepy(connection: PeerConnection) -> None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        connection.greet()
        connection.sock.sendall(connection.script.window_update(0, 2**31 - 1 - 65535))
        wake.wait()
        deframer = Deframer()
        for received in connection.read():
            if isinstance(received, hyperframe.DataFrame):
                for message in deframer.feed(received.data):
                    ids.append(service_pb2.ModelInferRequest.FromString(message).id)
                if len(ids) == total:
                    done.set()

    wake, done = Event(), Event()
    ids: list[str] = []
    total = 40_000
    transport = make_transport(make_peer(sleepy, {INITIAL_WINDOW: 2**31 - 1}))
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    for first in range(0, total, 10_000):
        stream.send(calls(first, 10_000))
    listener.wait(lambda it: it.sent > 0)
    gevent.sleep(0)
    sizes = [len(stream._codec.encode(call)) for call in calls(0, listener.sent)]
    assert 0 < sum(sizes) <= transport._pool.connections[0]._handed_over, "only what the kernel took is told"
    assert listener.sent < total
    wake.set()
    with gevent.Timeout(60):
        done.wait()
    listener.wait(lambda it: it.sent == total)
    assert ids == [f"r{n}" for n in range(total)]


def test_calls_that_never_left_are_never_told_as_sent(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    transport = make_transport(make_peer(silent, {INITIAL_WINDOW: 0}))
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    stream.send(calls(0, 3))
    gevent.sleep(0.01)
    transport.close()
    assert listener.told == ["end"]
    assert listener.end.cause is EndCause.LOCAL


def test_a_listener_that_fails_disturbs_no_other(
    make_peer: MakePeer, make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RecordingListener):
        def on_sent(self, count: int, at_ns: int) -> None:
            super().on_sent(count, at_ns)
            raise RuntimeError("broken on_sent")

        def on_reply(self, reply: Reply, at_ns: int) -> None:
            super().on_reply(reply, at_ns)
            raise RuntimeError("broken on_reply")

    transport = make_transport(make_peer(echo))
    broken, healthy = Broken(), RecordingListener()
    transport.open_stream(BINDING, broken).send(calls(0, 2))
    transport.open_stream(BINDING, healthy).send(calls(0, 2))
    healthy.wait(lambda it: len(it.replies) == 2)
    assert len(broken.replies) == 2, "nor does it lose its own later replies"
    assert caplog.text.count("RuntimeError: broken on_reply") == 2
    assert "broken on_sent" in caplog.text


def test_a_listener_may_send_and_reset_where_it_is_told(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    class Driver(RecordingListener):
        def on_reply(self, reply: Reply, at_ns: int) -> None:
            super().on_reply(reply, at_ns)
            if len(self.replies) < 5:
                stream.send(calls(len(self.replies), 1))
            else:
                stream.reset()

    listener = Driver()
    stream = make_transport(make_peer(echo)).open_stream(BINDING, listener)
    stream.send(calls(0, 1))
    listener.wait(ended)
    assert values(listener.replies) == [0, 1, 2, 3, 4]
    assert listener.end.cause is EndCause.LOCAL


def test_a_listener_that_resets_on_one_reply_is_told_no_other(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    class Impatient(RecordingListener):
        def on_reply(self, reply: Reply, at_ns: int) -> None:
            super().on_reply(reply, at_ns)
            stream.reset()

    listener = Impatient()
    stream = make_transport(make_peer(echo)).open_stream(BINDING, listener)
    stream.send(calls(0, 4))
    listener.wait(ended)
    assert values(listener.replies) == [0]


@pytest.mark.parametrize("moment", ["on_sent", "on_reply", "on_end"])
def test_a_listener_may_close_the_transport_whenever_it_is_told_something(
    make_peer: MakePeer, make_transport: MakeTransport, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Closer(RecordingListener):
        def _tell(self, what: str) -> None:
            super()._tell(what)
            if f"on_{what}" == moment:
                transport.close()

    transport = make_transport(make_peer(echo))
    closer, other = Closer(), RecordingListener()
    transport.open_stream(BINDING, other)
    stream = transport.open_stream(BINDING, closer)
    stream.send(calls(0, 2))
    stream.half_close()
    closer.wait(ended)
    other.wait(ended)
    assert other.end.cause is EndCause.LOCAL
    assert closer.end.cause is (EndCause.COMPLETED if moment == "on_end" else EndCause.LOCAL)
    assert caplog.text == ""


def test_a_bug_in_the_reader_is_logged_and_still_ends_every_stream(
    make_peer: MakePeer, make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> list[object]:
        raise RuntimeError(f"cannot take {len(data)} bytes")

    transport = make_transport(make_peer(echo))
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    transport._pool.connections[0].machine.receive = fail
    stream.send(calls(0, 1))
    listener.wait(ended)
    assert listener.end.cause is EndCause.DISCONNECTED
    assert "our own reader failed" in listener.end.text
    assert "cannot take" in caplog.text
    assert transport.connections == 0


def test_a_reset_is_told_at_once_even_where_the_end_came_in_with_the_reply(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    class Impatient(RecordingListener):
        def on_reply(self, reply: Reply, at_ns: int) -> None:
            super().on_reply(reply, at_ns)
            stream.reset()
            assert self.end == StreamEnd(EndCause.LOCAL, None, "reset by us")

    def answer_all_in_one_write(connection: PeerConnection) -> None:
        connection.greet()
        received = connection.serve_until(lambda received: isinstance(received, hyperframe.DataFrame))
        request = service_pb2.ModelInferRequest.FromString(Deframer().feed(received.data)[0])
        stream_id, script = received.stream_id, connection.script
        connection.sock.sendall(
            script.headers(stream_id) + script.messages(stream_id, answer(request)) + script.trailers(stream_id)
        )

    listener = Impatient()
    stream = make_transport(make_peer(answer_all_in_one_write)).open_stream(BINDING, listener)
    stream.send(calls(0, 1))
    listener.wait(ended)
    assert listener.told == ["sent", "reply", "end"]


def test_streams_fill_connections_and_those_are_made_at_the_same_time(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    def echo_once_all_are_here(connection: PeerConnection) -> None:
        if len(peer.accepted) == 3:
            all_here.set()
        all_here.wait()
        echo(connection)

    all_here = Event()
    peer = make_peer(echo_once_all_are_here)
    transport = make_transport(peer, streams_per_connection=10)
    listeners = [RecordingListener() for _ in range(25)]

    def use(listener: RecordingListener) -> None:
        transport.open_stream(BINDING, listener).send(calls(0, 1))
        listener.wait(lambda it: it.replies)

    gevent.joinall([gevent.spawn(use, listener) for listener in listeners], raise_error=True)
    assert sorted(len(accepted.open_streams) for accepted in peer.accepted) == [5, 10, 10]
    assert (transport.connections, transport.open_streams) == (3, 25)


def test_the_peers_limit_of_streams_is_kept(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(echo, {MAX_CONCURRENT: 2})
    transport = make_transport(peer)

    def use() -> None:
        listener = RecordingListener()
        transport.open_stream(BINDING, listener).send(calls(0, 1))
        listener.wait(lambda it: it.replies)

    gevent.joinall([gevent.spawn(use) for _ in range(5)], raise_error=True)
    assert transport.open_streams == 5
    assert sorted(len(accepted.open_streams) for accepted in peer.accepted) == [1, 2, 2]


def test_reprs_are_one_line_of_state(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(silent, {MAX_CONCURRENT: 9})
    transport = make_transport(peer)
    stream = transport.open_stream(BINDING, RecordingListener())
    assert repr(transport) == f"<Http2Transport {peer.target} <Pool streams=[1] limit=100 dialling=0>>"
    assert repr(stream) == "<InferStream 1 open <Codec accumulator INT32 (1, 1)>>"
    (connection,) = transport._pool.connections
    assert repr(connection) == (
        f"<Connection {peer.target} unsent=0 <Machine open streams=1/9 pending=0 window=65535>>"
    )


def test_a_peer_that_allows_no_streams_is_an_error(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    transport = make_transport(make_peer(silent, {MAX_CONCURRENT: 0}))
    with pytest.raises(ConnectError, match="allows no streams"):
        transport.open_stream(BINDING, RecordingListener())
    assert transport.connections == 0


def test_an_opener_that_is_killed_leaves_the_dialling_to_the_others(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    def slow_first(connection: PeerConnection) -> None:
        if len(peer.accepted) == 1:
            asked.set()
            connection.sock.recv(100_000)
            gevent.sleep(60)
        echo(connection)

    asked = Event()
    peer = make_peer(slow_first)
    transport = make_transport(peer, connect_timeout_s=30)
    openers = [gevent.spawn(transport.open_stream, BINDING, RecordingListener()) for _ in range(2)]
    asked.wait()
    openers[0].kill()
    openers[1].get(timeout=20)
    assert (transport.connections, len(peer.accepted)) == (1, 2)


def test_a_closed_transport_has_told_everyone_and_opens_nothing(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(echo)
    transport = make_transport(peer)
    listener = RecordingListener()
    transport.open_stream(BINDING, listener)
    transport.close()
    transport.close()
    assert listener.end == StreamEnd(EndCause.LOCAL, None, "the connection was closed by us")
    with pytest.raises(ConnectError, match="closed"):
        transport.open_stream(BINDING, RecordingListener())


def test_no_server_is_a_connect_error_that_says_where_and_why() -> None:
    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))
    target = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConnectError, match=f"{target}: Connection refused"):
        Http2Transport(target).open_stream(BINDING, RecordingListener())
    unused.close()


def test_a_server_that_says_nothing_is_a_connect_error_for_all_who_wait(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(lambda _: gevent.sleep(60))
    transport = make_transport(peer, connect_timeout_s=0.1)
    openers = [gevent.spawn(transport.open_stream, BINDING, RecordingListener()) for _ in range(3)]
    gevent.joinall(openers)
    assert all(isinstance(opener.exception, ConnectError) for opener in openers)
    assert "no connection within 0.1 s" in str(openers[0].exception)
    assert len(peer.accepted) == 1


def test_an_http1_server_is_a_connect_error(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(lambda connection: connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(ConnectError, match="does not begin with HTTP/2 SETTINGS"):
        make_transport(peer).open_stream(BINDING, RecordingListener())


@pytest.mark.parametrize("target", ["", "host", "host:", "host:0", "host:99999", "http://host:80", "a b:1"])
def test_a_target_that_is_none_is_an_input_error(target: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        Http2Transport(target)


@pytest.mark.parametrize("entry", [(":path", "x"), ("grpc-timeout", "1S"), ("a b", "x"), ("a", "é"), ("a", "x\n")])
def test_metadata_that_grpc_forbids_is_an_input_error(entry: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="metadata"):
        Http2Transport("h:1", metadata=[entry])


def unary(*parts: bytes) -> Serve:
    """Answers each call with these messages and OK."""

    def serve(connection: PeerConnection) -> None:
        connection.greet()
        for received in connection.read():
            if isinstance(received, hyperframe.DataFrame) and "END_STREAM" in received.flags:
                stream, script = received.stream_id, connection.script
                connection.sock.sendall(
                    script.headers(stream) + script.messages(stream, *parts) + script.trailers(stream)
                )

    return serve


def ready(transport: Http2Transport, timeout_s: float = 5) -> service_pb2.ServerReadyResponse:
    return transport.unary("ServerReady", service_pb2.ServerReadyRequest(), service_pb2.ServerReadyResponse, timeout_s)


def test_a_unary_call_has_a_deadline_header_and_an_answer(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(unary(b"\x08\x01"))
    transport = make_transport(peer)
    assert ready(transport, 1.5).ready
    (headers,) = [f.headers for f in peer.accepted[0].frames if isinstance(f, hyperframe.HeadersFrame)]
    assert headers["grpc-timeout"] == "1500m"
    assert headers[":path"] == "/inference.GRPCInferenceService/ServerReady"
    (data,) = [f.data for f in peer.accepted[0].frames if getattr(f, "data", b"") and f.stream_id and f.type == 0]
    assert data == frame(b"")
    assert transport.open_streams == 0


@pytest.mark.parametrize(
    ("parts", "text"),
    [((), "0 answers"), ((b"\x08\x01", b""), "2 answers"), ((b"\xff",), "not a ServerReadyResponse")],
)
def test_a_unary_call_with_another_answer_is_an_rpc_error(
    make_peer: MakePeer, make_transport: MakeTransport, parts: tuple[bytes, ...], text: str
) -> None:
    with pytest.raises(RpcError, match=text):
        ready(make_transport(make_peer(unary(*parts))))


def test_a_unary_call_without_an_answer_ends_at_its_deadline_and_is_cancelled(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(silent)
    transport = make_transport(peer)
    with pytest.raises(RpcError, match="ServerReady: no answer within") as error:
        ready(transport, 0.05)
    assert error.value.code == 4
    assert transport.open_streams == 0
    gevent.sleep(0.01)
    assert peer.accepted[0].open_streams == set()


def test_a_unary_call_fails_with_its_connection(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    def hang_up(connection: PeerConnection) -> None:
        connection.greet()
        connection.serve_until(lambda received: isinstance(received, hyperframe.HeadersFrame))
        connection.sock.close()

    with pytest.raises(RpcError) as error:
        ready(make_transport(make_peer(hang_up)))
    assert error.value.code == 14


class TlsPeer:
    """The server's side of TLS in front of a scripted peer: a native ssl socket of gevent."""

    def __init__(self, serve: Serve, *, asks_for_client: bool = False, alpn: str = "h2") -> None:
        self._context = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
        self._context.set_alpn_protocols([alpn])
        if asks_for_client:
            self._context.load_verify_locations(TLS / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._serve = serve

    def __call__(self, connection: PeerConnection) -> None:
        connection.sock = self._context.wrap_socket(connection.sock, server_side=True)
        self._serve(connection)


TRUSTED = TlsOptions(ca_file=TLS / "ca.pem", server_name="triton.test")


def test_tls_carries_more_than_one_record_in_both_directions(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    transport = make_transport(make_peer(TlsPeer(echo), {INITIAL_WINDOW: 1 << 20}), tls=TRUSTED)
    listener = RecordingListener()
    stream = transport.open_stream(BINDING, listener)
    stream.send(calls(0, 1))
    listener.wait(lambda it: len(it.replies) == 1)
    stream.send(calls(1, 2000))
    listener.wait(lambda it: len(it.replies) == 2001)
    assert values(listener.replies) == list(range(2001))
    assert listener.sent == 2001


def test_mutual_tls_presents_our_certificate(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    options = TlsOptions(TLS / "ca.pem", TLS / "client.pem", TLS / "client.key", "triton.test")
    peer = make_peer(TlsPeer(unary(b"\x08\x01"), asks_for_client=True))
    assert ready(make_transport(peer, tls=options)).ready


def test_a_server_that_asks_for_a_certificate_refuses_us_without_one(
    make_peer: MakePeer, make_transport: MakeTransport
) -> None:
    peer = make_peer(TlsPeer(echo, asks_for_client=True))
    with pytest.raises(ConnectError):
        ready(make_transport(peer, tls=TRUSTED))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (TlsOptions(server_name="triton.test"), "CERTIFICATE_VERIFY_FAILED"),
        (TlsOptions(ca_file=TLS / "ca.pem"), "IP address mismatch"),
        (TlsOptions(ca_file=TLS / "ca.pem", server_name="other.test"), "Hostname mismatch"),
    ],
)
def test_a_certificate_that_does_not_prove_the_server_is_a_connect_error(
    make_peer: MakePeer, make_transport: MakeTransport, options: TlsOptions, reason: str
) -> None:
    with pytest.raises(ConnectError, match=reason):
        ready(make_transport(make_peer(TlsPeer(echo)), tls=options))


def test_verification_can_be_switched_off(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    peer = make_peer(TlsPeer(unary(b"\x08\x01")))
    assert ready(make_transport(peer, tls=TlsOptions(verify=False))).ready


def test_a_tls_server_without_http2_is_a_connect_error(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    with pytest.raises(ConnectError, match="does not speak HTTP/2 over TLS"):
        ready(make_transport(make_peer(TlsPeer(echo, alpn="http/1.1")), tls=TRUSTED))


def test_a_plain_server_is_a_connect_error_for_tls(make_peer: MakePeer, make_transport: MakeTransport) -> None:
    with pytest.raises(ConnectError):
        ready(make_transport(make_peer(echo), tls=TRUSTED))


@pytest.mark.parametrize("options", [TlsOptions(ca_file=TLS / "absent.pem"), TlsOptions(key_file=TLS / "client.key")])
def test_tls_files_that_cannot_be_used_are_an_input_error(options: TlsOptions) -> None:
    with pytest.raises(InputError, match="TLS"):
        Http2Transport("h:1", tls=options)
