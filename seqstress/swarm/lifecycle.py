"""Hooks a run into Locust: who prepares, who sends, who collects, and when it ends, by the role of the process.

Import it in a locustfile (after locust) and the command line, the lifecycle and the live progress are there.
Roles come from the parsed options: the runner's class can be unknown yet when a worker joins late.
"""

import logging
import signal
import sys
import time
from typing import Any

import gevent
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner

import seqstress.swarm.events  # adds our own events to Locust's
from seqstress.errors import InputError
from seqstress.report.text import print_report
from seqstress.swarm import options as command_line
from seqstress.swarm.conductor import Conductor, Prepared, prepare
from seqstress.swarm.progress import Progress
from seqstress.swarm.users import weigh_tasks
from seqstress.swarm.worker_run import WorkerRun

log = logging.getLogger("seqstress")

FINAL = "seqstress_final"
"""A worker's last account of a run, to the master."""
DRAIN = "seqstress_drain"
"""The master's word to a worker: stop your users and send the final account."""

LONGEST_STOP_S = 25
"""Locust's workers read no heartbeats while they stop: longer, and they would take the master for dead."""

SPARE_S = 5
"""What a worker may take to stop beyond its stop timeout."""


class Conducting:
    """The side of the master, and of a process without workers: prepares, collects, judges."""

    def __init__(self, environment: Environment, options: Any) -> None:
        self._environment = environment
        self._options = options
        self._prepared: Prepared | None = None  # by ``prepare_early``, for the first run only
        self._conductor: Conductor | None = None
        self._progress: Progress | None = None
        self._spawned = False
        self._cpu_at_start_s = 0.0
        self._awaited: set[str] = set()
        self._all_final = Event()

    # -- before the load ------------------------------------------------------------------------------------

    def prepare_early(self) -> None:
        """Without a web UI there is nobody to correct the input: find out before Locust starts, or exit with 2."""
        self._prepared = self._prepare()
        command_line.apply_load(self._options, self._prepared.scenario)

    def on_test_start(self) -> None:
        """A run begins; where it cannot, it is stopped again before any user sends."""
        self._options.seqstress_run = None
        self._spawned = False
        self._cpu_at_start_s = time.process_time()
        try:
            prepared, self._prepared = self._prepared or self._prepare(), None
        except InputError as error:
            log.error("the run was refused: %s", error)
            self._environment.process_exit_code = 2
            gevent.spawn(self._end)
            return
        for warning in (*prepared.target.warnings, *prepared.capacity.warnings):
            log.warning("%s", warning)
        weigh_tasks(prepared.scenario)
        self._conductor = conductor = Conductor.start(prepared, self._options)
        self._options.seqstress_run = conductor.config.to_plain()
        if not self._environment.stop_timeout:
            self._environment.stop_timeout = min(prepared.scenario.timeout_s + 1, LONGEST_STOP_S)
        log.info(
            "run %s: %s on model %s of %s, seed %d",
            conductor.config.run_id,
            prepared.scenario.name,
            prepared.target.binding.model,
            prepared.server,
            prepared.seed,
        )
        self._progress = Progress(conductor, self._refresh)

    def _prepare(self) -> Prepared:
        return prepare(self._options, self._environment.host or self._options.host)

    # -- while it flows -------------------------------------------------------------------------------------

    def on_worker_report(self, node: str, data: dict[str, Any]) -> None:
        """A worker's regular report carries its account."""
        if self._conductor is not None and "seqstress" in data:
            self._conductor.take(node, data["seqstress"])
            self._end_when_done(self._environment.runner.user_count == 0)

    def on_final(self, node: str, plain: dict[str, Any]) -> None:
        """A worker's last account."""
        if self._conductor is not None:
            self._conductor.take(node, plain)
            if self._awaited <= self._conductor.finals:
                self._all_final.set()

    def on_spawning_complete(self) -> None:
        """All users were started; with few iterations, all may have ended already."""
        self._spawned = True
        self.on_user_left()

    def on_user_left(self) -> None:
        """A user of this process ended."""
        run = _worker_run(self._environment)
        self._end_when_done(run is not None and run.done > 0 and run.present == 0)

    def _end_when_done(self, nobody_left: bool) -> None:
        """Headless Locust does not end when its users have stopped: who counts the iterations ends the run."""
        running = self._environment.runner.state == STATE_RUNNING
        if nobody_left and running and self._spawned and self._conductor and self._conductor.config.iterations:
            self._spawned = False
            gevent.spawn(self._end)

    def _end(self) -> None:
        if self._options.headless:
            self._environment.runner.quit()
        else:
            self._environment.runner.stop()

    # -- the end --------------------------------------------------------------------------------------------

    def on_test_stopping(self) -> None:
        """On a master: wait for every worker's final account, or as long as they may take (see LOCUST's quit)."""
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner) or self._conductor is None or self._awaited:
            return
        self._awaited = {client.id for client in runner.clients.running + runner.clients.spawning}
        self._conductor.expect(self._awaited)
        self._all_final.clear()
        for node in self._awaited:
            runner.send_message(DRAIN, None, client_id=node)
        deadline = gevent.Timeout.start_new(self._environment.stop_timeout + SPARE_S)
        try:
            while not self._all_final.wait(timeout=1):
                vanished = {node for node in self._awaited if _is_missing(runner, node)}
                if self._awaited - vanished <= self._conductor.finals:
                    break
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            log.error("some workers did not send their final account in time")
        finally:
            deadline.close()
            self._awaited = set()

    def on_test_stop(self) -> None:
        """All users have stopped: judge."""
        conductor, self._conductor = self._conductor, None
        self._options.seqstress_run = None
        if conductor is None:
            return
        self._take_own(conductor, final=True)
        if self._progress is not None:
            self._progress.stop()
        view = conductor.finish(self._own_cpu_s())
        self._environment.process_exit_code = view.verdict.outcome.exit_code
        self._environment.seqstress_view = view
        self._environment.seqstress_directory = conductor.directory
        seqstress.swarm.events.run_finished.fire(environment=self._environment, view=view)
        if not self._options.headless:
            self._tell_verdict()

    def on_quitting(self) -> None:
        """Locust chooses the exit code right after this event: whatever still runs must be judged now."""
        if self._environment.runner.state in (STATE_RUNNING, STATE_SPAWNING):
            self._environment.runner.stop()

    def on_quit(self) -> None:
        """Locust has printed its own tables: ours comes last."""
        if self._options.headless:
            self._tell_verdict()

    def _tell_verdict(self) -> None:
        view = getattr(self._environment, "seqstress_view", None)
        if view is not None:
            print_report(view)
            print(f"Results: {self._environment.seqstress_directory}", flush=True)

    def _own_cpu_s(self) -> float:
        """What this process used since the start of the run; a worker's own account has it already."""
        return time.process_time() - self._cpu_at_start_s if self._options.master else 0.0

    def _refresh(self, conductor: Conductor) -> None:
        """Bring the account of this process itself up to date, where it has users."""
        self._take_own(conductor, final=False)

    def _take_own(self, conductor: Conductor, *, final: bool) -> None:
        run = _worker_run(self._environment)
        if run is not None and run.config.run_id == conductor.config.run_id:
            conductor.take("local", run.snapshot(final=final).to_plain())
            if final:
                run.close()


