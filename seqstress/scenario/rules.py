"""The rules that no single value of a scenario shows: names that must exist, contradictions between keys."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from seqstress.plan.distributions import Choice, ChosenValues, Normal, Uniform, UniformValues
from seqstress.plan.oracle import ORACLES
from seqstress.plan.patterns import PATTERNS
from seqstress.plan.recipe import PacingMode
from seqstress.plan.values import unfit_values
from seqstress.protocol import Dtype, Fate, Stray
from seqstress.scenario.model import Scenario
from seqstress.scenario.nearest import suggestion


class Contradiction(NamedTuple):
    """One thing that is wrong: at which key, what, and what to do."""

    key: str
    problem: str
    remedy: str


FLOATS = (Dtype.FP32, Dtype.FP64)

LONGEST = 1_000_000
"""Steps of a sequence at most: a plan lies in memory before it is sent."""

_NEVER_ALLOWED = (Fate.OK.label, Fate.ABORTED.label)


def contradictions(scenario: Scenario) -> Iterator[Contradiction]:
    """Everything that is wrong with a scenario whose single values are well typed, in the order of keys."""
    yield from _model(scenario)
    yield from _contexts(scenario)
    yield from _mix(scenario)
    yield from _lengths(scenario)
    yield from _values(scenario)
    yield from _pacing(scenario)
    yield from _tolerance(scenario)
    yield from _allowances(scenario)
    yield from _thresholds(scenario)


def _model(scenario: Scenario) -> Iterator[Contradiction]:
    yield from _unknown("model.oracle", "oracle", [scenario.model.oracle], ORACLES)


def _contexts(scenario: Scenario) -> Iterator[Contradiction]:
    contexts = scenario.contexts
    if not contexts.common and not contexts.rare:
        yield Contradiction("contexts", "there are no contexts at all", "Give common or rare at least 1")
    elif not contexts.rare and contexts.rare_share:
        yield Contradiction(
            "contexts.rare_share",
            f"{contexts.rare_share:g} of the choices would go to rare contexts, and rare is 0",
            "Leave rare_share out, or give rare at least 1",
        )
    elif not contexts.common and contexts.rare_share < 1:
        yield Contradiction(
            "contexts.rare_share",
            f"{1 - contexts.rare_share:g} of the choices would go to common contexts, and common is 0",
            "Set rare_share to 1, or give common at least 1",
        )


def _mix(scenario: Scenario) -> Iterator[Contradiction]:
    contexts, mix = scenario.contexts, scenario.mix
    if not contexts.common and not contexts.rare:
        return
    for kind, count, weights in (("common", contexts.common, mix.common), ("rare", contexts.rare, mix.rare)):
        key = f"mix.{kind}"
        yield from _unknown(key, "pattern", weights, PATTERNS)
        if count and kind not in mix.model_fields_set and "mix" in scenario.model_fields_set:
            yield Contradiction(
                key,
                f"is missing beside the other mix, though there are {count} {kind} contexts",
                f"Give its weights too, or set contexts.{kind} to 0",
            )
        elif count and not sum(weights.values()):
            yield Contradiction(
                key,
                "the weights sum to nothing, so there is no pattern to choose",
                f"Give at least one pattern a weight above 0, or set contexts.{kind} to 0",
            )
        elif not count and any(weights.values()) and kind in mix.model_fields_set:
            yield Contradiction(
                key,
                f"has weights, but contexts.{kind} is 0, so they never apply",
                f"Leave mix.{kind} out, or give contexts.{kind} at least 1",
            )


def _lengths(scenario: Scenario) -> Iterator[Contradiction]:
    length = scenario.sequence.length
    problems = [*_distribution("sequence.length", length)]
    yield from problems
    if problems:
        return
    if length.high > LONGEST:
        yield Contradiction(
            "sequence.length",
            f"sequences of up to {length.high} steps could be drawn",
            f"A plan is drawn as a whole: keep it to {LONGEST} steps",
        )
    if length.low < 1:
        yield Contradiction(
            "sequence.length",
            f"sequences of length {length.low} could be drawn",
            "A sequence has at least 1 step",
        )


def _values(scenario: Scenario) -> Iterator[Contradiction]:
    shape, dtype = scenario.sequence, scenario.model.dtype
    if not shape.value_parts:
        yield Contradiction(
            "sequence.value",
            "the weights of the parts sum to nothing",
            "Give at least one part a weight above 0",
        )
    complaints = [*_each_value_part(scenario)]
    yield from complaints
    complaints += _distribution("sequence.length", shape.length)
    if dtype is not None and shape.value_parts and not complaints:
        problem = unfit_values(shape, dtype, scenario.tolerance)
        if problem:
            yield Contradiction("sequence.value", problem, VALUE_REMEDY)


VALUE_REMEDY = (
    "Narrow sequence.value or shorten sequence.length, choose a wider dtype, "
    "or (floats only) give a tolerance where sums need not be exact"
)


def _each_value_part(scenario: Scenario) -> Iterator[Contradiction]:
    value = scenario.sequence.value
    numbered = [*enumerate(value)] if isinstance(value, tuple) else [(None, value)]
    for index, part in numbered:
        key = "sequence.value" if index is None else f"sequence.value[{index}]"
        match part:
            case UniformValues() if part.high <= part.low:
                yield Contradiction(
                    f"{key}.high",
                    f"nothing lies from low {part.low} (included) to high {part.high} (excluded)",
                    f"Give a high above {part.low}",
                )
            case ChosenValues() if not sum(part.values.values()):
                yield _weightless(key)


def _pacing(scenario: Scenario) -> Iterator[Contradiction]:
    pacing = scenario.pacing
    key = "pacing.think_ms"
    if pacing.mode is not PacingMode.PACED:
        if pacing.think_ms is not None:
            yield Contradiction(
                key,
                f"mode {pacing.mode.value} has no think time",
                "Set pacing.mode to paced, or leave think_ms out",
            )
        return
    if pacing.think_ms is None:
        yield Contradiction(
            key, "mode paced needs a think time", "Give one, e.g. {distribution: uniform, min: 10, max: 50}"
        )
        return
    yield from _distribution(key, pacing.think_ms)
    limit = scenario.model.idle_limit_s
    if limit is not None:
        yield from think_time_beyond(scenario, limit)


def think_time_beyond(scenario: Scenario, idle_limit_s: float) -> Iterator[Contradiction]:
    """A think time that can reach the idle limit makes the server drop sequences, rightly."""
    think_ms = scenario.pacing.think_ms
    if think_ms is not None and think_ms.high >= idle_limit_s * 1000:
        yield Contradiction(
            "pacing.think_ms",
            f"pauses of up to {think_ms.high} ms reach the idle limit of {idle_limit_s * 1000:g} ms, "
            "so the server would rightly drop sequences",
            "Keep the greatest think time well below the idle limit (give a max), or raise the model's "
            "max_sequence_idle_microseconds",
        )


def _tolerance(scenario: Scenario) -> Iterator[Contradiction]:
    dtype = scenario.model.dtype
    if scenario.tolerance and dtype is not None and dtype not in FLOATS:
        yield Contradiction(
            "tolerance",
            f"{dtype.value} is exact, so nothing is tolerated",
            "Leave tolerance out for this dtype",
        )


def _allowances(scenario: Scenario) -> Iterator[Contradiction]:
    fates = [fate.label for fate in Fate if fate.label not in _NEVER_ALLOWED]
    yield from _unknown("allow", "fate or stray answer", scenario.allow, [*fates, *(stray.label for stray in Stray)])


def _thresholds(scenario: Scenario) -> Iterator[Contradiction]:
    for index, threshold in enumerate(scenario.thresholds):
        key = f"thresholds[{index}]"
        if (threshold.at_most is None) == (threshold.at_least is None):
            yield Contradiction(
                key,
                "a threshold has exactly one limit",
                f"Give {threshold.metric.value} either at_most or at_least",
            )
        if threshold.pattern is not None:
            yield from _unknown(f"{key}.pattern", "pattern", [threshold.pattern], PATTERNS)


def _distribution(key: str, distribution: object) -> Iterator[Contradiction]:
    match distribution:
        case Uniform() | Normal() if distribution.max is not None and distribution.max < distribution.min:
            yield Contradiction(
                f"{key}.max",
                f"max {distribution.max} is below min {distribution.min}",
                "Swap or correct the two",
            )
        case Choice() if not sum(distribution.values.values()):
            yield _weightless(key)


def _weightless(key: str) -> Contradiction:
    return Contradiction(f"{key}.values", "the weights sum to nothing", "Give at least one value a weight above 0")


def _unknown(key: str, what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[Contradiction]:
    known = list(known)
    for name in names:
        if name not in known:
            yield Contradiction(key, f"there is no {what} {name!r}", suggestion(name, known))
