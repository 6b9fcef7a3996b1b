"""Servers that misbehave: enough of Triton's control plane to pass the preflight, and one sin each on the streams.

Each is a process of its own. ``messages`` is a gRPC server whose sins are in what it says; ``frames`` speaks HTTP/2 by
hand and sins beneath gRPC.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

PROJECT = Path(__file__).parents[3]


class HostileServer:
    """A process that runs ``tests.e2e.hostile.<module>``; it says its ports when ready, its deeds when it ends."""

    def __init__(self, module: str) -> None:
        self._command = [sys.executable, "-m", f"tests.e2e.hostile.{module}"]
        self.targets: dict[str, str] = {}
        self.deeds: dict[str, int] = {}
        """How often it did what, once it has ended."""

    def __enter__(self) -> "HostileServer":
        self._process = subprocess.Popen(
            self._command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        ports = self._said()
        self.targets = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()  # its word to end; it would end as well if this process died
            self.deeds = self._said()
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the hostile server died"
        said: dict[str, Any] = json.loads(line)
        return said
