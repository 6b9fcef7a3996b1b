#!/bin/sh
# Makes .venv from requirements.lock (with uv where it is there, else pip) and brings what the embedded server needs.
# Usage: scripts/setup.sh [PYTHON]     (PYTHON: an interpreter of version 3.11, 3.12 or 3.13; default: the best one found)
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 2; }

works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

python=${1:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.12 python3.11 python3.13; do
        if works "$candidate"; then python=$candidate; break; fi
    done
fi
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 with its venv module was found (Debian: apt-get install python3 python3-venv); name one with 'make PYTHON=/path/to/python3'"
works "$python" || fail "$python is not a Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt-get install python3-venv)"

say "making .venv with $("$python" --version)"
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$(command -v "$python")" .venv
    uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
else
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi

.venv/bin/python -m seqstress.triton.libpython
touch .venv/.ready
say "done"
