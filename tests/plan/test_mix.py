"""Choices and plans of a user: the laws of the patterns, the follow rule, the proportions, the same seed twice."""

from collections import Counter
from hashlib import sha256
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.errors import InputError
from seqstress.plan.mix import Choice, UserPlans, redraw
from seqstress.plan.patterns import PATTERNS
from seqstress.protocol import Dtype, Expect, Plan, SequencePlan, ServerState
from seqstress.scenario import Scenario, parse_scenario

SEED_PATHS = st.tuples(st.integers(0, 2**64), st.integers(0, 1023), st.integers(0, 10**6))


def scenario(extra: str = "") -> Scenario:
    return parse_scenario(f"name: x\nmodel: {{name: m}}\n{extra}", "x.yaml")


SEED = scenario()


def run(plans: UserPlans, count: int) -> list[Plan]:
    """What a user sends to a healthy server."""
    drawn = []
    for _ in range(count):
        plan = plans.draw(plans.choose())
        plans.settle(plan.context, plan.sequences[-1].leaves)
        drawn.append(plan)
    return drawn


def flags(sequence: SequencePlan) -> str:
    """One letter per step: S(TART), E(ND), B(oth), - (none)."""
    return "".join("-ESB"[2 * step.start + step.end] for step in sequence.steps)


@pytest.mark.parametrize("name", PATTERNS)
@given(seed_path=SEED_PATHS, number=st.integers(0, 10**6))
def test_starts_and_ends_stand_where_the_pattern_says(name: str, seed_path: tuple[int, ...], number: int) -> None:
    plan = redraw(SEED, Dtype.INT32, (*seed_path, 0, number), name)
    complete, left_open, refused = "complete", "open", "refused"
    expected = {
        "valid": [complete],
        "valid_valid": [complete, complete],
        "valid_no_end": [complete, left_open],
        "no_end": [left_open],
        "no_start": [refused],
    }[name]
    assert len(plan.sequences) == len(expected)
    for kind, sequence in zip(expected, plan.sequences, strict=True):
        shown, inner = flags(sequence), "-" * (len(sequence.steps) - 2)
        if kind == complete:
            assert shown in ("B", f"S{inner}E")
        elif kind == left_open:
            assert shown in ("S", f"S{inner}-")
        else:
            assert shown == "-"
        assert sequence.id_ref == 0, "every sequence of a plan reuses the one ID"
        assert sequence.leaves is (ServerState.OPEN if kind == left_open else ServerState.CLEAN)
        expects = {step.expect for step in sequence.steps}
        assert expects == {Expect.START_ERROR if kind == refused else Expect.ANSWERS}


@given(seed_path=SEED_PATHS, name=st.sampled_from(sorted(PATTERNS)))
def test_answers_are_the_sums_so_far_and_refused_steps_have_none(seed_path: tuple[int, ...], name: str) -> None:
    for sequence in redraw(SEED, Dtype.INT64, (*seed_path, 0, 0), name).sequences:
        answers = [answer for step in sequence.steps for answer in step.answers]
        assert answers == ([] if name == "no_start" else [*accumulate(step.value for step in sequence.steps)])


def test_a_sequence_of_one_step_starts_and_ends_in_it() -> None:
    short = scenario("sequence: {length: {distribution: constant, value: 1}}")
    shown = {name: [flags(s) for s in redraw(short, Dtype.INT32, (1, 0, 0, 0, 0), name).sequences] for name in PATTERNS}
    assert shown == {
        "valid": ["B"],
        "valid_valid": ["B", "B"],
        "valid_no_end": ["B", "S"],
        "no_end": ["S"],
        "no_start": ["-"],
    }


@given(seed_path=SEED_PATHS)
def test_a_step_without_start_never_follows_an_open_sequence_of_its_context(seed_path: tuple[int, ...]) -> None:
    often = scenario("contexts: {common: 2, rare: 0}\nmix: {common: {no_start: 3, no_end: 1, valid: 1}}")
    open_contexts = set()
    for plan in run(UserPlans(often, Dtype.INT32, seed_path), 40):
        assert not (plan.pattern == "no_start" and plan.context in open_contexts)
        (open_contexts.add if plan.pattern == "no_end" else open_contexts.discard)(plan.context)


