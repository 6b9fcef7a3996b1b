"""Scenarios that are over in a second or two."""

from pathlib import Path

import pytest

from tests.swarm.processes import write_scenario

ALL_PATTERNS = {"no_start": 1, "no_end": 1, "valid_no_end": 1, "valid_valid": 1, "valid": 2}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """All patterns, three users with five plans each."""
    return write_scenario(
        tmp_path,
        name="tiny",
        model={"name": "direct"},
        load={"users": 3, "spawn_rate": 100, "iterations": 5},
        contexts={"common": 1, "rare": 1, "rare_share": 0.3},
        mix={"common": ALL_PATTERNS, "rare": ALL_PATTERNS},
        sequence={"length": {"distribution": "uniform", "min": 1, "max": 8}},
    )
