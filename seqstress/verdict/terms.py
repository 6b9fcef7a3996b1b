"""What the verdict needs of a scenario; ``seqstress.scenario.Scenario`` is one."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Metric(Protocol):
    """A figure of the run, as an enum of the scenario names it."""

    @property
    def value(self) -> str:
        """``step_p99_us``, ``sequence_max_us``, ``steps_per_s``, ``sequences_per_s``, …"""


class Threshold(Protocol):
    """One limit of a scenario: ``at_most``, ``at_least`` or both."""

    @property
    def metric(self) -> Metric:
        """What is limited."""

    @property
    def at_most(self) -> float | None:
        """The highest value that meets it."""

    @property
    def at_least(self) -> float | None:
        """The lowest value that meets it."""

    @property
    def pattern(self) -> str | None:
        """The pattern it is about; None for all."""


class Terms(Protocol):
    """What the verdict needs of a scenario."""

    @property
    def allow(self) -> Mapping[str, float]:
        """Label of a fate or stray -> the share of the sent steps that may have it."""

    @property
    def thresholds(self) -> Sequence[Threshold]:
        """The limits on latency and throughput."""

    @property
    def exclusive(self) -> bool:
        """Whether nobody else uses the model, so that its counters are ours."""
