"""``python -m bench``: measure every case in interleaved rounds on one embedded server; table and JSON."""

import argparse
import sys
from datetime import date
from pathlib import Path

from bench.cases import CASES, MODEL
from bench.clients import measure
from bench.figures import Round
from bench.noise import Noise, NoiseWatch
from bench.report import print_result, write_result
from seqstress.errors import SeqstressError
from seqstress.triton.control import Control
from seqstress.triton.server import TritonServer
from seqstress.wire.transport import Http2Transport

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print, write."""
    options = _parse()
    rounds: list[Round] = []
    noise: list[Noise] = []
    try:
        with TritonServer([MODEL], release=options.release) as server:
            version = _version(server.grpc_target)
            for number in range(options.rounds):
                watch = NoiseWatch(server.pid)
                rounds.append(_round(number, options.rounds, server.grpc_target, options.steps))
                noise.append(watch.stop())
    except SeqstressError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    path = options.out or RESULTS / f"{date.today().isoformat()}.json"
    print_result(rounds, noise)
    write_result(path, version, options.steps, rounds, noise)
    print(f"Written: {path}")
    return 0


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
    parser.add_argument("--steps", type=int, default=20_000, help="about so many per case (default: %(default)s)")
    parser.add_argument("--release", help="release of the embedded Triton")
    parser.add_argument("--out", type=Path, help="file for the result (default: bench/results/<date>.json)")
    options = parser.parse_args()
    if options.rounds < 1 or options.steps < 1:
        parser.error("--rounds and --steps are whole numbers from 1 on")
    return options


if __name__ == "__main__":
    sys.exit(main())
