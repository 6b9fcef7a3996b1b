"""Where seqstress keeps what it fetched once: libpython, other releases of Triton."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/seqstress``, by default ``~/.cache/seqstress`` (XDG Base Directory Specification)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return base / "seqstress"
