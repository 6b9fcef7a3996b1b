"""The releases of Triton that can be embedded: the installed one, and others beside it in the cache folder.

Each comes as the ``tritonserver`` binary inside a wheel of ``nvidia-pytriton``; which wheel holds which
Triton was seen from the servers' own metadata.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from seqstress.errors import PreflightError
from seqstress.triton.cache import cache_folder

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB_NUMPY = "numpy==1.26.4"
"""The newest numpy that the stubs can use: built against numpy 1, they return empty answers with numpy 2."""

RELEASES: Mapping[str, str] = MappingProxyType({"2.36": "0.3.1", "2.39": "0.4.2", "2.47": "0.5.9", "2.51": "0.7.0"})
"""Triton's version to the version of nvidia-pytriton that ships it."""

_OTHER_WHEELS = MappingProxyType({"0.5.14": "2.51", "0.6.0": "2.51"})
_INSTALL_TIMEOUT_S = 600
_HELP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Installation:
    """One release of Triton on this machine's disk."""

    site: Path
    """The folder that holds ``pytriton/`` and the libraries of its wheel, found by RPATH."""
    is_own_site: bool
    """Whether the stubs use the numpy of this folder, not that of this environment."""

    @property
    def _server(self) -> Path:
        return self.site / "pytriton" / "tritonserver"

    @property
    def binary(self) -> Path:
        """The server itself."""
        return self._server / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """The folder of the Python backend's library and its ``triton_python_backend_utils.py``."""
        return self._server / "backends" / "python"

    @property
    def stub(self) -> Path:
        """The process that runs a Python model, built for the running version of Python."""
        return self._server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"

    @property
    def stub_path(self) -> tuple[Path, ...]:
        """Folders that the stubs search for modules before this environment's own."""
        return (self.site,) if self.is_own_site else ()


def installed() -> Installation | None:
    """The installation that this environment holds, without importing it; None where there is none."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Installation(Path(spec.submodule_search_locations[0]).parent, is_own_site=False)


def installed_release() -> str | None:
    """The Triton version of ``installed()``, where the wheel is one we know."""
    try:
        wheel = importlib.metadata.version("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        return None
    known = {version: release for release, version in RELEASES.items()} | dict(_OTHER_WHEELS)
    return known.get(wheel)


def locate(release: str | None) -> Installation:
    """The installation to start: this environment's for None, else that release, installed on first use.

    Raises PreflightError where there is none, or none for this version of Python.
    """
    if release is None or release == installed_release():
        installation = installed()
        if installation is None:
            raise PreflightError(
                "nvidia-pytriton, which carries the tritonserver binary, is not installed:"
                " pip install 'seqstress[server]'"
            )
    else:
        installation = Installation(install(release), is_own_site=True)
    if not installation.stub.is_file():
        stubs = installation.stub.parent.parent
        built = ", ".join(sorted((p.name for p in stubs.glob("3.*")), key=lambda name: int(name[2:])))
        raise PreflightError(
            f"this release of Triton has no model stub for Python {PYTHON} (only for {built}):"
            " use one of these, or another --release"
        )
    return installation


def has_option(installation: Installation, option: str) -> bool:
    """Whether this release of tritonserver knows ``--option``.

    Triton refuses an unknown option in the same way as a bad value, so a test that wants the refusal of a
    value has to ask first. ``--grpc-infer-thread-count`` came in spring 2025 (server pull request 8061),
    after 2.51. Raises PreflightError where it does not say.
    """
    command = [str(installation.binary), "--help"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_HELP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise PreflightError(
            f"`tritonserver --help` did not end in {_HELP_TIMEOUT_S} s: see whether this machine or its disk is"
            " overloaded, and try again"
        ) from None
    return f"--{option} " in done.stdout + done.stderr


def require_option(installation: Installation, option: str) -> None:
    """Raise PreflightError where this release of tritonserver does not know ``--option``."""
    if not has_option(installation, option):
        raise PreflightError(f"this release of tritonserver has no option --{option}: leave it out or take a newer one")


def install(release: str) -> Path:
    """The folder of ``release``, downloaded into the cache on first use; nobody ever sees half of it.

    Raises PreflightError for an unknown release or a failed download.
    """
    wheel = RELEASES.get(release)
    if wheel is None:
        raise PreflightError(f"no release {release!r} of Triton can be embedded. Known: {', '.join(RELEASES)}")
    target = cache_folder() / "triton" / f"{release}-py{PYTHON}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # The temporary folder is on the target's file system, so that the rename is atomic.
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _pip_install(scratch, [f"nvidia-pytriton=={wheel}", STUB_NUMPY])
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else was quicker with the same
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _pip_install(target: Path, requirements: list[str]) -> None:
    """Install wheels alone: a release's own dependencies would clash, and the binary needs none of them."""
    command = [*_installer(), "--no-deps", "--only-binary", ":all:", "--target", str(target), *requirements]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_REQUIRE_HASHES"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PreflightError(f"installing {requirements[0]} did not end in {_INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PreflightError(f"installing {requirements[0]} failed:\n{tail}")


def _installer() -> list[str]:
    """uv where it is there, else this environment's pip, else that of the Python under it."""
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    base = Path(sys.base_prefix) / "bin" / f"python{PYTHON}"
    for python in (sys.executable, str(base)):
        probe = [python, "-m", "pip", "--version"]
        with contextlib.suppress(OSError):
            if subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0:
                return [python, "-m", "pip", "install"]
    raise PreflightError("neither uv nor pip is here to install another release of Triton: pip install uv")
