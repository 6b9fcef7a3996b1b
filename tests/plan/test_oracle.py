"""The oracles against independent arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.plan.oracle import ORACLES, oracle_for
from seqstress.protocol import Dtype

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT32, min_size=1, max_size=40))
def test_int32_sums_wrap_around_as_numpys_do(values: list[int]) -> None:
    expected = np.cumsum(np.array(values, dtype=np.int32), dtype=np.int32)
    assert oracle_for("accumulator", Dtype.INT32).answers(values) == [(int(total),) for total in expected]


@given(st.lists(INT64, min_size=1, max_size=40))
def test_int64_sums_wrap_around_as_numpys_do(values: list[int]) -> None:
    expected = np.cumsum(np.array(values, dtype=np.int64), dtype=np.int64)
    assert oracle_for("accumulator", Dtype.INT64).answers(values) == [(int(total),) for total in expected]


@given(st.lists(st.integers(), min_size=1, max_size=40))
def test_sums_of_decimal_numbers_have_no_limit(values: list[int]) -> None:
    expected = [(sum(values[: index + 1]),) for index in range(len(values))]
    assert oracle_for("accumulator", Dtype.BYTES).answers(values) == expected


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40))
def test_float32_sums_are_rounded_after_each_step(values: list[float]) -> None:
    total, expected = np.float32(0), []
    for value in values:
        total = np.float32(total + np.float32(value))
        expected.append((float(total),))
    assert oracle_for("accumulator", Dtype.FP32).answers(values) == expected


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40))
def test_float64_sums_are_pythons(values: list[float]) -> None:
    total, expected = 0.0, []
    for value in values:
        total += value
        expected.append((total,))
    assert oracle_for("accumulator", Dtype.FP64).answers(values) == expected


@pytest.mark.parametrize("dtype", Dtype)
@given(values=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20))
def test_answering_at_once_is_answering_step_by_step(dtype: Dtype, values: list[int]) -> None:
    oracle = oracle_for("accumulator", dtype)
    state, expected = oracle.start(), []
    for value in values:
        state, answers = oracle.step(state, value)
        expected.append(answers)
    assert oracle.answers(values) == expected


def test_the_first_wrap_of_int32_is_at_its_end() -> None:
    assert oracle_for("accumulator", Dtype.INT32).answers([2**31 - 1, 1]) == [(2**31 - 1,), (-(2**31),)]


def test_an_unknown_oracle_is_a_key_error() -> None:
    assert set(ORACLES) == {"accumulator"}
    with pytest.raises(KeyError):
        oracle_for("crystal ball", Dtype.INT32)
