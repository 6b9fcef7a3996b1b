"""Runs that are started and stopped from Locust's web UI: each one has a clean account of its own."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from seqstress.triton.server import TritonServer
from tests.swarm.processes import Locust, write_scenario

pytestmark = [pytest.mark.real, pytest.mark.locust]


class WebUi:
    """A locust process with its web UI, driven by its own HTTP API."""

    def __init__(self, out: Path, target: str, scenario: Path, *more: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.target = target
        arguments = ["--web-host", "127.0.0.1", "--web-port", self.port, "--scenario", scenario, "--host", target]
        self.locust = Locust(out, [*arguments, *more])
        self.locust.until(self.is_up, "the web UI")

    def is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def post(self, path: str, **form: object) -> dict[str, Any]:
        answer: dict[str, Any] = requests.post(f"http://127.0.0.1:{self.port}{path}", data=form, timeout=10).json()
        return answer

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)

    def start(self, **form: object) -> None:
        lines = self.progress_lines
        self.post("/swarm", **{"user_count": 2, "spawn_rate": 10, "host": self.target, **form})
        self.locust.until(lambda: self.progress_lines > lines, "a line of progress")

    def stop(self) -> None:
        runs = len(self.summaries)
        self.post("/stop")
        self.locust.until(lambda: len(self.summaries) > runs, "the summary of the run")

    @property
    def ready_workers(self) -> int:
        """How many workers wait for a run."""
        workers = self.get("/stats/requests").json().get("workers", [])
        return sum(worker["state"] == "ready" for worker in workers)

    @property
    def progress_lines(self) -> int:
        return len(re.findall(r"^.\d\d:\d\d  ", self.locust.output, re.MULTILINE))

    @property
    def summaries(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.locust.out.glob("*/summary.json"))]


@pytest.fixture
def web_ui(triton_server: TritonServer, tmp_path: Path) -> Iterator[WebUi]:
    scenario = write_scenario(
        tmp_path,
        name="endless",
        model={"name": "direct"},
        load={"users": 2},
        sequence={"length": {"distribution": "constant", "value": 4}},
    )
    ui = WebUi(tmp_path / "out", triton_server.grpc_target, scenario)
    yield ui
    ui.locust.kill()


def test_two_runs_in_one_process_have_a_clean_account_each(web_ui: WebUi) -> None:
    for _ in range(2):
        web_ui.start()
        web_ui.stop()
    first, second = web_ui.summaries
    for summary in (first, second):
        assert summary["verdict"] == "PASS", web_ui.locust.output
        assert summary["audit"]["equal"]
        assert summary["steps"]["sent"] == summary["outcomes"]["ok"]
    assert first["run_id"] != second["run_id"]
    assert web_ui.locust.output.count("PASS") == 2


def test_the_form_offers_the_load_of_the_scenario(web_ui: WebUi) -> None:
    page = web_ui.get("/").text
    assert re.search(r'"num_users": ?2\b', page)
    assert "scenario" in page


def test_a_run_by_iterations_ends_by_itself_and_the_ui_stays(web_ui: WebUi) -> None:
    web_ui.post("/swarm", user_count=2, spawn_rate=10, host=web_ui.target, iterations="3")
    web_ui.locust.until(lambda: len(web_ui.summaries) == 1, "the end of the run")
    assert web_ui.summaries[0]["verdict"] == "PASS"
    assert web_ui.get("/").status_code == 200


def test_a_refused_run_is_told_and_the_next_one_is_fine(web_ui: WebUi) -> None:
    web_ui.post("/swarm", user_count=1, spawn_rate=1, host=web_ui.target, model="nope")
    web_ui.locust.until(lambda: "the run was refused" in web_ui.locust.output, "the refusal")
    assert "nope" in web_ui.locust.output
    web_ui.locust.until(lambda: web_ui.get("/stats/requests").json()["state"] == "stopped", "the stop")
    web_ui.start(model="")
    web_ui.stop()
    assert [summary["verdict"] for summary in web_ui.summaries] == ["PASS"]
