"""PASS, FAIL, UNKNOWN: each rule alone, and what outweighs what."""

import pytest
from literal_runs import Limit, Metric, Terms, ledger_of, value

from seqstress.metrics.histogram import Histogram
from seqstress.protocol import Cause, Fate, Stray
from seqstress.verdict.audit import Audit, AuditRow
from seqstress.verdict.ledger import Ledger, SequenceEnd
from seqstress.verdict.measure import measure
from seqstress.verdict.rules import (
    FAILING_FATES,
    RULES,
    Outcome,
    RunRecord,
    judge_run,
    verdict,
)

EQUAL = Audit(True, (AuditRow("success", 2, 2, 2, True, "law"),))
DIFFERS = Audit(False, (AuditRow("success", 2, 3, 5, False, "law"),))


def lag(us=100):
    histogram = Histogram()
    histogram.record_many(us, 100)
    return histogram


def judge(ledger, terms=None, audit=None, **more):
    more = {"duration_s": 10.0, "lag": lag(), **more}
    return verdict(ledger, terms or Terms(), audit, **more)


def rules_of(result, outcome):
    return [reason.rule for reason in result.reasons if reason.outcome is outcome]


def test_a_run_in_which_everything_was_right_passes_without_a_word():
    result = judge(ledger_of({Fate.OK: 5}), Terms(exclusive=True), EQUAL)
    assert (result.outcome, result.reasons, result.outcome.exit_code) == (Outcome.PASS, (), 0)


@pytest.mark.parametrize("fate", FAILING_FATES)
def test_one_step_that_the_server_got_wrong_fails_the_run(fate):
    result = judge(ledger_of({Fate.OK: 5, fate: 1}))
    assert (result.outcome, result.outcome.exit_code) == (Outcome.FAIL, 1)
    assert rules_of(result, Outcome.FAIL) == [fate.label]


@pytest.mark.parametrize("stray", list(Stray))
def test_one_stray_answer_fails_the_run(stray):
    ledger = ledger_of({Fate.OK: 5})
    ledger.strays[stray] = 1
    result = judge(ledger)
    assert rules_of(result, Outcome.FAIL) == [stray.label]
    assert judge(ledger, Terms(allow={stray.label: 0.2})).outcome is Outcome.PASS


def test_a_sequence_that_could_not_be_sent_makes_the_run_unknown():
    ledger = ledger_of({Fate.OK: 5})
    account = ledger.pattern("valid")
    account.plan(3, 1)
    account.not_sent(3)
    account.sequence_over(SequenceEnd.NOT_SENT)
    (reason,) = judge(ledger).reasons
    assert (reason.outcome, reason.rule) == (Outcome.UNKNOWN, "not_sent")
    assert reason.text.startswith("1 of 6 sequences could not be sent")
    assert "connections" in reason.remedy


def test_steps_that_were_skipped_behind_a_failure_or_a_stop_give_no_reason_of_their_own():
    ledger = ledger_of({Fate.OK: 5, Fate.EXPIRED: 1})
    account = ledger.pattern("valid")
    account.plan(3, 1)
    account.not_sent(3)
    account.sequence_over(SequenceEnd.ABORTED)
    assert judge(ledger, Terms(allow={"expired": 0.5})).outcome is Outcome.PASS


@pytest.mark.parametrize("fate", [Fate.EXPIRED, Fate.QUEUED])
def test_load_beyond_the_slots_is_unknown_and_named_with_a_remedy(fate):
    result = judge(ledger_of({Fate.OK: 5, fate: 1}))
    (reason,) = result.reasons
    assert (result.outcome, result.outcome.exit_code) == (Outcome.UNKNOWN, 3)
    assert "the load, not the server, was wrong" in reason.text
    assert "users" in reason.remedy


def test_an_expired_step_is_told_with_its_causes():
    ledger = ledger_of({Fate.OK: 5})
    account = ledger.pattern("valid")
    for cause in (Cause.RESET, Cause.IDLE, Cause.RESET):
        account.plan(1, 0)
        account.sent(1)
        account.expired(cause, 1, 1)
        ledger.answer(value())
    (reason,) = judge(ledger).reasons
    assert "(reset 2, idle 1)" in reason.text


def test_an_aborted_step_is_nobodys_fault():
    assert judge(ledger_of({Fate.OK: 5, Fate.ABORTED: 3})).outcome is Outcome.PASS


@pytest.mark.parametrize("fate", [Fate.TIMEOUT, Fate.EXPIRED, Fate.QUEUED])
def test_an_allowance_is_a_share_of_the_sent_steps_and_told(fate):
    terms = Terms(allow={fate.label: 0.1})
    result = judge(ledger_of({Fate.OK: 9, fate: 1}), terms)
    assert result.outcome is Outcome.PASS
    (allowance,) = result.allowances
    assert (allowance.label, allowance.allowed, allowance.used) == (fate.label, 1, 1)
    assert judge(ledger_of({Fate.OK: 8, fate: 2}), terms).outcome is not Outcome.PASS


