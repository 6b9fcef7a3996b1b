"""The command line as a person has it: the ``seqstress`` script, the real server, and what is left behind."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from seqstress import cli
from seqstress.errors import ServerError
from seqstress.triton.releases import has_option, locate
from seqstress.triton.repository import MODELS, write_repository
from seqstress.triton.server import TritonServer
from seqstress.verdict.outcome import Outcome
from tests.swarm.processes import SCENARIOS, Ended, Family, Seqstress, write_scenario

pytestmark = [pytest.mark.real, pytest.mark.locust]

SHIPPED = sorted(SCENARIOS.glob("*.yaml"))


def run(out: Path, scenario: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> Seqstress:
    return Seqstress(out, "run", scenario, "--out", out / "runs", *arguments, environment=environment)


def counters(summary: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: row["observed"] for row in summary["audit"]["rows"]}


def assert_exact(ended: Ended) -> None:
    """Planned = sent = what came back right, and the server counts the same."""
    summary = ended.summary
    assert summary["verdict"] == "PASS", ended.output
    assert ended.code == 0, ended.output
    assert summary["steps"]["planned"] == summary["steps"]["sent"] == summary["outcomes"]["ok"] > 0
    assert summary["audit"]["equal"]
    refused = (
        summary["latency_us"]["no_start"]["step"]["count"] if "no_start" in summary["latency_us"] else 0
    )  # they move no counter
    assert counters(summary)["success"] == summary["steps"]["sent"] - refused


class TestARunWithTheEmbeddedServer:
    def test_workers_send_exactly_what_was_planned_and_nothing_stays(self, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "smoke.yaml", "--workers", 2, "--spawn-rate", 2)
        seqstress.until(lambda: "Running smoke" in seqstress.output, "the start of the load")
        family = Family(seqstress)
        assert family.servers
        ended = seqstress.end()
        assert_exact(ended)
        assert ended.summary["workers"] == 2
        for file in ("summary.json", "report.html"):
            assert (ended.directory / file).stat().st_size > 1000
        assert f"Results: {ended.directory}" in ended.output
        assert ended.output.count("PASS") == 1
        assert "Traceback" not in ended.output and "/INFO/locust" not in ended.output
        assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])

    def test_ctrl_c_ends_with_the_verdict_of_what_was_sent(self, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "l0.yaml", "--run-time", "60s", "--workers", 2)
        seqstress.until(lambda: re.search(r"[1-9]\d* steps:", seqstress.output) is not None, "the first steps")
        family = Family(seqstress)
        seqstress.interrupt(signal.SIGINT)
        ended = seqstress.end()
        assert_exact(ended)
        assert ended.summary["duration_s"] < 50
        assert "Traceback" not in ended.output
        assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])

    def test_ctrl_c_before_the_load_is_no_verdict(self, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "l0.yaml")
        seqstress.until(lambda: "Starting the embedded" in seqstress.output, "the start")
        family = Family(seqstress)
        seqstress.interrupt(signal.SIGINT)
        ended = seqstress.end()
        assert ended.code == 3, ended.output
        assert "no verdict" in ended.output
        assert "Traceback" not in ended.output
        assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])

    def test_killed_it_takes_locust_and_the_server_with_it(self, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "smoke.yaml", "--iterations", 0, "--run-time", "60s", "--workers", 1)
        seqstress.until(lambda: "steps:" in seqstress.output, "the first line of progress")
        family = Family(seqstress)
        seqstress.interrupt(signal.SIGKILL)
        seqstress.end()
        assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])
        assert "FAIL" not in seqstress.output  # the server went with us: nothing to blame it for

    def test_a_server_that_dies_is_a_failure_and_the_tail_of_its_log_is_shown(self, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "smoke.yaml", "--iterations", 0, "--run-time", "3s")
        seqstress.until(lambda: re.search(r"[1-9]\d* steps:", seqstress.output) is not None, "the first steps")
        family = Family(seqstress)
        os.kill(family.servers[0], signal.SIGKILL)
        ended = seqstress.end()
        assert ended.code == 1, ended.output
        assert ended.summary["outcomes"]["disconnected"] > 0
        assert "The embedded server died (killed by SIGKILL)" in ended.output
        assert re.search(r"^[IWE]\d{4} .*\.cc:", ended.output, re.MULTILINE)
        assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])


class TestARunAgainstAServerThatRunsAlready:
    def test_it_ends_by_time_and_passes_options_on(self, triton_server: TritonServer, tmp_path: Path) -> None:
        server = ("--url", triton_server.grpc_target, "--model", "int32")
        limits = ("--iterations", 0, "--run-time", "2s", "--tags", "valid")
        ended = run(tmp_path, SCENARIOS / "smoke.yaml", *server, *limits).end()
        assert_exact(ended)
        assert ended.summary["latency_us"].keys() == {"valid", "all"}
        assert ended.summary["duration_s"] >= 2
        assert triton_server.is_running

    def test_output_that_holds_ascii_only_does_not_keep_it_from_telling_the_verdict(
        self, triton_server: TritonServer, tmp_path: Path
    ) -> None:
        server = ("--url", triton_server.grpc_target, "--users", 1, "--iterations", 2)
        ended = run(tmp_path, SCENARIOS / "smoke.yaml", *server, environment={"PYTHONIOENCODING": "ascii"}).end()
        assert "Traceback" not in ended.output and "UnicodeEncodeError" not in ended.output
        assert "PASS" in ended.output and f"Results: {ended.directory}" in ended.output
        assert_exact(ended)

    def test_again_sends_the_same(self, triton_server: TritonServer, tmp_path: Path) -> None:
        server = ("--url", triton_server.grpc_target, "--iterations", 3)
        first = run(tmp_path / "first", SCENARIOS / "smoke.yaml", *server).end()
        again = re.search(r"^Again: (.*)$", first.output, re.MULTILINE)
        assert again is not None
        assert re.search(r" --seed \d+$", again[1])
        words = again[1].replace("first", "second").split()
        second = Seqstress(tmp_path / "second", *words[1:]).end()
        assert_exact(first)
        assert_exact(second)

        def sent(ended: Ended) -> object:
            return {name: row["step"]["count"] for name, row in ended.summary["latency_us"].items()}

        assert sent(first) == sent(second)

    def test_sigterm_ends_with_the_verdict_of_what_was_sent(self, triton_server: TritonServer, tmp_path: Path) -> None:
        seqstress = run(tmp_path, SCENARIOS / "steady.yaml", "--url", triton_server.grpc_target, "--users", 4)
        seqstress.until(lambda: re.search(r"[1-9]\d* steps:", seqstress.output) is not None, "the first steps")
        family = Family(seqstress)
        seqstress.interrupt(signal.SIGTERM)
        assert_exact(seqstress.end())
        assert family.remains == []

    def test_a_worker_that_crashes_ends_the_run_as_unknown(self, triton_server: TritonServer, tmp_path: Path) -> None:
        server = ("--url", triton_server.grpc_target, "--model", "int32", "--workers", 2)
        seqstress = run(tmp_path, SCENARIOS / "steady.yaml", *server, "--users", 4)
        seqstress.until(lambda: "Running steady" in seqstress.output, "the start")
        workers = [child for child in psutil.Process(seqstress.process.pid).children() if "--worker" in child.cmdline()]
        assert len(workers) == 2
        workers[0].kill()
        ended = seqstress.end()
        assert ended.code == 3, ended.output
        assert ended.summary["reasons"][0]["rule"] == "workers"
        assert "a worker died" in ended.output


def test_every_shipped_scenario_passes(triton_server: TritonServer, tmp_path: Path) -> None:
    by_model: dict[str, list[Path]] = {}
    for path in SHIPPED:
        by_model.setdefault(yaml.safe_load(path.read_text())["model"]["name"], []).append(path)
    while any(by_model.values()):  # those of different models at the same time
        waves = [paths.pop() for paths in by_model.values() if paths]
        limits = ("--url", triton_server.grpc_target, "--run-time", "3s")
        for seqstress in [run(tmp_path / path.stem, path, *limits) for path in waves]:
            assert_exact(seqstress.end())


def test_more_lockstep_users_than_slots_are_the_loads_fault(triton_server: TritonServer, tmp_path: Path) -> None:
    load = ("--users", 200, "--spawn-rate", 100, "--run-time", "4s")
    ended = run(tmp_path, SCENARIOS / "lockstep.yaml", "--url", triton_server.grpc_target, *load).end()
    summary = ended.summary
    assert (ended.code, summary["verdict"]) == (3, "UNKNOWN"), ended.output
    outcomes = {name: count for name, count in summary["outcomes"].items() if count}
    assert outcomes.keys() <= {"ok", "expired", "queued", "aborted"}
    causes = {key: count for key, count in summary["expired_causes"].items() if count}
    assert outcomes["expired"] == sum(causes.values()) > 0
    assert summary["reasons"][0]["text"].startswith("the load, not the server, was wrong")
    assert summary["audit"]["equal"]
    assert "slots" in ended.output.partition("Running")[0]  # warned before the load


def test_the_l0_matrix(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    seqstress = Seqstress(tmp_path, "l0", "--iterations", 2, "--users", 2, "--out", out)
    family = Family(seqstress)
    ended = seqstress.end()
    assert ended.code == 0, ended.output
    table = ended.output.rpartition("L0 matrix")[2]
    verdicts = [json.loads(path.read_text())["verdict"] for path in out.glob("*/summary.json")]
    if has_option(locate(None), cli.GRPC_THREADS):
        assert table.count("refused to start") == 4
        assert (table.count("PASS"), verdicts) == (10, ["PASS"] * 6)
    else:
        assert "128, -1, 0, 1, 129" in table
        assert "not run: this release of Triton has no" in table
        assert (table.count("PASS"), verdicts) == (3, ["PASS"] * 3)
    assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])


class Told:
    """What a command of the script, run in this process, printed and ended with."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["seqstress", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        self.code = ended.value.code or 0
        self.out, self.error = capsys.readouterr()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: Told(capsys, monkeypatch, *arguments)


