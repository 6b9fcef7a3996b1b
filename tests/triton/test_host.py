"""What keeps the embedded server from running here: one sentence each, before anything is started."""

import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from seqstress.errors import PreflightError
from seqstress.triton import host
from seqstress.triton.host import check_host, free_ports, port_problems, require_host, stub_problems
from seqstress.triton.platforms import platform_problems
from seqstress.triton.releases import Installation, installed


def sentences(problems: object) -> str:
    return "\n".join(f"{problem.subject}: {problem.sentence}" for problem in problems)  # type: ignore[attr-defined]


@pytest.fixture
def installation() -> Installation:
    found = installed()
    assert found is not None, "the extra 'server' belongs to the development environment"
    return found


@pytest.mark.real
def test_a_fit_machine_has_no_problem() -> None:
    assert check_host(ports=(None, None)) == []
    assert require_host().binary.is_file()


def test_python_without_numpy_1_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1, "final", 0))
    monkeypatch.setattr(platform, "python_version", lambda: "3.13.1")
    told = sentences(check_host())
    assert "3.13.1" in told and "numpy<2" in told and "--url" in told


def test_an_old_or_other_c_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    assert "needs glibc 2.35 or newer, this machine has glibc 2.31" in sentences(platform_problems())
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert "this machine has another" in sentences(platform_problems())


def test_another_platform_is_the_only_problem_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [problem.subject for problem in check_host()] == ["platform"]


def test_a_taken_port_is_told_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1" in sentences(port_problems("127.0.0.1", [port, None]))
    assert list(port_problems("127.0.0.1", [port])) == []
    assert "70000" in sentences(port_problems("127.0.0.1", [70000]))


def test_free_ports_differ_and_keep_the_given_ones() -> None:
    chosen = free_ports("127.0.0.1", (None, 4242, None))
    assert chosen[1] == 4242
    assert len(set(chosen)) == 3


@pytest.mark.real
def test_numpy_2_in_the_stubs_environment_is_told(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("__version__ = '2.1.0'\n")
    (tmp_path / "pytriton").symlink_to(installation.site / "pytriton")
    assert "would find 2.1.0" in sentences(stub_problems(Installation(tmp_path, is_own_site=True)))


@pytest.mark.real
def test_a_stub_that_lacks_a_library_is_told(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ldd").write_text(
        "#!/bin/sh\necho '	libgone.so.1 => not found'\necho '	libc.so.6 => /lib/libc.so.6'\n"
    )
    (tmp_path / "ldd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert shutil.which("ldd") == str(tmp_path / "ldd")
    assert sentences(stub_problems(installation)).startswith("libraries: the model stub lacks libgone.so.1 on")


@pytest.mark.real
def test_missing_libpython_names_the_package(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "find_libpython", lambda: None)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt-get install libpython{version}" in sentences(stub_problems(installation))


@pytest.mark.real
def test_a_probe_that_does_not_end_is_a_problem(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(host, "find_libpython", lambda: "libpython.so")
    monkeypatch.setattr(subprocess, "run", hang)
    (problem,) = stub_problems(installation)
    assert problem.subject == "stub" and "did not end in 30 s" in problem.sentence


def test_every_problem_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [host.Problem("a", "first."), host.Problem("b", "second.")]
    monkeypatch.setattr(host, "check_host", lambda *_args, **_options: problems)
    with pytest.raises(PreflightError, match=r"- first\.\n- second\."):
        require_host()
