"""The values of steps: within their datatype, exact in floats, and never anything that is no number."""

from math import isfinite
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.plan.mix import redraw
from seqstress.plan.values import extremes, unfit_values, value_draw
from seqstress.protocol import Dtype
from seqstress.scenario import Scenario, parse_scenario


def scenario(sequence: str, rest: str = "") -> Scenario:
    return parse_scenario(f"name: x\nmodel: {{name: m}}\nsequence: {sequence}\n{rest}", "x.yaml")


EXTREMES = scenario("{length: {distribution: uniform, min: 1, max: 40}, value: {distribution: extremes}}")
SMALL = scenario(
    "{length: {distribution: uniform, min: 1, max: 16}, value: {distribution: uniform, low: -1048576, high: 1048576}}"
)


def test_extremes_of_integers_are_the_ends_of_the_datatype() -> None:
    assert extremes(Dtype.INT32, 16) == (-(2**31), -1, 0, 1, 2**31 - 1)
    assert extremes(Dtype.INT64, 16) == (-(2**63), -1, 0, 1, 2**63 - 1)


def test_extremes_of_decimal_numbers_lie_beyond_64_bits() -> None:
    assert max(extremes(Dtype.BYTES, 16)) > 2**63


@pytest.mark.parametrize(("dtype", "kind"), [(Dtype.FP32, np.float32), (Dtype.FP64, np.float64)])
@given(seed=st.integers(0, 2**32))
def test_sums_of_floats_are_exact_in_any_order(dtype: Dtype, kind: type, seed: int) -> None:
    for shape in (EXTREMES, SMALL):
        assert unfit_values(shape.sequence, dtype, tolerance=0) is None
        (sequence,) = redraw(shape, dtype, (seed, 0, 0, 0, 0), "valid").sequences
        values = [step.value for step in sequence.steps]
        assert all(isinstance(value, float) and isfinite(value) for value in values)
        backwards = kind(0)
        for value in reversed(values):
            backwards = kind(backwards + kind(value))
        assert sequence.steps[-1].answers == (float(backwards),) == (sum(int(value) for value in values),)


@pytest.mark.parametrize("dtype", [Dtype.INT32, Dtype.INT64, Dtype.BYTES])
def test_integers_stay_integers(dtype: Dtype) -> None:
    drawn = value_draw(EXTREMES.sequence, dtype)(Random(1), 200)
    assert {type(value) for value in drawn} == {int}
    assert set(drawn) == set(extremes(dtype, 40))


@pytest.mark.parametrize(
    ("dtype", "low", "high", "fits"),
    [
        (Dtype.INT32, -(2**31), 2**31, True),
        (Dtype.INT32, 0, 2**31 + 1, False),
        (Dtype.INT64, -(2**63), 2**63, True),
        (Dtype.INT64, -(2**63) - 1, 0, False),
        (Dtype.BYTES, -(2**80), 2**80, True),
        (Dtype.FP32, 0, 2**20 + 1, True),
        (Dtype.FP32, 0, 2**20 + 2, False),
        (Dtype.FP32, -(2**20) - 1, 0, False),
        (Dtype.FP64, 0, 2**49 + 1, True),
        (Dtype.FP64, 0, 2**49 + 2, False),
    ],
)
def test_values_that_do_not_fit_are_told(dtype: Dtype, low: int, high: int, fits: bool) -> None:
    value = f"{{distribution: uniform, low: {low}, high: {high}}}"
    shape = scenario(f"{{length: {{distribution: constant, value: 16}}, value: {value}}}").sequence
    assert (unfit_values(shape, dtype, tolerance=0) is None) == fits


def test_a_tolerance_lets_float_sums_be_inexact_but_not_infinite() -> None:
    def shape(high: int) -> Scenario:
        return scenario(f"{{value: {{distribution: uniform, low: 0, high: {high}}}}}")

    assert unfit_values(shape(2**30).sequence, Dtype.FP32, tolerance=1.0) is None
    assert "overflow" in str(unfit_values(shape(2**127).sequence, Dtype.FP32, tolerance=1.0))


def test_parts_are_drawn_by_their_weights() -> None:
    parts = "[{distribution: choice, values: {7: 1}, weight: 3}, {distribution: choice, values: {9: 1}, weight: 1}]"
    drawn = value_draw(scenario(f"{{value: {parts}}}").sequence, Dtype.INT32)(Random(1), 4000)
    assert set(drawn) == {7, 9}
    assert drawn.count(7) == pytest.approx(3000, abs=100)