@pytest.mark.parametrize("command", [(), ("run",), ("serve",), ("l0",), ("doctor",), ("schema",)])
def test_help_has_an_example(told: Any, command: tuple[str, ...]) -> None:
    help_text = told(*command, "--help")
    assert help_text.code == 0
    assert "Example: seqstress " in help_text.out


def test_the_printed_schema_is_the_published_one_and_fits_the_shipped_scenarios(told: Any) -> None:
    schema = json.loads(told("schema").out)
    assert schema == json.loads((SCENARIOS.parent / "docs" / "scenario.schema.json").read_text())
    for path in SHIPPED:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "model": {"name": "m"}, "timout_s": 1}, schema)


def test_a_taken_port_of_the_web_ui_is_told_before_the_server_starts(
    told: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(cli, "WEB_PORT", port)
        said = told("run", SCENARIOS / "smoke.yaml", "--ui", "--out", tmp_path)
    assert said.code == 2
    assert said.error.startswith("seqstress: ") and said.error.count("\n") == 1 and str(port) in said.error
    assert "Starting" not in said.out


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("it ended (exit code 1)\n--grpc_infer_thread_count must be 2 to 128", Outcome.PASS),
        ("it ended (exit code 1)\nno space left on device", Outcome.UNKNOWN),
        (None, Outcome.FAIL),
    ],
)
def test_only_the_servers_word_about_the_option_is_a_refusal_of_it(
    monkeypatch: pytest.MonkeyPatch, message: str | None, outcome: Outcome
) -> None:
    @contextmanager
    def embedded(*_: object) -> Iterator[None]:
        if message is not None:
            raise ServerError(*message.split("\n"))
        yield

    monkeypatch.setattr(cli, "_embedded", embedded)
    assert cli._try_threads(129, None)[0] is outcome


