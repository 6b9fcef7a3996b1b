"""What a verdict consists of: an outcome, its reasons, the allowances that were granted."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The verdict of a run; FAIL outweighs UNKNOWN, which outweighs PASS."""

    PASS = "PASS"
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"

    @property
    def exit_code(self) -> int:
        """What the process ends with (2 is for bad input, found before any load)."""
        return {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.UNKNOWN: 3}[self]


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding of one rule: what it makes of the run, why, and what to do about it."""

    outcome: Outcome
    rule: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A share of steps that the scenario allows to end otherwise, and what was made of it."""

    label: str
    share: float
    allowed: int
    """That share in steps, rounded down."""
    used: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome with everything that led to it."""

    outcome: Outcome
    reasons: tuple[Reason, ...]
    """The worst first. Those of outcome PASS change nothing and are only reported."""
    allowances: tuple[Allowance, ...]
