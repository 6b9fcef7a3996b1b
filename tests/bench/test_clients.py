"""A case whose work was not done rightly gives no figures."""

from dataclasses import replace

import pytest

from bench.cases import CASES, MODEL, SEQUENCE_STEPS, Engine
from bench.clients import BenchError, measure
from seqstress.triton.server import TritonServer


@pytest.mark.real
@pytest.mark.locust
def test_every_engine_does_all_its_work_and_tells_its_price() -> None:
    with TritonServer([MODEL]) as server:
        for engine in Engine:
            case = replace(CASES[0], engine=engine)
            sample = measure(case, server.grpc_target, 400)
            assert sample.steps == case.sequences(400) * case.users * SEQUENCE_STEPS
            assert sample.cpu_us > 0
            assert (sample.p99_us is None) == (engine is Engine.WIRE)


@pytest.mark.parametrize("engine", Engine)
def test_a_case_that_cannot_reach_the_server_ends_the_benchmark(engine: Engine) -> None:
    with pytest.raises(BenchError, match="exit code"):
        measure(replace(CASES[0], engine=engine), "127.0.0.1:1", 400)
