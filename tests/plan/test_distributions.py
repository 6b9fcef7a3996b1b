"""Distributions: bounds, means, and the stability of their draws."""

from itertools import pairwise
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.plan.distributions import Choice, Constant, Normal, Uniform, Wheel, span_sampler, span_series

SHAPES = [
    Constant(distribution="constant", value=7),
    Uniform(distribution="uniform", min=3, max=9),
    Normal(distribution="normal", mean=16, sd=8),
    Normal(distribution="normal", mean=5, sd=20, min=2, max=11),
    Choice(distribution="choice", values={1: 1, 16: 2, 200: 1, 5: 0}),
]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_draws_stay_within_the_bounds_and_have_the_mean_that_they_promise(shape: Normal | Choice) -> None:
    draw, rng = shape.sampler(), Random(1)
    drawn = [draw(rng) for _ in range(20_000)]
    assert shape.low <= min(drawn) and max(drawn) <= shape.high
    assert fmean(drawn) == pytest.approx(shape.mean_drawn(), rel=0.03)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_a_scale_draws_in_finer_units(shape: Normal | Choice) -> None:
    draw, rng = shape.sampler(scale=1000), Random(1)
    drawn = [draw(rng) for _ in range(1000)]
    assert shape.low * 1000 <= min(drawn) and max(drawn) <= shape.high * 1000


class _Fixed(Random):
    def __init__(self, unit: float) -> None:
        super().__init__(0)
        self._unit = unit

    def random(self) -> float:
        return self._unit


@pytest.mark.parametrize("unit", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_are_drawn_too(unit: float) -> None:
    for shape in SHAPES:
        assert shape.low <= shape.sampler()(_Fixed(unit)) <= shape.high


def test_an_unlimited_normal_reaches_no_further_than_it_says() -> None:
    shape = Normal(distribution="normal", mean=16, sd=8)
    assert shape.sampler()(_Fixed(1 - 2**-53)) <= shape.high == 82


@given(st.integers(-(2**63), 2**63), st.integers(1, 2**64), st.integers(0, 2**32))
def test_a_span_is_kept_and_a_series_is_the_single_draws(low: int, span: int, seed: int) -> None:
    series = span_series(low, span)(Random(seed), 20)
    draw, rng = span_sampler(low, span), Random(seed)
    assert series == [draw(rng) for _ in range(20)]
    assert all(low <= number < low + span for number in series)


def test_a_wheel_turns_in_proportion_and_never_stops_at_nothing() -> None:
    wheel = Wheel({"a": 1.0, "never": 0.0, "b": 3.0})
    picked = [wheel.pick(step / 1000) for step in range(1000)]
    assert (picked.count("a"), picked.count("b")) == (250, 750)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_a_wheel_always_stops_at_an_item(weights: list[float], unit: float) -> None:
    wheel = Wheel(enumerate(weights))
    assert wheel.pick(unit) in range(len(weights))
    assert all(earlier <= later for earlier, later in pairwise(wheel.pick(part / 10) for part in range(10)))


def test_a_wheel_without_weights_is_false() -> None:
    assert not Wheel({"a": 0.0})
