"""``seqstress serve``: our models, or anybody's repository, until it is told to end."""

import re
import signal
from pathlib import Path

import pytest

from seqstress.triton.control import Control
from seqstress.wire.transport import Http2Transport
from tests.e2e.sick import Disease, sick_repository
from tests.swarm.processes import Family, Seqstress, write_scenario

pytestmark = pytest.mark.real


def served(seqstress: Seqstress) -> str:
    """The gRPC target that it prints once it serves."""
    seqstress.until(lambda: "serving gRPC" in seqstress.output, "the server")
    said = re.search(r"serving gRPC (\S+) HTTP (\S+) metrics (\S+)", seqstress.output)
    assert said is not None
    return said[1]


def test_it_serves_the_models_that_were_named_and_ends_on_sigterm(tmp_path: Path) -> None:
    seqstress = Seqstress(tmp_path, "serve", "--models", "direct,string")
    transport = Http2Transport(served(seqstress))
    ready = {entry.name for entry in Control(transport).repository_index() if entry.state == "READY"}
    transport.close()
    assert ready == {"direct", "string"}
    family = Family(seqstress)
    seqstress.interrupt(signal.SIGTERM)
    ended = seqstress.end()
    assert ended.code == 0, ended.output
    assert "Traceback" not in ended.output
    assert (family.remains, list(seqstress.temporary.iterdir())) == ([], [])


@pytest.mark.locust
def test_a_sick_model_of_somebodys_repository_fails_the_run(tmp_path: Path) -> None:
    model = sick_repository(tmp_path / "models", Disease.NOT_RESET_AT_START)
    scenario = write_scenario(tmp_path, name="sick", model={"name": model}, load={"users": 4, "iterations": 10})
    server = Seqstress(tmp_path / "server", "serve", "--model-repository", tmp_path / "models")
    target = served(server)
    out = tmp_path / "run"
    ended = Seqstress(out, "run", scenario, "--url", target, "--out", out / "runs").end()
    family = Family(server)
    server.interrupt(signal.SIGINT)
    assert ended.code == 1, ended.output
    assert ended.summary["verdict"] == "FAIL"
    assert ended.summary["outcomes"]["wrong_result"] > 0
    assert list((ended.directory / "failures").glob("*wrong_result*.json"))
    assert "the oracle's" in ended.output
    assert server.end().code == 0
    assert (family.remains, list(server.temporary.iterdir())) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "nope"), ["nope", "l0_1x4"]),
        (("--model-repository", "/nowhere"), ["/nowhere"]),
        (("--models", "direct", "--model-repository", "/nowhere"), ["--models", "--model-repository"]),
        (("--release", "1.0"), ["1.0", "2.51"]),
    ],
    ids=["no such model", "no such folder", "both", "no such release"],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    ended = Seqstress(tmp_path, "serve", *arguments).end()
    assert ended.code == 2, ended.output
    for word in words:
        assert word in ended.output
    assert len(ended.output.splitlines()) <= 2
    assert "Traceback" not in ended.output