@pytest.mark.parametrize("state", [ServerState.OPEN, ServerState.UNKNOWN])
def test_while_an_id_may_be_open_no_start_falls_to_no_end(state: ServerState) -> None:
    plans = UserPlans(
        scenario("contexts: {common: 1, rare: 0}\nmix: {common: {no_start: 1, no_end: 1.0e-9}}"), Dtype.INT32, (1,)
    )
    assert plans.choose() == Choice(0, "no_start")
    plans.settle(0, state)
    assert plans.choose() == Choice(0, "no_end")
    plans.settle(0, ServerState.CLEAN)
    assert plans.choose() == Choice(0, "no_start")


@pytest.mark.parametrize(
    ("mix", "fallback"), [("no_start: 1, valid_valid: 1.0e-9", "valid_valid"), ("no_start: 1", "valid")]
)
def test_without_no_end_in_the_mix_another_pattern_is_the_fallback(mix: str, fallback: str) -> None:
    plans = UserPlans(scenario(f"contexts: {{common: 1, rare: 0}}\nmix: {{common: {{{mix}}}}}"), Dtype.INT32, (1,))
    plans.settle(0, ServerState.UNKNOWN)
    assert {plans.choose().pattern for _ in range(20)} == {fallback}


def test_fresh_ids_need_no_follow_rule() -> None:
    only = "contexts: {common: 1, rare: 0}\nmix: {common: {no_start: 1}}\nids: {policy: fresh}"
    plans = UserPlans(scenario(only), Dtype.INT32, (1,))
    plans.settle(0, ServerState.OPEN)
    assert plans.choose().pattern == "no_start"


def test_the_follow_rule_does_not_shift_later_choices() -> None:
    calm, troubled = (UserPlans(SEED, Dtype.INT32, (5, 0, 0)) for _ in range(2))
    expected = [calm.choose() for _ in range(300)]
    for context in range(10):
        troubled.settle(context, ServerState.UNKNOWN)
    got = [troubled.choose() for _ in range(300)]
    assert [choice.context for choice in got] == [choice.context for choice in expected]
    differing = {before.pattern for before, after in zip(expected, got, strict=True) if before != after}
    assert differing == {"no_start"}


def test_the_mix_has_the_seeds_proportions() -> None:
    drawn = [plan for user in range(20) for plan in run(UserPlans(SEED, Dtype.INT32, (2, 0, user)), 1000)]
    rare = [plan.pattern for plan in drawn if plan.context >= 2]
    common = Counter(plan.pattern for plan in drawn if plan.context < 2)
    assert len(rare) / len(drawn) == pytest.approx(0.1, abs=0.01)
    shares = {name: count / common.total() for name, count in common.items()}
    expected = {"valid": 0.85, "valid_valid": 0.05, "valid_no_end": 0.05, "no_end": 0.04, "no_start": 0.01}
    assert shares == pytest.approx(expected, abs=0.01)
    expected = {"no_end": 0.33, "valid_no_end": 0.33, "valid_valid": 0.34}
    assert {name: count / len(rare) for name, count in Counter(rare).items()} == pytest.approx(expected, abs=0.03)


def test_lengths_and_values_have_the_seeds_distributions() -> None:
    drawn = [plan for user in range(5) for plan in run(UserPlans(SEED, Dtype.INT32, (3, 0, user)), 500)]
    sequences = [sequence for plan in drawn for sequence in plan.sequences if plan.pattern != "no_start"]
    lengths = [len(sequence.steps) for sequence in sequences]
    assert sum(lengths) / len(lengths) == pytest.approx(SEED.sequence.length.mean_drawn(), rel=0.02)
    assert min(lengths) == 1
    values = [step.value for sequence in sequences for step in sequence.steps]
    assert sum(values) / len(values) == pytest.approx(2**19, rel=0.02)
    assert 0 <= min(values) < 2**12 and 2**20 - 2**12 < max(values) < 2**20


def test_rare_contexts_take_turns_and_common_ones_do_not() -> None:
    contexts = [plan.context for plan in run(UserPlans(SEED, Dtype.INT32, (1, 0, 0)), 2000)]
    rare = [context for context in contexts if context >= 2]
    assert rare == [2 + turn % 8 for turn in range(len(rare))]
    common = [context for context in contexts if context < 2]
    assert common.count(0) / len(common) == pytest.approx(0.5, abs=0.05)


