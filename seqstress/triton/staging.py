"""Lays out what one tritonserver process needs on disk: its backend folder, libpython, its environment."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from seqstress.triton.libpython import SONAME, find_libpython
from seqstress.triton.releases import Installation

_PRELUDE = Path(__file__).parent / "models" / "stub_prelude.py"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a server's parts were laid out, and the environment that makes it and its stubs find them."""

    backends: Path
    environment: dict[str, str]


def stage(installation: Installation, folder: Path) -> Stage:
    """Lay out ``installation`` in ``folder``.

    The backend's library and the stub are symlinks, since both find the wheel's libraries relative to where
    they really are. libpython gets a folder of its own, so that nothing beside it can shadow the server's
    libraries.
    """
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    backend = installation.python_backend
    for source in (backend / "libtriton_python.so", installation.stub):
        (python / source.name).symlink_to(source)
    utils = "triton_python_backend_utils.py"
    prelude = (
        f"STUB_PATH = {[str(path) for path in installation.stub_path]!r}\n{_PRELUDE.read_text('utf-8')}\n"
    )
    (python / utils).write_text(prelude + (backend / utils).read_text("utf-8"), "utf-8")
    libraries = folder / "lib"
    libraries.mkdir()
    libpython = find_libpython()
    if libpython is not None:
        (libraries / SONAME).symlink_to(libpython)
    return Stage(folder / "backends", _environment(libraries))


def _environment(libraries: Path) -> dict[str, str]:
    environment = dict(os.environ)
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.pop(name, None)
    environment["LD_LIBRARY_PATH"] = str(libraries)
    # The interpreter inside a stub finds its standard library and packages by the first python on PATH.
    environment["PATH"] = f"{sys.prefix}/bin{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment
