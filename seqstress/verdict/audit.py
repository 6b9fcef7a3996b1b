"""The ledger against the server's own counters: did Triton serve exactly the requests that we think it
served?"""

from dataclasses import dataclass

from seqstress.verdict.ledger import AnswerClass, Ledger


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """The counters of one model as the ModelStatistics RPC tells them, all versions summed."""

    success: int
    fail: int
    inference_count: int
    execution_count: int
    queue_count: int
    compute_infer_count: int
    batches: tuple[tuple[int, int], ...]
    """(batch size, executions) in rising order of size."""

    def __sub__(self, earlier: "ModelStatistics") -> "ModelStatistics":
        """What was counted since ``earlier``. Negative where the model was loaded anew in between: counters
        start at 0."""
        before, now = dict(earlier.batches), dict(self.batches)
        grown = {size: now.get(size, 0) - before.get(size, 0) for size in now.keys() | before.keys()}
        return ModelStatistics(
            success=self.success - earlier.success,
            fail=self.fail - earlier.fail,
            inference_count=self.inference_count - earlier.inference_count,
            execution_count=self.execution_count - earlier.execution_count,
            queue_count=self.queue_count - earlier.queue_count,
            compute_infer_count=self.compute_infer_count - earlier.compute_infer_count,
            batches=tuple((size, count) for size, count in sorted(grown.items()) if count),
        )

    @property
    def has_negative(self) -> bool:
        """Whether a counter went backwards, which only a (re)load of the model explains."""
        counters = (
            self.success,
            self.fail,
            self.inference_count,
            self.execution_count,
            self.queue_count,
            self.compute_infer_count,
        )
        return min(counters) < 0 or any(count < 0 for _, count in self.batches)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One law: what the server should have counted, and what it did count (``observed`` comes from Triton
    alone)."""

    name: str
    expected_low: int
    expected_high: int | None
    """None: no upper bound."""
    observed: int
    holds: bool
    law: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome of the comparison. When it could not be made, ``unavailable`` says why and there are no
    rows."""

    equal: bool
    rows: tuple[AuditRow, ...]
    unavailable: str = ""

    @classmethod
    def not_made(cls, why: str) -> "Audit":
        """An audit that is neither green nor red: the server could not be asked, or its counters were
        reset."""
        return cls(equal=False, rows=(), unavailable=why)


def audit(ledger: Ledger, before: ModelStatistics, after: ModelStatistics, *, tells_error_models: bool = True) -> Audit:
    """Compare what the ledger says was answered with the server's counters, read while it was quiet before
    and after.

    Holds for models that nobody else uses and that are not iterative (those count every iteration as a
    request). The arithmetic, each term seen on a real Triton 2.51 and most laws in core's ``infer_stats.cc``:

    - a request answered with an output is a success, and so is one that the model answered with an error of
      its own;
    - one that timed out in the backlog or whose backend failed is a failure;
    - one refused at enqueue (START error, bad input, unknown model) moves no counter;
    - an EMPTY answer is either a cancelled request (a failure) or a model that gave no output (a success):
      one of both;
    - one that was sent and never answered may have run (a success that nobody got), been cancelled (a
      failure) or never have arrived: up to so many more in either counter, but not more than so many in both.

    Batches also hold the null requests with which a direct batcher fills empty slots, so they may only sum to
    more. ``tells_error_models``: False for a transport that cannot tell the model of an error; errors that
    look like refusals may then be the model's own.
    """
    delta = after - before
    if delta.has_negative:
        return Audit.not_made("a counter of the model went backwards: it was loaded anew during the run")
    count = ledger.answers
    succeeded = count[AnswerClass.VALUE] + count[AnswerClass.MODEL_ERROR]
    failed = count[AnswerClass.REJECTED] + count[AnswerClass.BACKEND]
    empty = count[AnswerClass.EMPTY]
    # By whichever of our two counts knows of more answers: one lost from either book must not widen the
    # bounds.
    undelivered = max(0, ledger.sent - max(ledger.answered, ledger.answered_in_time))
    unplaced = 0 if tells_error_models else count[AnswerClass.ENQUEUE_ERROR]
    executions = sum(executed for _, executed in delta.batches)
    in_batches = sum(size * executed for size, executed in delta.batches)
    return _audit_of(
        _row(
            "success",
            delta.success,
            succeeded,
            succeeded + empty + undelivered + unplaced,
            "answers with an output + errors of the model (+ at most: empty answers, unanswered requests)",
        ),
        _row(
            "fail",
            delta.fail,
            failed,
            failed + empty + undelivered,
            "backlog timeouts + backend failures (+ at most: empty answers, unanswered requests)",
        ),
        _row(
            "success + fail",
            delta.success + delta.fail,
            succeeded + failed + empty,
            succeeded + failed + empty + undelivered + unplaced,
            "every answered request that was not refused at enqueue (+ at most: unanswered requests)",
        ),
        _row(
            "inference_count",
            delta.inference_count,
            delta.success,
            delta.success,
            "success: every request is a batch of one",
        ),
        _row("queue.count", delta.queue_count, delta.success, delta.success, "success"),
        _row("compute_infer.count", delta.compute_infer_count, delta.success, delta.success, "success"),
        _row("Σ batch_stats", executions, delta.execution_count, delta.execution_count, "execution_count"),
        _row(
            "Σ size × batch_stats",
            in_batches,
            delta.inference_count,
            None,
            "at least inference_count: null requests fill empty slots",
        ),
    )


def _row(name: str, observed: int, low: int, high: int | None, law: str) -> AuditRow:
    return AuditRow(name, low, high, observed, low <= observed and (high is None or observed <= high), law)


def _audit_of(*rows: AuditRow) -> Audit:
    return Audit(equal=all(row.holds for row in rows), rows=rows)
