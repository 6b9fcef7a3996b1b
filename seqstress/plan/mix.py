"""One user's choices: which context sends next, and which pattern."""

from hashlib import blake2b
from random import Random
from typing import Final, NamedTuple

from seqstress.errors import InputError
from seqstress.plan.distributions import Wheel
from seqstress.plan.patterns import NO_END, PATTERNS, VALID
from seqstress.plan.recipe import IdPolicy, Recipe
from seqstress.plan.sequence import SequenceDrawer
from seqstress.protocol import Dtype, Plan, ServerState

_CHOICES: Final = -1
"""The branch of a user's seed path that its choices are drawn from; contexts have the branches 0, 1, 2 ..."""


class Choice(NamedTuple):
    """What a user sends next."""

    context: int
    """Index of the context: the common ones come first, then the rare ones."""
    pattern: str


class ContextKind(NamedTuple):
    """The common or the rare contexts of a user."""

    first: int
    """Index of the first one; the others follow."""
    size: int
    share: float
    """How much of the user's choices goes to this kind."""
    mix: Wheel[str]


def context_kinds(scenario: Recipe, patterns: frozenset[str] | None = None) -> tuple[ContextKind, ContextKind]:
    """The common and the rare contexts, with the mix that ``patterns`` (None = all) leaves of each.

    Where one kind has no pattern left, its share goes to the other. Raises InputError where neither has any.
    """
    contexts = scenario.contexts
    common = _subset(scenario.mix.common if contexts.common else {}, patterns)
    rare = _subset(scenario.mix.rare if contexts.rare else {}, patterns)
    if not common and not rare:
        chosen = ", ".join(sorted(patterns)) if patterns else "none at all"
        known = sorted({name for mix in (scenario.mix.common, scenario.mix.rare) for name in Wheel(mix).items})
        raise InputError(f"no chosen pattern ({chosen}) has weight in the mix. Choose from {', '.join(known)}")
    rare_share = contexts.rare_share if common and rare else float(bool(rare))
    return (
        ContextKind(0, contexts.common, 1 - rare_share, common),
        ContextKind(contexts.common, contexts.rare, rare_share, rare),
    )


class UserPlans:
    """The seeded choices and plans of one user.

    The same recipe, datatype and ``seed_path`` (the run's seed, the worker, the user) give the same choices
    and plans, whatever else runs and on every supported Python: nothing is shared with other users, and each
    plan has a generator of its own. What the server did matters in one way only: a context that had to give
    up (state UNKNOWN) follows the rule below, and later choices are not shifted by it, since every choice
    takes the same three draws.

    The follow rule: while something may be open on the server under the ID that a context keeps, a pattern
    that needs a clean ID falls to ``no_end``, or where that is not in the mix to the others in proportion to
    their weights, or where there are none to ``valid``, which leaves the ID clean.

    ``patterns`` keeps only these patterns, with their weights; where one kind of context has none of them
    left, its share of the choices goes to the other kind. Raises InputError where neither has any.
    """

    __slots__ = ("_choices", "_common", "_drawer", "_next_rare", "_numbers", "_rare", "_seed_path", "_states")

    def __init__(
        self, scenario: Recipe, dtype: Dtype, seed_path: tuple[int, ...], patterns: frozenset[str] | None = None
    ) -> None:
        self._common, self._rare = context_kinds(scenario, patterns)
        self._next_rare = 0
        self._seed_path = seed_path
        self._choices = _generator((*seed_path, _CHOICES))
        self._drawer = SequenceDrawer(scenario, dtype)
        self._numbers = [0] * (self._common.size + self._rare.size)
        keeps_id = scenario.ids.policy is IdPolicy.FIXED
        self._states = [ServerState.CLEAN] * len(self._numbers) if keeps_id else None

    @property
    def context_count(self) -> int:
        """How many contexts the user has, common and rare."""
        return len(self._numbers)

    def choose(self) -> Choice:
        """The next context and pattern, by the weights and the follow rule."""
        which_kind, which_context, which_pattern = (self._choices.random() for _ in range(3))
        if which_kind < self._rare.share:
            kind, offset = self._rare, self._next_rare
            self._next_rare = (offset + 1) % kind.size
        else:
            kind = self._common
            offset = int(which_context * kind.size)
        context, pattern = kind.first + offset, kind.mix.pick(which_pattern)
        if PATTERNS[pattern].needs_clean and self._may_be_open(context):
            pattern = _fallback(kind.mix, which_pattern)
        return Choice(context, pattern)

    def draw(self, choice: Choice) -> Plan:
        """The plan for a choice: a function of the seed path, the choice and how many its context had."""
        number = self._numbers[choice.context]
        self._numbers[choice.context] = number + 1
        return _draw(self._drawer, (*self._seed_path, choice.context, number), choice.pattern)

    def settle(self, context: int, state: ServerState) -> None:
        """Remember what the server may still hold for a context, once its plan ended or it took a new ID."""
        if self._states is not None:
            self._states[context] = state

    def _may_be_open(self, context: int) -> bool:
        return self._states is not None and self._states[context] is not ServerState.CLEAN


def redraw(scenario: Recipe, dtype: Dtype, seed_path: tuple[int, ...], pattern: str) -> Plan:
    """The plan that has this ``Plan.seed_path`` and pattern, once more."""
    return _draw(SequenceDrawer(scenario, dtype), seed_path, pattern)


def _draw(drawer: SequenceDrawer, seed_path: tuple[int, ...], pattern: str) -> Plan:
    *_, context, number = seed_path
    return Plan(pattern, context, number, seed_path, PATTERNS[pattern].build(drawer, _generator(seed_path)))


def _generator(seed_path: tuple[int, ...]) -> Random:
    """A generator of its own for a seed path.

    The path goes through a cryptographic hash, as neighbouring paths must not give related generators and
    Python's own ``hash`` may differ between versions.
    """
    text = ",".join(map(str, seed_path))
    return Random(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"))


def _subset(weights: dict[str, float], patterns: frozenset[str] | None) -> Wheel[str]:
    """The patterns that are left, in the order of PATTERNS: the file's order must not change the plans."""
    return Wheel((name, weights.get(name, 0.0)) for name in PATTERNS if patterns is None or name in patterns)


def _fallback(mix: Wheel[str], unit: float) -> str:
    if NO_END.name in mix.items:
        return NO_END.name
    rest = Wheel(
        (name, share) for name, share in zip(mix.items, mix.shares, strict=True) if not PATTERNS[name].needs_clean
    )
    return rest.pick(unit) if rest else VALID.name
