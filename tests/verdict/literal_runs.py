"""Literal runs: small builders of ledgers, records and terms."""

from dataclasses import dataclass, field
from enum import Enum

from seqstress.protocol import Cause, Fate, Reply, ReplyKind
from seqstress.verdict.ledger import Ledger, SequenceEnd

ANSWERED = (
    Fate.OK,
    Fate.WRONG_RESULT,
    Fate.MALFORMED,
    Fate.MISSING_ERROR,
    Fate.UNEXPECTED_ERROR,
    Fate.EXPIRED,
)


class Metric(Enum):
    STEP_P99_US = "step_p99_us"
    SEQUENCE_MAX_US = "sequence_max_us"
    STEPS_PER_S = "steps_per_s"
    SEQUENCES_PER_S = "sequences_per_s"


@dataclass(frozen=True)
class Limit:
    metric: Metric
    at_most: float | None = None
    at_least: float | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Terms:
    """What the verdict needs of a scenario."""

    allow: dict = field(default_factory=dict)
    thresholds: tuple = ()
    exclusive: bool = False


def value(observed=1):
    return Reply("r", ReplyKind.VALUE, observed, "", "m", True)


def ledger_of(fates, pattern="valid", us=1000):
    """A balanced ledger of steps with these fates ({fate: count}), each a sequence of its own."""
    ledger = Ledger()
    account = ledger.pattern(pattern)
    for fate, count in fates.items():
        for _ in range(count):
            account.plan(1, 1)
            account.sent(1)
            if fate is Fate.EXPIRED:
                account.expired(Cause.IDLE, us, us)
            elif fate in ANSWERED:
                account.answered(fate, us, us)
            else:
                account.unanswered(fate)
            if fate in ANSWERED:
                ledger.answer(value())
            account.sequence_over(SequenceEnd.FINISHED if fate is Fate.OK else SequenceEnd.FAILED, us)
    return ledger