def test_an_allowance_that_was_not_used_is_told_too():
    (allowance,) = judge(ledger_of({Fate.OK: 9}), Terms(allow={"timeout": 0.5})).allowances
    assert (allowance.allowed, allowance.used) == (4, 0)


def test_a_missing_worker_makes_the_run_unknown():
    result = judge(ledger_of({Fate.OK: 5}), missing_workers=["host-2"])
    assert rules_of(result, Outcome.UNKNOWN) == ["workers"]
    assert "host-2" in result.reasons[0].text


def test_an_account_that_does_not_balance_makes_the_run_unknown():
    ledger = ledger_of({Fate.OK: 5})
    ledger.pattern("valid").sent(1)
    assert set(rules_of(judge(ledger), Outcome.UNKNOWN)) == {"account"}


@pytest.mark.parametrize("ledger", [Ledger(), ledger_of({Fate.ABORTED: 4})])
def test_a_run_in_which_nothing_finished_is_unknown(ledger):
    assert rules_of(judge(ledger), Outcome.UNKNOWN) == ["progress"]


def test_counters_that_the_ledger_cannot_explain_fail_an_exclusive_run_only():
    ledger = ledger_of({Fate.OK: 2})
    result = judge(ledger, Terms(exclusive=True), DIFFERS)
    assert rules_of(result, Outcome.FAIL) == ["audit"]
    assert "success is 5, 2 to 3 expected" in result.reasons[0].text
    assert judge(ledger, Terms(exclusive=False), DIFFERS).outcome is Outcome.PASS


@pytest.mark.parametrize("audit", [None, Audit.not_made("the server is gone")])
def test_an_audit_that_could_not_be_made_leaves_an_exclusive_run_unknown(audit):
    assert rules_of(judge(ledger_of({Fate.OK: 2}), Terms(exclusive=True), audit), Outcome.UNKNOWN) == ["audit"]


def test_the_server_is_not_blamed_for_what_an_incomplete_account_cannot_explain():
    result = judge(ledger_of({Fate.OK: 2}), Terms(exclusive=True), DIFFERS, missing_workers=["w"])
    assert result.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        (Limit(Metric.STEP_P99_US, at_most=1000), Outcome.PASS),
        (Limit(Metric.STEP_P99_US, at_most=999), Outcome.FAIL),
        (Limit(Metric.SEQUENCE_MAX_US, at_most=999), Outcome.FAIL),
        (Limit(Metric.STEPS_PER_S, at_least=0.5), Outcome.PASS),
        (Limit(Metric.STEPS_PER_S, at_least=0.6), Outcome.FAIL),
        (Limit(Metric.SEQUENCES_PER_S, at_least=0.6), Outcome.FAIL),
        (Limit(Metric.STEP_P99_US, at_most=1000, pattern="valid"), Outcome.PASS),
        (Limit(Metric.STEP_P99_US, at_most=1000, pattern="no_end"), Outcome.UNKNOWN),
    ],
)
def test_a_threshold(limit, outcome):
    assert judge(ledger_of({Fate.OK: 5}), Terms(thresholds=(limit,))).outcome is outcome


@pytest.mark.parametrize("saturated", [{"lag": lag(6000)}, {"cpu_share": 0.9}])
def test_a_saturated_client_leaves_latency_thresholds_unknown_and_is_always_told(saturated):
    ledger = ledger_of({Fate.OK: 5})
    latency, rate = Limit(Metric.STEP_P99_US, at_most=1), Limit(Metric.STEPS_PER_S, at_least=100)
    assert judge(ledger, Terms(thresholds=(latency,)), **saturated).outcome is Outcome.UNKNOWN
    assert judge(ledger, Terms(thresholds=(rate,)), **saturated).outcome is Outcome.FAIL
    plain = judge(ledger, **saturated)
    assert plain.outcome is Outcome.PASS
    assert rules_of(plain, Outcome.PASS) == ["client"]


def test_lag_that_is_small_against_the_latency_is_no_saturation():
    assert judge(ledger_of({Fate.OK: 5}, us=100_000), lag=lag(6000)).reasons == ()


def test_fail_outweighs_unknown():
    result = judge(ledger_of({Fate.OK: 5, Fate.EXPIRED: 1, Fate.TIMEOUT: 1}), missing_workers=["w"])
    assert [reason.outcome for reason in result.reasons] == [Outcome.FAIL, Outcome.UNKNOWN, Outcome.UNKNOWN]
    assert result.outcome is Outcome.FAIL


def test_a_rule_that_crashes_makes_the_run_unknown():
    def broken(_run):
        yield from ()
        raise RuntimeError("oops")

    record = RunRecord(ledger_of({Fate.OK: 5}), Terms(), None, 10.0, lag())
    result = judge_run(record, (broken, *RULES))
    assert result.outcome is Outcome.UNKNOWN
    assert "oops" in result.reasons[0].text


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="step_p99"):
        measure(ledger_of({Fate.OK: 1}), "step_p99", None, 1.0)


def test_more_answers_than_requests_are_an_imbalance():
    ledger = ledger_of({Fate.OK: 5})
    ledger.answer(value())
    assert set(rules_of(judge(ledger), Outcome.UNKNOWN)) == {"account"}
