"""What is measured: every case sends the same kind of work, complete sequences on streams that stay open."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from seqstress.plan.recipe import PacingMode
from seqstress.triton.repository import ModelSpec
from seqstress.wire.choice import TRANSPORTS

SEQUENCE_STEPS = 16
"""Steps of every sequence: the mean of Triton's own sequence tests."""

MODEL = ModelSpec("bench", max_batch_size=64, idle_limit_us=10_000_000)
"""Slots for every user and no delay: the client is what limits. The idle limit bears the slowest client."""

SEED = 1
PACINGS = (PacingMode.PIPELINED, PacingMode.LOCKSTEP)
USERS = (8, 50)


class Engine(Enum):
    """Who sends. The place to add another client, or another server's case."""

    COMPLETE = "seqstress"
    """All of seqstress inside a headless Locust process: plans, judging, ledger, Locust's events."""
    REFERENCE = "tritonclient"
    """The same, with the stock client's stream as transport."""
    WIRE = "wire"
    """The bare wire of seqstress: requests out, answers in, nothing judged (wire_cpu.py)."""

    @property
    def work(self) -> float:
        """The part of ``--steps`` that it sends: the stock client is too slow for all of it."""
        return 1 / 3 if self is Engine.REFERENCE else 1.0

    @property
    def transport(self) -> str:
        """As ``--transport`` names it."""
        http2, reference = TRANSPORTS
        return reference if self is Engine.REFERENCE else http2


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure."""

    engine: Engine
    pacing: PacingMode
    users: int

    @property
    def work(self) -> str:
        """What it sends, whoever sends it: cases of the same work are compared."""
        return f"{self.pacing.value}/{self.users}"

    def sequences(self, steps: int) -> int:
        """How many sequences each user sends, for about ``steps`` steps of all users together."""
        return max(1, round(steps * self.engine.work / SEQUENCE_STEPS / self.users))

    def write_scenario(self, directory: Path) -> Path:
        """Its scenario as a file; JSON is YAML."""
        path = directory / "scenario.yaml"
        path.write_text(json.dumps(self._scenario()), encoding="utf-8")
        return path

    def _scenario(self) -> dict[str, object]:
        return {
            "name": f"bench-{self.pacing.value}-{self.users}",
            "model": {"name": MODEL.name},
            "load": {"users": self.users, "spawn_rate": 1000},
            "contexts": {"common": 1, "rare": 0},
            "mix": {"common": {"valid": 1}},
            "sequence": {"length": {"distribution": "constant", "value": SEQUENCE_STEPS}},
            "ids": {"policy": "fresh"},
            "pacing": {"mode": self.pacing.value},
            "timeout_s": 20,
        }


CASES = tuple(Case(engine, pacing, users) for pacing in PACINGS for users in USERS for engine in Engine)
"""Cases of the same work stand beside each other, so that what is compared ran within seconds."""