class Sending:
    """The side of a worker: reports its account and sends the final one."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._told = ""  # the run whose final account was sent

    def on_report(self, data: dict[str, Any]) -> None:
        """Put the account into Locust's regular report."""
        run = _worker_run(self._environment)
        if run is not None and run.config.run_id != self._told:
            data["seqstress"] = run.snapshot(final=False).to_plain()

    def on_drain(self) -> None:
        """The master waits: stop now, not when its own message comes."""
        self._environment.runner.stop()

    def on_test_stop(self) -> None:
        """All users have stopped."""
        run = WorkerRun.of(self._environment)
        if run is not None and run.config.run_id != self._told:
            self._told = run.config.run_id
            self._environment.runner.send_message(FINAL, run.snapshot(final=True).to_plain())
            run.close()


def _worker_run(environment: Environment) -> WorkerRun | None:
    return getattr(environment, "seqstress_worker_run", None)


def _is_missing(runner: MasterRunner, node: str) -> bool:
    client = runner.clients.get(node)
    return client is None or client.state == "missing"


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any, **_: Any) -> None:
    command_line.add_arguments(parser)


@events.init.add_listener
def _hook_in(environment: Environment, runner: Any, **_: Any) -> None:
    # Python raises KeyboardInterrupt in whatever greenlet happens to run: a connection's reader would die of it and
    # its answers be lost. This way it reaches the main greenlet, where Locust waits for it.
    gevent.signal_handler(signal.SIGINT, _interrupt)
    options = environment.parsed_options
    if options.worker:
        _hook_in_worker(environment, runner)
    else:
        _hook_in_conductor(environment, runner, options)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _hook_in_worker(environment: Environment, runner: Any) -> None:
    sending = Sending(environment)
    hooks = environment.events
    hooks.report_to_master.add_listener(lambda data, **_: sending.on_report(data))
    hooks.test_stop.add_listener(lambda **_: sending.on_test_stop())
    runner.register_message(DRAIN, lambda **_: sending.on_drain(), concurrent=True)


def _hook_in_conductor(environment: Environment, runner: Any, options: Any) -> None:
    conducting = Conducting(environment, options)
    if options.headless or options.autostart:
        try:
            conducting.prepare_early()
        except InputError as error:
            print(f"seqstress: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
    hooks = environment.events
    hooks.test_start.add_listener(lambda **_: conducting.on_test_start())
    hooks.spawning_complete.add_listener(lambda **_: conducting.on_spawning_complete())
    hooks.test_stopping.add_listener(lambda **_: conducting.on_test_stopping())
    hooks.test_stop.add_listener(lambda **_: conducting.on_test_stop())
    hooks.quitting.add_listener(lambda **_: conducting.on_quitting())
    hooks.quit.add_listener(lambda **_: conducting.on_quit())
    seqstress.swarm.events.user_left.add_listener(lambda **_: conducting.on_user_left())
    if isinstance(runner, MasterRunner):
        hooks.worker_report.add_listener(lambda client_id, data, **_: conducting.on_worker_report(client_id, data))
        runner.register_message(FINAL, lambda msg, **_: conducting.on_final(msg.node_id, msg.data))
