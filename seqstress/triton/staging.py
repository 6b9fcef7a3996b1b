"""Lays out what one tritonserver process needs on disk: its backend folder, libpython, its Python environment."""

import os
import site
import sys
from dataclasses import dataclass
from pathlib import Path

from seqstress.triton.libpython import PYTHON, SONAME, find_libpython
from seqstress.triton.releases import Installation


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a server's parts were laid out, and the environment variables that make it and its stubs find them."""

    backends: Path
    environment: dict[str, str]


def stage(installation: Installation, folder: Path) -> Stage:
    """Lay out ``installation`` in ``folder``.

    The backend's library and the stub are symlinks, since both find the wheel's libraries relative to where they
    really are. libpython gets a folder of its own, so that nothing beside it can shadow the server's libraries.
    """
    backends, libraries, python = folder / "backends", folder / "lib", folder / "python"
    (backends / "python").mkdir(parents=True)
    backend = installation.python_backend
    utils = backend / "triton_python_backend_utils.py"
    for source in (backend / "libtriton_python.so", utils, installation.stub):
        (backends / "python" / source.name).symlink_to(source)
    libraries.mkdir()
    libpython = find_libpython()
    if libpython is not None:
        (libraries / SONAME).symlink_to(libpython)
    _make_stub_python(python, installation.stub_path)
    environment = dict(os.environ)
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.pop(name, None)
    environment["LD_LIBRARY_PATH"] = str(libraries)
    environment["PATH"] = f"{python / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return Stage(backends, environment)


def _make_stub_python(folder: Path, first_on_path: tuple[Path, ...]) -> None:
    """A virtual environment that sees what this one sees, after the packages of ``first_on_path``.

    The interpreter inside a stub is isolated: it ignores PYTHONPATH and PYTHONDONTWRITEBYTECODE. But it takes the
    first python3 on PATH for its own, so the ``.pth`` file of that one's site-packages can say both. No bytecode is
    written, since a person's model repository is served as it is, never written to.
    """
    packages = folder / "lib" / f"python{PYTHON}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python{PYTHON}")
    settings = f"home = {sys.base_prefix}/bin\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(settings, encoding="utf-8")
    lines = [
        f"import sys; sys.dont_write_bytecode = True; sys.path[:0] = {[str(path) for path in first_on_path]!r}",
        f"import site; list(map(site.addsitedir, {site.getsitepackages()!r}))",  # a .pth line has no nested scopes
    ]
    (packages / "seqstress.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
