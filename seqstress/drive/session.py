"""What all contexts of one worker share during one run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from seqstress.drive.exchange import Conditions, ExchangeRules
from seqstress.plan.ids import IdSpace
from seqstress.protocol import Transport
from seqstress.scenario import Scenario
from seqstress.scenario.model import IdReuse
from seqstress.triton.preflight import Target
from seqstress.verdict.ledger import Ledger
from seqstress.verdict.slots import SlotBook

Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""


@dataclass(slots=True)
class Session:
    """The scenario, the server as it was found, and the worker's account.

    ``run_nonce`` tells the runs of all masters apart (22 bits), ``worker`` the workers of one run: both go into
    correlation and request IDs.
    """

    scenario: Scenario
    target: Target
    transport: Transport
    run_nonce: int
    worker: int
    workers: int = 1
    """How many share the model's slots."""
    clock: Clock = time.monotonic_ns
    epoch_s: Callable[[], float] = time.time
    ledger: Ledger = field(default_factory=Ledger)
    conditions: Conditions = field(default_factory=Conditions)
    rules: ExchangeRules = field(init=False)
    slots: SlotBook = field(init=False)
    ids: IdSpace = field(init=False)

    def __post_init__(self) -> None:
        scenario, target = self.scenario, self.target
        self.rules = ExchangeRules(
            pacing=scenario.pacing.mode,
            reuse_after_answer=scenario.id_reuse is IdReuse.AFTER_ANSWER,
            timeout_ns=int(scenario.timeout_s * 1e9),
            tolerance=scenario.tolerance,
            idle_limit_ns=target.idle_limit_ns,
            decoupled=target.binding.decoupled,
            tells_error_ids=self.transport.tells_error_ids,
        )
        # What the others hold is not known here. Workers have like users, so a fair share is the best guess; a START
        # that is thus called queued too readily makes the verdict UNKNOWN, never PASS.
        self.slots = SlotBook(max(1, target.slots // self.workers), target.idle_limit_ns)
        self.ids = IdSpace(self.run_nonce, self.worker, scenario.ids.layout)

    def request_prefix(self, user: int, context: int, sequence: int) -> str:
        """The part of a request id before the step's number: unique for every sequence of every worker and run."""
        return f"{self.run_nonce:x}.{self.worker}.{user}.{context}.{sequence}."
