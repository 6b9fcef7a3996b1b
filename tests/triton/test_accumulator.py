"""The shipped model by itself, with a stand-in for the module that Triton's stub gives it."""

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from seqstress.triton.repository import ACCUMULATOR


class Tensor(NamedTuple):
    name: str
    array: np.ndarray[Any, Any]

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self.array


class Response(NamedTuple):
    outputs: list[Tensor]
    error: Any = None


Request = dict[str, Any]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.Tensor, backend.InferenceResponse, backend.TritonError = Tensor, Response, str
    backend.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    spec = importlib.util.spec_from_file_location("accumulator", ACCUMULATOR)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def model(module: ModuleType, state_key: str = "slot", dtype: str = "TYPE_INT32") -> Any:
    made = module.TritonPythonModel()
    parameters = {"state_key": {"string_value": state_key}, "execute_delay_us": {"string_value": "0"}}
    made.initialize({"model_config": json.dumps({"parameters": parameters, "output": [{"data_type": dtype}]})})
    return made


def request(value: Any, *, start: bool = False, end: bool = False, corrid: int = 1, ready: bool = True) -> Request:
    flags = {"START": start, "END": end, "READY": ready, "CORRID": corrid}
    array = np.array([[value]], dtype=object if isinstance(value, bytes) else np.int32)
    return {"INPUT": array, **{name: np.array([[flag]]) for name, flag in flags.items()}}


def answers(responses: list[Response]) -> list[Any]:
    return [response.outputs[0].array.flat[0] if response.outputs else response.error for response in responses]


def test_an_empty_slot_is_neither_read_nor_remembered(module: ModuleType) -> None:
    subject = model(module)
    subject.execute([request(5, start=True), request(-181125119, ready=False)])
    empty = {"READY": np.array([[0]])}
    assert answers(subject.execute([empty, request(1, start=True)])) == [None, 1]
    assert answers(subject.execute([request(1), request(1)])) == [6, 2]


def test_per_slot_state_keeps_an_id_apart_that_runs_twice(module: ModuleType) -> None:
    subject = model(module)
    assert answers(subject.execute([request(1, start=True), request(100, start=True)])) == [1, 100]
    assert answers(subject.execute([request(1, end=True), request(100)])) == [2, 200]


def test_per_id_state_follows_the_id_through_the_batch(module: ModuleType) -> None:
    subject = model(module, state_key="correlation_id")
    subject.execute([request(1, start=True, corrid=7), request(100, start=True, corrid=8)])
    assert answers(subject.execute([request(100, corrid=8), request(1, corrid=7)])) == [200, 2]


def test_a_step_without_start_is_refused_and_spares_the_batch(module: ModuleType) -> None:
    subject = model(module)
    refused, fine = answers(subject.execute([request(1), request(2, start=True)]))
    assert "without START" in refused
    assert fine == 2


def test_end_forgets_and_start_forgets_what_was_left_open(module: ModuleType) -> None:
    subject = model(module)
    subject.execute([request(5, start=True)])
    assert answers(subject.execute([request(7, start=True)])) == [7]
    subject.execute([request(1, end=True)])
    assert subject.states == {}


def test_integers_wrap_around_and_texts_do_not(module: ModuleType) -> None:
    numbers = model(module)
    numbers.execute([request(2**31 - 1, start=True)])
    assert answers(numbers.execute([request(1)])) == [-(2**31)]
    texts = model(module, dtype="TYPE_STRING")
    texts.execute([request(b"99999999999999999999", start=True)])
    assert answers(texts.execute([request(b"1")])) == [b"100000000000000000000"]


def test_abandoned_states_are_bounded_and_live_ones_stay(module: ModuleType) -> None:
    subject = model(module, state_key="correlation_id")
    subject.execute([request(1, start=True, corrid=1)])
    for abandoned in range(2, module.LIVE_STATES + 100):
        subject.execute([request(1, corrid=1), request(9, start=True, corrid=abandoned)])
    assert len(subject.states) == module.LIVE_STATES
    assert answers(subject.execute([request(1, corrid=1)])) == [module.LIVE_STATES + 100]
