"""Draws the steps of single sequences, with what the server must answer to each."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from random import Random
from typing import Final, cast

from seqstress.plan.oracle import oracle_for
from seqstress.plan.recipe import Recipe
from seqstress.plan.values import value_draw
from seqstress.protocol import Dtype, Expect, SequencePlan, ServerState, Step

_ANSWERS: Final = Expect.ANSWERS
_NO: Final = (False,)

_step: Final = cast(Callable[[tuple[object, ...]], Step], partial(tuple.__new__, Step))
"""A step from all its fields: what ``Step._make`` does, without a Python frame for each of millions of steps."""


class SequenceDrawer:
    """Draws sequences of one recipe and datatype; knows no pattern, keeps no state between sequences."""

    __slots__ = ("_length", "_oracle", "_think_us", "_values")

    def __init__(self, recipe: Recipe, dtype: Dtype) -> None:
        self._length = recipe.sequence.length.sampler()
        self._values = value_draw(recipe.sequence, dtype)
        self._oracle = oracle_for(recipe.oracle, dtype)
        think_ms = recipe.pacing.think_ms
        self._think_us = None if think_ms is None else think_ms.sampler(scale=1000)

    def complete(self, rng: Random, id_ref: int = 0) -> SequencePlan:
        """A sequence from START to END; both are flags of the same step where it is the only one."""
        return SequencePlan(id_ref, self._started_steps(rng, ends=True), ServerState.CLEAN)

    def unfinished(self, rng: Random, id_ref: int = 0) -> SequencePlan:
        """A sequence with START but without END: the server keeps it until its idle limit."""
        return SequencePlan(id_ref, self._started_steps(rng, ends=False), ServerState.OPEN)

    def unstarted(self, rng: Random, id_ref: int = 0) -> SequencePlan:
        """One step without START and without END, as in the seed of this tool: the server must refuse it."""
        (value,) = self._values(rng, 1)
        step = Step(start=False, end=False, value=value, expect=Expect.START_ERROR, answers=())
        return SequencePlan(id_ref, (step,), ServerState.CLEAN)

    def _started_steps(self, rng: Random, ends: bool) -> tuple[Step, ...]:
        values = self._values(rng, self._length(rng))
        others = len(values) - 1
        flags_start = (True, *_NO * others)
        flags_end = (*_NO * others, ends)
        answers = self._oracle.answers(values)
        fields = zip(flags_start, flags_end, values, repeat(_ANSWERS), answers, self._think_times(rng, others))
        return tuple(map(_step, fields))

    def _think_times(self, rng: Random, pauses: int) -> Iterable[int]:
        """No pause before the first step, then one before each of the others."""
        think_us = self._think_us
        if think_us is None:
            return (0,) * (pauses + 1)
        return 0, *(think_us(rng) for _ in range(pauses))
