"""The stock tritonclient under Locust, with more streams than gevent's thread pool has threads at first (ten)."""

from pathlib import Path

import pytest

from seqstress.triton.server import TritonServer
from tests.swarm.processes import run_headless, write_scenario

pytestmark = [pytest.mark.real, pytest.mark.locust]


def test_no_answer_waits_for_a_thread_that_an_idle_stream_holds(triton_server: TritonServer, tmp_path: Path) -> None:
    scenario = write_scenario(
        tmp_path,
        name="crowd",
        model={"name": "direct"},
        load={"users": 40, "spawn_rate": 1000, "iterations": 3},
        contexts={"common": 1, "rare": 0},
        mix={"common": {"valid": 1}},
        sequence={"length": {"distribution": "constant", "value": 16}},
        ids={"policy": "fresh"},
        timeout_s=10,
    )
    ended = run_headless(tmp_path / "out", triton_server.grpc_target, scenario, "--transport", "tritonclient")
    assert ended.code == 0, ended.output
    assert ended.summary["outcomes"]["ok"] == 40 * 3 * 16
