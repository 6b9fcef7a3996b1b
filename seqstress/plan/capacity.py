"""What the slots of a model can serve of a scenario, by arithmetic and before any load."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import floor, inf
from typing import Final, NamedTuple, Protocol

from seqstress.plan.mix import ContextKind, context_kinds, redraw
from seqstress.plan.recipe import IdPolicy, PacingMode, Recipe
from seqstress.protocol import Dtype, ServerState

DEFAULT_STEP_S: Final = 0.0005
"""A step of a model without a delay of its own, with its way over loopback."""


class Users(Protocol):
    """How many users there are; a scenario's section ``load`` is one."""

    @property
    def users(self) -> int:
        """All of them, over all workers."""


class Demand(Recipe, Protocol):
    """What asks for slots; a :class:`seqstress.scenario.Scenario` is one."""

    @property
    def load(self) -> Users:
        """The closed-loop users."""

    @property
    def timeout_s(self) -> float:
        """Longest wait for an answer."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What so many slots can serve of a scenario, and what its users wait for them."""

    slots: int
    users: int
    plans_per_s: float
    """The most plans per second that the slots can serve; infinite where no pattern takes a slot."""
    sequences_per_s: float
    """The same in sequences, of which a plan may hold two."""
    cycle_s: float
    """From one plan of a user to its next, once the users have found their pace."""
    wait_s: float
    """What a START waits for its slot on average; 0 where the slots suffice."""
    warnings: tuple[str, ...]


def estimate(
    scenario: Demand, slots: int, idle_limit_s: float, step_s: float = DEFAULT_STEP_S, users: int | None = None
) -> Capacity:
    """The capacity of ``slots`` for a scenario, by mean values; ``step_s`` is what one step takes in its slot.

    A sequence holds its slot from its first step to its last: for its steps, and with pacing ``paced`` for the think
    times between them (in lockstep and paced, ``step_s`` should include the round trip). An abandoned one goes on
    holding it for the idle limit. With the ID policy ``fixed`` the next START of the same context takes over that
    very slot, so it is held no longer than until then; how soon that is depends on the pace of the users, which
    depends on the slots, so the two are solved together. A step without START holds nothing.

    Users (``users``, else those of the scenario) are closed-loop: each sends its next plan when the last one is
    answered, so N of them on slots that serve X plans per second go round in N / X seconds. What exceeds the plan's
    own time they wait for slots, once for each START.

    Neglected: chance (waits are means and bursts wait longer: take a wait near a limit for one beyond it), the start
    of the run, when all users ask at once, slots that other clients hold, the up to 50 ms by which the server's
    reaper may be late, uneven filling of several instances, STARTs that take over a slot and so do not wait, and, with
    ``id_reuse: at_once``, that the two sequences of a plan can hold and await two slots side by side.
    """
    users = scenario.load.users if users is None else users
    kinds = [_Kind.of(kind, scenario) for kind in context_kinds(scenario) if kind.share]
    length = scenario.sequence.length.mean_drawn()
    sequence_s = length * step_s + (length - 1) * _pause_s(scenario)
    sequences, starts = sum(kind.sequences for kind in kinds), sum(kind.starts for kind in kinds)
    own_s = starts * sequence_s + (sequences - starts) * step_s

    def held_s(cycle_s: float) -> float:
        """The slot time that an average plan takes while users go round in ``cycle_s``."""
        return starts * sequence_s + sum(
            kind.abandoned * kind.hold_s(cycle_s, sequence_s, idle_limit_s) for kind in kinds
        )

    plans_per_s = _most_plans_per_s(slots, users, held_s) if starts else inf
    cycle_s = max(own_s, users / plans_per_s)
    wait_s = (cycle_s - own_s) / starts if starts else 0.0
    demand = f"{users} users on {slots} slots, which serve about {plans_per_s:.3g} plans "
    demand += f"({plans_per_s * sequences:.3g} sequences) per second"
    return Capacity(
        slots=slots,
        users=users,
        plans_per_s=plans_per_s,
        sequences_per_s=plans_per_s * sequences,
        cycle_s=cycle_s,
        wait_s=wait_s,
        warnings=(
            *_too_slow(scenario, sequence_s, step_s, idle_limit_s),
            *_beyond_slots(
                scenario, wait_s, idle_limit_s, demand, lambda limit_s: floor(plans_per_s * (own_s + limit_s * starts))
            ),
        ),
    )


