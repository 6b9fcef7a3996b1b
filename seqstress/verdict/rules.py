"""PASS, FAIL or UNKNOWN: each rule looks at the whole run and gives its reasons; the worst one is the
verdict."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seqstress.metrics.histogram import Histogram
from seqstress.protocol import Cause, Fate, Stray
from seqstress.verdict.audit import Audit
from seqstress.verdict.ledger import Ledger, PatternAccount, SequenceEnd
from seqstress.verdict.measure import measure
from seqstress.verdict.outcome import Allowance, Outcome, Reason, Verdict
from seqstress.verdict.terms import Terms

__all__ = ["FAILING_FATES", "LOAD_FATES", "RULES", "Outcome", "Reason", "RunRecord", "Verdict", "judge_run", "verdict"]

FAILING_FATES = (
    Fate.WRONG_RESULT,
    Fate.MALFORMED,
    Fate.MISSING_ERROR,
    Fate.UNEXPECTED_ERROR,
    Fate.TIMEOUT,
    Fate.DISCONNECTED,
)
"""What the server (or the way to it) did wrong."""

LOAD_FATES = (Fate.EXPIRED, Fate.QUEUED)
"""What our own load did wrong."""

LAG_LIMIT_US = 5_000
"""A 99th percentile of event-loop lag up to here never counts as saturation."""

CPU_LIMIT = 0.7
"""From this share of a core on, a worker's own queueing shows in the latencies: at 67 % a true p99 of 5 ms
read 13 ms."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The whole run as the rules see it."""

    ledger: Ledger
    terms: Terms
    audit: Audit | None
    """None: there was none to be made (say: the run never started)."""
    duration_s: float
    lag: Histogram
    cpu_share: float = 0.0
    """The highest share of a core that a worker used."""
    missing_workers: tuple[str, ...] = ()
    """Workers that vanished or whose final account never came, by name."""

    @property
    def sent(self) -> int:
        """How many steps were sent in all."""
        return self.ledger.sent


def verdict(
    ledger: Ledger,
    terms: Terms,
    audit: Audit | None,
    *,
    duration_s: float,
    lag: Histogram,
    cpu_share: float = 0.0,
    missing_workers: Sequence[str] = (),
) -> Verdict:
    """Judge a run that is over. Never raises: a rule that crashes makes the verdict UNKNOWN and says so."""
    return judge_run(RunRecord(ledger, terms, audit, duration_s, lag, cpu_share, tuple(missing_workers)), RULES)


Rule = Callable[[RunRecord], Iterable[Reason]]


def judge_run(run: RunRecord, rules: Sequence[Rule]) -> Verdict:
    """Apply ``rules``; the worst of their reasons is the outcome, PASS when there is none."""
    reasons: list[Reason] = []
    for rule in rules:
        try:
            reasons.extend(rule(run))
        except Exception as error:  # noqa: BLE001 - whatever it is, a check that did not happen must not read as passed
            text = f"the rule itself crashed: {error!r}"
            reasons.append(
                Reason(Outcome.UNKNOWN, rule.__name__.strip("_"), text, "This is a bug of seqstress: report it.")
            )
    reasons.sort(key=lambda reason: _SEVERITY[reason.outcome])
    outcome = reasons[0].outcome if reasons else Outcome.PASS
    return Verdict(outcome, tuple(reasons), tuple(_allowances(run)))


_SEVERITY = {Outcome.FAIL: 0, Outcome.UNKNOWN: 1, Outcome.PASS: 2}


def _failing_fates(run: RunRecord) -> Iterator[Reason]:
    """FAIL: steps that the server got wrong, beyond what the scenario allows."""
    total = run.ledger.total()
    for fate in FAILING_FATES:
        count, allowed = total.fates[fate], _allowed(run, fate.label)
        if count > allowed:
            yield Reason(Outcome.FAIL, fate.label, _beyond(run, count, allowed, _FATE_TEXT[fate]), _FATE_REMEDY[fate])


def _strays(run: RunRecord) -> Iterator[Reason]:
    """FAIL: answers that no open step asked for, beyond what the scenario allows."""
    for stray in Stray:
        count, allowed = run.ledger.strays[stray], _allowed(run, stray.label)
        if count > allowed:
            plural = "stray answer" if count == 1 else "stray answers"
            limit = f", {allowed} allowed" if allowed else ""
            yield Reason(Outcome.FAIL, stray.label, f"{count} {plural} {_STRAY_TEXT[stray]}{limit}", _SEE_FAILURES)


