"""A mergeable log-linear histogram of durations in integer microseconds.

Why not the ``hdrhistogram`` package: a snapshot travels from each worker to the master every few seconds as
msgpack, so the counts must be a small plain mapping. HdrHistogram keeps a dense array (at this precision some
3,300 counters up to an hour, most of them zero) and ships it compressed, to be decoded before it can be
added; here merging is the addition of a few hundred integers. And ``record``, twice on the path of every
step, should be a few dictionary operations without a call into another layer.
"""

from collections import defaultdict
from collections.abc import Mapping
from math import ceil
from typing import cast

_MANTISSA_BITS = 8
_HALF = 1 << (_MANTISSA_BITS - 1)

RELATIVE_ERROR = 1 / _HALF
"""What a percentile may lie above the exact one, relative to it; never below. Exact under 256 µs."""


class Histogram:
    """Counts durations in buckets whose width is at most 1/128 of their lower bound; count, sum, min and max
    are exact.

    Values below 2**8 have a bucket each. Above, a value keeps its 8 leading bits: bucket ``(shift << 7) +
    (value >> shift)`` with ``shift = bit_length - 8``, which numbers the buckets without gaps. Not
    thread-safe, no need under gevent: nothing in here yields.
    """

    __slots__ = ("_buckets", "_max", "_min", "total")

    def __init__(self) -> None:
        self._buckets: defaultdict[int, int] = defaultdict(int)
        self._min: int | None = None
        self._max = 0
        self.total = 0
        """The exact sum of everything recorded, in microseconds."""

    def record(self, us: int) -> None:
        """Count one duration. Raises ValueError for a negative one: two clocks were mixed."""
        shift = us.bit_length() - _MANTISSA_BITS
        self._buckets[us if shift <= 0 else (shift << 7) + (us >> shift)] += 1
        self.total += us
        if us > self._max:
            self._max = us
        if self._min is None or us < self._min:
            self._lower_min(us)

    def record_many(self, us: int, count: int) -> None:
        """Count the same duration ``count`` times."""
        if count <= 0:
            return
        self.record(us)
        self._buckets[_bucket(us)] += count - 1
        self.total += us * (count - 1)

    def _lower_min(self, us: int) -> None:
        # Reached by every negative value, since the minimum is never below zero: the check costs the hot path
        # nothing.
        if us < 0:
            bucket = _bucket(us)
            self._buckets[bucket] -= 1
            if not self._buckets[bucket]:
                del self._buckets[bucket]
            self.total -= us
            raise ValueError(f"a duration of {us} µs: the end was taken before the start, or from another clock")
        self._min = us

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self._buckets.values())

    @property
    def min(self) -> int:
        """The smallest, exact; 0 when there is none."""
        return self._min or 0

    @property
    def max(self) -> int:
        """The largest, exact; 0 when there is none."""
        return self._max

    @property
    def mean(self) -> float:
        """The exact mean; 0.0 when there is none."""
        count = self.count
        return self.total / count if count else 0.0

    def percentile(self, percent: float) -> int:
        """The nearest-rank percentile: at least the exact one, above it by no more than RELATIVE_ERROR, never
        over ``max``.

        Erring upwards only, so that a threshold is never met by rounding. 0 when nothing was recorded.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        count = self.count
        # The product of two floats may come out a hair above a whole rank (99.9 % of 1000): round that off
        # first.
        rank = max(1, ceil(round(count * percent / 100, 9)))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_highest(bucket), self._max)
        return 0

    def merge(self, other: "Histogram") -> None:
        """Add everything that ``other`` counted; the order of merges does not matter."""
        for bucket, count in other._buckets.items():
            self._buckets[bucket] += count
        self.total += other.total
        self._max = max(self._max, other._max)
        if other._min is not None and (self._min is None or other._min < self._min):
            self._min = other._min

    def copy(self) -> "Histogram":
        """An independent histogram with the same counts."""
        twin = Histogram()
        twin.merge(self)
        return twin

    def buckets(self) -> list[tuple[int, int]]:
        """The highest value and the count of every bucket in use, in rising order: what a chart draws."""
        return [(min(_highest(bucket), self._max), self._buckets[bucket]) for bucket in sorted(self._buckets)]

    def to_plain(self) -> dict[str, object]:
        """Plain types only (buckets as two parallel lists: msgpack forbids integer keys by default)."""
        indexes = sorted(self._buckets)
        return {
            "buckets": indexes,
            "counts": [self._buckets[index] for index in indexes],
            "min": self._min,
            "max": self._max,
            "total": self.total,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "Histogram":
        """What ``to_plain`` gave, equal to the original."""
        histogram = cls()
        indexes = cast("list[int]", plain["buckets"])
        histogram._buckets.update(zip(indexes, cast("list[int]", plain["counts"]), strict=True))
        histogram._min = cast("int | None", plain["min"])
        histogram._max = cast(int, plain["max"])
        histogram.total = cast(int, plain["total"])
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_plain() == other.to_plain()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if not self._buckets:
            return "<Histogram empty>"
        p50, p99 = self.percentile(50), self.percentile(99)
        return f"<Histogram {self.count}: p50={p50} p99={p99} max={self._max} µs>"


def _bucket(us: int) -> int:
    shift = us.bit_length() - _MANTISSA_BITS
    return us if shift <= 0 else (shift << 7) + (us >> shift)


def _highest(bucket: int) -> int:
    """The largest value that falls into a bucket."""
    if bucket < 2 * _HALF:
        return bucket
    shift = (bucket >> 7) - 1
    return ((bucket - (shift << 7) + 1) << shift) - 1
