"""Which connection takes the next call, and when a new one is made."""

from collections.abc import Callable

from gevent.event import AsyncResult

from seqstress.errors import ConnectError
from seqstress.wire.connection import Connection


class _Dialling:
    """A connection that is being made, and how many calls wait for it."""

    def __init__(self) -> None:
        self.waiting = 1
        self.done: AsyncResult[None] = AsyncResult()


class Pool:
    """The connections of one transport, each filled up to its limit before the next one is made.

    Calls that need a connection while one is being made share it, as many as will fit; if it cannot be made,
    all of them are told why.
    """

    def __init__(self, dial: Callable[[Callable[[Connection], None]], Connection], streams_per_connection: int) -> None:
        self.connections: list[Connection] = []
        self._dial = dial
        self._limit = streams_per_connection
        self._dialling: list[_Dialling] = []
        self._is_closed = False

    def __repr__(self) -> str:
        streams = [connection.stream_count for connection in self.connections]
        return f"<Pool streams={streams} limit={self._limit} dialling={len(self._dialling)}>"

    def take(self) -> Connection:
        """A connection with room for a call, which must be opened before this greenlet yields. Raises ConnectError."""
        while True:
            if self._is_closed:
                raise ConnectError("the transport is closed")
            for connection in self.connections:
                if connection.stream_count < self._limit and connection.can_open:
                    return connection
            for dialling in self._dialling:
                if dialling.waiting < self._limit:
                    dialling.waiting += 1
                    dialling.done.get()
                    break
            else:
                self._connect()

    def close(self) -> None:
        """Close all connections; nothing can be taken any more. Idempotent."""
        self._is_closed = True
        for connection in list(self.connections):
            connection.close()

    def _connect(self) -> None:
        dialling = _Dialling()
        self._dialling.append(dialling)
        try:
            connection = self._dial(self._remove)
            if self._is_closed:
                connection.close()
                raise ConnectError("the transport is closed")
            if not connection.can_open:
                connection.close()
                raise ConnectError(f"{connection.endpoint}: the server allows no streams")
            self.connections.append(connection)
        except ConnectError as error:
            dialling.done.set_exception(error)
            raise
        finally:
            self._dialling.remove(dialling)
            if not dialling.done.ready():  # connected, or this greenlet was killed: then another one tries
                dialling.done.set(None)

    def _remove(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
