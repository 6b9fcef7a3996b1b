"""Puts what happened to a plan into the ledger, and makes the failure records."""

from dataclasses import dataclass
from typing import NamedTuple

from seqstress.drive.context import Context
from seqstress.drive.exchange import Ending, Exchange, StepRecord, StrayReply
from seqstress.drive.session import Session
from seqstress.protocol import CorrelationId, Fate, Plan, ServerState, Stray
from seqstress.verdict.failure import Exchange as ExchangeRow
from seqstress.verdict.failure import Failure, expected_text, reply_text
from seqstress.verdict.ledger import PatternAccount, SequenceEnd


class SequenceOutcome(NamedTuple):
    """How one sequence of a plan went."""

    correlation_id: CorrelationId
    end: SequenceEnd
    latency_us: int | None
    """From its first step's intended time to the answer of its last; None where it did not finish."""
    steps: int


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """What a plan came to: already in the ledger, here for whoever wants to tell it on."""

    plan: Plan
    state: ServerState
    """What the context's next plan finds on the server: a retired correlation ID leaves nothing behind for it."""
    records: list[StepRecord]
    sequences: list[SequenceOutcome]
    failures: list[Failure]
    """The records that the ledger had room for."""
    strays: list[StrayReply]


def record_plan(session: Session, user: int, plan: Plan, context: Context, exchange: Exchange) -> PlanOutcome:
    """Account for an exchange that has ended, and for what else its context heard since the last one."""
    context.strays[:0] = exchange.strays
    strays = list(context.strays)
    failures = record_strays(session, user, context, plan, exchange)
    account = session.ledger.pattern(plan.pattern)
    account.plan(plan.step_count, len(plan.sequences))
    answer, decoupled = session.ledger.answer, session.rules.decoupled
    shortest = session.conditions.round_trip_ns
    sent = 0
    ok, expired = Fate.OK, Fate.EXPIRED  # looking up an enum's member is dear where every step does it
    for record in exchange.records:
        fate = record.fate
        if fate is None:
            continue
        sent += 1
        if record.answered_ns:
            answer(record.replies[-1], decoupled)
            service_ns = record.answered_ns - record.sent_ns
            if service_ns < shortest:
                shortest = service_ns
            if fate is expired and record.cause is not None:
                account.expired(record.cause, service_ns // 1000, record.response_us)
            else:
                account.answered(fate, service_ns // 1000, record.response_us)
        else:
            account.unanswered(fate)
        if fate is not ok and session.ledger.has_room(fate.label):
            failure = _failure(session, user, plan, context, exchange, record)
            session.ledger.add_failure(failure)
            failures.append(failure)
    account.sent(sent)
    account.not_sent(len(exchange.records) - sent)
    session.conditions.round_trip_ns = shortest
    state = exchange.leaves if exchange.ending is Ending.ANSWERED else ServerState.CLEAN
    sequences = [_record_sequence(account, exchange, index) for index in range(len(plan.sequences))]
    return PlanOutcome(plan, state, exchange.records, sequences, failures, strays)


def record_unsent(session: Session, plan: Plan, context: Context) -> PlanOutcome:
    """Account for a plan for which there was no connection or no ID: the server still holds what it held."""
    account = session.ledger.pattern(plan.pattern)
    account.plan(plan.step_count, len(plan.sequences))
    account.not_sent(plan.step_count)
    for _ in plan.sequences:
        account.sequence_over(SequenceEnd.NOT_SENT)
    state = ServerState.CLEAN if context.left_open is None else ServerState.OPEN
    return PlanOutcome(plan, state, [], [], [], [])


def _record_sequence(account: PatternAccount, exchange: Exchange, index: int) -> SequenceOutcome:
    records = exchange.sequence_records(index)
    fates = {record.fate for record in records}
    latency_us = None
    if fates == {Fate.OK}:
        end = SequenceEnd.FINISHED
        latency_us = (records[-1].answered_ns - records[0].due_ns) // 1000
    elif fates <= {Fate.OK, Fate.ABORTED, None}:
        end = SequenceEnd.ABORTED
    else:
        end = SequenceEnd.FAILED
    account.sequence_over(end, latency_us)
    return SequenceOutcome(exchange.correlation_ids[index], end, latency_us, len(records))


def record_strays(
    session: Session, user: int, context: Context, plan: Plan | None = None, exchange: Exchange | None = None
) -> list[Failure]:
    """Account for the answers that nobody waited for; ``plan`` and ``exchange`` are what was under way last."""
    strays, context.strays = context.strays, []
    failures = []
    for stray in strays:
        session.ledger.stray(stray.kind, stray.reply, session.rules.decoupled)
        if session.ledger.has_room(stray.kind.label):
            failure = _stray_failure(session, user, context, plan, exchange, stray)
            session.ledger.add_failure(failure)
            failures.append(failure)
    return failures


def _stray_failure(
    session: Session,
    user: int,
    context: Context,
    plan: Plan | None,
    exchange: Exchange | None,
    stray: StrayReply,
) -> Failure:
    records = exchange.records if exchange else []
    asked = next((record for record in records if record.call.request_id == stray.reply.request_id), None)
    return Failure(
        fate=None,
        stray=stray.kind,
        cause=None,
        pattern=plan.pattern if plan else "",
        worker=session.worker,
        user=user,
        context=context.index,
        plan=plan.number if plan else -1,
        seed_path=plan.seed_path if plan else (),
        correlation_id=asked.call.correlation_id if asked else context.correlation_id or 0,
        request_id=stray.reply.request_id,
        sequence=asked.sequence if asked else 0,
        step=asked.place if asked else -1,
        expected="no such answer at this point",
        observed=reply_text(stray.reply),
        message=_STRAY_MESSAGES[stray.kind],
        at_epoch_s=session.epoch_s(),
        exchange=_rows(exchange) if exchange else (),
        stream_end=exchange.stream_end if exchange else None,
    )


def _failure(
    session: Session, user: int, plan: Plan, context: Context, exchange: Exchange, record: StepRecord
) -> Failure:
    fate = record.fate
    assert fate is not None
    message = _FATE_MESSAGES[fate]
    if record.cause is not None:
        message = f"{message} ({record.cause.value})"
    if exchange.stream_end is not None and fate is Fate.DISCONNECTED:
        message = f"{message}: {exchange.stream_end.cause.value}, {exchange.stream_end.text}"
    return Failure(
        fate=fate,
        stray=None,
        cause=record.cause,
        pattern=plan.pattern,
        worker=session.worker,
        user=user,
        context=context.index,
        plan=plan.number,
        seed_path=plan.seed_path,
        correlation_id=record.call.correlation_id,
        request_id=record.call.request_id,
        sequence=record.sequence,
        step=record.place,
        expected=expected_text(record.step),
        observed="; ".join(map(reply_text, record.replies)) or "no answer",
        message=message,
        at_epoch_s=session.epoch_s(),
        exchange=_rows(exchange),
        stream_end=exchange.stream_end,
    )


def _rows(exchange: Exchange) -> tuple[ExchangeRow, ...]:
    start_ns = min((record.sent_ns for record in exchange.records if record.sent_ns), default=0)

    def since_start(at_ns: int) -> int | None:
        return (at_ns - start_ns) // 1000 if at_ns else None

    return tuple(
        ExchangeRow(
            sequence=record.sequence,
            place=record.place,
            step=record.step,
            request_id=record.call.request_id,
            due_us=since_start(record.due_ns),
            sent_us=since_start(record.sent_ns),
            answered_us=since_start(record.answered_ns),
            replies=tuple(map(reply_text, record.replies)),
            fate=record.fate,
        )
        for record in exchange.records
    )


_FATE_MESSAGES = {
    Fate.WRONG_RESULT: "the answer has another value than the oracle's",
    Fate.MALFORMED: "the answer has no output, or one of another shape or datatype",
    Fate.MISSING_ERROR: "the server answered a step that it had to refuse",
    Fate.UNEXPECTED_ERROR: "an error where an answer was due, and our own records show no legitimate cause",
    Fate.EXPIRED: "the server had dropped the sequence, for a cause that our own records show",
    Fate.QUEUED: "no answer in time: our own sequences filled every slot all the while",
    Fate.TIMEOUT: "no answer by the deadline",
    Fate.DISCONNECTED: "the stream broke while the step was open",
    Fate.ABORTED: "given up when the user or the run was stopped",
}

_STRAY_MESSAGES = {
    Stray.OUT_OF_ORDER: "answered before an earlier step of its stream",
    Stray.DUPLICATE: "a further answer to a step that was already answered in full",
    Stray.ORPHAN: "an answer to a request that this stream never sent",
    Stray.LATE: "an answer after its step was given up",
}
