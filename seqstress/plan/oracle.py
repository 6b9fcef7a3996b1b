"""Oracles: what a model must answer to each step of a sequence."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from struct import Struct
from typing import Final, Protocol

from seqstress.protocol import Dtype, Value

_FLOAT32: Final = Struct("<f")


class Oracle(Protocol):
    """Computes expected answers; holds no state itself, so one serves any number of sequences."""

    def start(self) -> Value:
        """The state of a sequence before its first step."""

    def step(self, state: Value, value: Value) -> tuple[Value, tuple[Value, ...]]:
        """The state after a step with ``value``, and the answers to it: one, or 0..n of a decoupled model."""

    def answers(self, values: Sequence[Value]) -> list[tuple[Value, ...]]:
        """The answers to each step of a sequence with these values: ``step`` from ``start`` on, all at once."""


class _StepByStep:
    """Answers a sequence one step after the other."""

    __slots__ = ()

    def answers(self: Oracle, values: Sequence[Value]) -> list[tuple[Value, ...]]:
        """The answers to each step of a sequence with these values."""
        state, all_answers = self.start(), []
        for value in values:
            state, answers = self.step(state, value)
            all_answers.append(answers)
        return all_answers


class IntegerAccumulator:
    """The running sum in a signed integer of ``bits`` bits, wrapping around as two's complement does."""

    __slots__ = ("_half", "_mask")

    def __init__(self, bits: int) -> None:
        self._half = 1 << (bits - 1)
        self._mask = (1 << bits) - 1

    def start(self) -> Value:
        """Zero."""
        return 0

    def step(self, state: Value, value: Value) -> tuple[Value, tuple[Value, ...]]:
        """The sum so far."""
        total = ((int(state + value) + self._half) & self._mask) - self._half
        return total, (total,)

    def answers(self, values: Sequence[Value]) -> list[tuple[Value, ...]]:
        """The sums so far; wrapping each unbounded one gives what wrapping after each addition does."""
        half, mask = self._half, self._mask
        return [(((int(total) + half) & mask) - half,) for total in accumulate(values)]


class UnboundedAccumulator(_StepByStep):
    """The running sum of integers without a limit: decimal numbers in BYTES."""

    __slots__ = ()

    def start(self) -> Value:
        """Zero."""
        return 0

    def step(self, state: Value, value: Value) -> tuple[Value, tuple[Value, ...]]:
        """The sum so far."""
        total = state + value
        return total, (total,)


class Float32Accumulator(_StepByStep):
    """The running sum in single precision, rounded after each addition.

    A double holds the exact sum of two singles closely enough that rounding it once more gives the single
    that an addition in single precision gives (53 >= 2 * 24 + 2 bits), so this is what an IEEE 754 adder
    answers, bit by bit.
    """

    __slots__ = ()

    def start(self) -> Value:
        """Zero."""
        return 0.0

    def step(self, state: Value, value: Value) -> tuple[Value, tuple[Value, ...]]:
        """The sum so far."""
        total: float = _FLOAT32.unpack(_FLOAT32.pack(state + value))[0]
        return total, (total,)


class Float64Accumulator(_StepByStep):
    """The running sum in double precision."""

    __slots__ = ()

    def start(self) -> Value:
        """Zero."""
        return 0.0

    def step(self, state: Value, value: Value) -> tuple[Value, tuple[Value, ...]]:
        """The sum so far."""
        total = float(state + value)
        return total, (total,)


_ACCUMULATORS: Mapping[Dtype, Oracle] = {
    Dtype.INT32: IntegerAccumulator(32),
    Dtype.INT64: IntegerAccumulator(64),
    Dtype.FP32: Float32Accumulator(),
    Dtype.FP64: Float64Accumulator(),
    Dtype.BYTES: UnboundedAccumulator(),
}

ORACLES: Final[Mapping[str, Callable[[Dtype], Oracle]]] = {"accumulator": _ACCUMULATORS.__getitem__}
"""What a scenario can name as ``model.oracle``: the one place to add an oracle."""


def oracle_for(name: str, dtype: Dtype) -> Oracle:
    """The oracle of that name for a datatype. Raises KeyError for a name outside :data:`ORACLES`."""
    return ORACLES[name](dtype)
