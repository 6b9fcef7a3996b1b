"""Correlation IDs: positive integers below 2**63, disjoint between the workers of a run."""

from enum import Enum

from seqstress.errors import InputError, SeqstressError

WORKER_BITS = 10
_WORKERS = 1 << WORKER_BITS
_ID_MASK = (1 << 63) - 1


class IdLayout(Enum):
    """What the IDs look like as numbers: servers hash, truncate and index them."""

    PACKED = "packed"
    """nonce (21 bits), worker (10), counter (32): consecutive in a worker, far from those of other runs."""
    DENSE = "dense"
    """worker (10 bits), counter (21): small and consecutive. Two runs at the same time share these IDs."""
    SPARSE = "sparse"
    """The packed ones, scattered over all 63 bits by a bijection: as unique as they are."""
    ALIASING = "aliasing"
    """counter (21 bits), worker (10), nonce (32): they differ in the high bits only, equal modulo 2**32."""


_COUNTER_BITS = {IdLayout.PACKED: 32, IdLayout.DENSE: 21, IdLayout.SPARSE: 32, IdLayout.ALIASING: 21}


class IdsExhaustedError(SeqstressError):
    """A worker has used up its range of correlation IDs; going on would use one twice."""


class IdSpace:
    """The correlation IDs of one worker, each given out once.

    ``nonce`` is the run's (any integer, ideally random): its low bits go into the IDs. No two workers of a
    run share an ID, in any layout. Two runs that use one server at the same time with different layouts of
    IDs may; with the same layout they are disjoint where their nonces differ in the bits that the layout
    keeps. For random nonces the chance that two runs clash is 2**-21 (one in two million) for ``packed`` and
    ``sparse``, 2**-32 for ``aliasing``; ``dense`` keeps none, so two such runs always clash. A counter starts
    at 1, so 0, which Triton refuses, never comes out.
    """

    __slots__ = ("_counter", "_layout", "_limit", "_nonce", "_worker")

    def __init__(self, nonce: int, worker: int, layout: IdLayout) -> None:
        if not 0 <= worker < _WORKERS:
            raise InputError(f"worker {worker} has no range of correlation IDs. Use at most {_WORKERS} workers")
        self._nonce = nonce
        self._worker = worker
        self._layout = layout
        self._counter = 0
        self._limit = 1 << _COUNTER_BITS[layout]

    def allocate(self) -> int:
        """A correlation ID that this worker never had before. Raises IdsExhaustedError when none is left."""
        self._counter += 1
        if self._counter >= self._limit:
            raise IdsExhaustedError(
                f"worker {self._worker} has used all {self._limit - 1} correlation IDs of the layout "
                f"{self._layout.value!r}. Use the layout 'packed' or 'sparse', or the policy 'fixed'"
            )
        return self._number(self._counter)

    def __repr__(self) -> str:
        return f"<IdSpace {self._layout.value} worker={self._worker} used={self._counter} of={self._limit - 1}>"

    def _number(self, counter: int) -> int:
        match self._layout:
            case IdLayout.DENSE:
                return self._worker << 21 | counter
            case IdLayout.ALIASING:
                return (counter << WORKER_BITS | self._worker) << 32 | self._nonce & 0xFFFF_FFFF
        packed = ((self._nonce & 0x1F_FFFF) << WORKER_BITS | self._worker) << 32 | counter
        return packed if self._layout is IdLayout.PACKED else scatter(packed)


def scatter(number: int) -> int:
    """A bijection of the 63-bit integers that spreads neighbours apart and keeps 0 where it is.

    Both kinds of step can be undone: a shift of at least half the width folded in by exclusive or, and a
    multiplication by an odd number modulo 2**63.
    """
    number ^= number >> 32
    number = number * 0x2545_F491_4F6C_DD1D & _ID_MASK
    number ^= number >> 33
    number = number * 0x1B87_3593_CC9E_2D51 & _ID_MASK
    return number ^ number >> 32
