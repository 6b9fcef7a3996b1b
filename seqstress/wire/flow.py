"""Flow-control windows of HTTP/2 (RFC 9113, section 5.2).

The machine keeps all of them, in both directions; `h2` sees neither DATA nor WINDOW_UPDATE and keeps none.
With two owners that each see a part, the windows drift apart and the connection dies after 2 GiB.
"""

LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
"""What every window is before SETTINGS or WINDOW_UPDATE say otherwise."""


class WindowError(ValueError):
    """A peer's window update takes a window beyond 2^31 - 1, or the peer sent more than it was allowed."""


class SendWindow:
    """How many bytes we may still send. Negative after the peer lowered its initial window under way."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def widen(self, increment: int) -> None:
        """The peer granted more, or less if negative (section 6.9.2). Raises WindowError."""
        if self.left + increment > LARGEST_WINDOW:
            raise WindowError(f"a window of {self.left} bytes was widened by {increment}")
        self.left += increment


class ReceiveWindow:
    """How many bytes the peer may still send; what came in is granted again once half of it is used up."""

    __slots__ = ("left", "size")

    def __init__(self, size: int) -> None:
        self.size = self.left = size

    def consume(self, count: int) -> int:
        """Take ``count`` bytes from it; the increment to grant in a WINDOW_UPDATE now, or 0. Raises WindowError."""
        left = self.left - count
        if left < 0:
            raise WindowError(f"{count} bytes came in where {self.left} were granted")
        if left > self.size >> 1:
            self.left = left
            return 0
        self.left = self.size
        return self.size - left
