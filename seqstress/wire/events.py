"""What the HTTP/2 machine reports, and what it hands out."""

from typing import NamedTuple

from seqstress.protocol import StreamEnd


class MessagesReceived(NamedTuple):
    """Whole messages of one stream, in order, without their prefixes."""

    stream_id: int
    messages: list[bytes]


class StreamEnded(NamedTuple):
    """The last event of a stream."""

    stream_id: int
    end: StreamEnd


class Opened(NamedTuple):
    """The peer's first SETTINGS came in: it speaks HTTP/2, and its limits are known."""


class Closed(NamedTuple):
    """The last event of a connection, behind the StreamEnded of each stream that was open."""

    end: StreamEnd


Event = MessagesReceived | StreamEnded | Opened | Closed


class Sent(NamedTuple):
    """The next ``messages`` of a stream are out once the connection's first ``position`` bytes are."""

    stream_id: int
    messages: int
    position: int


class Output(NamedTuple):
    """Bytes for the peer, and which messages they complete."""

    data: bytes
    sent: list[Sent]
