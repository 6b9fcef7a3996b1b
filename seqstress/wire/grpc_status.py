"""How gRPC says in HTTP/2 headers what became of a call (gRPC over HTTP/2, "Responses"; RFC 9113, section 8)."""

from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from seqstress.protocol import EndCause, StreamEnd

OK = 0
CANCELLED = 1
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
UNAVAILABLE = 14

_HTTP_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC's own mapping of HTTP statuses for answers that a proxy gives (http-grpc-status-mapping.md)."""


def header_map(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by name; of a repeated one the last. Bytes outside UTF-8 are replaced, never an error."""
    return {name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in headers}


def refusal(headers: Mapping[str, str]) -> StreamEnd | None:
    """How the call ended already if its response headers are not those of a gRPC server, else None."""
    status = headers.get(":status", "")
    content_type = headers.get("content-type", "")
    if status == "200" and content_type.startswith("application/grpc"):
        return None
    if status == "200" and "grpc-status" in headers:
        return None
    code = _HTTP_STATUS.get(int(status), UNKNOWN) if status.isdecimal() else UNKNOWN
    return StreamEnd(
        EndCause.STATUS, code, f"HTTP status {status or 'missing'}, content-type {content_type or 'missing'}"
    )


def outcome(trailers: Mapping[str, str]) -> StreamEnd:
    """How the call ended by its trailers, or by headers that are trailers as well ("Trailers-Only")."""
    status = trailers.get("grpc-status")
    if status is None or not (status.isascii() and status.isdecimal()):
        return StreamEnd(EndCause.PROTOCOL, None, f"the stream ended with grpc-status {status or 'missing'}")
    message = unquote(trailers.get("grpc-message", ""), errors="replace")
    code = int(status[:9])
    return StreamEnd(EndCause.STATUS if code else EndCause.COMPLETED, code, message)
