"""A few sequences, right and wrong ones, on the real server; prints what the listeners were told, without ids.

    python -m tests.wire.story http2|tritonclient HOST:PORT patched|native FIRST_CORRELATION_ID

A process of its own: gRPC needs gevent's patches from the start, or none, and its exit is a part of the test.
"""

import json
import sys

if __name__ == "__main__" and sys.argv[3] == "patched":
    from gevent import monkey

    monkey.patch_all()

import gevent

from seqstress.protocol import Binding, Call, Dtype, ReplyKind, TensorSpec, Transport
from seqstress.wire.choice import open_transport
from tests.wire.scripted_peer import RecordingListener

MODEL = "direct"


def binding(model: str = MODEL) -> Binding:
    """An INT32 accumulator."""
    tensor = TensorSpec("INPUT", Dtype.INT32, (1, 1))
    return Binding(model, "", tensor, tensor._replace(name="OUTPUT"), False)


def sequence(correlation_id: int, length: int) -> list[Call]:
    """A whole sequence of the values 1, 2, 3, ..."""
    return [Call(f"{correlation_id}.{n}", correlation_id, n == 0, n == length - 1, n + 1) for n in range(length)]


def tell(transport: Transport, correlation_id: int, has_start: bool) -> list[object]:
    """Send a sequence, with or without its START, half-close; then one step to an unknown model, and reset."""
    listener, unknown = RecordingListener(), RecordingListener()
    calls = sequence(correlation_id, 6)[0 if has_start else 1 :]
    stream = transport.open_stream(binding(), listener)
    stream.send(calls)
    listener.wait(lambda it: len(it.replies) == len(calls) and it.sent == len(calls))
    stream.half_close()
    listener.wait(lambda it: it.end is not None)
    stray = transport.open_stream(binding("nope"), unknown)
    stray.send(sequence(correlation_id, 1))
    unknown.wait(lambda it: bool(it.replies))
    stray.reset()
    number = str(correlation_id)
    replies = [
        (
            reply.request_id.removeprefix(number) if reply.kind is ReplyKind.VALUE else "",
            reply.kind.name,
            reply.value,
            reply.text.replace(number, "N"),
            reply.model,
            reply.final,
        )
        for reply in listener.replies + unknown.replies
    ]
    return [replies, *(it.end and it.end.cause.name for it in (listener, unknown))]


def main() -> None:
    """Tell it six times at once, and leave with a stream open."""
    name, target, _, first = sys.argv[1:]
    transport = open_transport(name, target)
    users = [gevent.spawn(tell, transport, int(first) + n, n % 2 == 0) for n in range(6)]
    gevent.joinall(users, raise_error=True)
    transport.open_stream(binding(), RecordingListener())
    transport.close()
    print(json.dumps([user.value for user in users]))


if __name__ == "__main__":
    main()
