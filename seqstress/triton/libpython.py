"""The shared library of the running Python, which Triton's model stubs link to and many systems leave out.

Debian's ``python3`` and ``python3-venv`` do not bring it (package ``libpython3.X`` does), a static Python has
none. ``python -m seqstress.triton.libpython`` finds it or, on a Debian-like system, fetches it without root.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seqstress.errors import PreflightError
from seqstress.triton.cache import cache_folder
from seqstress.triton.platforms import platform_problems

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SONAME = f"libpython{PYTHON}.so.1.0"
"""What the stub for the running Python asks the dynamic linker for."""
PACKAGE = f"libpython{PYTHON}"
"""The Debian and Ubuntu package that holds it."""

_APT_TIMEOUT_S = 120


def search_folders() -> Iterator[Path]:
    """Where the library may be, the running interpreter's own folders first, our cache last."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        f"{sys.base_exec_prefix}/lib",
        f"/usr/lib/{multiarch}",
        f"/lib/{multiarch}",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/lib",
    ):
        if folder:
            yield Path(folder)
    yield fetched_folder()


def fetched_folder() -> Path:
    """Where ``bring_libpython`` puts what it fetched."""
    return cache_folder() / "libpython" / f"{PYTHON}-{sysconfig.get_platform()}"


def find_libpython() -> Path | None:
    """The library of the running Python version, or None where this machine has none."""
    return next((folder / SONAME for folder in search_folders() if (folder / SONAME).is_file()), None)


def bring_libpython() -> Path:
    """Find the library, or fetch its Debian package and unpack it into the cache; nothing is installed.

    Needs no root; as root it also refreshes empty package lists. Raises PreflightError where it cannot be
    had.
    """
    found = find_libpython()
    if found is not None:
        return found
    missing = f"{SONAME} is missing, which Triton's model stubs link to"
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PreflightError(
            f"{missing}, and this is no Debian-like system to fetch it from. Use a Python {PYTHON} built with"
            " --enable-shared, or install the package of your distribution that holds the library"
        )
    target = fetched_folder()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        package = _download_package(work, missing)
        _run(["dpkg", "-x", str(package), str(work / "root")], work, missing)
        library = next((work / "root").rglob(SONAME), None)
        if library is None:
            raise PreflightError(f"{missing}, and the package {PACKAGE} of this system does not hold it")
        library.resolve().rename(target / SONAME)
    return target / SONAME


def _download_package(work: Path, missing: str) -> Path:
    command = ["apt-get", "download", PACKAGE]
    # apt's sandbox user may not write into a private folder; as root it is told to stay root.
    as_root = os.geteuid() == 0
    if as_root:
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    try:
        _run(command, work, missing)
    except PreflightError:
        if not as_root:
            raise
        _run(["apt-get", "update"], work, missing)
        _run(command, work, missing)
    package = next(work.glob("*.deb"), None)
    if package is None:
        raise PreflightError(f"{missing}, and apt-get download {PACKAGE} brought no package")
    return package


def _run(command: list[str], cwd: Path, missing: str) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_APT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise PreflightError(f"{missing}, and {' '.join(command)} did not end in {_APT_TIMEOUT_S} s") from None
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise PreflightError(
            f"{missing}, and {' '.join(command)} failed: {reason[0]}. Install it: apt-get install {PACKAGE}"
        )


def main() -> int:
    """Bring the library and say where it is; the exit code is 2 where it cannot be had. Where the embedded server
    cannot run for another reason, say that instead."""
    unfit = [problem.sentence for problem in platform_problems()]
    if unfit:
        print("no embedded server here: " + "; ".join(unfit))
        return 0
    try:
        print(bring_libpython())
    except PreflightError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
