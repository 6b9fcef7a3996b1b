"""Starts Locust for ``seqstress run``: one process, or a master with workers on this machine, and sees them end."""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from seqstress.verdict.rules import Outcome

LOCUSTFILE = Path(__file__).parent / "swarm" / "locustfile.py"
WEB_HOST, WEB_PORT = "127.0.0.1", 8089
LAST_WORD_S = 60.0
"""What Locust gets to stop its users, collect their accounts and judge them, once it was told to end."""

WORKER_END_S = 10.0
"""What a worker gets to end by itself after its master has ended."""

_LOG_LEVELS = ("--loglevel", "-L")

_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class LocustRun:
    """What to start: ``arguments`` go to the process that conducts, beside those that its role needs."""

    scenario: Path
    address: str
    """HOST:PORT of the server's gRPC endpoint."""
    arguments: tuple[str, ...]
    workers: int = 0
    """Processes with users; 0 = one process does everything."""
    web_ui: bool = False

    def commands(self, port: int) -> list[list[str]]:
        """The command lines: the conducting process first, then its workers, which meet it on ``port``."""
        locust = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
        role = [] if not self.workers else ["--master", "--master-bind-host", "127.0.0.1"]
        if self.workers:
            role += ["--master-bind-port", str(port), "--expect-workers", str(self.workers)]
        # Who asks for Locust's own notes gets them; else they would drown ours.
        loud = any(argument.partition("=")[0] in _LOG_LEVELS for argument in self.arguments)
        brief = [] if loud else ["--brief", "--loglevel", "WARNING"]
        web = ["--web-host", WEB_HOST, "--web-port", str(WEB_PORT)]
        face = web if self.web_ui else ["--headless", "--only-summary"]
        target = ["--scenario", str(self.scenario), "--host", self.address]
        conductor = [*locust, *role, *face, *target, *brief, *self.arguments]
        worker = [*locust, "--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]
        worker += ["--exit-code-on-error", "0", *([] if loud else ["--loglevel", "WARNING"])]
        return [conductor, *([worker] * self.workers)]


class RunEnd(NamedTuple):
    """How a run of Locust ended."""

    code: int
    """The verdict's exit code."""
    was_stopped: bool
    """Whether Ctrl-C or SIGTERM ended it."""


def run_locust(run: LocustRun, port: int) -> RunEnd:
    """Run it to its end. Ctrl-C and SIGTERM let it stop and judge what it has, and so does the crash of a worker.

    A conducting process that died by a signal, or had to be killed, has told no verdict: UNKNOWN.
    """
    told = _StopRequests()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes = [_start(command) for command in run.commands(port)]
        code = _await_end(processes, told)
        for worker in processes[1:]:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(WORKER_END_S)
        return RunEnd(code if code >= 0 else Outcome.UNKNOWN.exit_code, told.count > 0)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        told.restore()


def _await_end(processes: "list[subprocess.Popen[bytes]]", told: "_StopRequests") -> int:
    conductor, *workers = processes
    deadline_s: float | None = None
    while conductor.poll() is None:
        crashed = next((worker for worker in workers if worker.poll()), None)
        if crashed is not None and deadline_s is None:
            # Before the load Locust would wait for it for ever; later on the run cannot pass any more.
            print(f"seqstress: a worker died (exit code {crashed.returncode}): ending the run", file=sys.stderr)
        if (told.count or crashed is not None) and deadline_s is None:
            if told.count:
                print("Stopping: the users end their sequences, then comes the verdict ...", file=sys.stderr)
            deadline_s = time.monotonic() + LAST_WORD_S
            conductor.send_signal(signal.SIGTERM)
        if deadline_s is not None and (time.monotonic() > deadline_s or told.count > 2):
            conductor.kill()
        time.sleep(_POLL_S)
    return conductor.returncode


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C reaches this process alone, which then ends the others in order. Without a
    # terminal on its input Locust does not listen for keys either.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)


def _die_with_parent() -> None:
    # By SIGKILL: the embedded server goes with us too, and a run that judged its end would blame it on the server.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class _StopRequests:
    """Counts Ctrl-C and SIGTERM instead of dying of them: one asks for the end, three end it at once."""

    def __init__(self) -> None:
        self.count = 0
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
