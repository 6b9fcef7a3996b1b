"""A master and its workers as real processes: exact sums on every way to the end, and never a PASS by accident."""

import os
import re
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seqstress.triton.server import TritonServer
from tests.swarm.processes import Ended, Locust, write_scenario
from tests.swarm.test_web_ui import WebUi

pytestmark = [pytest.mark.real, pytest.mark.locust]


class Swarm:
    """A headless master and its workers on loopback."""

    def __init__(self, out: Path, target: str, scenario: Path, *arguments: object, workers: int = 2) -> None:
        self.port = free_port()
        role = ["--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", self.port]
        told = ["--expect-workers", workers, "--host", target, "--scenario", scenario, "--brief", *arguments]
        self.out = out
        self.master = Locust(out / "runs", [*role, *told])
        self.workers: list[Locust] = []
        for _ in range(workers):
            self.join()

    def join(self) -> Locust:
        """One more worker."""
        self.workers.append(worker_of(self.port, self.out / f"worker{len(self.workers)}"))
        return self.workers[-1]

    def until_steps(self) -> None:
        """Wait until the master shows that steps were answered."""
        self.master.until(lambda: " 100.00% ok" in self.master.output, "the first steps")

    def end(self) -> Ended:
        """Wait until the master has ended, and no worker stays behind."""
        ended = self.master.end()
        codes = [worker.end().code for worker in self.workers]
        assert "Traceback" not in ended.output
        assert all(code in (0, -signal.SIGKILL) for code in codes), codes
        return ended


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def worker_of(port: int, out: Path) -> Locust:
    return Locust(out, ["--worker", "--master-host", "127.0.0.1", "--master-port", port, "--loglevel", "WARNING"])


def signal_all(processes: Sequence[Locust], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process.process.pid, number)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Complete sequences of four steps only, so that every plan is one sequence; 3 ms a step keep the load low."""
    return write_scenario(
        tmp_path,
        name="plain",
        model={"name": "l0_1x4"},
        load={"users": 4, "spawn_rate": 100, "run_time_s": 60},
        contexts={"common": 1, "rare": 0},
        mix={"common": {"valid": 1}},
        sequence={"length": {"distribution": "constant", "value": 4}},
    )


def assert_exact(summary: dict[str, Any], workers: int) -> None:
    """What was planned was sent and came back right, and the server counts the same; nobody's share is missing."""
    assert summary["verdict"] == "PASS", summary["reasons"]
    assert summary["workers"] == workers
    assert summary["steps"]["planned"] == summary["steps"]["sent"] == summary["outcomes"]["ok"] > 0
    (success,) = [row["observed"] for row in summary["audit"]["rows"] if row["name"] == "success"]
    assert success == summary["steps"]["sent"]


def test_iterations_end_the_run_with_exactly_as_many_plans_as_were_asked_for(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    # Users that are done long before the last one starts must not be started anew in its wave.
    load = ("--iterations", 3, "--users", 4, "--spawn-rate", 4)
    swarm = Swarm(tmp_path, triton_server.grpc_target, plain, *load)
    ended = swarm.end()
    assert ended.code == 0, ended.output
    assert_exact(ended.summary, workers=2)
    assert ended.summary["sequences"]["planned"] == ended.summary["sequences"]["finished"] == 4 * 3
    assert ended.summary["duration_s"] < 30  # by itself, not by its time


def test_a_lone_process_sends_exactly_as_many_plans_too(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    arguments = ["--headless", "--brief", "--host", triton_server.grpc_target, "--scenario", plain]
    ended = Locust(tmp_path / "out", [*arguments, "--iterations", 2, "--users", 3, "--spawn-rate", 2]).end()
    assert ended.code == 0, ended.output
    assert ended.summary["sequences"]["finished"] == 3 * 2


def test_workers_that_join_and_leave_in_mid_run_are_counted_up_to_ctrl_c(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    swarm = Swarm(tmp_path, triton_server.grpc_target, plain)
    swarm.until_steps()
    swarm.join()
    swarm.master.until(lambda: swarm.master.output.count("All users spawned") == 2, "the new worker's first users")
    signal_all(swarm.workers[:1], signal.SIGTERM)
    swarm.master.until(
        lambda: re.search(r"\(index [01]\) quit", swarm.master.output) is not None, "the end of the first worker"
    )
    signal_all([swarm.master], signal.SIGINT)
    ended = swarm.end()
    assert ended.code == 0, ended.output
    assert_exact(ended.summary, workers=3)
    assert ended.output.count("Results: ") == 1


def test_a_signal_to_all_at_once_loses_nothing(triton_server: TritonServer, plain: Path, tmp_path: Path) -> None:
    swarm = Swarm(tmp_path, triton_server.grpc_target, plain)  # as when containers are stopped together
    swarm.until_steps()
    signal_all([*swarm.workers, swarm.master], signal.SIGTERM)
    ended = swarm.end()
    assert ended.code == 0, ended.output
    assert_exact(ended.summary, workers=2)


def test_time_that_ends_in_mid_ramp_up_starts_no_user_after_the_last_account(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    load = ("--users", 200, "--spawn-rate", 20, "--run-time", "3s")
    ended = Swarm(tmp_path, triton_server.grpc_target, plain, *load).end()
    assert ended.code == 0, ended.output
    assert_exact(ended.summary, workers=2)


def test_a_worker_killed_before_its_first_report_makes_the_verdict_unknown(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    swarm = Swarm(tmp_path, triton_server.grpc_target, plain, "--run-time", "2s")
    swarm.master.until(lambda: "Running plain" in swarm.master.output, "the start")
    signal_all(swarm.workers[:1], signal.SIGKILL)
    assert_unknown(swarm.end())


def test_a_run_whose_only_worker_is_killed_ends_by_itself_as_unknown(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    swarm = Swarm(tmp_path, triton_server.grpc_target, plain, "--run-time", "50s", workers=1)
    swarm.until_steps()
    signal_all(swarm.workers, signal.SIGKILL)
    ended = swarm.end()
    assert_unknown(ended)
    assert ended.summary["duration_s"] < 40


def assert_unknown(ended: Ended) -> None:
    summary = ended.summary
    assert (ended.code, summary["verdict"]) == (3, "UNKNOWN"), ended.output
    assert summary["reasons"][0]["rule"] == "workers"
    assert "no final account of 1 worker(s)" in ended.output


def test_a_second_run_of_the_same_swarm_has_a_clean_account(
    triton_server: TritonServer, plain: Path, tmp_path: Path
) -> None:
    port = free_port()
    role = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--stop-timeout", 1]
    ui = WebUi(tmp_path / "out", triton_server.grpc_target, plain, *role)
    workers = [worker_of(port, tmp_path / f"worker{index}") for index in range(2)]
    try:
        for _ in range(2):
            ui.locust.until(lambda: ui.ready_workers == 2, "both workers")
            ui.start()
            ui.stop()
        first, second = ui.summaries
        for summary in (first, second):
            assert_exact(summary, workers=2)
        assert first["run_id"] != second["run_id"]
    finally:
        for process in (ui.locust, *workers):
            process.kill()
