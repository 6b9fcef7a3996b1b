"""The figures of a run that a threshold can limit."""

import re

from seqstress.verdict.ledger import Ledger, PatternAccount, SequenceEnd

_METRIC = re.compile(r"(step|sequence)_(?:p(\d+(?:\.\d+)?)|max)_us")


def measure(ledger: Ledger, metric: str, pattern: str | None, duration_s: float) -> float | None:
    """The observed value of a threshold's metric; None when nothing was measured. A step's latency is its
    response time (from the intended time). Raises ValueError for a metric that does not exist."""
    account = ledger.total() if pattern is None else ledger.patterns.get(pattern, PatternAccount())
    finished = account.sequence_ends[SequenceEnd.FINISHED]
    if metric in ("steps_per_s", "sequences_per_s"):
        count = account.response.count if metric == "steps_per_s" else finished
        return count / duration_s if duration_s > 0 else None
    match = _METRIC.fullmatch(metric)
    if match is None:
        raise ValueError(f"there is no metric {metric!r}")
    histogram = account.response if match[1] == "step" else account.sequence
    if not histogram.count:
        return None
    return histogram.max if match[2] is None else histogram.percentile(float(match[2]))
