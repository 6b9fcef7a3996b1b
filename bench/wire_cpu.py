"""What one request costs this process on the wire: CPU microseconds, pipelined and in lockstep.

    python bench/wire_cpu.py HOST:PORT MODEL [--sequences N] [--greenlets N] [--steps N] [--transport http2]

CPU time is user and system of this process alone (getrusage), without the server's and without start-up. The
listener does the least that a real one must: keep the replies, and wake who waits.
"""

import argparse
import itertools
import resource
import sys
import time

import gevent
from gevent.event import Event

from seqstress.protocol import Binding, Call, Dtype, Reply, ReplyKind, StreamEnd, TensorSpec, Transport
from seqstress.wire.choice import TRANSPORTS, open_transport


class Listener:
    """Wakes its greenlet when all the replies that it waits for are in."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.expected = 0
        self.done = Event()

    def on_sent(self, count: int, at_ns: int) -> None:
        """Not measured."""

    def on_reply(self, reply: Reply, at_ns: int) -> None:  # noqa: ARG002
        """Keep it."""
        self.replies.append(reply)
        if len(self.replies) == self.expected:
            self.done.set()

    def on_end(self, end: StreamEnd, at_ns: int) -> None:  # noqa: ARG002
        """Never while we measure."""
        self.done.set()

    def wait(self, expected: int) -> list[Reply]:
        """The next ``expected`` replies; call it before their requests can be answered."""
        self.expected = expected
        self.done.wait(timeout=30)
        self.done.clear()
        replies, self.replies = self.replies, []
        return replies


def user(transport: Transport, binding: Binding, ids: "itertools.count[int]", pipelined: bool, n: int, m: int) -> int:
    """Run ``n`` sequences of ``m`` steps on one stream; how many replies were right."""
    listener = Listener()
    stream = transport.open_stream(binding, listener)
    right = 0
    for _ in range(n):
        sequence = next(ids)
        calls = [Call(f"{sequence}.{i}", sequence, i == 0, i == m - 1, i) for i in range(m)]
        if pipelined:
            stream.send(calls)
            replies = listener.wait(m)
        else:
            replies = []
            for call in calls:
                stream.send([call])
                replies += listener.wait(1)
        right += sum(
            reply.kind is ReplyKind.VALUE and reply.value == i * (i + 1) // 2 for i, reply in enumerate(replies)
        )
    stream.reset()
    return right


def main() -> int:
    """Measure both ways and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--greenlets", type=int, default=50)
    parser.add_argument("--sequences", type=int, default=40, help="per greenlet")
    parser.add_argument("--steps", type=int, default=16, help="per sequence")
    parser.add_argument("--transport", choices=TRANSPORTS, default="http2")
    options = parser.parse_args()
    tensor = TensorSpec("INPUT", Dtype.INT32, (1, 1))
    binding = Binding(options.model, "", tensor, tensor._replace(name="OUTPUT"), False)
    ids = itertools.count(int(time.time()) << 20)
    transport = open_transport(options.transport, options.target)
    wrong = 0
    for pipelined in (True, False):
        arguments = (transport, binding, ids, pipelined)
        user(*arguments, 2, options.steps)  # connects, and fills the caches
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        greenlets = [gevent.spawn(user, *arguments, options.sequences, options.steps) for _ in range(options.greenlets)]
        gevent.joinall(greenlets)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
        requests = options.greenlets * options.sequences * options.steps
        user_us = (after.ru_utime - before.ru_utime) * 1e6 / requests
        system_us = (after.ru_stime - before.ru_stime) * 1e6 / requests
        wrong += requests - sum(greenlet.get() for greenlet in greenlets)
        print(
            f"{options.transport} {'pipelined' if pipelined else 'lockstep':9} {requests} requests, "
            f"{requests / seconds:.0f}/s, CPU {user_us + system_us:.1f} µs per request "
            f"({user_us:.1f} user, {system_us:.1f} system), wrong {wrong}"
        )
    transport.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
