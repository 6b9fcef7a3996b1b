"""The values of steps: which ones a datatype can hold and add up exactly, and how they are drawn."""

from collections.abc import Callable, Sequence
from random import Random
from struct import Struct
from typing import Final

from seqstress.plan.distributions import (
    ChosenValues,
    Extremes,
    Sampler,
    UniformValues,
    ValuePart,
    Wheel,
    span_sampler,
    span_series,
)
from seqstress.plan.recipe import SequenceShape
from seqstress.protocol import Dtype, Value

Draw = Callable[[Random, int], Sequence[Value]]
"""Draws so many values."""

_HELD: Final = {Dtype.INT32: (-(1 << 31), (1 << 31) - 1), Dtype.INT64: (-(1 << 63), (1 << 63) - 1)}
"""The least and the greatest integer of the datatypes that have ends."""

_EXACT: Final = {Dtype.FP32: 1 << 24, Dtype.FP64: 1 << 53}
"""Up to here a float holds every integer, so that sums of integers do not depend on who adds them, or how."""

_GREATEST_FINITE: Final = {Dtype.FP32: (2 - 2**-23) * 2.0**127, Dtype.FP64: (2 - 2**-52) * 2.0**1023}

_BEYOND_INT64: Final = 1 << 64
"""Stands for the ends of BYTES, which has none: a model that keeps such sums in 64 bits is caught."""

_FLOAT32: Final = Struct("<f")


def extremes(dtype: Dtype, longest: int) -> tuple[int, ...]:
    """The ends of the datatype, -1, 0 and 1; floats: ends that ``longest`` steps add up exactly."""
    if dtype in _HELD:
        low, high = _HELD[dtype]
    else:
        high = _EXACT[dtype] // longest if dtype in _EXACT else _BEYOND_INT64
        low = -high
    return low, -1, 0, 1, high


def unfit_values(shape: SequenceShape, dtype: Dtype, tolerance: float) -> str | None:
    """Says why these values cannot be sent as ``dtype``, or None where they can.

    Without a tolerance the sums of floats must be exact, as a server may add in any order or precision.
    """
    bounds = [_bounds(part) for part in shape.value_parts if not isinstance(part, Extremes)]
    if not bounds:
        return None
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    if dtype in _HELD:
        least, greatest = _HELD[dtype]
        if low < least or high > greatest:
            return f"values from {low} to {high} do not fit into {dtype.value} ({least} to {greatest})"
    if dtype in _EXACT:
        longest = shape.length.high
        furthest = longest * max(-low, high)
        if furthest > _GREATEST_FINITE[dtype]:
            return f"sums of up to {longest} values from {low} to {high} overflow {dtype.value}"
        if not tolerance and furthest > _EXACT[dtype]:
            return (
                f"sums of up to {longest} values from {low} to {high} can pass {_EXACT[dtype]}, "
                f"beyond which {dtype.value} is not exact"
            )
    return None


def value_draw(shape: SequenceShape, dtype: Dtype) -> Draw:
    """How values of that shape are drawn: ints, or floats that ``dtype`` holds as they are, all finite."""
    draw = _integer_draw(shape, dtype)
    match dtype:
        case Dtype.FP32:
            return lambda rng, count: [_FLOAT32.unpack(_FLOAT32.pack(value))[0] for value in draw(rng, count)]
        case Dtype.FP64:
            return lambda rng, count: [float(value) for value in draw(rng, count)]
    return draw


def _integer_draw(shape: SequenceShape, dtype: Dtype) -> Callable[[Random, int], list[int]]:
    match shape.value_parts:
        case (UniformValues() as only,):
            return span_series(only.low, only.high - only.low)
    longest = shape.length.high
    parts = Wheel((_sampler(part, dtype, longest), part.weight) for part in shape.value_parts)
    return lambda rng, count: [parts.pick(rng.random())(rng) for _ in range(count)]


def _bounds(part: UniformValues | ChosenValues) -> tuple[int, int]:
    if isinstance(part, UniformValues):
        return part.low, part.high - 1
    numbers = Wheel(part.values).items
    return min(numbers), max(numbers)


def _sampler(part: ValuePart, dtype: Dtype, longest: int) -> Sampler:
    match part:
        case UniformValues():
            return span_sampler(part.low, part.high - part.low)
        case ChosenValues():
            wheel = Wheel(part.values)
            return lambda rng: wheel.pick(rng.random())
        case Extremes():
            ends = extremes(dtype, longest)
            return lambda rng: ends[int(rng.random() * len(ends))]
