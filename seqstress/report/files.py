"""Writes what a run leaves behind: summary.json, report.html, failures/<id>.json."""

import json
import os
import re
import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

from seqstress.report.html import render_html
from seqstress.report.summary import summarize
from seqstress.report.view import RunView


def run_directory(out: Path, view: RunView) -> Path:
    """Make and return ``out/<UTC time>-<scenario>``; a number is added where two runs began within one
    second."""
    name = f"{view.started_at:%Y%m%dT%H%M%SZ}-{view.scenario.name}"
    for number in count(1):
        directory = out / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        return directory
    raise AssertionError("unreachable: the numbers do not end")


def write_run(directory: Path, view: RunView) -> None:
    """Write all files of a run into ``directory``, which is made where it is missing.

    Each file appears whole or not at all; summary.json comes last, so that who waits for it finds the rest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    repeated: Counter[str] = Counter()
    for failure in view.failures:
        # Repeated strays of one step share their id; names of patterns and labels are ours, yet never trust a
        # path.
        name = re.sub(r"[^A-Za-z0-9._-]", "_", failure.failure_id)
        repeated[name] += 1
        suffix = f"-{repeated[name]}" if repeated[name] > 1 else ""
        write_atomically(directory / "failures" / f"{name}{suffix}.json", _json(failure.to_plain()))
    write_atomically(directory / "report.html", render_html(view))
    write_atomically(directory / "summary.json", _json(summarize(view)))


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 beside ``path`` and rename it there: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    # There is no way to read the umask but to set it; mkstemp's own mode would hide the report from everybody
    # else.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _json(plain: dict[str, object]) -> str:
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"
