"""The result of a benchmark, for people (a table) and for later comparison (JSON)."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.cases import CASES, MODEL, SEQUENCE_STEPS
from bench.figures import Round, Spread, cpu_us, ratios
from bench.noise import Noise
from seqstress.report.versions import client_versions

SCHEMA_VERSION = 1
QUIET_SHARE = 0.1
"""Up to this much foreign load, of one core, a machine counts as quiet."""


def print_result(rounds: Sequence[Round], noise: Sequence[Noise]) -> None:
    """The table, the ratios and how noisy the machine was."""
    table = Table("work", "engine", "CPU µs/step", "steps/s", "p50 ms", "p99 ms", title_justify="left")
    table.title = f"Client CPU per answered step: median of {len(rounds)} rounds (least–greatest)"
    for place, case in enumerate(CASES):
        samples = [measured[case] for measured in rounds]
        last_of_work = place + 1 == len(CASES) or CASES[place + 1].work != case.work
        table.add_row(
            case.work,
            case.engine.value,
            str(cpu_us(rounds, case)),
            f"{median(sample.steps_per_s for sample in samples):,.0f}",
            _milliseconds([sample.p50_us for sample in samples]),
            _milliseconds([sample.p99_us for sample in samples]),
            end_section=last_of_work,
        )
    comparison = Table("ratio of CPU time per step", "work", "median (least–greatest)", title_justify="left")
    for name, by_work in ratios(rounds).items():
        for work, spread in by_work.items():
            comparison.add_row(name, work, f"{spread.median:.2f} ({spread.least:.2f}–{spread.greatest:.2f})")
    console = Console()
    console.print(table)
    console.print(comparison)
    console.print(noise_text(noise))


def noise_text(noise: Sequence[Noise]) -> str:
    """Whether to believe the figures, in one sentence."""
    foreign = max(disturbance.foreign_share for disturbance in noise)
    pace = Spread.of(disturbance.pace_us for disturbance in noise)
    word = "quiet" if foreign <= QUIET_SHARE else "NOISY"
    return (
        f"The machine was {word}: others used up to {foreign:.2f} cores in a round; "
        f"its own pace varied by {pace.greatest / pace.least - 1:.0%}."
    )


def write_result(
    path: Path, server: str, crashes: int, steps: int, rounds: Sequence[Round], noise: Sequence[Noise]
) -> None:
    """Everything that was measured, with the figures that later results are compared by."""
    result = {
        "schema_version": SCHEMA_VERSION,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": _processor(), "architecture": platform.machine()},
        "versions": client_versions(),
        "server": server,
        "server_crashes": crashes,
        "work": {"steps": steps, "steps_per_sequence": SEQUENCE_STEPS, "slots": MODEL.slots},
        "rounds": len(rounds),
        "noise": {"text": noise_text(noise), "rounds": [asdict(disturbance) for disturbance in noise]},
        "cpu_us_per_step": {f"{case.engine.value}/{case.work}": cpu_us(rounds, case).to_plain() for case in CASES},
        "ratios": {
            name: {work: spread.to_plain() for work, spread in by_work.items()}
            for name, by_work in ratios(rounds).items()
        },
        "samples": [
            {f"{case.engine.value}/{case.work}": asdict(sample) for case, sample in measured.items()}
            for measured in rounds
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _milliseconds(latencies_us: Sequence[int | None]) -> str:
    known = [latency for latency in latencies_us if latency is not None]
    return f"{median(known) / 1000:.2f}" if known else "–"


def _processor() -> str:
    """As Linux names it; empty where it does not."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