def _load(run: RunRecord) -> Iterator[Reason]:
    """UNKNOWN: steps that went wrong by our own load, beyond what the scenario allows: they tested
    nothing."""
    total = run.ledger.total()
    expired, allowed = total.fates[Fate.EXPIRED], _allowed(run, Fate.EXPIRED.label)
    if expired > allowed:
        causes = ", ".join(f"{cause.value} {count}" for cause, count in _by_count(total.causes))
        text = _beyond(run, expired, allowed, f"met a sequence that the server had rightly dropped ({causes})")
        yield Reason(
            Outcome.UNKNOWN,
            Fate.EXPIRED.label,
            f"the load, not the server, was wrong: {text}",
            _expired_remedy(total),
        )
    queued, allowed = total.fates[Fate.QUEUED], _allowed(run, Fate.QUEUED.label)
    if queued > allowed:
        text = _beyond(run, queued, allowed, "waited past the deadline while our own sequences filled every slot")
        yield Reason(
            Outcome.UNKNOWN,
            Fate.QUEUED.label,
            f"the load, not the server, was wrong: {text}",
            "Use fewer users or abandoned sequences than slots, a longer timeout_s, or a model with more slots.",
        )


def _swarm(run: RunRecord) -> Iterator[Reason]:
    """UNKNOWN: a worker whose final account is missing may have seen anything."""
    if run.missing_workers:
        names = ", ".join(run.missing_workers)
        yield Reason(
            Outcome.UNKNOWN,
            "workers",
            f"no final account of {len(run.missing_workers)} worker(s): {names}",
            "Look at their logs (killed, out of memory, cut off?) and run again.",
        )


def _account(run: RunRecord) -> Iterator[Reason]:
    """UNKNOWN: sums that do not hold mean that steps were lost in our own books."""
    for text in run.ledger.imbalances():
        yield Reason(
            Outcome.UNKNOWN,
            "account",
            f"the account does not balance: {text}",
            "This is a bug of seqstress: report it.",
        )


def _progress(run: RunRecord) -> Iterator[Reason]:
    """UNKNOWN: a run in which nothing finished has shown nothing."""
    total = run.ledger.total()
    if not total.sequence_ends[SequenceEnd.FINISHED]:
        what = "no step was sent" if not run.sent else f"{run.sent} steps were sent, but no sequence finished"
        yield Reason(Outcome.UNKNOWN, "progress", what, "Let it run longer, and see whether the server answers at all.")


def _unsent(run: RunRecord) -> Iterator[Reason]:
    """UNKNOWN: what could not even be sent has shown nothing. A user that is stopped ends its plan first, and what is
    skipped behind a failure counts as aborted: a healthy run has none of these."""
    total = run.ledger.total()
    count = total.sequence_ends[SequenceEnd.NOT_SENT]
    if count:
        yield Reason(
            Outcome.UNKNOWN,
            "not_sent",
            f"{count} of {total.sequences_planned} sequences could not be sent, though nobody stopped them",
            "See whether the server, or what stands before it, refused or dropped connections meanwhile, and its log.",
        )


def _client(run: RunRecord) -> Iterator[Reason]:
    """Reported only: a saturated client waits in itself, so latencies are too long; correctness stands."""
    why = _saturation(run)
    if why:
        yield Reason(
            Outcome.PASS,
            "client",
            f"the client was saturated ({why}): latencies include its own waiting, the fates stand",
            "Use more workers or fewer users.",
        )


def _thresholds(run: RunRecord) -> Iterator[Reason]:
    """FAIL: a threshold missed. UNKNOWN: one that cannot be judged."""
    saturation = _saturation(run)
    for threshold in run.terms.thresholds:
        scope = f" of {threshold.pattern}" if threshold.pattern else ""
        metric = threshold.metric.value
        name = f"{metric}{scope}"
        observed = measure(run.ledger, metric, threshold.pattern, run.duration_s)
        if observed is None:
            yield Reason(Outcome.UNKNOWN, "threshold", f"{name}: nothing was measured", "Let it run longer.")
        elif saturation and metric.endswith("_us"):
            yield Reason(
                Outcome.UNKNOWN,
                "threshold",
                f"{name} is {observed:.6g}, but the client was saturated ({saturation})",
                "Use more workers or fewer users; the latency says more about the client than about the server.",
            )
        elif threshold.at_most is not None and observed > threshold.at_most:
            yield Reason(Outcome.FAIL, "threshold", f"{name} is {observed:.6g}, at most {threshold.at_most:.6g} wanted")
        elif threshold.at_least is not None and observed < threshold.at_least:
            yield Reason(
                Outcome.FAIL,
                "threshold",
                f"{name} is {observed:.6g}, at least {threshold.at_least:.6g} wanted",
            )


