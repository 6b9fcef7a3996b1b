"""One open call within the HTTP/2 machine: what waits to be sent, what came in, the windows of both."""

from collections import deque
from collections.abc import Iterable

from seqstress.wire.flow import ReceiveWindow, SendWindow
from seqstress.wire.framing import Deframer


class MachineStream:
    """The state of one stream that only the machine touches."""

    __slots__ = (
        "deframer",
        "has_response",
        "is_ended_locally",
        "pending",
        "pending_size",
        "receive_window",
        "send_window",
        "stream_id",
        "wants_end",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.stream_id = stream_id
        self.pending: deque[bytes] = deque()
        """Framed messages, the first of them perhaps without its beginning."""
        self.pending_size = 0
        self.wants_end = False
        """END_STREAM follows what is pending."""
        self.is_ended_locally = False
        self.has_response = False
        self.deframer = Deframer()
        self.send_window = SendWindow(send_window)
        self.receive_window = ReceiveWindow(receive_window)

    @property
    def is_ready(self) -> bool:
        """Whether it has bytes that its own window lets go."""
        return self.pending_size > 0 and self.send_window.left > 0

    def queue(self, messages: Iterable[bytes]) -> None:
        """Put messages behind those that wait."""
        for message in messages:
            self.pending.append(message)
            self.pending_size += len(message)

    def take(self, limit: int) -> tuple[bytes, int]:
        """The next bytes, ``limit`` or fewer, and how many messages end in them; its own window is charged."""
        size = min(limit, self.send_window.left)
        pending = self.pending
        if self.pending_size <= size:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            count = len(pending)
            pending.clear()
        else:
            data, count = _cut(pending, size)
        self.pending_size -= len(data)
        self.send_window.left -= len(data)
        return data, count


def _cut(pending: deque[bytes], size: int) -> tuple[bytes, int]:
    """Take the first ``size`` bytes off ``pending``, which holds more; and how many messages they complete."""
    parts = []
    count = 0
    while size >= len(pending[0]):
        size -= len(pending[0])
        parts.append(pending.popleft())
        count += 1
    if size:
        parts.append(pending[0][:size])
        pending[0] = pending[0][size:]
    return b"".join(parts), count
