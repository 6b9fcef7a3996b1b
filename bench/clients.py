"""Runs one case in a process of its own and reads off what it cost."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.cases import MODEL, SEED, SEQUENCE_STEPS, Case, Engine
from seqstress.errors import SeqstressError
from seqstress.launch import LocustRun

PROJECT = Path(__file__).parents[1]
LONGEST_S = 120.0
"""What a case may take at most; then it is ended, and the benchmark with it."""

_NO_PORT = 0
"""A process without workers meets nobody."""


class BenchError(SeqstressError):
    """A case did not do its work, so that its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one case cost in one round."""

    steps: int
    """Steps that were answered, all of them rightly."""
    cpu_us: float
    """CPU time of the client process per step, user and system, without its start-up."""
    steps_per_s: float
    """By the wall clock, with the same machine's server: no figure of the client alone."""
    p50_us: int | None
    """Latency of a step from its intended time to its answer; None where nobody measures it."""
    p99_us: int | None


def measure(case: Case, target: str, steps: int) -> Sample:
    """Run a case against the server at ``target``. Raises BenchError where anything but right answers came."""
    run = _run_wire if case.engine is Engine.WIRE else _run_locust
    return run(case, target, case.sequences(steps))


def _run_locust(case: Case, target: str, sequences: int) -> Sample:
    with TemporaryDirectory(prefix="seqstress-bench-") as name:
        out = Path(name)
        options = ["--users", case.users, "--iterations", sequences, "--seed", SEED, "--out", out]
        options += ["--transport", case.engine.transport]
        run = LocustRun(case.write_scenario(out), target, tuple(map(str, options)))
        _output(case, run.commands(_NO_PORT)[0])
        summaries = list(out.glob("*/summary.json"))
        if len(summaries) != 1:
            raise BenchError(f"{case}: {len(summaries)} summaries instead of one")
        summary: dict[str, Any] = json.loads(summaries[0].read_text(encoding="utf-8"))
    steps = summary["outcomes"]["ok"]
    _expect(case, steps, sequences)
    latency = summary["latency_us"]["all"]["step"]
    client = summary["client"]
    return Sample(steps, client["cpu_us_per_step"], summary["steps"]["per_s"], latency["p50"], latency["p99"])


def _run_wire(case: Case, target: str, sequences: int) -> Sample:
    command = [sys.executable, "-m", "bench.wire_cpu", target, MODEL.name, "--json", "--pacing", case.pacing.value]
    command += ["--greenlets", str(case.users), "--sequences", str(sequences), "--steps", str(SEQUENCE_STEPS)]
    (line,) = _output(case, command).splitlines()
    figures: dict[str, Any] = json.loads(line)
    _expect(case, figures["right"], sequences)
    return Sample(figures["right"], figures["cpu_us"], figures["per_s"], None, None)


def _expect(case: Case, right: int, sequences: int) -> None:
    wanted = sequences * case.users * SEQUENCE_STEPS
    if right != wanted:
        raise BenchError(f"{case}: {right} steps were answered rightly, of {wanted}")


def _output(case: Case, command: list[str]) -> str:
    """Standard output of a command that ended well; a Locust run that is not PASS does not."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=PROJECT,
            timeout=LONGEST_S,
            check=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{case}: not done after {LONGEST_S:g} s") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(
            f"{case}: exit code {error.returncode}\n{error.stdout[-4000:]}{error.stderr[-4000:]}"
        ) from None
    return ended.stdout
