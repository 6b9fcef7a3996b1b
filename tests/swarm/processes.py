"""Runs real locust processes and reads what they leave behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("seqstress")
LOCUSTFILE = PROJECT / "locustfile.py"
SCENARIOS = PROJECT / "scenarios"
END_S = 60.0


@dataclass(frozen=True)
class Ended:
    """A locust process that has ended."""

    code: int
    output: str
    out: Path

    @property
    def directory(self) -> Path:
        """The folder of its only run."""
        (directory,) = [path for path in self.out.iterdir() if path.is_dir()]
        return directory

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of its only run."""
        summary: dict[str, Any] = json.loads((self.directory / "summary.json").read_text())
        return summary


class Process:
    """A command of ours; output goes to a file, so that it never blocks and can be read while it runs."""

    def __init__(self, out: Path, command: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
        self.out = out
        self._log = out / "output.txt"
        out.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                start_new_session=True,
                # An interactive shell would not ignore SIGINT for it; a test runner's shell may.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to come true while the process lives."""
        deadline = time.monotonic() + END_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{what} did not happen:\n{self.output}")
            os.sched_yield()
            time.sleep(0.02)  # a poll for what another process does

    def end(self) -> Ended:
        """Wait for its end."""
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"locust did not end:\n{self.output}") from None
        finally:
            self.kill()
        return Ended(code, self.output, self.out)

    def kill(self) -> None:
        """Whatever happened, nothing of it stays."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Locust(Process):
    """A locust process with our command line."""

    def __init__(self, out: Path, arguments: Sequence[object], locustfile: Path = LOCUSTFILE) -> None:
        super().__init__(out, [sys.executable, "-m", "locust", "-f", locustfile, "--out", out, *arguments])


class Seqstress(Process):
    """The ``seqstress`` script, with a folder of its own for temporary files."""

    def __init__(self, out: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        self.temporary = out / "temporary"
        self.temporary.mkdir(parents=True)
        own = {"TMPDIR": str(self.temporary), "COLUMNS": "120"}
        super().__init__(out / "runs", [SCRIPT, *arguments], {**own, **(environment or {})})

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to the script alone, as a terminal or a supervisor does."""
        os.kill(self.process.pid, number)


class Family:
    """A process and all below it as they are now, to see later that nothing of them stayed."""

    def __init__(self, process: Process) -> None:
        own = psutil.Process(process.process.pid)
        self._members = [own, *own.children(recursive=True)]
        self._regions: set[str] = set()
        self.servers: list[int] = []
        for member in self._members:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                self._regions.update(re.findall(r"shm-region-prefix-name=(\S+)", " ".join(member.cmdline())))
                if member.name().startswith("tritonserver"):
                    self.servers.append(member.pid)

    @property
    def remains(self) -> list[object]:
        """Processes and shared memory that are still there; waits for what is about to go."""
        _, alive = psutil.wait_procs(self._members, timeout=10)
        return [*alive, *(path for prefix in self._regions for path in Path("/dev/shm").glob(f"{prefix}*"))]


def run_headless(out: Path, target: str, scenario: Path, *arguments: object, **keywords: Any) -> Ended:
    """One headless process from start to end."""
    return Locust(
        out, ["--headless", "--only-summary", "--host", target, "--scenario", scenario, *arguments], **keywords
    ).end()


def write_scenario(directory: Path, **keys: object) -> Path:
    """A scenario file; JSON is YAML."""
    path = directory / f"{keys['name']}.yaml"
    path.write_text(json.dumps(keys))
    return path
