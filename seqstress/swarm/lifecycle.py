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
from locust import events, runners
from locust.env import Environment
from locust.runners import STATE_MISSING, STATE_RUNNING, STATE_SPAWNING, MasterRunner

import seqstress.swarm.events  # adds our own events to Locust's
from seqstress.errors import InputError
from seqstress.report.text import print_anything, print_report
from seqstress.swarm import options as command_line
from seqstress.swarm.conductor import Conductor, Prepared, prepare
from seqstress.swarm.progress import Progress
from seqstress.swarm.users import weigh_tasks
from seqstress.swarm.worker_run import WorkerRun
from seqstress.verdict.outcome import Outcome

log = logging.getLogger("seqstress")

FINAL = "seqstress_final"
"""A worker's last account of a run, to the master."""
DRAIN = "seqstress_drain"
"""The master's word to a worker: stop your users and send the final account."""

LONGEST_STOP_S = 25
"""Locust's workers read no heartbeats while they stop: longer, and they would take the master for dead."""

SPARE_S = 5
"""What a worker may take to stop beyond its stop timeout."""

REPORT_INTERVAL_S = 1.0
"""How often workers report: Locust's own 3 s is long for live progress, and for the end of a short run."""
runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S


class Conducting:
    """The side of the master, and of a process without workers: prepares, collects, judges."""

    def __init__(self, environment: Environment, options: Any) -> None:
        self._environment = environment
        self._options = options
        self._prepared: Prepared | None = None  # by ``prepare_early``, for the first run only
        self._conductor: Conductor | None = None
        self._progress: Progress | None = None
        self._is_ending = False
        self._cpu_at_start_s = 0.0
        self._draining: set[str] | None = None
        self._all_final = Event()
        self._judging: gevent.Greenlet[[Conductor], None] | None = None
        self._untold: Conductor | None = None

    # -- before the load ------------------------------------------------------------------------------------

    def prepare_early(self) -> None:
        """Without a web UI there is nobody to correct the input: find out before Locust starts, or exit with 2."""
        self._prepared = self._prepare()
        command_line.apply_load(self._options, self._prepared.scenario)
        self._environment.process_exit_code = Outcome.UNKNOWN.exit_code  # until there is a verdict

    def fill_form(self) -> None:
        """Let the web UI's form offer the scenario's load; a wrong scenario can be corrected there."""
        try:
            command_line.apply_load(self._options, command_line.scenario_of(self._options))
        except InputError as error:
            log.warning("%s", error)

    def on_test_start(self) -> None:
        """A run begins; where it cannot, it is stopped again before any user sends."""
        self._options.seqstress_run = None
        self._is_ending = False
        self._draining = None
        self._cpu_at_start_s = time.process_time()
        try:
            prepared, self._prepared = self._prepared or self._prepare(), None
        except InputError as error:
            log.error("the run was refused: %s", error)
            self._environment.process_exit_code = 2
            gevent.spawn(self._end)
            return
        for warning in (*prepared.target.warnings, *prepared.capacity.warnings):
            print(f"Warning: {warning}", flush=True)
        weigh_tasks(prepared.scenario)
        workers = max(1, self._environment.runner.worker_count)
        self._conductor = conductor = Conductor.start(prepared, self._options, workers)
        self._options.seqstress_run = conductor.config.to_plain()
        self._environment.process_exit_code = Outcome.UNKNOWN.exit_code  # until there is a verdict
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            conductor.expect({worker.id for worker in runner.clients.ready})
        if not self._options.stop_timeout:
            self._environment.stop_timeout = min(prepared.scenario.timeout_s + 1, LONGEST_STOP_S)
        print(conductor.headline, flush=True)
        self._progress = Progress(conductor, self._refresh)

    def _prepare(self) -> Prepared:
        return prepare(self._options, self._environment.host or self._options.host)

    # -- while it flows -------------------------------------------------------------------------------------

    def on_worker_report(self, node: str, data: dict[str, Any]) -> None:
        """A worker's regular report carries its account."""
        if self._conductor is not None and "seqstress" in data:
            self._conductor.take(node, data["seqstress"])
            self._end_when_done()

    def on_final(self, node: str, plain: dict[str, Any] | None) -> None:
        """A worker's last account; None from one that had no users in this run."""
        conductor = self._conductor
        if conductor is None:
            return
        if plain is None:
            conductor.excuse(node)
        else:
            conductor.take(node, plain)
        if self._draining is not None and self._draining <= conductor.settled:
            self._all_final.set()

    def on_spawning_complete(self) -> None:
        """All users were started; with few iterations, all may have sent them already."""
        self._end_when_done()

    def on_user_done(self) -> None:
        """A user of this process has sent all its iterations."""
        self._end_when_done()

    def _end_when_done(self) -> None:
        """Locust knows no end but a time: who counts the iterations ends the run."""
        conductor, runner = self._conductor, self._environment.runner
        if conductor is None or not conductor.config.iterations or self._is_ending or runner.state != STATE_RUNNING:
            return
        if isinstance(runner, MasterRunner):
            lost = {node for node in conductor.nodes if _is_gone(runner, node)}
            resting = conductor.resting(without=lost)
        else:
            run = _worker_run(self._environment)
            lost, resting = set(), run.resting if run is not None else 0
        if resting >= (runner.user_count if lost else runner.target_user_count):
            self._is_ending = True
            gevent.spawn(self._end)

    def _end(self) -> None:
        if self._options.headless:
            self._environment.runner.quit()
        else:
            self._environment.runner.stop()

    # -- the end --------------------------------------------------------------------------------------------

    def on_test_stopping(self) -> None:
        """On a master: wait until every worker's final account is here, or as long as they may take.

        Whoever ends the run (its time, its iterations, a signal) may meet another one at it: all of them wait here, as
        the first to go on lets Locust kill the greenlets that hear the workers.
        """
        runner, conductor = self._environment.runner, self._conductor
        if not isinstance(runner, MasterRunner) or conductor is None:
            return
        if self._draining is None:
            self._draining = {worker.id for worker in runner.clients.all if not _is_gone(runner, worker.id)}
            self._all_final.clear()
        deadline_s = time.monotonic() + self._environment.stop_timeout + SPARE_S
        while time.monotonic() < deadline_s:
            owing = {node for node in self._draining - conductor.settled if not _is_gone(runner, node)}
            if not owing:
                return
            for node in owing:  # again and again: one that has just joined may not listen yet
                runner.send_message(DRAIN, None, client_id=node)
            self._all_final.wait(timeout=1)
        log.error("some workers did not send their final account in time")

    def on_test_stop(self) -> None:
        """All users have stopped: judge, in a greenlet of its own, as those of Locust may be killed now."""
        conductor, self._conductor = self._conductor, None
        self._options.seqstress_run = None
        if conductor is not None:
            self._judging = gevent.spawn(self._judge, conductor)
        self._await_verdict()

    def _judge(self, conductor: Conductor) -> None:
        self._take_own(conductor, final=True)
        if self._progress is not None:
            self._progress.stop()
        environment = self._environment
        view = conductor.judge(self._own_cpu_s())
        environment.process_exit_code = view.verdict.outcome.exit_code
        self._untold = conductor
        try:
            conductor.write()
        except OSError as error:
            log.error("the results could not be written: %s", error)
        environment.seqstress_view = view
        environment.seqstress_directory = conductor.directory
        seqstress.swarm.events.run_finished.fire(environment=environment, view=view)
        if not self._options.headless:
            self._tell_verdict()
        elif isinstance(environment.runner, MasterRunner) and environment.runner.worker_count == 0:
            gevent.spawn(self._end)  # Locust itself would stay when its last worker vanished

    def _await_verdict(self) -> None:
        if self._judging is not None:
            self._judging.join()

    def on_quitting(self) -> None:
        """Locust chooses the exit code right after this event: whatever still runs must be judged now."""
        runner = self._environment.runner
        if runner.state in (STATE_RUNNING, STATE_SPAWNING):
            if isinstance(runner, MasterRunner):
                # Told to stop, workers would rest for the whole stop timeout before they heard that they may quit.
                runner.stop(send_stop_to_client=False)
            else:
                runner.stop()
        self._await_verdict()

    def on_quit(self) -> None:
        """Locust has printed its own tables: ours comes last."""
        if self._options.headless:
            self._tell_verdict()

    def _tell_verdict(self) -> None:
        conductor, self._untold = self._untold, None  # a signal makes Locust quit twice
        if conductor is not None and conductor.view is not None:
            print_report(conductor.view)
            if conductor.directory is not None:
                print(f"Results: {conductor.directory}", flush=True)

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

    def on_report(self, data: dict[str, Any]) -> None:
        """Put the account into Locust's regular report."""
        run = _worker_run(self._environment)
        if run is not None and not run.is_closed:
            data["seqstress"] = run.snapshot(final=False).to_plain()

    def on_drain(self) -> None:
        """The master waits, and says so more than once: stop now, not when Locust's own message comes."""
        runner, run = self._environment.runner, WorkerRun.of(self._environment)
        if run is None:
            runner.send_message(FINAL, None)
        elif not run.is_stopping:
            runner.stop()

    def on_test_stopping(self) -> None:
        """Locust is about to stop the users that it has: no other may begin to send."""
        run = WorkerRun.of(self._environment)
        if run is not None:
            run.is_stopping = True

    def on_test_stop(self) -> None:
        """All users have stopped."""
        run = WorkerRun.of(self._environment)
        if run is not None:
            self._environment.runner.send_message(FINAL, run.snapshot(final=True).to_plain())
            run.close()

    def on_quitting(self) -> None:
        """Told to end (SIGTERM): the account first, then Locust's own word that this worker leaves."""
        if WorkerRun.of(self._environment) is not None:
            self._environment.runner.stop()


