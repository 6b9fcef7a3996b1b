"""Prepares a run, collects the accounts of its workers, and judges it: on the master, or in a lone process."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent

from seqstress.errors import PreflightError, WireError
from seqstress.plan.capacity import Capacity, estimate
from seqstress.plan.mix import UserPlans
from seqstress.report.files import run_directory, write_run
from seqstress.report.view import RunFacts, RunView
from seqstress.scenario import Scenario
from seqstress.swarm import options as command_line
from seqstress.swarm.config import RunConfig
from seqstress.triton.control import Control
from seqstress.triton.preflight import Target, examine
from seqstress.verdict.audit import Audit, ModelStatistics, audit
from seqstress.verdict.ledger import Ledger
from seqstress.verdict.rules import verdict
from seqstress.verdict.snapshot import WorkerSnapshot, merge_snapshots
from seqstress.wire.choice import TRANSPORTS
from seqstress.wire.transport import Http2Transport

SETTLE_S = 2.0
"""How long the server's counters may take to show its last answers (seen: 0.15 s)."""

SETTLE_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was found out before any load: nothing here can fail any more for a reason that the person can mend."""

    scenario: Scenario
    address: str
    target: Target
    server: str
    """Its name and version, as it tells them."""
    capacity: Capacity
    iterations: int | None
    seed: int


def prepare(options: Any, host: str | None) -> Prepared:
    """Read the scenario and ask the server whether it fits. Raises InputError."""
    scenario = command_line.scenario_of(options)
    iterations = command_line.iterations_of(options, scenario)
    seed = command_line.seed_of(options)
    address = command_line.address_of(host)
    command_line.require_writable(Path(options.out))
    transport = Http2Transport(address)
    try:
        control = Control(transport)
        target = examine(control, scenario, str(options.scenario))
        facts = control.server_metadata()
    except WireError as error:
        raise PreflightError(f"the server at {address} does not tell its name and version: {error}") from error
    finally:
        transport.close()
    # Whether the patterns that are left have any weight: better told here than by each user of each worker.
    UserPlans(scenario, target.binding.input.dtype, (0,), command_line.patterns_of(options))
    return Prepared(
        scenario=scenario,
        address=address,
        target=target,
        server=f"{facts.name} {facts.version}",
        capacity=estimate(scenario, target.slots, target.idle_limit_ns / 1e9),
        iterations=iterations,
        seed=secrets.randbits(32) if seed is None else seed,
    )


@dataclass(slots=True)
class Conductor:
    """One run from its start to its verdict. ``take`` may be called at any time with whatever a worker says."""

    prepared: Prepared
    config: RunConfig
    out: Path
    command: str
    _run_time_s: float
    _lifeline: Http2Transport
    """Holds one connection open for the whole run: where that broke, the server may have been started anew."""
    _before: ModelStatistics | None = None
    _started_s: float = field(default_factory=time.monotonic)
    _snapshots: dict[str, WorkerSnapshot] = field(default_factory=dict)
    _expected: set[str] = field(default_factory=set)
    _excused: set[str] = field(default_factory=set)
    view: RunView | None = None
    """The judged run, once ``judge`` has been called."""
    directory: Path | None = None
    """Where its files were written, once ``write`` has been called."""

    @classmethod
    def start(cls, prepared: Prepared, options: Any, workers: int) -> "Conductor":
        """Fix the run's identity and read the server's counters: from now on load may flow."""
        nonce = secrets.randbits(22)
        config = RunConfig(
            run_id=f"{int(time.time()):x}-{nonce:06x}",
            nonce=nonce,
            seed=prepared.seed,
            scenario=prepared.scenario,
            target=prepared.target,
            address=prepared.address,
            transport=options.transport,
            workers=workers,
            iterations=prepared.iterations,
            started_epoch_s=time.time(),
            verbose_steps=bool(options.verbose_steps),
        )
        conductor = cls(
            prepared,
            config,
            Path(options.out),
            _repeat(prepared, options),
            options.run_time or 0,
            Http2Transport(config.address),
        )
        conductor._before = conductor._statistics(conductor._lifeline)
        return conductor

    @property
    def headline(self) -> str:
        """What is about to run, in one line."""
        scenario, prepared = self.config.scenario, self.prepared
        iterations, run_time_s = self.config.iterations, self._run_time_s
        ends = [f"{iterations} plans each"] if iterations else []
        ends += [f"{run_time_s:g} s"] if run_time_s else []
        return (
            f"Running {scenario.name} on model {scenario.model.name} of {prepared.server} at {prepared.address}: "
            f"{scenario.load.users} users, {' or '.join(ends) or 'until it is stopped'}, seed {prepared.seed}"
        )

    def take(self, node: str, plain: Mapping[str, object]) -> None:
        """Keep the latest account of a worker; those of other runs and stale ones change nothing."""
        if plain.get("run_id") != self.config.run_id:
            return
        snapshot = WorkerSnapshot.from_plain(plain)
        known = self._snapshots.get(node)
        if known is None or (not known.final and snapshot.wall_s >= known.wall_s):
            self._snapshots[node] = snapshot

    def expect(self, nodes: set[str]) -> None:
        """These workers owe a final account."""
        self._expected |= nodes

    def excuse(self, node: str) -> None:
        """This worker says that it had no users in this run."""
        self._expected.discard(node)
        self._excused.add(node)

    @property
    def nodes(self) -> set[str]:
        """The workers that owe or gave an account."""
        return self._expected | self._snapshots.keys()

    @property
    def finals(self) -> set[str]:
        """The workers whose final account is here."""
        return {node for node, snapshot in self._snapshots.items() if snapshot.final}

    @property
    def settled(self) -> set[str]:
        """The workers from which nothing more will come."""
        return self.finals | self._excused

    def resting(self, without: set[str]) -> int:
        """How many users have sent all their iterations, but for those of the workers ``without``."""
        return sum(snapshot.resting for node, snapshot in self._snapshots.items() if node not in without)

    @property
    def snapshots(self) -> tuple[WorkerSnapshot, ...]:
        """The latest account of each worker."""
        return tuple(self._snapshots.values())

    @property
    def elapsed_s(self) -> float:
        """Since the start of the run."""
        return time.monotonic() - self._started_s

    def judge(self, own_cpu_s: float) -> RunView:
        """Judge the run; ``own_cpu_s`` is what this process used where it is no worker."""
        duration_s = self.elapsed_s
        merged = merge_snapshots(self._snapshots.values())
        audited = self._audit(merged.ledger)
        self._lifeline.close()
        judged = verdict(
            merged.ledger,
            self.config.scenario,
            audited,
            duration_s=duration_s,
            lag=merged.lag,
            cpu_share=max((worker.cpu_share for worker in merged.workers), default=0.0),
            missing_workers=sorted(self.nodes - self.finals),
        )
        prepared, config = self.prepared, self.config
        self.view = RunView(
            RunFacts(
                run_id=config.run_id,
                started_epoch_s=config.started_epoch_s,
                duration_s=duration_s,
                scenario=config.scenario,
                seed=config.seed,
                target=config.address,
                transport=config.transport,
                users=config.scenario.load.users,
                server=prepared.server,
                workers=merged.workers,
                master_cpu_s=own_cpu_s,
                ledger=merged.ledger,
                audit=audited,
                capacity=prepared.capacity,
                verdict=judged,
                command=self.command,
                warnings=prepared.target.warnings,
            )
        )
        return self.view

    def write(self) -> Path:
        """Write the files of the judged run into a folder of their own. Raises OSError."""
        assert self.view is not None
        self.directory = run_directory(self.out, self.view)
        write_run(self.directory, self.view)
        return self.directory

    def _audit(self, ledger: Ledger) -> Audit:
        """Compare until the counters agree or have had time enough: the last answers show up a little later."""
        if self._before is None:
            return Audit.not_made("the server's counters could not be read before the run")
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            transport = Http2Transport(self.config.address)
            try:
                after = self._statistics(transport)
            finally:
                transport.close()
            if after is None:
                return Audit.not_made("the server did not tell its counters after the run")
            found = audit(ledger, self._before, after, tells_error_models=self.config.transport == TRANSPORTS[0])
            if not found.equal and not self._lifeline.connections:
                return Audit.not_made(
                    "the server's counters do not fit, but the connection to it broke during the run: "
                    "it may have been started anew, and they with it"
                )
            if found.equal or time.monotonic() > deadline_s:
                return found
            gevent.sleep(SETTLE_STEP_S)

    def _statistics(self, transport: Http2Transport) -> ModelStatistics | None:
        binding = self.config.target.binding
        try:
            return Control(transport).model_statistics(binding.model, binding.version)
        except WireError:
            return None


def _repeat(prepared: Prepared, options: Any) -> str:
    """The command that sends the same plans again."""
    if options.repeat_command:
        return f"{options.repeat_command} --seed {prepared.seed}"
    load = prepared.scenario.load
    parts: list[object] = [
        "locust -f locustfile.py --headless --scenario",
        options.scenario,
        "--host",
        prepared.address,
    ]
    parts += ["--users", load.users, "--seed", prepared.seed]
    for option, given in (
        ("--model", options.model),
        ("--iterations", options.iterations),
        ("--run-time", options.run_time),
        ("--transport", "" if options.transport == TRANSPORTS[0] else options.transport),
    ):
        if given:
            parts += [option, given]
    return " ".join(map(str, parts))
