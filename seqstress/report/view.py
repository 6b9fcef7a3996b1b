"""The one view of a run: every figure that a report shows is computed here, once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from math import isfinite
from socket import gethostname

from seqstress.metrics.histogram import Histogram
from seqstress.plan.capacity import Capacity
from seqstress.protocol import Fate, Stray
from seqstress.report.versions import client_versions
from seqstress.scenario import Scenario
from seqstress.verdict.audit import Audit
from seqstress.verdict.failure import Failure
from seqstress.verdict.ledger import Ledger, PatternAccount, SequenceEnd
from seqstress.verdict.rules import Verdict
from seqstress.verdict.snapshot import WorkerSnapshot

ALL = "all"
"""The name of the row in which all patterns are summed."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known once a run is over, before anything is computed from it."""

    run_id: str
    started_epoch_s: float
    duration_s: float
    scenario: Scenario
    seed: int
    target: str
    """The server's address."""
    transport: str
    users: int
    server: str
    """The server's name and version, as it tells them."""
    workers: tuple[WorkerSnapshot, ...]
    """The last word of each worker."""
    master_cpu_s: float
    """CPU time of the process that judges, where it is none of the workers."""
    ledger: Ledger
    """The account of all workers."""
    audit: Audit | None
    capacity: Capacity | None
    verdict: Verdict
    command: str
    """The command line that does the same again."""
    versions: Mapping[str, str] = field(default_factory=client_versions)
    """What ran on our side."""
    warnings: tuple[str, ...] = ()
    """What was warned of before the load, besides the capacity's own warnings."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution in microseconds; all zero when nothing was measured."""

    count: int
    p50: int
    p95: int
    p99: int
    max: int

    @classmethod
    def of(cls, histogram: Histogram) -> "Latency":
        """The figures of a histogram."""
        p50, p95, p99 = (histogram.percentile(percent) for percent in (50, 95, 99))
        return cls(histogram.count, p50, p95, p99, histogram.max)


@dataclass(frozen=True, slots=True)
class PatternRow:
    """One pattern's line, or that of all patterns together."""

    name: str
    account: PatternAccount
    response: Latency
    """Steps, from their intended time."""
    service: Latency
    """Steps, from their real send."""
    sequence: Latency
    """Finished sequences."""

    @classmethod
    def of(cls, name: str, account: PatternAccount) -> "PatternRow":
        """The line of one account."""
        return cls(
            name,
            account,
            Latency.of(account.response),
            Latency.of(account.service),
            Latency.of(account.sequence),
        )

    @property
    def ok_percent(self) -> float | None:
        """The share of the sent steps that ended ``ok``, rounded down so that 100 means all; None when none
        was sent."""
        sent = self.account.steps_sent
        return self.account.fates[Fate.OK] * 10_000 // sent / 100 if sent else None

    @property
    def other_fates(self) -> list[tuple[Fate, int]]:
        """How many steps ended otherwise, where any did."""
        return [(fate, self.account.fates[fate]) for fate in Fate if fate is not Fate.OK and self.account.fates[fate]]

    @property
    def finished(self) -> int:
        """How many sequences finished."""
        return self.account.sequence_ends[SequenceEnd.FINISHED]


@dataclass(frozen=True)
class RunView:
    """A run as the reports show it; every figure is computed once, when it is first asked for."""

    facts: RunFacts

    @cached_property
    def patterns(self) -> tuple[PatternRow, ...]:
        """A line per pattern, by name."""
        return tuple(PatternRow.of(name, account) for name, account in sorted(self.ledger.patterns.items()))

    @cached_property
    def total(self) -> PatternRow:
        """The line of all patterns together."""
        return PatternRow.of(ALL, self.ledger.total())

    @property
    def ledger(self) -> Ledger:
        """The account of the whole run."""
        return self.facts.ledger

    @property
    def verdict(self) -> Verdict:
        """What the run came to."""
        return self.facts.verdict

    @property
    def scenario(self) -> Scenario:
        """What was run."""
        return self.facts.scenario

    @cached_property
    def imbalances(self) -> tuple[str, ...]:
        """Every sum of the account that does not hold, in words."""
        return tuple(self.ledger.imbalances())

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Steps by the label of their fate, zeros too."""
        return {fate.label: self.total.account.fates[fate] for fate in Fate}

    @cached_property
    def strays(self) -> dict[str, int]:
        """Stray answers by label, zeros too."""
        return {stray.label: self.ledger.strays[stray] for stray in Stray}

    @cached_property
    def causes(self) -> dict[str, int]:
        """Expired steps by cause, the most frequent first."""
        causes = sorted(self.total.account.causes.items(), key=lambda item: (-item[1], item[0].value))
        return {cause.value: count for cause, count in causes}

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """The full records that were kept, by time."""
        return tuple(sorted(self.ledger.failures, key=lambda failure: failure.at_epoch_s))

    @cached_property
    def lag(self) -> Latency:
        """How late the event loops of the workers were, in microseconds."""
        merged = Histogram()
        for worker in self.facts.workers:
            merged.merge(worker.lag)
        return Latency.of(merged)

    @cached_property
    def client_cpu_s(self) -> float:
        """CPU time of all client processes. A lone process is its own worker and counted once."""
        own = os.getpid()
        is_worker = any(worker.pid == own and worker.host == gethostname() for worker in self.facts.workers)
        return sum(w.cpu_s for w in self.facts.workers) + (0.0 if is_worker else self.facts.master_cpu_s)

    @property
    def cpu_us_per_step(self) -> float | None:
        """CPU time of all client processes per sent step; None when none was sent."""
        sent = self.total.account.steps_sent
        return self.client_cpu_s * 1e6 / sent if sent else None

    @property
    def highest_cpu_share(self) -> float:
        """The busiest worker's share of one core."""
        return max((worker.cpu_share for worker in self.facts.workers), default=0.0)

    @property
    def steps_per_s(self) -> float:
        """Answered steps per second of the run."""
        return self._per_s(self.total.response.count)

    @property
    def sequences_per_s(self) -> float:
        """Finished sequences per second of the run."""
        return self._per_s(self.total.finished)

    def _per_s(self, count: int) -> float:
        return count / self.facts.duration_s if self.facts.duration_s > 0 else 0.0

    @property
    def started_at(self) -> datetime:
        """When the run began, in UTC."""
        return datetime.fromtimestamp(self.facts.started_epoch_s, tz=UTC)

    @property
    def capacity(self) -> str:
        """How much the slots can serve, in one sentence; "" where it is not known."""
        capacity = self.facts.capacity
        if capacity is None:
            return ""
        wait = f"; a START then waits {capacity.wait_s:.2g} s on average" if capacity.wait_s else ""
        rate = f"{capacity.sequences_per_s:.4g}" if isfinite(capacity.sequences_per_s) else "any number of"
        return f"{capacity.slots} slots serve at most about {rate} sequences/s for {capacity.users} users{wait}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was known to go wrong before the load."""
        return self.facts.warnings + (self.facts.capacity.warnings if self.facts.capacity else ())
