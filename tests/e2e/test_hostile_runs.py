"""The whole product against servers that misbehave: real locust processes end by themselves, with the right verdict."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from seqstress.triton.repository import specs_named
from seqstress.triton.server import TritonServer
from tests.e2e.hostile import HostileServer
from tests.e2e.hostile.messages import CHAOS
from tests.swarm.processes import Ended, Locust, run_headless, write_scenario

pytestmark = pytest.mark.locust

VALID = {
    "contexts": {"common": 1, "rare": 0, "rare_share": 0},
    "mix": {"common": {"valid": 1}},
    "sequence": {"length": {"distribution": "constant", "value": 6}},
}
UNANSWERED = ("drop", "wrong_id", "empty_id", "empty_message", "no_protobuf", "error_without_id")
STRANGE = ("wrong_id", "empty_id", "empty_message", "no_protobuf", "error_without_id")
MALFORMED = ("wrong_model", "wrong_name", "wrong_dtype", "wrong_shape", "short", "no_output")


def ends_well(ended: Ended, code: int, verdict: str) -> dict[str, Any]:
    """Whatever the server did: no traceback, an account that balances, one exit code; gives the summary."""
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    summary = ended.summary
    steps = summary["steps"]
    assert steps["planned"] == steps["sent"] + steps["not_sent"]
    assert steps["sent"] == sum(summary["outcomes"].values())
    assert "account" not in [reason["rule"] for reason in summary["reasons"]]
    assert summary["verdict"] == verdict
    return summary


def test_every_sin_of_a_chaotic_server_is_in_the_summary_exactly_as_often_as_it_was_committed(tmp_path: Path) -> None:
    load = {"users": 4, "spawn_rate": 100, "iterations": 8}
    scenario = write_scenario(tmp_path, name="chaos", model={"name": "chaos"}, load=load, timeout_s=1.0, **VALID)
    with HostileServer("messages") as server:
        ended = run_headless(tmp_path / "out", server.targets["messages"], scenario)
    summary, deeds = ends_well(ended, 1, "FAIL"), server.deeds

    def committed(*sins: str) -> int:
        return sum(deeds.get(sin, 0) for sin in sins)

    outcomes, strays = summary["outcomes"], summary["strays"]
    assert deeds.keys() == set(CHAOS)
    assert outcomes["wrong_result"] == committed("wrong_value")
    assert outcomes["malformed"] == committed(*MALFORMED)
    assert outcomes["unexpected_error"] == committed("error", "start_error")
    assert outcomes["timeout"] == committed(*UNANSWERED)
    assert strays["duplicate"] == committed("duplicate")
    assert strays["orphan"] == committed(*STRANGE)
    failing = ("wrong_result", "malformed", "unexpected_error", "timeout")
    assert outcomes["ok"] == summary["steps"]["sent"] - sum(outcomes[fate] for fate in failing)
    assert summary["steps"]["planned"] == 4 * 8 * 6
    assert summary["steps"]["not_sent"] == 0


def test_texts_of_the_server_do_no_harm_to_the_report(tmp_path: Path) -> None:
    load = {"users": 1, "spawn_rate": 1, "iterations": 3}
    scenario = write_scenario(tmp_path, name="wild", model={"name": "wild_error"}, load=load, **VALID)
    with HostileServer("messages") as server:
        ended = run_headless(tmp_path / "out", server.targets["messages"], scenario, "--verbose-steps")
    summary = ends_well(ended, 1, "FAIL")
    assert summary["outcomes"]["unexpected_error"] == server.deeds["wild_error"]
    assert "\x1b[31m" not in ended.output
    assert "<script>alert" not in (ended.directory / "report.html").read_text()
    assert sum(path.stat().st_size for path in ended.directory.rglob("*") if path.is_file()) < 2_000_000


def test_a_connection_that_breaks_again_and_again_fails_the_run_and_the_users_go_on(tmp_path: Path) -> None:
    load = {"users": 4, "spawn_rate": 100, "iterations": 5}
    scenario = write_scenario(tmp_path, name="garbage", model={"name": "m"}, load=load, **VALID)
    with HostileServer("frames") as server:
        ended = run_headless(tmp_path / "out", server.targets["Garbage"], scenario)
    summary = ends_well(ended, 1, "FAIL")
    assert summary["steps"]["planned"] == 4 * 5 * 6
    assert summary["outcomes"]["disconnected"] + summary["outcomes"]["ok"] == summary["steps"]["sent"]
    assert summary["outcomes"]["ok"] > 0
    assert [reason["rule"] for reason in summary["reasons"] if reason["outcome"] == "FAIL"] == ["disconnected"]


def test_streams_that_hang_neither_hang_the_run_nor_its_end(tmp_path: Path) -> None:
    load = {"users": 4, "spawn_rate": 100, "run_time_s": 3}
    scenario = write_scenario(tmp_path, name="silent", model={"name": "m"}, load=load, timeout_s=0.5, **VALID)
    with HostileServer("frames") as server:
        ended = run_headless(tmp_path / "out", server.targets["Silent"], scenario)
    summary = ends_well(ended, 1, "FAIL")
    assert summary["outcomes"]["timeout"] > 4 * 6  # after the first plan came others
    assert summary["outcomes"]["ok"] == summary["sequences"]["finished"] == 0


def test_a_server_that_takes_no_connection_under_load_is_an_unknown(tmp_path: Path) -> None:
    load = {"users": 3, "spawn_rate": 100, "iterations": 3}
    scenario = write_scenario(tmp_path, name="closed", model={"name": "m"}, load=load, **VALID)
    with HostileServer("frames") as server:
        ended = run_headless(tmp_path / "out", server.targets["ClosedAtAccept"], scenario)
    summary = ends_well(ended, 3, "UNKNOWN")
    assert summary["steps"]["not_sent"] == summary["steps"]["planned"] == 3 * 3 * 6
    assert {reason["rule"] for reason in summary["reasons"]} >= {"progress", "audit", "not_sent"}


def test_a_server_that_does_not_say_who_it_is_is_refused_in_one_sentence(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, name="nobody", model={"name": "m"}, **VALID)
    with HostileServer("frames") as server:
        ended = run_headless(tmp_path / "out", server.targets["NoMetadata"], scenario)
    assert ended.code == 2, ended.output
    assert "name and version" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.real
def test_a_server_that_dies_and_comes_back_on_its_port_is_served_on(tmp_path: Path) -> None:
    load = {"users": 4, "spawn_rate": 100, "run_time_s": 40}
    scenario = write_scenario(tmp_path, name="phoenix", model={"name": "l0_1x4"}, load=load, timeout_s=2.0)
    with TritonServer(specs_named(["l0_1x4"])) as first:
        target, port = first.grpc_target, int(first.grpc_target.rpartition(":")[2])
        locust = Locust(tmp_path / "out", ["--headless", "--only-summary", "--host", target, "--scenario", scenario])
        locust.until(lambda: progress(locust)[1] > 0, "the first steps")
        os.kill(first.pid, signal.SIGKILL)
    with TritonServer(specs_named(["l0_1x4"]), grpc_port=port):
        seen = progress(locust)
        # The line after the next is wholly of the new server's time: sequences go on, and nothing more breaks.
        locust.until(lambda: progress(locust)[0] >= seen[0] + 2, "progress after the return")
        returned = progress(locust)
        locust.until(lambda: progress(locust)[1] > returned[1], "sequences after the return")
        locust.process.terminate()
        ended = locust.end()
    summary = ends_well(ended, 1, "FAIL")
    assert summary["outcomes"]["disconnected"] > 0
    assert {fate for fate, count in summary["outcomes"].items() if count} <= {"ok", "disconnected"}
    # The new server counts from 0, beyond the old one's counters or not: that is no invented or lost request.
    assert "audit" not in [reason["rule"] for reason in summary["reasons"] if reason["outcome"] == "FAIL"]


def progress(locust: Locust) -> tuple[int, int]:
    """How many lines of progress there are, and how many sequences the last one tells of."""
    lines = re.findall(r"^.\d\d:\d\d +([\d,]+) sequences", locust.output, re.MULTILINE)
    return len(lines), int(lines[-1].replace(",", "")) if lines else 0
