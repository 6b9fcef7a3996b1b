"""The Locust user: holds contexts, draws what each sends next, and turns outcomes into Locust's events."""

import logging
from collections.abc import Callable
from typing import Any

import gevent
from locust import TaskSet, User, constant, tag, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

from seqstress.plan.ids import IdsExhaustedError
from seqstress.scenario import Scenario
from seqstress.swarm import events
from seqstress.swarm.worker_run import Member, WorkerRun

log = logging.getLogger("seqstress")


class Patterns(TaskSet):
    """One task per pattern, tagged with its name (``--tags valid no_end`` picks some).

    The choice is not Locust's (a global ``random``): the user draws a context, then the pattern, from its own seed
    by the scenario's weights, and applies the rule of what may follow what.
    """

    def get_next_task(self) -> Callable[[], None]:
        """The task of the pattern that this user's seed chose."""
        chosen: Callable[[], None] = getattr(self, self.user.choose())
        return chosen

    def wait(self) -> None:
        """Rest after the last plan; no pause before that.

        Who pauses counts as waiting, and Locust kills who waits: that kill would arrive in the midst of the next plan.
        """
        if self.user.is_done:
            super().wait()
        elif self.user._state == LOCUST_STATE_STOPPING:
            raise StopUser

    @tag("valid")
    @task
    def valid(self) -> None:
        """A complete sequence."""
        self.user.send()

    @tag("valid_valid")
    @task
    def valid_valid(self) -> None:
        """Two complete sequences with one correlation ID."""
        self.user.send()

    @tag("valid_no_end")
    @task
    def valid_no_end(self) -> None:
        """A complete sequence, then one that is left open."""
        self.user.send()

    @tag("no_start")
    @task
    def no_start(self) -> None:
        """Steps without a START: the server must refuse them."""
        self.user.send()

    @tag("no_end")
    @task
    def no_end(self) -> None:
        """A sequence that is left open."""
        self.user.send()


UNTIL_STOPPED_S = 1e6
"""How long a user rests that has sent all its iterations."""

_POLL_S = 0.01


class SequenceUser(User):
    """One client with several contexts; runs one plan at a time.

    After ``--iterations`` plans it rests until it is stopped. Were it to end, Locust would miss it and start another
    in its place with the next users of the ramp-up or the next worker that comes: more plans than were asked for.
    """

    tasks = [Patterns]  # noqa: RUF012 (Locust's own idiom)
    wait_time = constant(UNTIL_STOPPED_S)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.iterations = 0
        self.run_on_worker: WorkerRun | None = None
        self.member: Member | None = None

    def on_start(self) -> None:
        """Join the run: contexts and seeds come from this user's number on its worker."""
        while self.environment.runner is None:  # on a worker that joins late, until Locust has finished making it
            gevent.sleep(_POLL_S)
        run = self.run_on_worker = WorkerRun.of(self.environment)
        if run is not None and not run.is_stopping:  # a master in mid ramp-up goes on starting users when a run ends
            self.member = run.join(self, frozenset(task.__name__ for task in Patterns.tasks))

    def on_stop(self) -> None:
        """Leave the run; streams end in good order."""
        if self.run_on_worker is not None and self.member is not None:
            self.run_on_worker.leave(self.member)
            events.user_left.fire(environment=self.environment, user=self)

    @property
    def is_done(self) -> bool:
        """Whether it has sent all its iterations."""
        return self.member is not None and self.member.is_done

    def choose(self) -> str:
        """Draw the next context and pattern. Stops where there is no run: it was refused, and why has been told."""
        if self.member is None:
            raise StopUser
        self.choice = self.member.plans.choose()
        return self.choice.pattern

    def send(self) -> None:
        """Run the plan of the choice; the member's executor tells Locust what came of it."""
        run, member = self.run_on_worker, self.member
        assert run is not None and member is not None
        plan = member.plans.draw(self.choice)
        has_ids = True
        try:
            member.plans.settle(plan.context, member.executor.run(plan).state)
        except IdsExhaustedError as error:
            log.error("%s", error)
            has_ids = False
        self.iterations += 1
        if self.iterations == run.config.iterations or not has_ids:
            run.finish(member)
            events.user_done.fire(environment=self.environment, user=self)


def weigh_tasks(scenario: Scenario) -> None:
    """Let Locust's own views show the scenario's weights; the choice itself is made in ``get_next_task``."""
    mix, rare = scenario.mix, scenario.contexts.rare_share

    def share(weights: dict[str, float], name: str) -> float:
        return weights.get(name, 0.0) / (sum(weights.values()) or 1)

    weighted = []
    for name, method in {method.__name__: method for method in Patterns.tasks}.items():
        per_mille = 1000 * (rare * share(mix.rare, name) + (1 - rare) * share(mix.common, name))
        weighted += [method] * max(1, round(per_mille))  # one at least: another scenario may come in this process
    Patterns.tasks = weighted