class TestDoctor:
    def test_on_this_machine(self, told: Any) -> None:
        said = told("doctor")
        assert said.code == 0
        assert "locust" in said.out and "can run here" in said.out

    def test_on_a_server_with_a_scenario_that_fits_and_one_that_does_not(
        self, told: Any, triton_server: TritonServer
    ) -> None:
        said = told("doctor", "--url", triton_server.grpc_target, "--scenario", SCENARIOS / "l0.yaml")
        assert said.code == 0, said.out
        for name in MODELS:
            assert f"model {name} " in said.out
        assert "4 slots" in said.out and "fits" in said.out
        said = told(
            "doctor", "--url", triton_server.grpc_target, "--scenario", SCENARIOS / "paced.yaml", "--model", "fp32"
        )
        assert said.code == 2
        assert "INT64" in said.out

    def test_where_nothing_listens(self, told: Any) -> None:
        said = told("doctor", "--url", "127.0.0.1:1")
        assert said.code == 2
        assert said.out.count("127.0.0.1:1") == 1
        assert "refused" in said.out and "gRPC port" in said.out

    def test_on_the_http_port(self, told: Any, triton_server: TritonServer) -> None:
        said = told("doctor", "--url", triton_server.http_target)
        assert said.code == 2
        assert "gRPC port" in said.out and "Traceback" not in said.out

    def test_on_a_port_that_says_nothing(self, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("seqstress.doctor.TIMEOUT_S", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            said = told("doctor", "--url", f"127.0.0.1:{silent.getsockname()[1]}")
        assert said.code == 2
        assert "gRPC port" in said.out


Unfit = tuple[dict[str, object], tuple[object, ...], list[str]]
"""The scenario's model, further options, and words of the message."""

UNFIT: dict[str, Unfit] = {
    "no such model": ({"name": "nope"}, (), ["model.name", "nope", "direct"]),
    "no sequence batching": ({"name": "plain"}, (), ["plain", "sequence_batching"]),
    "other names": (
        {"name": "direct", "input": "IN", "output": "OUT"},
        (),
        ["model.input", "model.output", "INPUT", "OUTPUT"],
    ),
    "other datatype and shape": (
        {"name": "direct", "dtype": "INT64", "shape": [7]},
        (),
        ["model.dtype", "model.shape", "INT32", "[1]"],
    ),
    "thinks beyond the idle limit": ({"name": "direct"}, (), ["think_ms", "idle"]),
    "no pattern left": ({"name": "direct"}, ("--tags", "no_start"), ["no_start"]),
    "results cannot be written": ({"name": "direct"}, ("--out", "/proc/runs"), ["--out", "/proc/runs"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Ended, str]]]:
    """All runs of UNFIT, at the same time: each is a whole Locust that ends at once."""
    folder = tmp_path_factory.mktemp("unfit")
    write_repository(folder / "models", [MODELS["direct"]])
    shutil.copytree(folder / "models" / "direct", folder / "models" / "plain")
    config = folder / "models" / "plain" / "config.pbtxt"
    text = config.read_text().replace('name: "direct"', 'name: "plain"')
    config.write_text(re.sub(r"sequence_batching \{.*?^\}", "", text, flags=re.MULTILINE | re.DOTALL))
    with TritonServer(folder / "models") as server:
        runs = {}
        for label, (model, arguments, _) in UNFIT.items():
            keys: dict[str, object] = {"name": "unfit", "model": model, "mix": {"common": {"valid": 1}}}
            keys["contexts"] = {"rare": 0}
            if label.startswith("thinks"):
                think = {"distribution": "constant", "value": 5000}
                keys["pacing"] = {"mode": "paced", "think_ms": think}
            out = folder / re.sub(r"\W+", "_", label)
            out.mkdir()
            scenario = write_scenario(out, **keys)
            runs[label] = (run(out, scenario, "--url", server.grpc_target, *arguments), scenario)
        yield {label: (seqstress.end(), str(scenario)) for label, (seqstress, scenario) in runs.items()}


class TestBadInput:
    """Exit code 2 and one message with file, key and remedy; no traceback, no load, nothing written."""

    @pytest.mark.parametrize(
        ("keys", "words"),
        [
            ({"timout_s": 3}, ["timout_s", "timeout_s"]),
            ({"timeout_s": "soon"}, ["timeout_s", "number"]),
            ({"mix": {"common": {"valid": 0}}}, ["mix.common", "weight"]),
            ({"load": {"users": 0}}, ["load.users"]),
            ({"name": "n" * 65}, ["name", "64"]),
        ],
        ids=["unknown key", "wrong type", "weights that sum to nothing", "out of range", "a name of a folder too long"],
    )
    def test_in_the_scenario(self, told: Any, tmp_path: Path, keys: dict[str, object], words: list[str]) -> None:
        scenario = write_scenario(tmp_path, **{"name": "bad", "model": {"name": "direct"}, **keys})
        said = told("run", scenario, "--out", tmp_path / "runs")
        self.assert_refused(said.code, said.error, tmp_path / "runs", [str(scenario), *words])

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--embedded", "nope"), ["nope", "l0_1x4"]),
            (("--embedded", "direct", "--model", "int32"), ["--embedded", "--model"]),
            (("--url", "127.0.0.1:1", "--release", "2.51"), ["--url", "--release"]),
            (("--users", "0"), ["--users"]),
            (("--master-bind-port", "5557"), ["--master-bind-port", "--workers"]),
            (("--processes=2",), ["--processes", "--workers"]),
            (("--tags", "valid", "--headl"), ["--headl", "--ui"]),
            (("-Hlocalhost:1",), ["-H ", "--url"]),
        ],
        ids=[
            "no such embedded model",
            "two models",
            "a release of a running server",
            "no users",
            "the master's options",
            "processes",
            "an option cut short",
            "a short option",
        ],
    )
    def test_on_the_command_line(
        self, told: Any, tmp_path: Path, arguments: tuple[object, ...], words: list[str]
    ) -> None:
        said = told("run", SCENARIOS / "smoke.yaml", "--out", tmp_path / "runs", *arguments)
        self.assert_refused(said.code, said.error, tmp_path / "runs", words)

    @staticmethod
    def assert_refused(code: int, message: str, out: Path, words: list[str]) -> None:
        assert code == 2, message
        for word in words:
            assert word in message
        assert "Traceback" not in message
        assert not out.exists() or not [path for path in out.iterdir() if path.is_dir()]

    @pytest.mark.parametrize("label", UNFIT)
    def test_against_the_server(self, refusals: dict[str, tuple[Ended, str]], label: str) -> None:
        ended, scenario = refusals[label]
        words = UNFIT[label][2]
        if words[0].startswith(("model.", "think_ms")):
            words = [scenario, *words]
        self.assert_refused(ended.code, ended.output, ended.out, words)
        told = ended.output.splitlines()
        assert len(told) == max(1, sum(word.startswith("model.") for word in words)), ended.output
