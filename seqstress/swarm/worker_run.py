"""One run on one process that has users: the shared session, who takes part, and what Locust is told."""

import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from locust.env import Environment

from seqstress.drive.executor import Executor
from seqstress.drive.recording import PlanOutcome
from seqstress.drive.session import Session
from seqstress.errors import STEP_FAILURES, STRAY_FAILURES
from seqstress.plan.mix import UserPlans
from seqstress.protocol import Fate
from seqstress.report.figures import tame
from seqstress.swarm import events
from seqstress.swarm.config import RunConfig
from seqstress.swarm.lag import LagProbe
from seqstress.verdict.failure import reply_text
from seqstress.verdict.snapshot import WorkerSnapshot
from seqstress.wire.choice import open_transport


@dataclass(slots=True)
class Member:
    """What one user has of the run."""

    plans: UserPlans
    executor: Executor
    is_done: bool = False
    """Whether it has sent all its iterations."""


class WorkerRun:
    """Made when the first user of a run starts, from what the master put into Locust's options alone: a worker that
    joins late, before Locust has told it anything else, has those."""

    def __init__(self, environment: Environment, config: RunConfig) -> None:
        self.config = config
        self._environment = environment
        runner = environment.runner
        worker = getattr(runner, "worker_index", 0) if runner is not None else 0
        transport = open_transport(config.transport, config.address)
        self.session = Session(config.scenario, config.target, transport, config.nonce, worker, config.workers)
        self._lag = LagProbe(
            self.session.conditions, memory_s=config.target.idle_limit_ns / 1e9 + config.scenario.timeout_s
        )
        self._started_s = time.monotonic()
        self._cpu_at_start_s = time.process_time()
        self._users = 0
        self._present = 0
        self._done = 0
        self.is_stopping = False
        """Whether its users are being stopped: whoever comes now comes too late, and nobody would stop it."""
        self.is_closed = False
        """Whether its final account was given."""

    @classmethod
    def of(cls, environment: Environment) -> "WorkerRun | None":
        """The run under way in this process; None where there is none, where it was refused, and once it is closed."""
        plain = getattr(environment.parsed_options, "seqstress_run", None)
        current: WorkerRun | None = getattr(environment, "seqstress_worker_run", None)
        if not plain:
            return None
        if current is None or current.config.run_id != plain["run_id"]:
            current = cls(environment, RunConfig.from_plain(plain))
            environment.seqstress_worker_run = current
        return None if current.is_closed else current

    def join(self, user: Any, patterns: frozenset[str]) -> Member:
        """A user starts: its seeds come from its number on this worker. Raises InputError."""
        config, session = self.config, self.session
        number = self._users
        dtype = config.target.binding.input.dtype
        plans = UserPlans(config.scenario, dtype, (config.seed, session.worker, number), patterns)
        self._users += 1
        self._present += 1
        return Member(plans, Executor(session, number, plans.context_count, partial(self.publish, user)))

    def finish(self, member: Member) -> None:
        """A user has sent all its iterations."""
        member.is_done = True
        self._done += 1

    def leave(self, member: Member) -> None:
        """A user stops."""
        member.executor.close()
        self._present -= 1
        self._done -= member.is_done

    @property
    def resting(self) -> int:
        """How many users have sent all their iterations."""
        return self._done

    def publish(self, user: Any, outcome: PlanOutcome) -> None:
        """Tell Locust: one ``request`` event per step, a row per pattern for its sequences, and our own events.

        A sequence's row is written beside the events, into its own entry only, so that Locust's Aggregated row
        counts each step once and nothing else.
        """
        environment = self._environment
        pattern = outcome.plan.pattern
        fire = environment.events.request.fire
        for record in outcome.records:
            fate = record.fate
            if fate is None:
                continue
            fire(
                request_type="step",
                name=pattern,
                response_time=record.service_us / 1000 if record.answered_ns else None,
                response_length=0,
                exception=STEP_FAILURES.get(fate),
                context={},
            )
        for stray in outcome.strays:
            environment.stats.log_error("stray", pattern, STRAY_FAILURES[stray.kind])
        row = environment.stats.get(pattern, "sequence")
        for sequence in outcome.sequences:
            if sequence.latency_us is not None:
                row.log(sequence.latency_us / 1000, 0)
            events.sequence_finished.fire(environment=environment, user=user, outcome=outcome, sequence=sequence)
        kept = {failure.request_id: failure for failure in outcome.failures if failure.stray is None}
        for record in outcome.records:
            if record.fate is not None and record.fate is not Fate.OK:
                failure = kept.get(record.call.request_id)
                events.step_failed.fire(
                    environment=environment, user=user, outcome=outcome, record=record, failure=failure
                )
        for stray in outcome.strays:
            events.stray_answer.fire(environment=environment, user=user, outcome=outcome, stray=stray)
        if self.config.verbose_steps:
            _print_steps(outcome)

    def snapshot(self, *, final: bool) -> WorkerSnapshot:
        """The cumulative account of this process so far."""
        return WorkerSnapshot(
            run_id=self.config.run_id,
            worker=self.session.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            final=final,
            ledger=self.session.ledger,
            lag=self._lag.histogram,
            cpu_s=time.process_time() - self._cpu_at_start_s,
            wall_s=time.monotonic() - self._started_s,
            users=self._users,
            resting=self._done,
        )

    def close(self) -> None:
        """The run is over on this process: streams, connections and the lag probe end."""
        self.is_closed = True
        self._lag.stop()
        self.session.transport.close()


def _print_steps(outcome: PlanOutcome) -> None:
    for record in outcome.records:
        flags = ("S" if record.step.start else "-") + ("E" if record.step.end else "-")
        fate = Fate(record.fate).label if record.fate is not None else "not sent"
        answers = tame("; ".join(map(reply_text, record.replies))) or "no answer"
        print(
            f"{outcome.plan.pattern:<13} id={record.call.correlation_id} {record.call.request_id:<20} {flags} "
            f"value={record.step.value} -> {answers} [{fate}]",
            flush=True,
        )