def _worker_run(environment: Environment) -> WorkerRun | None:
    return getattr(environment, "seqstress_worker_run", None)


def _is_gone(runner: MasterRunner, node: str) -> bool:
    worker = runner.clients.get(node)
    return worker is None or worker.state == STATE_MISSING


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any, **_: Any) -> None:
    command_line.add_arguments(parser)


@events.init.add_listener
def _hook_in(environment: Environment, runner: Any, **_: Any) -> None:
    print_anything()
    # Python raises KeyboardInterrupt in whatever greenlet happens to run: a connection's reader would die of it and
    # its answers be lost. This way it reaches the main greenlet, where Locust waits for it.
    gevent.signal_handler(signal.SIGINT, _Interrupt())
    options = environment.parsed_options
    if options.worker:
        _hook_in_worker(environment, runner)
    else:
        _hook_in_conductor(environment, runner, options)


class _Interrupt:
    """What Ctrl-C does: the first one ends the run in good order; the second one ends that."""

    def __init__(self) -> None:
        self._came_before = False

    def __call__(self) -> None:
        error = SystemExit(Outcome.UNKNOWN.exit_code) if self._came_before else KeyboardInterrupt()
        self._came_before = True
        gevent.get_hub().handle_system_error(type(error), error)  # raised here, its traceback would be printed


