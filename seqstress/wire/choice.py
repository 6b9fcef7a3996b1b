"""Which engine carries the streams."""

from seqstress.protocol import Transport
from seqstress.wire.transport import Http2Transport

TRANSPORTS = ("http2", "tritonclient")
"""``http2``: our own, for load; ``tritonclient``: NVIDIA's stock client, as a cross-check."""


def open_transport(name: str, address: str) -> Transport:
    """The transport called ``name`` to the server at ``address`` (HOST:PORT); connects at the first use."""
    if name == "http2":
        return Http2Transport(address)
    if name == "tritonclient":
        # It loads gRPC's core, which nothing else needs.
        from seqstress.wire.reference import TritonclientTransport

        return TritonclientTransport(address)
    raise ValueError(f"no transport is called {name!r}; there are {', '.join(TRANSPORTS)}")
