"""A lone headless locust process against the real server: the verdict, the account and the exit code are right."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seqstress.triton.repository import specs_named
from seqstress.triton.server import TritonServer
from seqstress.verdict.ledger import FAILURES_KEPT
from tests.e2e.sick import Disease, sick_repository
from tests.swarm.processes import Ended, Locust, run_headless, write_scenario

pytestmark = [pytest.mark.real, pytest.mark.locust]

OBSERVING = Path(__file__).parent / "observing_locustfile.py"


def observed(ended: Ended) -> dict[str, Any]:
    """What the observing locustfile printed."""
    (line,) = [line for line in ended.output.splitlines() if line.startswith("OBSERVED ")]
    said: dict[str, Any] = json.loads(line.removeprefix("OBSERVED "))
    return said


def steps_of(ended: Ended) -> list[str]:
    """Each step as ``--verbose-steps`` printed it, without what differs between runs: IDs. Sorted by user and place."""
    lines = re.findall(
        r"^(\w+) +id=\S+ [0-9a-f]+\.(\S+) +(\S\S) value=(\S+) -> (.*) \[(\w+)\]$", ended.output, re.MULTILINE
    )
    return sorted(re.sub(r"sequence \d+", "sequence N", " | ".join(line)) for line in lines)


def test_a_run_ends_by_its_iterations_passes_and_balances(
    triton_server: TritonServer, tiny: Path, tmp_path: Path
) -> None:
    ended = run_headless(tmp_path / "out", triton_server.grpc_target, tiny)
    summary = ended.summary
    assert ended.code == 0, ended.output
    assert summary["verdict"] == "PASS"
    assert summary["steps"]["planned"] == summary["steps"]["sent"] == summary["outcomes"]["ok"] > 15
    assert summary["audit"]["equal"]
    assert (ended.directory / "report.html").stat().st_size > 1000
    assert "PASS" in ended.output


def test_locusts_aggregated_row_counts_each_step_once(triton_server: TritonServer, tiny: Path, tmp_path: Path) -> None:
    ended = run_headless(tmp_path / "out", triton_server.grpc_target, tiny, locustfile=OBSERVING)
    said, summary = observed(ended), ended.summary
    assert said["total"] == said["heard"]["request step"] == summary["steps"]["sent"]
    assert sum(count for row, count in said["rows"].items() if row.startswith("step ")) == said["total"]
    sequences = sum(count for row, count in said["rows"].items() if row.startswith("sequence "))
    assert sequences == said["heard"]["sequence finished"] == summary["sequences"]["finished"]


def test_tags_pick_patterns(triton_server: TritonServer, tiny: Path, tmp_path: Path) -> None:
    ended = run_headless(tmp_path / "out", triton_server.grpc_target, tiny, "--tags", "valid", "no_end")
    assert ended.code == 0, ended.output
    assert set(ended.summary["latency_us"]) <= {"valid", "no_end", "all"}


def test_the_same_seed_sends_the_same_steps_and_another_does_not(
    triton_server: TritonServer, tiny: Path, tmp_path: Path
) -> None:
    runs = [
        steps_of(
            run_headless(tmp_path / str(index), triton_server.grpc_target, tiny, "--seed", seed, "--verbose-steps")
        )
        for index, seed in enumerate((7, 7, 8))
    ]
    assert runs[0]
    assert runs[0] == runs[1] != runs[2]


def test_both_transports_give_the_same_fates_on_a_healthy_model(
    triton_server: TritonServer, tiny: Path, tmp_path: Path
) -> None:
    ours, theirs = (
        run_headless(
            tmp_path / name, triton_server.grpc_target, tiny, "--seed", 3, "--verbose-steps", "--transport", name
        )
        for name in ("http2", "tritonclient")
    )
    assert (ours.code, theirs.code) == (0, 0), theirs.output
    assert steps_of(ours) == steps_of(theirs)
    assert "no_start" in " ".join(steps_of(ours))


def test_both_transports_give_the_same_fates_on_a_sick_model(tmp_path: Path) -> None:
    model = sick_repository(tmp_path / "models", Disease.OFF_BY_ONE)
    scenario = write_scenario(
        tmp_path,
        name="sick",
        model={"name": model},
        load={"users": 1, "spawn_rate": 1, "iterations": 12},
        contexts={"common": 1, "rare": 0},
        mix={"common": {"valid": 1, "valid_valid": 1, "no_start": 1, "no_end": 1}},
        pacing={"mode": "lockstep"},
    )
    runs = []
    for name in ("http2", "tritonclient"):
        with TritonServer(tmp_path / "models") as server:
            runs.append(
                run_headless(
                    tmp_path / name, server.grpc_target, scenario, "--seed", 5, "--verbose-steps", "--transport", name
                )
            )
    ours, theirs = runs
    assert (ours.code, theirs.code) == (1, 1), theirs.output
    assert ours.summary["outcomes"]["wrong_result"] > 0
    assert steps_of(ours) == steps_of(theirs)


def test_a_sick_model_fails_with_records_and_the_users_go_on(tmp_path: Path) -> None:
    model = sick_repository(tmp_path / "models", Disease.OFF_BY_ONE)
    scenario = write_scenario(
        tmp_path, name="sick", model={"name": model}, load={"users": 2, "spawn_rate": 100, "iterations": 50}
    )
    with TritonServer(tmp_path / "models") as server:
        ended = run_headless(tmp_path / "out", server.grpc_target, scenario, locustfile=OBSERVING)
    summary = ended.summary
    assert ended.code == 1, ended.output
    assert summary["verdict"] == "FAIL"
    assert summary["outcomes"]["wrong_result"] > 0
    assert summary["audit"]["equal"]  # the server served what was sent, only wrongly
    assert list((ended.directory / "failures").glob("*wrong_result*.json"))
    said = observed(ended)
    assert len(said["errors"]) <= 3  # one constant text per fate, however many values were wrong
    told = {
        name.removeprefix("failure "): count for name, count in said["heard"].items() if name.startswith("failure ")
    }
    assert told == {fate: count for fate, count in summary["outcomes"].items() if count and fate != "ok"}
    assert said["heard"]["record wrong_result"] == FAILURES_KEPT < told["wrong_result"]  # the others come without one


def test_a_server_that_dies_in_mid_run_is_a_failure_and_nothing_is_lost(tmp_path: Path) -> None:
    scenario = write_scenario(
        tmp_path,
        name="dying",
        model={"name": "l0_1x4"},
        load={"users": 4, "spawn_rate": 100, "run_time_s": 4},
        timeout_s=1.0,
    )
    with TritonServer(specs_named(["l0_1x4"])) as server:
        locust = Locust(
            tmp_path / "out", ["--headless", "--host", server.grpc_target, "--scenario", scenario, "--only-summary"]
        )
        locust.until(lambda: "steps:" in locust.output, "the first line of progress")
        os.kill(server.pid, signal.SIGKILL)
        ended = locust.end()
    summary = ended.summary
    assert ended.code == 1, ended.output
    assert summary["outcomes"]["disconnected"] > 0
    assert summary["steps"]["sent"] == sum(summary["outcomes"].values())
    assert summary["steps"]["planned"] == summary["steps"]["sent"] + summary["steps"]["not_sent"]
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_users_in_good_order_and_the_verdict_is_told(
    triton_server: TritonServer, tmp_path: Path, number: signal.Signals
) -> None:
    scenario = write_scenario(
        tmp_path, name="endless", model={"name": "direct"}, load={"users": 2, "spawn_rate": 100, "run_time_s": 60}
    )
    arguments = ["--headless", "--host", triton_server.grpc_target, "--scenario", scenario, "--only-summary"]
    locust = Locust(tmp_path / "out", arguments)
    locust.until(lambda: "steps:" in locust.output, "the first line of progress")
    os.kill(locust.process.pid, number)
    ended = locust.end()
    summary = ended.summary
    assert ended.code == 0, ended.output
    assert summary["verdict"] == "PASS"
    assert summary["outcomes"]["aborted"] == 0
    assert summary["audit"]["equal"]
    assert summary["duration_s"] < 30


class TestBadInput:
    """Exit code 2 and one clear message, before any load."""

    def refused(self, out: Path, target: str, scenario: Path, *arguments: object) -> str:
        ended = run_headless(out, target, scenario, *arguments)
        assert ended.code == 2, ended.output
        assert "Traceback" not in ended.output
        assert [path for path in out.iterdir() if path.is_dir()] == []
        return ended.output

    def test_a_scenario_that_does_not_exist(self, tmp_path: Path) -> None:
        assert "no.yaml" in self.refused(tmp_path / "out", "127.0.0.1:1", tmp_path / "no.yaml")

    def test_an_unknown_key(self, tmp_path: Path) -> None:
        scenario = write_scenario(tmp_path, name="x", model={"name": "direct"}, timout_s=3)
        assert "timeout_s" in self.refused(tmp_path / "out", "127.0.0.1:1", scenario)

    def test_a_server_that_is_not_there(self, tiny: Path, tmp_path: Path) -> None:
        assert "127.0.0.1:1" in self.refused(tmp_path / "out", "127.0.0.1:1", tiny)

    def test_a_host_without_a_port(self, tiny: Path, tmp_path: Path) -> None:
        assert "HOST:PORT" in self.refused(tmp_path / "out", "localhost", tiny)

    def test_a_model_that_does_not_exist(self, triton_server: TritonServer, tiny: Path, tmp_path: Path) -> None:
        output = self.refused(tmp_path / "out", triton_server.grpc_target, tiny, "--model", "nope")
        assert "nope" in output
        assert "direct" in output  # the models that it has

    def test_a_model_that_contradicts_the_scenario(self, triton_server: TritonServer, tmp_path: Path) -> None:
        scenario = write_scenario(tmp_path, name="x", model={"name": "direct", "dtype": "FP32"})
        assert "dtype" in self.refused(tmp_path / "out", triton_server.grpc_target, scenario)

    def test_a_tag_that_no_pattern_has(self, triton_server: TritonServer, tiny: Path, tmp_path: Path) -> None:
        assert "tags" in self.refused(tmp_path / "out", triton_server.grpc_target, tiny, "--tags", "vallid")

    @pytest.mark.parametrize("option", ["--iterations", "--seed"])
    def test_a_number_that_is_none(self, triton_server: TritonServer, tiny: Path, tmp_path: Path, option: str) -> None:
        assert option in self.refused(tmp_path / "out", triton_server.grpc_target, tiny, option, "many")


def test_the_failure_texts_are_one_per_fate() -> None:
    from seqstress.errors import STEP_FAILURES
    from seqstress.protocol import Fate

    assert STEP_FAILURES.keys() == set(Fate) - {Fate.OK}
    assert max(Counter(map(repr, STEP_FAILURES.values())).values()) == 1
