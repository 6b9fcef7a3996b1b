"""Releases of Triton side by side: nothing half-installed, and clear words where there is none."""

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path

import pytest

from seqstress.errors import PreflightError
from seqstress.triton import releases
from seqstress.triton.releases import PYTHON, RELEASES, Installation, install, installed, locate


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "seqstress" / "triton"


def install_a_stub(target: Path, requirements: list[str]) -> None:
    stub = Installation(target, is_own_site=True).stub
    stub.parent.mkdir(parents=True)
    stub.write_text(" ".join(requirements))


def test_a_release_is_installed_on_first_use_only(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(releases, "_pip_install", install_a_stub)
    folder = install("2.39")
    assert folder == own_cache / f"2.39-py{PYTHON}"
    assert "nvidia-pytriton==0.4.2 numpy==1." in Installation(folder, is_own_site=True).stub.read_text()

    def unexpected(_target: Path, _requirements: list[str]) -> None:
        raise AssertionError("installed again")

    monkeypatch.setattr(releases, "_pip_install", unexpected)
    assert install("2.39") == folder
    assert locate("2.39").stub_path == (folder,)


def test_a_failed_installation_leaves_nothing(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def fail(target: Path, _requirements: list[str]) -> None:
        (target / "half").touch()
        raise PreflightError("no network")

    monkeypatch.setattr(releases, "_pip_install", fail)
    with pytest.raises(PreflightError, match="no network"):
        install("2.47")
    assert list(own_cache.iterdir()) == []


def test_who_comes_second_takes_what_the_first_made(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def lose_the_race(target: Path, requirements: list[str]) -> None:
        install_a_stub(target, requirements)
        install_a_stub(own_cache / f"2.36-py{PYTHON}", ["the winner's"])

    monkeypatch.setattr(releases, "_pip_install", lose_the_race)
    assert locate("2.36").stub.read_text() == "the winner's"
    assert [path.name for path in own_cache.iterdir()] == [f"2.36-py{PYTHON}"]


def test_an_unknown_release_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PreflightError, match=r"'1\.0'.*2\.36, 2\.39, 2\.47, 2\.51"):
        locate("1.0")
    assert set(RELEASES) == {"2.36", "2.39", "2.47", "2.51"}


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert installed() is None
    with pytest.raises(PreflightError, match=r"seqstress\[server\]"):
        locate(None)


def test_a_release_without_a_stub_for_this_python_says_which_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stubs = tmp_path / "pytriton" / "tritonserver" / "python_backend_stubs"
    for version in ("3.10", "3.8", "3.9"):
        (stubs / version).mkdir(parents=True)
    monkeypatch.setattr(releases, "installed", lambda: Installation(tmp_path, is_own_site=False))
    with pytest.raises(PreflightError, match=r"only for 3\.8, 3\.9, 3\.10"):
        locate(None)


@pytest.mark.parametrize(
    ("wheel", "release"), [("0.7.0", "2.51"), ("0.5.14", "2.51"), ("0.4.2", "2.39"), ("9.9", None)]
)
def test_the_installed_wheel_tells_its_release(
    monkeypatch: pytest.MonkeyPatch, wheel: str, release: str | None
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: wheel)
    assert releases.installed_release() == release


def test_a_server_that_does_not_tell_its_options_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hang(command: list[str], **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(PreflightError, match="did not end in 30 s"):
        releases.has_option(Installation(tmp_path, is_own_site=False), "x")