def _audit(run: RunRecord) -> Iterator[Reason]:
    """FAIL: counters of the server that the ledger cannot explain, in a run that had the model for itself."""
    if not run.terms.exclusive:
        return
    if run.audit is None or run.audit.unavailable:
        why = run.audit.unavailable if run.audit else "the server's counters were not read"
        yield Reason(
            Outcome.UNKNOWN,
            "audit",
            f"the audit could not be made: {why}",
            "See whether the server still lives; set exclusive: false where its counters cannot be read or are shared.",
        )
    elif not run.audit.equal:
        first, *more = [row for row in run.audit.rows if not row.holds]
        others = f" (and {len(more)} more)" if more else ""
        expected = _span(first.expected_low, first.expected_high)
        told = f"{first.name} is {first.observed}, {expected} expected{others}"
        if run.missing_workers or run.ledger.imbalances():
            # Our own books are incomplete: the difference may be ours.
            yield Reason(Outcome.UNKNOWN, "audit", f"counters and an incomplete account differ: {told}")
        else:
            yield Reason(
                Outcome.FAIL,
                "audit",
                f"the server's counters do not fit what we sent and received: {told}",
                "If somebody else used the model meanwhile, set exclusive: false; else requests were lost or invented.",
            )


RULES: tuple[Rule, ...] = (
    _failing_fates,
    _strays,
    _swarm,
    _account,
    _audit,
    _thresholds,
    _progress,
    _unsent,
    _load,
    _client,
)
"""Every rule, in the order in which reasons of the same weight are told."""


def _saturation(run: RunRecord) -> str:
    """Why the client counts as saturated, or ""."""
    lag_us = run.lag.percentile(99)
    limit_us = max(LAG_LIMIT_US, run.ledger.total().response.percentile(99) // 10)
    if lag_us > limit_us:
        return f"its event loop was late by {lag_us / 1000:.1f} ms at p99"
    if run.cpu_share > CPU_LIMIT:
        return f"a worker used {run.cpu_share:.0%} of a core"
    return ""


def _allowed(run: RunRecord, label: str) -> int:
    return int(run.terms.allow.get(label, 0.0) * run.sent + 1e-9)


def _allowances(run: RunRecord) -> Iterator[Allowance]:
    total = run.ledger.total()
    used = {fate.label: total.fates[fate] for fate in Fate} | {stray.label: run.ledger.strays[stray] for stray in Stray}
    for label, share in run.terms.allow.items():
        yield Allowance(label, share, _allowed(run, label), used.get(label, 0))


def _beyond(run: RunRecord, count: int, allowed: int, what: str) -> str:
    limit = f" ({allowed} allowed)" if allowed else ""
    return f"{count} of {run.sent} steps{limit} {what}"


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"at least {low}"
    return str(low) if low == high else f"{low} to {high}"


def _by_count(causes: Mapping[Cause, int]) -> list[tuple[Cause, int]]:
    return sorted(causes.items(), key=lambda item: -item[1])


def _expired_remedy(total: PatternAccount) -> str:
    idle = total.causes.get(Cause.IDLE, 0) + total.causes.get(Cause.MAYBE_IDLE, 0)
    if 2 * idle >= total.fates[Fate.EXPIRED]:
        return (
            "Waiting in the backlog counts as idle: use no more users than slots, pacing: pipelined, "
            "shorter think times, or a model with a longer idle limit."
        )
    return "See the causes: something interrupted these sequences (a reset, a lost connection, a reload of the model)."


_SEE_FAILURES = "See the failure records."

_FATE_TEXT = {
    Fate.WRONG_RESULT: "were answered with another value than the oracle's",
    Fate.MALFORMED: "were answered without the output, or with another shape or datatype",
    Fate.MISSING_ERROR: "were answered where the START error was due",
    Fate.UNEXPECTED_ERROR: "got an error that no cause known to us explains",
    Fate.TIMEOUT: "got no answer by the deadline, with no overload of ours to explain it",
    Fate.DISCONNECTED: "were open when their stream or connection broke",
}

_FATE_REMEDY = {
    Fate.WRONG_RESULT: "See the failure records: does the model keep state per slot and reset it at START?",
    Fate.MALFORMED: "See the failure records, and the model's declared outputs.",
    Fate.MISSING_ERROR: "See the failure records: the server took a step for the continuation of a sequence.",
    Fate.UNEXPECTED_ERROR: "See the failure records and the server's log at those times.",
    Fate.TIMEOUT: "See the failure records: a hung model, a lost answer, or a timeout_s that is too short?",
    Fate.DISCONNECTED: "See whether the server or a proxy restarted, and its log.",
}

_STRAY_TEXT = {
    Stray.OUT_OF_ORDER: "came before that of an earlier step",
    Stray.DUPLICATE: "to steps that had been answered in full",
    Stray.ORPHAN: "to requests that were never sent on that stream",
    Stray.LATE: "after their step was given up",
}
