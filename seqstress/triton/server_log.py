"""What tritonserver writes, readable while it runs and after its folder is gone."""

import os
import re
from pathlib import Path
from typing import BinaryIO

_READ_BYTES = 256 * 1024

_FATAL = re.compile(
    r"E\d{4} .*(failed to load '|Poll failed for model directory|failed to start )"
    r"|error: creating server"
    r"|.*/tritonserver: unrecognized option"
)
"""Begins the lines after which a starting tritonserver will end, seen on 2.36, 2.39, 2.47 and 2.51. What a model
prints stands in the same log: only the server's own error lines begin with E and a date."""
_PORT_TAKEN = "already in use"


class ServerLog:
    """The log file of one server process, which this object creates.

    It stays open: the supervisor removes the server's folder as soon as the server is gone, and what the log said is
    wanted after that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._file: BinaryIO | None = path.open("rb")
        self._text = ""

    def tail(self, lines: int) -> str:
        """The last lines."""
        return "\n".join(self._read().rstrip().splitlines()[-lines:])

    def fatal_line(self) -> str | None:
        """The first line that says why the server cannot start, if there is one yet."""
        return next((line for line in self._read().splitlines() if _FATAL.match(line)), None)

    def tells_of_a_taken_port(self) -> bool:
        """Whether the server could not listen because somebody else does."""
        return _PORT_TAKEN in self._read()

    def close(self) -> None:
        """Read for the last time; the answers stay as they are."""
        self._read()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> str:
        if self._file is not None:
            self._file.seek(max(0, self._file.seek(0, os.SEEK_END) - _READ_BYTES))
            self._text = self._file.read().decode(errors="replace")
        return self._text
