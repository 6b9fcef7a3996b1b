"""Capacity: known figures, and how they move."""

from math import inf

import pytest

from seqstress.plan.capacity import Capacity, estimate
from seqstress.scenario import parse_scenario

ONE = "contexts: {common: 1, rare: 0}\n"
VALID = ONE + "mix: {common: {valid: 1}}\nids: {policy: fresh}\n"


def capacity(extra: str = "", slots: int = 4, idle_limit_s: float = 1.0, step_s: float = 0.0005) -> Capacity:
    return estimate(parse_scenario(f"name: x\nmodel: {{name: m}}\n{extra}", "x"), slots, idle_limit_s, step_s)


def test_the_seeds_mix_with_fresh_ids_goes_26_times_a_second_through_4_slots() -> None:
    assert capacity("ids: {policy: fresh}").plans_per_s == pytest.approx(26, abs=0.5)


def test_kept_ids_hold_their_slots_for_less_long() -> None:
    fixed, fresh = capacity("ids: {policy: fixed}"), capacity("ids: {policy: fresh}")
    assert fixed.plans_per_s > fresh.plans_per_s * 1.2
    # With so many users that each context comes again after the idle limit only, keeping the ID gains nothing.
    many = "load: {users: 2000}\n"
    fixed, fresh = capacity(many + "ids: {policy: fixed}"), capacity(many + "ids: {policy: fresh}")
    assert fixed.plans_per_s == pytest.approx(fresh.plans_per_s)


def test_complete_sequences_hold_a_slot_for_their_steps_only() -> None:
    got = capacity(VALID + "sequence: {length: {distribution: constant, value: 10}}", slots=8, step_s=0.01)
    assert got.plans_per_s == got.sequences_per_s == pytest.approx(80)
    assert got.wait_s == 0


def test_think_times_hold_the_slot() -> None:
    paced = VALID + "sequence: {length: {distribution: constant, value: 11}}\n"
    paced += "pacing: {mode: paced, think_ms: {distribution: constant, value: 100}}"
    assert capacity(paced, slots=1, step_s=0.0).plans_per_s == pytest.approx(1)


def test_an_abandoned_sequence_of_one_context_is_taken_over_by_the_next_start() -> None:
    got = capacity(ONE + "mix: {common: {no_end: 1}}\nload: {users: 4}", slots=4, idle_limit_s=100)
    assert got.wait_s == pytest.approx(0, abs=1e-6)
    assert got.warnings == ()


def test_users_wait_for_what_the_slots_cannot_serve() -> None:
    got = capacity(VALID + "load: {users: 100}\nsequence: {length: {distribution: constant, value: 10}}", step_s=0.01)
    assert got.cycle_s == pytest.approx(100 / 40)
    assert got.wait_s == pytest.approx(100 / 40 - 0.1)


def test_a_wait_beyond_the_timeout_is_warned_of_with_figures_and_remedy() -> None:
    (warning,) = capacity("ids: {policy: fresh}\nload: {users: 200}").warnings
    assert "200 users on 4 slots" in warning
    assert "25.6 plans" in warning
    assert "queued" in warning
    limit = int(warning.split("Use fewer than ")[1].split(" users")[0])
    assert capacity(f"ids: {{policy: fresh}}\nload: {{users: {limit}}}").warnings == ()
    assert capacity(f"ids: {{policy: fresh}}\nload: {{users: {limit + 1}}}").warnings != ()


@pytest.mark.parametrize(("mode", "warned"), [("pipelined", False), ("lockstep", True)])
def test_a_wait_beyond_the_idle_limit_matters_in_lockstep_only(mode: str, warned: bool) -> None:
    got = capacity(VALID + f"load: {{users: 200}}\npacing: {{mode: {mode}}}", slots=8, step_s=0.005)
    assert 1 < got.wait_s < 5
    assert any("expired" in warning for warning in got.warnings) == warned


def test_sequences_longer_than_the_timeout_are_warned_of_without_any_wait() -> None:
    (warning,) = capacity(VALID + "load: {users: 1}\ntimeout_s: 0.1", step_s=0.02).warnings
    assert "timeout_s" in warning


def test_steps_longer_than_the_idle_limit_are_warned_of_in_lockstep() -> None:
    (warning,) = capacity(VALID + "load: {users: 1}\npacing: {mode: lockstep}", step_s=1.5).warnings
    assert "max_sequence_idle_microseconds" in warning


def test_a_mix_that_takes_no_slot_has_no_limit() -> None:
    got = capacity(ONE + "mix: {common: {no_start: 1}}")
    assert (got.plans_per_s, got.wait_s, got.warnings) == (inf, 0, ())


def test_a_plan_of_two_sequences_counts_twice_in_sequences() -> None:
    got = capacity(ONE + "mix: {common: {valid_valid: 1}}")
    assert got.sequences_per_s == pytest.approx(2 * got.plans_per_s)
