"""From the samples of all rounds to medians, spreads and ratios."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.cases import Case, Engine
from bench.clients import Sample

Round = Mapping[Case, Sample]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, and the least and greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        """Of at least one figure."""
        ordered = sorted(figures)
        return cls(median(ordered), ordered[0], ordered[-1])

    def to_plain(self) -> dict[str, float]:
        """For JSON."""
        return {"median": round(self.median, 4), "min": round(self.least, 4), "max": round(self.greatest, 4)}

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.greatest:.{digits}f})"


RATIOS = {
    "complete_to_wire": (Engine.COMPLETE, Engine.WIRE),
    "reference_to_complete": (Engine.REFERENCE, Engine.COMPLETE),
}
"""What is compared: CPU time per step of the first engine over that of the second."""


def cpu_us(rounds: Sequence[Round], case: Case) -> Spread:
    """CPU time per step over all rounds."""
    return Spread.of(measured[case].cpu_us for measured in rounds)


def ratios(rounds: Sequence[Round]) -> dict[str, dict[str, Spread]]:
    """By name and work. Each ratio is of two samples of one round, so that what disturbs both cancels out."""
    found: dict[str, dict[str, Spread]] = {}
    for name, (over, under) in RATIOS.items():
        pairs = [(case, replace(case, engine=under)) for case in rounds[0] if case.engine is over]
        found[name] = {
            case.work: Spread.of(measured[case].cpu_us / measured[other].cpu_us for measured in rounds)
            for case, other in pairs
        }
    return found
