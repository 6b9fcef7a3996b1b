"""TLS over bytes: the socket stays a plain one, and the layer has no I/O of its own.

With the standard library's memory BIOs the same code runs whether or not gevent has patched the process, and
no read or write of the socket hides a handshake that blocks.
"""

import ssl

from gevent.socket import socket

_READ_SIZE = 65536


class TlsLayer:
    """One side of an established TLS session: plain bytes on our side, records on the peer's."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def handshake(self, sock: socket) -> None:
        """Blocks this greenlet until the session stands. Raises OSError, ssl.SSLError among them."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(self._outgoing.read())
                records = sock.recv(_READ_SIZE)
                if not records:
                    raise ConnectionResetError("the server closed the connection in the TLS handshake") from None
                self._incoming.write(records)
            except ssl.SSLError:
                if alert := self._outgoing.read():
                    sock.sendall(alert)
                raise
            else:
                sock.sendall(self._outgoing.read())
                break
        if self._session.selected_alpn_protocol() != "h2":
            raise ssl.SSLError("the server does not speak HTTP/2 over TLS (ALPN)")

    def encrypt(self, data: bytes) -> bytes:
        """The records that carry ``data``."""
        self._session.write(data)
        return self._outgoing.read()

    def decrypt(self, records: bytes) -> tuple[bytes, bool]:
        """What the records hold, and whether they end the session. Raises ssl.SSLError."""
        self._incoming.write(records)
        parts: list[bytes] = []
        while True:
            try:
                part = self._session.read(_READ_SIZE)
            except ssl.SSLWantReadError:
                return b"".join(parts), False
            except ssl.SSLZeroReturnError:
                return b"".join(parts), True
            if not part:
                return b"".join(parts), True
            parts.append(part)

    def take_records(self) -> bytes:
        """Records that the session itself wants sent, such as the answer to a key update."""
        return self._outgoing.read()
