"""Finding and fetching the library that model stubs link to, with scripts in the place of apt-get and dpkg."""

import os
from pathlib import Path

import pytest

from seqstress.errors import PreflightError
from seqstress.triton import libpython
from seqstress.triton.libpython import PACKAGE, SONAME, bring_libpython, find_libpython
from seqstress.triton.platforms import Problem


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the library, whose only programs are those that a test puts into the folder returned."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(libpython, "search_folders", lambda: iter([libpython.fetched_folder()]))
    for tool in ("touch", "mkdir", "cat"):
        (programs / tool).symlink_to(
            next(path for path in (Path("/bin") / tool, Path("/usr/bin") / tool) if path.exists())
        )
    monkeypatch.setenv("PATH", str(programs))
    return programs


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def working_dpkg(folder: Path) -> None:
    # dpkg -x PACKAGE ROOT
    program(folder, "dpkg", f'mkdir -p "$3/usr/lib/any" && touch "$3/usr/lib/any/{SONAME}"')


def test_the_running_python_says_where_to_look_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("sysconfig.get_config_var", {"LIBDIR": str(tmp_path), "MULTIARCH": None}.get)
    (tmp_path / SONAME).touch()
    assert find_libpython() == tmp_path / SONAME


def test_it_is_fetched_once_without_installing_anything(bare_machine: Path) -> None:
    program(bare_machine, "apt-get", f"touch {PACKAGE}.deb")
    working_dpkg(bare_machine)
    assert find_libpython() is None
    brought = bring_libpython()
    assert brought.is_file()
    for name in ("apt-get", "dpkg"):
        (bare_machine / name).unlink()
    assert bring_libpython() == find_libpython() == brought
    assert [path.name for path in brought.parent.parent.iterdir()] == [brought.parent.name], "no scratch is left"


def test_root_refreshes_empty_package_lists(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lists = bare_machine / "lists"
    program(
        bare_machine,
        "apt-get",
        f'case "$*" in update) touch {lists};; *) cat {lists} || exit 100; touch {PACKAGE}.deb;; esac',
    )
    working_dpkg(bare_machine)
    assert bring_libpython().is_file()


def test_others_are_told_apts_reason_and_the_package(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(bare_machine, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    working_dpkg(bare_machine)
    with pytest.raises(PreflightError, match=f"Unable to locate package.*apt-get install {PACKAGE}"):
        bring_libpython()


def test_a_package_without_the_library_is_an_error(bare_machine: Path) -> None:
    program(bare_machine, "apt-get", f"touch {PACKAGE}.deb")
    program(bare_machine, "dpkg", 'mkdir -p "$3"')
    with pytest.raises(PreflightError, match="does not hold it"):
        bring_libpython()


def test_without_apt_the_remedy_is_another_python(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PreflightError, match="--enable-shared"):
        bring_libpython()
    monkeypatch.setattr(libpython, "platform_problems", list)
    assert libpython.main() == 2
    assert SONAME in capsys.readouterr().err


def test_where_the_server_cannot_run_at_all_nothing_is_brought(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libpython, "platform_problems", lambda: [Problem("python", "no wheel")])
    assert libpython.main() == 0
    assert capsys.readouterr().out == "no embedded server here: no wheel\n"
