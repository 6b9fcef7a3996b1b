"""What the embedded server needs of this machine, told in one sentence for each thing that is missing."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from seqstress.errors import PreflightError
from seqstress.triton.libpython import PACKAGE, SONAME, find_libpython
from seqstress.triton.platforms import Problem, platform_problems, version_numbers
from seqstress.triton.releases import Installation, locate
from seqstress.triton.staging import Stage, stage

_PROBE_TIMEOUT_S = 30


def check_host(
    release: str | None = None, *, host: str = "127.0.0.1", ports: Iterable[int | None] = ()
) -> list[Problem]:
    """Everything that keeps ``release`` (None: the installed one) from serving on ``ports``.

    A release that is not installed yet is downloaded first; None among the ports is one that will be free.
    Empty when all is well.
    """
    problems = [*platform_problems(), *port_problems(host, ports)]
    if any(problem.subject in ("platform", "python") for problem in problems):
        return problems  # no wheel fits: what it would need is beside the point
    try:
        installation = locate(release)
    except PreflightError as error:
        return [*problems, Problem("tritonserver", str(error))]
    return [*problems, *stub_problems(installation)]


def require_host(
    release: str | None = None, *, host: str = "127.0.0.1", ports: Iterable[int | None] = ()
) -> Installation:
    """The installation to start. Raises PreflightError that tells every problem, a line each."""
    problems = check_host(release, host=host, ports=ports)
    if problems:
        lines = "\n".join(f"- {problem.sentence}" for problem in problems)
        raise PreflightError(f"the embedded Triton server cannot run here:\n{lines}")
    return locate(release)


def port_problems(host: str, ports: Iterable[int | None]) -> Iterator[Problem]:
    """Ports that somebody else listens on, or that may not be used."""
    for port in ports:
        if port is None:
            continue
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                # As gRPC does: a connection of before that lingers in TIME_WAIT is no hindrance.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            yield Problem(
                "port",
                f"port {port} on {host} cannot be used ({reason}): choose another, or none for any free",
            )


def free_ports(host: str, ports: tuple[int | None, int | None, int | None]) -> tuple[int, int, int]:
    """``ports`` with each None replaced by a port that is free now; all differ."""
    with contextlib.ExitStack() as held:
        chosen = []
        for port in ports:
            if port is None:
                probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                probe.bind((host, 0))
                port = int(probe.getsockname()[1])
            chosen.append(port)
    return chosen[0], chosen[1], chosen[2]


def stub_problems(installation: Installation) -> Iterator[Problem]:
    """What keeps a model's process from loading. Triton says nothing: its model just never becomes ready."""
    if find_libpython() is None:
        yield Problem(
            "libpython",
            f"{SONAME} is missing, which the model stubs link to: apt-get install {PACKAGE}"
            " (or, without root: python -m seqstress.triton.libpython)",
        )
        return
    with tempfile.TemporaryDirectory(prefix="seqstress-") as folder:
        staged = stage(installation, Path(folder))
        try:
            missing = _missing_libraries(staged, installation)
            numpy = _stub_numpy(staged)
        except subprocess.TimeoutExpired as error:
            yield Problem(
                "stub",
                f"{Path(error.cmd[0]).name}, which tells what the model stubs would find, did not end in"
                f" {error.timeout:g} s: see whether this machine or its disk is overloaded, and try again",
            )
            return
    if missing:
        lacking = ", ".join(missing)
        yield Problem("libraries", f"the model stub lacks {lacking} on this machine: install what holds them")
    if numpy is None or version_numbers(numpy) >= (2,):
        yield Problem(
            "numpy",
            f"the model stubs need numpy<2 and would find {numpy or 'none'}, with which every answer is"
            " empty: pip install 'numpy<2'",
        )


def _missing_libraries(staged: Stage, installation: Installation) -> list[str]:
    """What the dynamic linker does not find for the real stub, in the environment that it will have."""
    if shutil.which("ldd") is None:
        return []
    output = _output(["ldd", str(installation.stub)], staged) or ""
    return [line.split()[0] for line in output.splitlines() if "not found" in line]


def _stub_numpy(staged: Stage) -> str | None:
    """The version of numpy that a stub's isolated interpreter finds, asked of just such an interpreter."""
    return _output(["python3", "-I", "-c", "import numpy; print(numpy.__version__, end='')"], staged)


def _output(command: list[str], staged: Stage) -> str | None:
    """What ``command`` prints in the stub's environment, found on its PATH; None where it fails. Raises
    TimeoutExpired."""
    program = shutil.which(command[0], path=staged.environment["PATH"])
    done = subprocess.run(
        [program or command[0], *command[1:]],
        env=staged.environment,
        capture_output=True,
        text=True,
        timeout=_PROBE_TIMEOUT_S,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None
