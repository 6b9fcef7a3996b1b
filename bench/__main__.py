"""``python -m bench``: measure every case in interleaved rounds on one embedded server; table and JSON."""

import argparse
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench.cases import CASES, MODEL
from bench.clients import BenchError, measure
from bench.figures import Round
from bench.noise import Noise, NoiseWatch
from bench.report import print_result, write_result
from seqstress.errors import SeqstressError
from seqstress.triton.control import Control
from seqstress.triton.server import TritonServer
from seqstress.wire.transport import Http2Transport

RESULTS = Path(__file__).parent / "results"
MOST_CRASHES = 2
"""Triton 2.51 dies of a segmentation fault now and then under this load: so often it is borne with."""


@dataclass(slots=True)
class Measured:
    """What all rounds gave."""

    server: str = ""
    """Name and version, as it tells them."""
    crashes: int = 0
    """How often the server died, and a round was begun anew with another."""
    rounds: list[Round] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)


def main() -> int:
    """Measure, print, write."""
    options = _parse()
    measured = Measured()
    while len(measured.rounds) < options.rounds:
        with TritonServer([MODEL], release=options.release) as server:
            measured.server = _version(server.grpc_target)
            try:
                _measure_on(server, options, measured)
            except BenchError as error:
                if server.is_running or measured.crashes == MOST_CRASHES:
                    raise
                measured.crashes += 1
                print(
                    f"{error}\nThe server died (exit code {server.returncode}):\n{server.log_tail()}", file=sys.stderr
                )
    path = options.out or RESULTS / f"{date.today().isoformat()}.json"
    print_result(measured.rounds, measured.noise)
    if measured.crashes:
        print(f"The server crashed {measured.crashes} time(s); those rounds were measured anew.")
    write_result(path, measured.server, measured.crashes, options.steps, measured.rounds, measured.noise)
    print(f"Written: {path}")
    return 0


def _measure_on(server: TritonServer, options: argparse.Namespace, measured: Measured) -> None:
    """The rounds that are left. Raises BenchError where a case fails, also because the server died under it."""
    while (number := len(measured.rounds)) < options.rounds:
        watch = NoiseWatch(server.pid)
        figures = _round(number, options.rounds, server.grpc_target, options.steps)
        measured.noise.append(watch.stop())
        measured.rounds.append(figures)


def _round(number: int, of: int, target: str, steps: int) -> Round:
    """Every case once; every other round goes backwards, so that a drift of the machine favours nobody."""
    measured = {}
    for place, case in enumerate(CASES if number % 2 == 0 else reversed(CASES), 1):
        sample = measured[case] = measure(case, target, steps)
        print(
            f"round {number + 1}/{of}, case {place}/{len(CASES)}: {case.work:12} {case.engine.value:12} "
            f"{sample.cpu_us:6.1f} µs/step",
            flush=True,
        )
    return measured


def _version(target: str) -> str:
    transport = Http2Transport(target)
    try:
        facts = Control(transport).server_metadata()
    finally:
        transport.close()
    return f"{facts.name} {facts.version}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12_000, help="about so many per case (default: %(default)s)")
    parser.add_argument("--release", help="release of the embedded Triton")
    parser.add_argument("--out", type=Path, help="file for the result (default: bench/results/<date>.json)")
    options = parser.parse_args()
    if options.rounds < 1 or options.steps < 1:
        parser.error("--rounds and --steps are whole numbers from 1 on")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SeqstressError as error:
        sys.exit(f"bench: {error}")
