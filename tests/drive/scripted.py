"""A transport whose server is a function: what it returns for a call is what comes back."""

import time
from collections.abc import Callable, Sequence

import gevent

from seqstress.errors import ConnectError, StreamClosedError
from seqstress.protocol import (
    Binding,
    Call,
    Dtype,
    EndCause,
    Reply,
    ReplyKind,
    Stream,
    StreamEnd,
    StreamListener,
    TensorSpec,
)
from tests.drive.histories import error

Server = Callable[["ScriptedStream", Call], Sequence[Reply | StreamEnd]]

BINDING = Binding("m", "", TensorSpec("INPUT", Dtype.INT32, (1, 1)), TensorSpec("OUTPUT", Dtype.INT32, (1, 1)), False)


def accumulator() -> Server:
    """A healthy model: sums per correlation ID, the START error where it is due."""
    sums: dict[object, int] = {}

    def serve(_stream: "ScriptedStream", call: Call) -> list[Reply | StreamEnd]:
        if not call.start and call.correlation_id not in sums:
            return [error(call.request_id)]
        total = call.value if call.start else sums[call.correlation_id] + call.value
        sums[call.correlation_id] = total = (int(total) + 2**31) % 2**32 - 2**31
        if call.end:
            del sums[call.correlation_id]
        return [Reply(call.request_id, ReplyKind.VALUE, total, "", "m", True)]

    return serve


class ScriptedStream:
    """Answers in a greenlet of its own, in order."""

    def __init__(self, transport: "ScriptedTransport", listener: StreamListener) -> None:
        self._transport = transport
        self.listener = listener
        self.is_open = True
        self.is_draining = False
        self.has_ended = False
        self.was_reset = False
        self.was_half_closed = False
        self.calls: list[Call] = []

    def send(self, calls: Sequence[Call]) -> None:
        if not self.is_open:
            raise StreamClosedError("scripted")
        self.calls += calls
        self.listener.on_sent(len(calls), time.monotonic_ns())
        gevent.spawn(self._answer, list(calls))

    def half_close(self) -> None:
        self.was_half_closed = True
        self.is_open = False

    def reset(self) -> None:
        self.was_reset = True
        self.end(StreamEnd(EndCause.LOCAL, None, ""))

    def end(self, end: StreamEnd) -> None:
        """The stream is over."""
        if not self.has_ended:
            self.has_ended, self.is_open = True, False
            self.listener.on_end(end, time.monotonic_ns())

    def deliver(self, reply: Reply) -> None:
        """A message, also out of turn; none follows the end."""
        assert not self.has_ended
        self.listener.on_reply(reply, time.monotonic_ns())

    def _answer(self, calls: Sequence[Call]) -> None:
        for call in calls:
            for event in self._transport.server(self, call):
                if isinstance(event, StreamEnd):
                    self.end(event)
                elif not self.has_ended:
                    self.deliver(event)


class ScriptedTransport:
    """Every stream that it opened is in ``streams``; ``refusals`` connections fail first."""

    tells_error_ids = True

    def __init__(self, server: Server, refusals: int = 0) -> None:
        self.server = server
        self.streams: list[ScriptedStream] = []
        self.refusals = refusals

    def open_stream(self, _binding: Binding, listener: StreamListener) -> Stream:
        if self.refusals:
            self.refusals -= 1
            raise ConnectError("scripted")
        stream = ScriptedStream(self, listener)
        self.streams.append(stream)
        return stream

    def close(self) -> None:
        for stream in self.streams:
            stream.end(StreamEnd(EndCause.LOCAL, None, ""))
