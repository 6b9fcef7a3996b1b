"""The wire against the real Triton: the messages it sends, both transports alike, many steps, many streams."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from tritonclient.grpc import service_pb2

from seqstress.errors import RpcError
from seqstress.protocol import START_ERROR, EndCause, ReplyKind, StreamEnd
from seqstress.wire.transport import Http2Transport
from tests.wire.scripted_peer import RecordingListener
from tests.wire.story import MODEL, binding, sequence

pytestmark = pytest.mark.real


@pytest.fixture
def transport(triton_server: Any) -> Iterator[Http2Transport]:
    transport = Http2Transport(triton_server.grpc_target)
    yield transport
    transport.close()


def test_control_calls_work(transport: Http2Transport) -> None:
    assert transport.unary("ServerReady", service_pb2.ServerReadyRequest(), service_pb2.ServerReadyResponse, 5).ready
    config = transport.unary(
        "ModelConfig", service_pb2.ModelConfigRequest(name=MODEL), service_pb2.ModelConfigResponse, 5
    )
    assert config.config.HasField("sequence_batching")
    with pytest.raises(RpcError) as error:
        transport.unary("ModelConfig", service_pb2.ModelConfigRequest(name="nope"), service_pb2.ModelConfigResponse, 5)
    assert error.value.code == 5
    with pytest.raises(RpcError) as error:
        transport.unary("NoSuchMethod", service_pb2.ServerReadyRequest(), service_pb2.ServerReadyResponse, 5)
    assert error.value.code == 12


def test_the_fast_path_knows_the_answers_of_this_triton(
    transport: Http2Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = RecordingListener()
    stream = transport.open_stream(binding(), listener)
    codec = stream._codec
    plain = []
    monkeypatch.setattr(
        codec, "decode_any", lambda message, decode=codec.decode_any: plain.append(message) or decode(message)
    )
    stream.send(sequence(101, 20))
    listener.wait(lambda it: len(it.replies) == 20)
    assert [reply.value for reply in listener.replies] == [n * (n + 1) // 2 for n in range(1, 21)]
    assert len(plain) == 1, "only the first answer, from which the template is learned"


def test_ten_thousand_steps_on_one_stream(transport: Http2Transport) -> None:
    listener = RecordingListener()
    stream = transport.open_stream(binding(), listener)
    stream.send(sequence(102, 10_000))
    listener.wait(lambda it: len(it.replies) == 10_000, timeout=100)
    assert [reply.request_id for reply in listener.replies] == [f"102.{n}" for n in range(10_000)]
    assert [reply.value for reply in listener.replies] == [n * (n + 1) // 2 for n in range(1, 10_001)]
    assert listener.sent == 10_000
    stream.half_close()
    listener.wait(lambda it: it.end is not None)
    assert listener.end == StreamEnd(EndCause.COMPLETED, 0, "")


def test_five_hundred_streams_on_five_connections(transport: Http2Transport) -> None:
    def use(number: int) -> RecordingListener:
        listener = RecordingListener()
        transport.open_stream(binding(), listener).send(sequence(1000 + number, 3))
        listener.wait(lambda it: len(it.replies) == 3, timeout=60)
        return listener

    users = [gevent.spawn(use, number) for number in range(500)]
    gevent.joinall(users, raise_error=True)
    assert (transport.connections, transport.open_streams) == (5, 500)
    wrong = [user.value for user in users if [reply.value for reply in user.value.replies] != [1, 3, 6]]
    assert wrong == []


def test_a_reset_cancels_its_stream_only(transport: Http2Transport) -> None:
    first, second = RecordingListener(), RecordingListener()
    one, two = transport.open_stream(binding(), first), transport.open_stream(binding(), second)
    one.send(sequence(103, 5))
    two.send(sequence(104, 5))
    one.reset()
    second.wait(lambda it: len(it.replies) == 5)
    assert first.end is not None
    assert transport.open_streams == 1


def run(transport: str, target: str, mode: str, base: int) -> list[Any]:
    """What the story tells in a process of its own, which must also end by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.wire.story", transport, target, mode, str(base)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return story


@pytest.mark.parametrize("mode", ["patched", "native"])
def test_both_transports_tell_the_same_story(triton_server: Any, mode: str) -> None:
    base = 5000 if mode == "patched" else 6000
    ours = run("http2", triton_server.grpc_target, mode, base)
    stock = run("tritonclient", triton_server.grpc_target, mode, base + 500)
    assert ours == stock
    replies = [reply for user in ours for reply in user[0]]
    assert sum(reply[1] == ReplyKind.VALUE.name for reply in replies) == 3 * 6
    assert sum(START_ERROR in reply[3] for reply in replies) == 3 * 5
    assert sum("unknown model" in reply[3] for reply in replies) == 6