@given(seed_path=SEED_PATHS)
def test_the_same_seed_path_gives_the_same_plans(seed_path: tuple[int, ...]) -> None:
    assert run(UserPlans(SEED, Dtype.INT32, seed_path), 12) == run(UserPlans(SEED, Dtype.INT32, seed_path), 12)


def test_what_other_users_do_changes_nothing() -> None:
    alone = run(UserPlans(SEED, Dtype.INT32, (1, 0, 0)), 30)
    users = [UserPlans(SEED, Dtype.INT32, (1, 0, user)) for user in range(3)]
    together = [run(user, 1) for _ in range(30) for user in users]
    assert [plan for plans in together[::3] for plan in plans] == alone
    assert together[1] != together[0]


def test_a_plan_can_be_drawn_again_from_its_seed_path() -> None:
    for plan in run(UserPlans(SEED, Dtype.INT32, (1, 2, 3)), 20):
        assert redraw(SEED, Dtype.INT32, plan.seed_path, plan.pattern) == plan
        assert plan.seed_path == (1, 2, 3, plan.context, plan.number)


def test_the_order_of_weights_in_the_file_changes_nothing() -> None:
    one = scenario("contexts: {common: 1, rare: 0}\nmix: {common: {valid: 2, no_end: 1}}")
    other = scenario("contexts: {common: 1, rare: 0}\nmix: {common: {no_end: 1, valid: 2}}")
    assert run(UserPlans(one, Dtype.INT32, (1,)), 20) == run(UserPlans(other, Dtype.INT32, (1,)), 20)


def test_plans_are_the_same_on_every_python() -> None:
    """The digest was taken on Python 3.11 and is the same on 3.12 and 3.13; who changes it breaks every old seed."""
    shape = """
sequence:
  length: {distribution: normal, mean: 16, sd: 8}
  value: [{distribution: uniform, low: -5, high: 1000003}, {distribution: extremes, weight: 0.2}]
pacing: {mode: paced, think_ms: {distribution: uniform, min: 1, max: 9}}
"""
    plans = run(UserPlans(scenario(shape), Dtype.INT32, (20_240_229, 3, 7)), 200)
    rows = [
        (plan.pattern, plan.context, plan.number, step.start, step.end, step.value, step.answers, step.think_us)
        for plan in plans
        for sequence in plan.sequences
        for step in sequence.steps
    ]
    assert sha256(repr(rows).encode()).hexdigest()[:16] == "c815c7d1b360f293"


def test_chosen_patterns_keep_their_weights() -> None:
    chosen = frozenset({"valid_valid", "valid_no_end"})
    counted = Counter(plan.pattern for plan in run(UserPlans(SEED, Dtype.INT32, (1,), chosen), 400))
    assert set(counted) == chosen
    assert counted["valid_valid"] == pytest.approx(200, abs=40)


def test_a_kind_of_context_without_a_chosen_pattern_is_left_out() -> None:
    drawn = run(UserPlans(SEED, Dtype.INT32, (1,), frozenset({"valid"})), 200)
    assert {(plan.pattern, plan.context < 2) for plan in drawn} == {("valid", True)}


@pytest.mark.parametrize("chosen", [{"no_such"}, set()])
def test_no_chosen_pattern_at_all_is_an_error_that_names_the_choices(chosen: set[str]) -> None:
    with pytest.raises(InputError, match="Choose from no_end, no_start, valid, valid_no_end, valid_valid"):
        UserPlans(SEED, Dtype.INT32, (1,), frozenset(chosen))


def test_think_times_stand_between_the_steps_only() -> None:
    paced = scenario("pacing: {mode: paced, think_ms: {distribution: uniform, min: 5, max: 60}}")
    for name in PATTERNS:
        for sequence in redraw(paced, Dtype.INT32, (1, 0, 0, 0, 0), name).sequences:
            first, *others = (step.think_us for step in sequence.steps)
            assert first == 0
            assert all(5_000 <= think_us <= 60_000 for think_us in others)
