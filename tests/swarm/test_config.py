"""What the master tells its workers survives Locust's own wire, and every pattern has a task."""

import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from seqstress.protocol import Binding, Dtype, TensorSpec
from seqstress.scenario import load_scenario
from seqstress.swarm.config import RunConfig
from seqstress.triton.preflight import Strategy, Target
from tests.swarm.processes import SCENARIOS


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_run_config_is_plain_and_comes_back_equal(path: Path) -> None:
    tensors = TensorSpec("INPUT", Dtype.INT32, (1, 1)), TensorSpec("OUTPUT", Dtype.INT32, (1, 1))
    config = RunConfig(
        run_id="r",
        nonce=5,
        seed=2**70,
        scenario=load_scenario(path),
        target=Target(Binding("m", "1", *tensors, False), 4, 10**9, Strategy.OLDEST, ("careful",)),
        address="h:1",
        transport="http2",
        workers=3,
        iterations=None,
        started_epoch_s=1.5,
        verbose_steps=False,
    )
    assert RunConfig.from_plain(msgpack.unpackb(msgpack.packb(config.to_plain()))) == config


def test_every_pattern_has_a_task_of_its_name() -> None:
    # Importing locust patches the standard library: in a process of its own.
    code = (
        "import locust\n"
        "from seqstress.swarm.users import Patterns\n"
        "from seqstress.plan.patterns import PATTERNS\n"
        "tasks = {task.__name__: task.locust_tag_set for task in Patterns.tasks}\n"
        "assert tasks == {name: {name} for name in PATTERNS}, tasks\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