class _Kind(NamedTuple):
    """What the common or the rare contexts contribute to an average plan, and how soon each one comes again."""

    sequences: float
    starts: float
    abandoned: float
    """Sequences that are left open."""
    size: int
    share: float
    rotates: bool
    keeps_id: bool

    @classmethod
    def of(cls, kind: ContextKind, scenario: Recipe) -> "_Kind":
        """The means over the patterns of a kind, seen from plans of each: they differ in length only."""
        sequences = starts = abandoned = 0.0
        for pattern, weight in zip(kind.mix.items, kind.mix.shares, strict=True):
            sample = redraw(scenario, Dtype.BYTES, (0, 0), pattern).sequences
            weight *= kind.share
            sequences += weight * len(sample)
            starts += weight * sum(sequence.steps[0].start for sequence in sample)
            abandoned += weight * sum(sequence.leaves is ServerState.OPEN for sequence in sample)
        keeps_id = scenario.ids.policy is IdPolicy.FIXED
        return cls(sequences, starts, abandoned, kind.size, kind.share, rotates=kind.first > 0, keeps_id=keeps_id)

    def hold_s(self, cycle_s: float, sequence_s: float, idle_limit_s: float) -> float:
        """How long an abandoned sequence goes on holding its slot: for the idle limit, or to the next START if sooner.

        The context comes again so many cycles after the sequence of ``sequence_s`` began.
        """
        if not self.keeps_id:
            return idle_limit_s
        latest_s = sequence_s + idle_limit_s
        if self.rotates:
            end_s = min(cycle_s * self.size / self.share, latest_s)
        else:
            # The context is among a user's next plans with the same chance each time: a geometric distribution.
            missed = 1 - self.share / self.size
            whole_cycles = floor(latest_s / cycle_s)
            missed_all = missed**whole_cycles
            end_s = cycle_s * (1 - missed_all) / (1 - missed) + missed_all * (latest_s - whole_cycles * cycle_s)
        return max(0.0, end_s - sequence_s)


_NO_TIME: Final = 1e-9
"""A cycle so short that a kept ID is taken over at once: the least that a plan can hold."""


def _most_plans_per_s(slots: int, users: int, held_s: Callable[[float], float]) -> float:
    """The pace at which users ask for all the slot time that there is; what they ask for grows with the pace."""
    low, high = 0.0, slots / held_s(_NO_TIME)
    # Where users can hold no more than the slots at any pace, only rounding would find them beyond.
    enough = slots * (1 + 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        if middle * held_s(users / middle) <= enough:
            low = middle
        else:
            high = middle
    return high


def _pause_s(scenario: Recipe) -> float:
    think_ms = scenario.pacing.think_ms
    return think_ms.mean_drawn() / 1000 if think_ms is not None else 0.0


def _too_slow(scenario: Demand, sequence_s: float, step_s: float, idle_limit_s: float) -> Iterator[str]:
    """What cannot work at all, however few users there are."""
    if scenario.pacing.mode is PacingMode.PIPELINED:
        if sequence_s >= scenario.timeout_s:
            yield (
                f"A sequence takes about {sequence_s:.3g} s, so its last steps are answered after timeout_s = "
                f"{scenario.timeout_s:g}. Raise timeout_s, or shorten sequence.length"
            )
    elif step_s >= idle_limit_s:
        yield (
            f"A step takes about {step_s:.3g} s, and the idle limit of {idle_limit_s:g} s runs from its arrival: the "
            "server will rightly drop sequences. Raise the model's max_sequence_idle_microseconds"
        )


def _beyond_slots(
    scenario: Demand, wait_s: float, idle_limit_s: float, demand: str, users_that_wait: Callable[[float], int]
) -> Iterator[str]:
    """What the load makes of the answers where the slots do not suffice."""
    head = f"Load beyond the slots: {demand}, wait about {wait_s:.3g} s for a slot"
    if wait_s >= scenario.timeout_s:
        yield (
            f"{head}, longer than timeout_s = {scenario.timeout_s:g}: steps will end as `queued` and the verdict as "
            f"UNKNOWN. Use fewer than {users_that_wait(scenario.timeout_s)} users, raise timeout_s, "
            "or give the model more slots"
        )
    if wait_s >= idle_limit_s and scenario.pacing.mode is not PacingMode.PIPELINED:
        yield (
            f"{head}, longer than the idle limit of {idle_limit_s:g} s, and with pacing {scenario.pacing.mode.value} "
            "the server may rightly drop a sequence before its second step: steps will end as `expired` and the "
            f"verdict as UNKNOWN. Use fewer than {users_that_wait(idle_limit_s)} users, pacing pipelined, "
            "or more slots"
        )
