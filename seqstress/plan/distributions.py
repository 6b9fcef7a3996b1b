"""The distributions that lengths, think times and values are drawn from.

Each one is a section of the scenario that can turn itself into a sampler. Samplers use only ``Random.random``
and ``Random.getrandbits``, whose results for a given integer seed are the same on every supported Python
(``randint``, ``choices``, ``shuffle`` and ``gauss`` promise no such thing), and take the same number of draws
whatever comes out.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from math import floor
from random import Random
from statistics import NormalDist, fmean
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from seqstress.plan.section import Section

Sampler = Callable[[Random], int]
T = TypeVar("T")

_LEAST_UNIT = 2.0**-54
"""Stands for the 0.0 that ``random`` gives once in 2**53 draws, where a normal quantile does not exist."""

_SPARE_BITS = 32
"""Random bits beyond those of the span: what keeps the bias of the multiply-and-shift below 2**-32."""


def span_sampler(low: int, span: int) -> Sampler:
    """Draws integers uniformly from ``low`` (included) to ``low + span`` (excluded)."""
    if span == 1:
        return lambda _: low
    bits = span.bit_length() + _SPARE_BITS
    return lambda rng: low + ((rng.getrandbits(bits) * span) >> bits)


def span_series(low: int, span: int) -> Callable[[Random, int], list[int]]:
    """Draws so many integers at once: the same ones as the sampler of that span would, one by one."""
    bits = span.bit_length() + _SPARE_BITS
    if span == 1:
        return lambda _, count: [low] * count

    def draw(rng: Random, count: int) -> list[int]:
        getrandbits = rng.getrandbits
        return [low + ((getrandbits(bits) * span) >> bits) for _ in range(count)]

    return draw


class Wheel(Generic[T]):
    """Picks among items in proportion to their weights; items without weight are left out."""

    __slots__ = ("_bounds", "_total", "items", "shares")

    def __init__(self, weights: Mapping[T, float] | Iterable[tuple[T, float]]) -> None:
        pairs = weights.items() if isinstance(weights, Mapping) else weights
        kept = [(item, weight) for item, weight in pairs if weight > 0]
        self.items = tuple(item for item, _ in kept)
        self._bounds = tuple(accumulate(weight for _, weight in kept))
        self._total = self._bounds[-1] if kept else 0.0
        self.shares = tuple(weight / self._total for _, weight in kept)

    def __bool__(self) -> bool:
        return bool(self.items)

    def pick(self, unit: float) -> T:
        """The item at ``unit`` in [0, 1) of the way round."""
        # A product that rounds up to the total would point behind the last item.
        return self.items[min(bisect_right(self._bounds, unit * self._total), len(self.items) - 1)]


class Constant(Section):
    """Always the same number."""

    distribution: Literal["constant"]
    value: NonNegativeInt

    @property
    def low(self) -> int:
        """The least number that can be drawn."""
        return self.value

    @property
    def high(self) -> int:
        """The greatest number that can be drawn."""
        return self.value

    def mean_drawn(self) -> float:
        """The mean of what is drawn."""
        return self.value

    def sampler(self, scale: int = 1) -> Sampler:
        """Draws in units of 1/``scale``: with 1000, milliseconds of the scenario come out as microseconds."""
        number = self.value * scale
        return lambda _: number


class Uniform(Section):
    """Every number from min to max alike, both included."""

    distribution: Literal["uniform"]
    min: NonNegativeInt
    max: NonNegativeInt

    @property
    def low(self) -> int:
        """The least number that can be drawn."""
        return self.min

    @property
    def high(self) -> int:
        """The greatest number that can be drawn."""
        return self.max

    def mean_drawn(self) -> float:
        """The mean of what is drawn."""
        return (self.min + self.max) / 2

    def sampler(self, scale: int = 1) -> Sampler:
        """Draws in units of 1/``scale``."""
        return span_sampler(self.min * scale, (self.max - self.min) * scale + 1)


class Normal(Section):
    """Normally distributed, rounded down, then held within min and max: the way of the tool's ancestor."""

    distribution: Literal["normal"]
    mean: NonNegativeFloat
    sd: PositiveFloat
    min: NonNegativeInt = 1
    max: NonNegativeInt | None = None
    """null = no limit of its own; what can be drawn then ends 8.3 standard deviations above the mean."""

    @property
    def low(self) -> int:
        """The least number that can be drawn."""
        return self.min

    @property
    def high(self) -> int:
        """The greatest number that can be drawn: 53 bits reach no further than 8.3 standard deviations."""
        reach = max(self.min, floor(self.mean + 8.3 * self.sd))
        return reach if self.max is None else min(reach, self.max)

    def mean_drawn(self) -> float:
        """The mean of what is drawn, to about 0.1 %: rounding and the limits move it away from ``mean``."""
        normal = NormalDist(self.mean, self.sd)
        points = 1000
        return fmean(
            min(max(floor(normal.inv_cdf((point + 0.5) / points)), self.low), self.high) for point in range(points)
        )

    def sampler(self, scale: int = 1) -> Sampler:
        """Draws in units of 1/``scale``, by the inverse of the distribution function: one ``random`` each."""
        quantile = NormalDist(self.mean * scale, self.sd * scale).inv_cdf
        low, high = self.low * scale, self.high * scale
        return lambda rng: min(max(floor(quantile(rng.random() or _LEAST_UNIT)), low), high)


Weights = Annotated[dict[int, NonNegativeFloat], Field(min_length=1)]


class Choice(Section):
    """One of the listed numbers, in proportion to the weight beside each."""

    distribution: Literal["choice"]
    values: Weights

    @property
    def low(self) -> int:
        """The least number that can be drawn."""
        return min(Wheel(self.values).items)

    @property
    def high(self) -> int:
        """The greatest number that can be drawn."""
        return max(Wheel(self.values).items)

    def mean_drawn(self) -> float:
        """The mean of what is drawn."""
        wheel = Wheel(self.values)
        return sum(item * share for item, share in zip(wheel.items, wheel.shares, strict=True))

    def sampler(self, scale: int = 1) -> Sampler:
        """Draws in units of 1/``scale``."""
        wheel = Wheel((number * scale, weight) for number, weight in self.values.items())
        return lambda rng: wheel.pick(rng.random())


Distribution = Annotated[Constant | Uniform | Normal | Choice, Field(discriminator="distribution")]


class UniformValues(Section):
    """Every integer from low (included) to high (excluded) alike."""

    distribution: Literal["uniform"]
    low: int
    high: int
    weight: NonNegativeFloat = 1.0
    """How often this part is drawn, against the other parts of a list."""


class ChosenValues(Section):
    """One of the listed integers, in proportion to the weight beside each."""

    distribution: Literal["choice"]
    values: Weights
    weight: NonNegativeFloat = 1.0
    """How often this part is drawn, against the other parts of a list."""


class Extremes(Section):
    """The ends of the datatype, -1, 0 and 1; floats: the furthest ends that keep every sum exact."""

    distribution: Literal["extremes"]
    weight: NonNegativeFloat = 1.0
    """How often this part is drawn, against the other parts of a list."""


ValuePart = Annotated[UniformValues | ChosenValues | Extremes, Field(discriminator="distribution")]
