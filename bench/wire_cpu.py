"""What one request costs this process on the wire: CPU microseconds, pipelined and in lockstep.

    python -m bench.wire_cpu HOST:PORT MODEL [--pacing pipelined] [--sequences N] [--greenlets N] [--steps N] [--json]

CPU time is user and system of this process alone (getrusage), without the server's and without start-up. The
listener does the least that a real one must: keep the replies, and wake who waits.
"""

import argparse
import itertools
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass

import gevent
from gevent.event import Event

from seqstress.plan.recipe import PacingMode
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
    stream.half_close()
    return right


PACINGS = (PacingMode.PIPELINED.value, PacingMode.LOCKSTEP.value)


@dataclass(frozen=True, slots=True)
class WireCost:
    """What the requests of one pacing cost."""

    pacing: str
    requests: int
    right: int
    """Requests that got the right answer."""
    per_s: float
    user_us: float
    system_us: float
    cpu_us: float
    """Per request, user and system."""


def measure(
    transport: Transport, binding: Binding, ids: "itertools.count[int]", options: argparse.Namespace
) -> WireCost:
    """Let all greenlets send their sequences, after a short one that connects and fills the caches."""
    arguments = (transport, binding, ids, options.pacing == PACINGS[0])
    user(*arguments, 2, options.steps)
    before, start_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    greenlets = [gevent.spawn(user, *arguments, options.sequences, options.steps) for _ in range(options.greenlets)]
    gevent.joinall(greenlets)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start_s
    requests = options.greenlets * options.sequences * options.steps
    user_us = (after.ru_utime - before.ru_utime) * 1e6 / requests
    system_us = (after.ru_stime - before.ru_stime) * 1e6 / requests
    right = sum(greenlet.get() for greenlet in greenlets)
    return WireCost(options.pacing, requests, right, requests / seconds, user_us, system_us, user_us + system_us)


def main() -> int:
    """Measure and print one line; 1 where an answer was not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--pacing", choices=PACINGS, default=PACINGS[0])
    parser.add_argument("--greenlets", type=int, default=50)
    parser.add_argument("--sequences", type=int, default=40, help="per greenlet")
    parser.add_argument("--steps", type=int, default=16, help="per sequence")
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--json", action="store_true", help="the figures for programs")
    options = parser.parse_args()
    tensor = TensorSpec("INPUT", Dtype.INT32, (1, 1))
    binding = Binding(options.model, "", tensor, tensor._replace(name="OUTPUT"), False)
    transport = open_transport(options.transport, options.target)
    cost = measure(transport, binding, itertools.count(int(time.time()) << 20), options)
    transport.close()
    if options.json:
        print(json.dumps(asdict(cost)))
    else:
        print(
            f"{options.transport} {cost.pacing} {cost.requests} requests, {cost.per_s:.0f}/s, "
            f"CPU {cost.cpu_us:.1f} µs per request ({cost.user_us:.1f} user, {cost.system_us:.1f} system), "
            f"wrong {cost.requests - cost.right}"
        )
    return 0 if cost.right == cost.requests else 1


if __name__ == "__main__":
    sys.exit(main())
