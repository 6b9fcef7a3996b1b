"""The account: its sums, its classes of answers, its way over the network."""

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from literal_runs import ledger_of, value

from seqstress.protocol import START_ERROR, Cause, Fate, Reply, ReplyKind, Stray
from seqstress.verdict.failure import Failure, reply_text
from seqstress.verdict.ledger import FAILURES_KEPT, AnswerClass, Ledger, SequenceEnd, classify_answer

fate_counts = st.dictionaries(st.sampled_from(Fate), st.integers(1, 4))
ledgers = st.builds(ledger_of, fate_counts, st.sampled_from(["valid", "no_end"]), st.integers(0, 10**7))


def error(text, model=""):
    return Reply("r", ReplyKind.ERROR, None, text, model, True)


EMPTY = Reply("r", ReplyKind.EMPTY, None, "", "m", True)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (value(), AnswerClass.VALUE),
        (Reply("r", ReplyKind.MALFORMED, None, "shape", "m", True), AnswerClass.VALUE),
        (EMPTY, AnswerClass.EMPTY),
        (error(f"sequence 12 to model 'M' {START_ERROR} on the first request"), AnswerClass.START_ERROR),
        (error("timeout of the corresponding sequence has been expired", "M"), AnswerClass.REJECTED),
        (error("Failed to process the request(s) for model 'M_0_0', message: boom", "M"), AnswerClass.BACKEND),
        (error("Stub process 'M_0_0' is not healthy.", "M"), AnswerClass.BACKEND),
        (error("unexpected shape for input 'INPUT' for model 'M'"), AnswerClass.ENQUEUE_ERROR),
        (error("bad step", "M"), AnswerClass.MODEL_ERROR),
    ],
)
def test_the_class_of_an_answer(reply, kind):
    assert classify_answer(reply) is kind
    ledger = Ledger()
    ledger.answer(reply)
    assert ledger.answers[kind] == ledger.answered == 1


def test_the_empty_close_of_a_decoupled_request_is_a_success():
    assert classify_answer(EMPTY, decoupled=True) is AnswerClass.VALUE


@given(fate_counts)
def test_a_whole_run_balances(fates):
    assert ledger_of(fates).imbalances() == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda account: account.plan(1, 0), "planned is 3, but sent + not sent is 2"),
        (lambda account: account.not_sent(1), "planned is 2, but sent + not sent is 3"),
        (lambda account: (account.plan(1, 0), account.sent(1)), "sent is 3, but the sum of fates is 2"),
        (lambda account: account.unanswered(Fate.TIMEOUT), "sent is 2, but the sum of fates is 3"),
        (lambda account: account.plan(0, 1), "planned sequences is 3, but ended ones is 2"),
        (lambda account: account.sequence_over(SequenceEnd.FAILED), "planned sequences is 2, but ended ones is 3"),
        (lambda account: account.causes.update({Cause.IDLE: 1}), "expired is 0, but the sum of causes is 1"),
    ],
)
def test_every_sum_that_does_not_hold_is_told(spoil, told):
    ledger = ledger_of({Fate.OK: 2})
    spoil(ledger.pattern("valid"))
    assert ledger.imbalances() == [f"valid: {told}"]


def test_more_answers_than_requests_do_not_balance():
    ledger = ledger_of({Fate.OK: 2})
    ledger.answer(value())
    assert "3 answered requests, but only 2 were sent" in ledger.imbalances()


@pytest.mark.parametrize(("change", "late"), [(-1, 0), (1, 0), (2, 1)])
def test_answers_that_no_step_had_and_steps_whose_answer_is_missing_do_not_balance(change, late):
    ledger = ledger_of({Fate.OK: 2, Fate.TIMEOUT: 2})
    ledger.answers[AnswerClass.VALUE] += change
    ledger.strays[Stray.LATE] = late
    assert ledger.imbalances() == [
        f"{2 + change} answered requests, but 2 steps answered in time and {late} late answers"
    ]


def test_what_is_still_open_is_no_imbalance_while_the_run_goes_on():
    ledger = ledger_of({Fate.OK: 2})
    account = ledger.pattern("valid")
    account.plan(3, 1)
    account.sent(2)
    assert ledger.imbalances(live=True) == []
    assert account.open_steps == 2
    account.unanswered(Fate.ABORTED)
    account.unanswered(Fate.ABORTED)
    account.not_sent(1)
    account.sequence_over(SequenceEnd.ABORTED)
    assert ledger.imbalances() == []


def test_a_late_answer_counts_for_its_request_and_a_duplicate_does_not():
    ledger = ledger_of({Fate.TIMEOUT: 1})
    ledger.stray(Stray.DUPLICATE, value())
    ledger.stray(Stray.ORPHAN, value())
    ledger.stray(Stray.LATE, value()._replace(final=False))
    assert ledger.answered == 0
    ledger.stray(Stray.LATE, value())
    assert ledger.answered == 1
    assert [ledger.strays[stray] for stray in Stray] == [0, 1, 1, 2]


@given(ledgers, ledgers)
def test_merging_adds_everything(a, b):
    one, other = Ledger(), Ledger()
    for ledger in (a, b):
        one.merge(ledger)
    for ledger in (b, a):
        other.merge(ledger)
    assert one.total().to_plain() == other.total().to_plain()
    assert one.answered == a.answered + b.answered
    assert one.total().settled == a.total().settled + b.total().settled
    assert one.imbalances() == []


@given(ledgers)
def test_it_survives_the_way_to_the_master(ledger):
    plain = ledger.to_plain()
    assert Ledger.from_plain(msgpack.unpackb(msgpack.packb(plain))).to_plain() == plain


def test_failures_survive_the_way_to_the_master(failure):
    ledger = Ledger()
    ledger.add_failure(failure)
    again = Ledger.from_plain(msgpack.unpackb(msgpack.packb(ledger.to_plain())))
    assert again.failures == [failure]


def test_only_the_first_failures_of_each_label_are_kept_per_worker(failure):
    ledger = Ledger()
    for number in range(FAILURES_KEPT + 5):
        ledger.add_failure(replace(failure, plan=number))
    assert [kept.plan for kept in ledger.failures] == list(range(FAILURES_KEPT))
    assert not ledger.has_room("wrong_result")
    assert ledger.has_room("timeout")
    both = Ledger()
    both.merge(ledger)
    both.merge(ledger)
    assert len(both.failures) == 2 * FAILURES_KEPT


def test_a_failure_has_a_name_that_is_safe_for_a_file(failure):
    assert failure.failure_id == "w1-u2-c3-p4-s0.5-wrong_result"
    stray = replace(failure, fate=None, stray=Stray.ORPHAN, step=-1)
    assert stray.failure_id == "w1-u2-c3-p4-s0.x-orphan"


def test_a_hostile_text_is_cut(failure):
    long = replace(failure, observed="x" * 100_000)
    assert len(Failure.from_plain(long.to_plain()).observed) < 5000


def test_an_answer_reads_as_what_it_was():
    assert reply_text(value(5)) == "5"
    assert reply_text(EMPTY._replace(final=False)) == "empty (not final)"
    assert reply_text(error("no")) == "error: no"
