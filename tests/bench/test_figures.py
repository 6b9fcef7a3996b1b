"""Figures are those of pairs that ran within one round."""

from bench.cases import CASES, Case, Engine
from bench.clients import Sample
from bench.figures import RATIOS, Spread, ratios
from bench.noise import Noise
from bench.report import noise_text


def round_with(cpu_us: dict[Engine, float]) -> dict[Case, Sample]:
    """Every case at the price of its engine."""
    return {case: Sample(1000, cpu_us[case.engine], 1000.0, None, None) for case in CASES}


def test_a_ratio_is_taken_within_its_round_so_that_a_slow_round_does_not_shift_it() -> None:
    usual = {Engine.COMPLETE: 50.0, Engine.REFERENCE: 500.0, Engine.WIRE: 25.0}
    slow = {engine: 3 * cost for engine, cost in usual.items()}
    found = ratios([round_with(usual), round_with(slow)])
    assert found.keys() == RATIOS.keys()
    assert set(found["complete_to_wire"].values()) == {Spread(2.0, 2.0, 2.0)}
    assert set(found["reference_to_complete"].values()) == {Spread(10.0, 10.0, 10.0)}


def test_a_spread_shows_the_extremes_beside_the_median() -> None:
    assert Spread.of([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)


def test_every_work_has_every_engine() -> None:
    works = {case.work for case in CASES}
    assert {(case.work, case.engine) for case in CASES} == {(work, engine) for work in works for engine in Engine}


def test_every_engine_sends_about_the_work_that_it_was_asked_for() -> None:
    for case in CASES:
        sent = case.sequences(24_000) * case.users * 16
        assert abs(sent / (24_000 * case.engine.work) - 1) < 0.02, case


def test_foreign_load_is_called_noise() -> None:
    assert "quiet" in noise_text([Noise(0.02, 100.0), Noise(0.05, 110.0)])
    assert "NOISY" in noise_text([Noise(0.02, 100.0), Noise(0.9, 100.0)])
