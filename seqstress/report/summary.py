"""``summary.json``: the run for machines, with a published JSON Schema (docs/summary.schema.json)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from seqstress.report.view import ALL, Latency, PatternRow, RunView

SCHEMA_VERSION = 1
"""Raised when a key is removed or changes its meaning; new keys may come without."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ReasonPart(_Part):
    """One finding of one rule."""

    outcome: Literal["PASS", "FAIL", "UNKNOWN"]
    """What it makes of the run; PASS is only a remark."""
    rule: str
    text: str
    remedy: str


class AllowancePart(_Part):
    """What the scenario allowed, and what was made of it."""

    label: str
    share: float
    allowed: int
    used: int


class StepsPart(_Part):
    """planned = sent + not_sent; sent = the sum of outcomes."""

    planned: int
    sent: int
    not_sent: int
    answered: int
    """Requests answered in full, late ones included."""
    per_s: float


class SequencesPart(_Part):
    """planned = finished + failed + aborted + not_sent."""

    planned: int
    finished: int
    """Every step ended ok."""
    failed: int
    aborted: int
    not_sent: int
    per_s: float


class LatencyPart(_Part):
    """Microseconds; percentiles are at most 1/128 too high, never too low; max is exact."""

    count: int
    p50: int
    p95: int
    p99: int
    max: int


class PatternLatencyPart(_Part):
    """Latencies of one pattern."""

    step: LatencyPart
    """From the step's intended time to its final answer."""
    service: LatencyPart
    """From the step's real send to its final answer."""
    sequence: LatencyPart
    """Finished sequences, from the first step's intended time to the last answer."""


class AuditRowPart(_Part):
    """One law of the server's counters."""

    name: str
    expected_low: int
    expected_high: int | None
    """null: no upper bound."""
    observed: int
    """From the server alone."""
    holds: bool
    law: str


class AuditPart(_Part):
    """The account against the server's counters."""

    equal: bool | None
    """null: the audit could not be made."""
    unavailable: str
    """Why it could not be made, else empty."""
    rows: list[AuditRowPart]


class ClientPart(_Part):
    """How hard the client itself had to work."""

    lag: LatencyPart
    """How late the workers' event loops were, in microseconds."""
    cpu_us_per_step: float | None
    """Over all client processes, the master's included; null when nothing was sent."""
    highest_cpu_share: float
    """Of one core, by the busiest worker."""


class WorkerPart(_Part):
    """One worker of the swarm."""

    worker: int
    host: str
    pid: int
    final: bool
    users: int
    steps_sent: int
    cpu_share: float


class Summary(_Part):
    """The result of one run of seqstress."""

    schema_version: int
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    exit_code: int
    reasons: list[ReasonPart]
    """The worst first."""
    allowances: list[AllowancePart]
    run_id: str
    scenario: str
    scenario_digest: str
    """Differs where anything in the scenario does."""
    seed: int
    started_at: str
    """ISO 8601, UTC."""
    duration_s: float
    target: str
    model: str
    transport: str
    users: int
    workers: int
    repeat: str
    """The command line that does the same again."""
    steps: StepsPart
    sequences: SequencesPart
    outcomes: dict[str, int]
    """Steps by fate, all fates."""
    expired_causes: dict[str, int]
    strays: dict[str, int]
    """Stray answers by kind, all kinds."""
    imbalances: list[str]
    latency_us: dict[str, PatternLatencyPart]
    """By pattern; "all" sums them."""
    audit: AuditPart
    client: ClientPart
    swarm: list[WorkerPart]
    failures: int
    """How many full failure records were kept (failures/*.json); the outcomes hold the true counts."""
    capacity: str
    warnings: list[str]
    versions: dict[str, str]
    server: str
    """Name and version, as the server tells them."""


def summarize(view: RunView) -> dict[str, object]:
    """The summary of a run as plain types, ready for ``json.dumps``."""
    facts, account = view.facts, view.total.account
    finished, failed, aborted, not_sent = account.sequence_ends
    summary = Summary(
        schema_version=SCHEMA_VERSION,
        verdict=view.verdict.outcome.value,
        exit_code=view.verdict.outcome.exit_code,
        reasons=[
            ReasonPart(outcome=reason.outcome.value, rule=reason.rule, text=reason.text, remedy=reason.remedy)
            for reason in view.verdict.reasons
        ],
        allowances=[
            AllowancePart(label=item.label, share=item.share, allowed=item.allowed, used=item.used)
            for item in view.verdict.allowances
        ],
        run_id=facts.run_id,
        scenario=facts.scenario.name,
        scenario_digest=facts.scenario.digest,
        seed=facts.seed,
        started_at=view.started_at.isoformat(timespec="milliseconds"),
        duration_s=round(facts.duration_s, 3),
        target=facts.target,
        model=facts.scenario.model.name,
        transport=facts.transport,
        users=facts.users,
        workers=len(facts.workers),
        repeat=facts.command,
        steps=StepsPart(
            planned=account.steps_planned,
            sent=account.steps_sent,
            not_sent=account.steps_not_sent,
            answered=view.ledger.answered,
            per_s=round(view.steps_per_s, 3),
        ),
        sequences=SequencesPart(
            planned=account.sequences_planned,
            finished=finished,
            failed=failed,
            aborted=aborted,
            not_sent=not_sent,
            per_s=round(view.sequences_per_s, 3),
        ),
        outcomes=view.outcomes,
        expired_causes=view.causes,
        strays=view.strays,
        imbalances=list(view.imbalances),
        latency_us={ALL: _latencies(view.total)} | {row.name: _latencies(row) for row in view.patterns},
        audit=_audit(view),
        client=ClientPart(
            lag=_latency(view.lag),
            cpu_us_per_step=None if view.cpu_us_per_step is None else round(view.cpu_us_per_step, 2),
            highest_cpu_share=round(view.highest_cpu_share, 4),
        ),
        swarm=[
            WorkerPart(
                worker=worker.worker,
                host=worker.host,
                pid=worker.pid,
                final=worker.final,
                users=worker.users,
                steps_sent=worker.ledger.total().steps_sent,
                cpu_share=round(worker.cpu_share, 4),
            )
            for worker in facts.workers
        ],
        failures=len(view.ledger.failures),
        capacity=view.capacity,
        warnings=list(view.warnings),
        versions=dict(facts.versions),
        server=facts.server,
    )
    return summary.model_dump(mode="json")


def summary_schema() -> dict[str, object]:
    """The JSON Schema of ``summary.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Summary.model_json_schema()}


def _latency(latency: Latency) -> LatencyPart:
    return LatencyPart(count=latency.count, p50=latency.p50, p95=latency.p95, p99=latency.p99, max=latency.max)


def _latencies(row: PatternRow) -> PatternLatencyPart:
    return PatternLatencyPart(
        step=_latency(row.response), service=_latency(row.service), sequence=_latency(row.sequence)
    )


def _audit(view: RunView) -> AuditPart:
    audit = view.facts.audit
    if audit is None:
        return AuditPart(equal=None, unavailable="not made", rows=[])
    return AuditPart(
        equal=None if audit.unavailable else audit.equal,
        unavailable=audit.unavailable,
        rows=[
            AuditRowPart(
                name=row.name,
                expected_low=row.expected_low,
                expected_high=row.expected_high,
                observed=row.observed,
                holds=row.holds,
                law=row.law,
            )
            for row in audit.rows
        ],
    )
