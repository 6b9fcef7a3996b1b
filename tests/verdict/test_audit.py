"""The audit: green for what the server did, red for any single answer too many or too few."""

import pytest
from literal_runs import ledger_of, value

from seqstress.protocol import START_ERROR, Fate, Reply, ReplyKind, Stray
from seqstress.verdict.audit import ModelStatistics, audit
from seqstress.verdict.ledger import AnswerClass, Ledger


def served(success, fail=0, executions=None, batches=None):
    """Counters of a model that ran these requests one by one, unless told otherwise."""
    executions = success if executions is None else executions
    batches = ((1, executions),) if batches is None else batches
    return ModelStatistics(success, fail, success, executions, success, success, batches)


IDLE = served(0, batches=())


def ledger_with(replies, unanswered=0):
    ledger = Ledger()
    account = ledger.pattern("valid")
    for reply in replies:
        account.plan(1, 0)
        account.sent(1)
        account.answered(Fate.OK, 1, 1)
        ledger.answer(reply)
    for _ in range(unanswered):
        account.plan(1, 0)
        account.sent(1)
        account.unanswered(Fate.TIMEOUT)
    return ledger


def error(text, model=""):
    return Reply("r", ReplyKind.ERROR, None, text, model, True)


REJECTED = error("timeout of the corresponding sequence has been expired", "m")
BACKEND = error("Failed to process the request(s)", "m")
MODEL_ERROR = error("bad step", "m")
REFUSED = error(f"... {START_ERROR} ...")
EMPTY = Reply("r", ReplyKind.EMPTY, None, "", "m", True)


def broken(result):
    return [row.name for row in result.rows if not row.holds]


def test_a_healthy_run_is_equal():
    assert audit(ledger_of({Fate.OK: 650}), served(7), served(657)).equal


def test_deleting_one_answer_from_the_ledger_turns_it_red():
    ledger = ledger_of({Fate.OK: 650})
    assert audit(ledger, IDLE, served(650)).equal
    ledger.answers[AnswerClass.VALUE] -= 1
    assert broken(audit(ledger, IDLE, served(650))) == ["success", "success + fail"]


def test_forgetting_one_request_altogether_turns_it_red():
    assert broken(audit(ledger_of({Fate.OK: 649}), IDLE, served(650))) == ["success", "success + fail"]


def test_an_answer_that_the_server_did_not_give_turns_it_red():
    assert broken(audit(ledger_of({Fate.OK: 650}), IDLE, served(649))) == ["success", "success + fail"]


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        (value(), served(1)),
        (MODEL_ERROR, served(1)),
        (REJECTED, served(0, fail=1, batches=())),
        (BACKEND, served(0, fail=1, executions=1)),
        (REFUSED, IDLE),
        (error("unexpected shape"), IDLE),
        (EMPTY, served(0, fail=1, batches=())),
        (EMPTY, served(1)),
    ],
)
def test_each_answer_has_its_counter(reply, after):
    assert audit(ledger_with([reply]), IDLE, after).equal


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        (value(), served(0, fail=1, executions=1)),
        (REJECTED, served(1)),
        (REFUSED, served(1)),
        (EMPTY, IDLE),
        (EMPTY, served(1, fail=1)),
    ],
)
def test_each_answer_has_no_other_counter(reply, after):
    assert not audit(ledger_with([reply]), IDLE, after).equal


@pytest.mark.parametrize("after", [served(1), served(2), served(1, fail=1)])
def test_an_unanswered_request_may_have_run_failed_or_never_arrived(after):
    assert audit(ledger_with([value()], unanswered=1), IDLE, after).equal


@pytest.mark.parametrize("after", [served(3), served(2, fail=1), served(0)])
def test_an_unanswered_request_cannot_have_counted_twice(after):
    assert not audit(ledger_with([value()], unanswered=1), IDLE, after).equal


def test_a_late_answer_pins_its_request_down_again():
    ledger = ledger_with([value()], unanswered=1)
    ledger.stray(Stray.LATE, value())
    assert audit(ledger, IDLE, served(2)).equal
    assert not audit(ledger, IDLE, served(1)).equal


def test_null_requests_in_batches_are_no_difference():
    assert audit(ledger_of({Fate.OK: 6}), IDLE, served(6, executions=3, batches=((1, 1), (4, 2)))).equal


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (ModelStatistics(2, 0, 1, 2, 2, 2, ((1, 2),)), "inference_count"),
        (ModelStatistics(2, 0, 2, 2, 1, 2, ((1, 2),)), "queue.count"),
        (ModelStatistics(2, 0, 2, 2, 2, 3, ((1, 2),)), "compute_infer.count"),
        (ModelStatistics(2, 0, 2, 3, 2, 2, ((1, 2),)), "Σ batch_stats"),
        (ModelStatistics(2, 0, 2, 1, 2, 2, ((1, 1),)), "Σ size × batch_stats"),
    ],
)
def test_the_counters_must_agree_among_themselves(after, name):
    assert broken(audit(ledger_of({Fate.OK: 2}), IDLE, after)) == [name]


def test_counters_that_went_backwards_mean_a_reload_and_no_audit():
    result = audit(ledger_of({Fate.OK: 2}), served(100), served(2))
    assert not result.equal
    assert "loaded anew" in result.unavailable
    assert result.rows == ()


def test_a_transport_that_cannot_tell_the_model_of_an_error_leaves_room_for_it():
    ledger = ledger_with([error("bad step")])
    assert not audit(ledger, IDLE, served(1)).equal
    assert audit(ledger, IDLE, served(1), tells_error_models=False).equal
    assert audit(ledger, IDLE, IDLE, tells_error_models=False).equal
    assert not audit(ledger, IDLE, served(2), tells_error_models=False).equal