def _hook_in_worker(environment: Environment, runner: Any) -> None:
    sending = Sending(environment)
    hooks = environment.events
    hooks.report_to_master.add_listener(lambda data, **_: sending.on_report(data))
    hooks.test_stopping.add_listener(lambda **_: sending.on_test_stopping())
    hooks.test_stop.add_listener(lambda **_: sending.on_test_stop())
    hooks.quitting.add_listener(lambda **_: sending.on_quitting())
    runner.register_message(DRAIN, lambda **_: sending.on_drain(), concurrent=True)


def _hook_in_conductor(environment: Environment, runner: Any, options: Any) -> None:
    conducting = Conducting(environment, options)
    if options.headless or options.autostart:
        try:
            conducting.prepare_early()
        except InputError as error:
            print(f"seqstress: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
    else:
        conducting.fill_form()
    if options.brief:
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
    hooks = environment.events
    hooks.test_start.add_listener(lambda **_: conducting.on_test_start())
    hooks.spawning_complete.add_listener(lambda **_: conducting.on_spawning_complete())
    hooks.test_stopping.add_listener(lambda **_: conducting.on_test_stopping())
    hooks.test_stop.add_listener(lambda **_: conducting.on_test_stop())
    hooks.quitting.add_listener(lambda **_: conducting.on_quitting())
    hooks.quit.add_listener(lambda **_: conducting.on_quit())
    seqstress.swarm.events.user_done.add_listener(lambda **_: conducting.on_user_done())
    if isinstance(runner, MasterRunner):
        hooks.worker_report.add_listener(lambda client_id, data, **_: conducting.on_worker_report(client_id, data))
        runner.register_message(FINAL, lambda msg, **_: conducting.on_final(msg.node_id, msg.data))
