"""The patterns: the shapes of what a context can send next."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from seqstress.plan.sequence import SequenceDrawer
from seqstress.protocol import SequencePlan


class Pattern(NamedTuple):
    """A shape of what a context sends next, and what it needs of the context."""

    name: str
    description: str
    needs_clean: bool
    """Whether nothing may be open under the ID: the server would take the first step for a continuation."""
    build: Callable[[SequenceDrawer, Random], tuple[SequencePlan, ...]]
    """Draws its sequences, in the order in which they are sent."""


def _valid(sequences: SequenceDrawer, rng: Random) -> tuple[SequencePlan, ...]:
    return (sequences.complete(rng),)


def _valid_valid(sequences: SequenceDrawer, rng: Random) -> tuple[SequencePlan, ...]:
    return sequences.complete(rng), sequences.complete(rng)


def _valid_no_end(sequences: SequenceDrawer, rng: Random) -> tuple[SequencePlan, ...]:
    return sequences.complete(rng), sequences.unfinished(rng)


def _no_end(sequences: SequenceDrawer, rng: Random) -> tuple[SequencePlan, ...]:
    return (sequences.unfinished(rng),)


def _no_start(sequences: SequenceDrawer, rng: Random) -> tuple[SequencePlan, ...]:
    return (sequences.unstarted(rng),)


VALID: Final = Pattern("valid", "one complete sequence", False, _valid)
NO_END: Final = Pattern("no_end", "a sequence with START but without END, left open", False, _no_end)

PATTERNS: Final[Mapping[str, Pattern]] = MappingProxyType(
    {
        pattern.name: pattern
        for pattern in (
            VALID,
            Pattern(
                "valid_valid",
                "two complete sequences with the same ID, one after the other",
                False,
                _valid_valid,
            ),
            Pattern(
                "valid_no_end",
                "a complete sequence, then one with the same ID left open",
                False,
                _valid_no_end,
            ),
            NO_END,
            Pattern("no_start", "a step without START, which the server must refuse", True, _no_start),
        )
    }
)
"""Every pattern by its name: the one place to add one."""
