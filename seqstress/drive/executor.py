"""Runs the plans of one user, one at a time: IDs, stream, deadlines, and the record of what happened."""

from collections.abc import Callable, Sequence
from functools import partial

import gevent

from seqstress.drive.context import Context, Conversation
from seqstress.drive.exchange import Ending, Exchange
from seqstress.drive.recording import PlanOutcome, record_plan, record_strays, record_unsent
from seqstress.drive.session import Session
from seqstress.errors import ConnectError
from seqstress.plan.ids import IdsExhaustedError
from seqstress.plan.recipe import IdPolicy
from seqstress.protocol import CorrelationId, Plan, ServerState
from seqstress.scenario.model import StreamUse

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
CATCH_UP_S = 0.001
"""A timer longer than nothing: the event loop polls its sockets before it ends."""
LONGEST_CATCH_UP_S = 1.0


class Executor:
    """Owns the contexts of one user. ``run`` blocks the calling greenlet until every step has its fate.

    No wait outlives a deadline of the scenario, and whatever the server does is an outcome, not an exception.
    When the greenlet is killed in mid run, the open steps are ``aborted`` and recorded before the kill goes on.
    Every outcome is told to ``tell`` too, that of a killed run included.
    """

    def __init__(
        self, session: Session, user: int, contexts: int, tell: Callable[[PlanOutcome], None] = lambda _: None
    ) -> None:
        self._tell = tell
        self._session = session
        self._user = user
        self._contexts = [Context(session, user, index) for index in range(contexts)]
        for context in self._contexts:
            context.record_strays = partial(record_strays, session, user, context)
        self._retry_s = FIRST_RETRY_S
        self._pause_s = 0.0

    def __repr__(self) -> str:
        return f"<Executor of user {self._user}, {len(self._contexts)} contexts>"

    def run(self, plan: Plan) -> PlanOutcome:
        """Send ``plan`` on its context and wait for its end. Raises IdsExhaustedError where no ID is left for it."""
        if self._pause_s:
            gevent.sleep(self._pause_s)
        context = self._contexts[plan.context]
        try:
            conversation = context.converse()
            exchange = self._exchange_for(plan, context, conversation)
        except (ConnectError, IdsExhaustedError) as error:
            outcome = record_unsent(self._session, plan, context)
            self._tell(outcome)
            if not isinstance(error, ConnectError):
                raise
            self._back_off()
            return outcome
        clock = self._session.clock
        try:
            conversation.begin(exchange, clock())
            while exchange.ending is None:
                conversation.woken.clear()
                if not conversation.woken.wait(max(0, exchange.wake_ns - clock()) / 1e9) and not exchange.is_pausing:
                    # As late as this process woke up, as much may wait in the kernel: answers in it are read first.
                    late_s = (clock() - exchange.wake_ns) / 1e9
                    gevent.sleep(min(max(late_s, CATCH_UP_S), LONGEST_CATCH_UP_S))
                conversation.tick(exchange, clock())
        finally:
            exchange.abort(clock())  # does nothing unless this greenlet was killed
            self._clean_up(context, exchange)
            outcome = record_plan(self._session, self._user, plan, context, exchange)
            self._tell(outcome)
        if exchange.ending is Ending.BROKEN and not any(record.answered_ns for record in exchange.records):
            self._back_off()  # a server that takes connections and drops them is no better than none
        else:
            self._retry_s, self._pause_s = FIRST_RETRY_S, 0.0
        return outcome

    def close(self) -> None:
        """End every stream in good order, and account for answers that came when nobody waited any more."""
        for context in self._contexts:
            context.half_close()
            context.record_strays()
            context.is_unattended = True

    def _back_off(self) -> None:
        """Let the next plan wait, and the one after it longer."""
        self._pause_s = self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    def _exchange_for(self, plan: Plan, context: Context, conversation: Conversation) -> Exchange:
        ids = self._correlation_ids(plan, context)
        prefixes = []
        for _ in plan.sequences:
            prefixes.append(context.request_prefix(context.sequences))
            context.sequences += 1
        session = self._session
        return Exchange(
            plan.sequences,
            [ids[sequence.id_ref] for sequence in plan.sequences],
            prefixes,
            session.rules,
            session.conditions,
            session.slots,
            context.left_open,
            conversation.asked_before,
        )

    def _correlation_ids(self, plan: Plan, context: Context) -> Sequence[CorrelationId]:
        """One per relative ID of the plan; under the policy ``fixed`` the first is the context's own."""
        count = 1 + max(sequence.id_ref for sequence in plan.sequences)
        allocate = self._session.ids.allocate
        if self._session.scenario.ids.policy is IdPolicy.FRESH:
            return [allocate() for _ in range(count)]
        if context.correlation_id is None:
            context.correlation_id = allocate()
        return [context.correlation_id, *(allocate() for _ in range(count - 1))]

    def _clean_up(self, context: Context, exchange: Exchange) -> None:
        keeps_id = self._session.scenario.ids.policy is IdPolicy.FIXED
        context.left_open = exchange.keys[-1] if keeps_id and exchange.leaves is not ServerState.CLEAN else None
        if exchange.ending is not Ending.ANSWERED:
            # Cancelling a stream and starting its ID again is what provokes Triton's slot leak: never by accident.
            context.correlation_id = context.left_open = None
            if exchange.has_timed_out:
                context.half_close()  # and listen on: an answer that comes late after all is not one that was lost
            else:
                context.reset()
        elif self._session.scenario.stream is StreamUse.PER_SEQUENCE:
            context.half_close()
