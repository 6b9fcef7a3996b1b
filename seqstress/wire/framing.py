"""gRPC's length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message").

Each message is a flag byte (0: not compressed), its length as four bytes, big endian, and its bytes. Messages
and DATA frames know nothing of each other: a frame may hold many messages, a message may span many frames.
"""

from struct import Struct

PREFIX = Struct(">BI")
MESSAGE_LIMIT = 64 << 20
"""No answer of a sequence model is near it: a longer length is garbage, and must not be waited for."""


class FramingError(ValueError):
    """The bytes of a stream are not the messages that gRPC allows here."""


def frame(message: bytes) -> bytes:
    """The bytes of one uncompressed message on the wire."""
    return PREFIX.pack(0, len(message)) + message


class Deframer:
    """Cuts the bytes of one stream into messages, as they come.

    The order of messages is that of the bytes; the cuts between calls of :meth:`feed` do not matter. After a
    FramingError it is of no more use.
    """

    __slots__ = ("_limit", "_needed", "_partial")

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._needed = PREFIX.size

    @property
    def is_inside(self) -> bool:
        """Whether the bytes so far end in the middle of a message."""
        return bool(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes. Raises FramingError."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        messages = []
        position, end = 0, len(data)
        needed = PREFIX.size
        while end - position >= PREFIX.size:
            compressed, length = PREFIX.unpack_from(data, position)
            if compressed:
                raise FramingError(f"a message with compression flag {compressed}, though none was agreed")
            if length > self._limit:
                raise FramingError(f"a message of {length} bytes, above the limit of {self._limit}")
            start = position + PREFIX.size
            if end - start < length:
                needed = PREFIX.size + length
                break
            position = start + length
            messages.append(data[start:position])
        if position < end:
            self._partial += data[position:] if position else data
            self._needed = needed
        return messages
