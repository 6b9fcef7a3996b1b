"""The histogram: exact where it says so, within its stated error elsewhere, and mergeable in any order."""

from math import ceil

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqstress.metrics.histogram import RELATIVE_ERROR, Histogram

durations = st.lists(st.integers(min_value=0, max_value=2**40), max_size=60)


def histogram_of(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def merged(*histograms):
    result = Histogram()
    for histogram in histograms:
        result.merge(histogram)
    return result


@given(durations.filter(bool), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_never_below_the_exact_one_and_above_it_by_the_stated_error_at_most(values, percent):
    exact = sorted(values)[max(1, ceil(round(len(values) * percent / 100, 9))) - 1]
    found = histogram_of(values).percentile(percent)
    assert exact <= found <= exact * (1 + RELATIVE_ERROR)


@given(durations)
def test_count_sum_and_extremes_are_exact(values):
    histogram = histogram_of(values)
    assert histogram.count == len(values)
    assert histogram.total == sum(values)
    assert (histogram.min, histogram.max) == (min(values, default=0), max(values, default=0))


@given(durations, durations, durations)
def test_merging_is_commutative_and_associative_and_equals_recording_together(a, b, c):
    x, y, z = histogram_of(a), histogram_of(b), histogram_of(c)
    assert merged(x, y) == merged(y, x)
    assert merged(merged(x, y), z) == merged(x, merged(y, z)) == histogram_of(a + b + c)


@given(durations)
def test_it_survives_the_way_to_the_master(values):
    histogram = histogram_of(values)
    assert Histogram.from_plain(msgpack.unpackb(msgpack.packb(histogram.to_plain()))) == histogram


@given(st.integers(min_value=0, max_value=2**50))
def test_every_value_falls_into_the_bucket_that_reports_it(value):
    histogram = histogram_of([value, 2**51])
    assert value <= histogram.percentile(50) <= value * (1 + RELATIVE_ERROR)


@given(st.integers(min_value=0, max_value=2**30), st.integers(min_value=0, max_value=20))
def test_recording_many_equals_recording_often(value, count):
    histogram = Histogram()
    histogram.record_many(value, count)
    assert histogram == histogram_of([value] * count)


def test_small_values_are_exact():
    assert [histogram_of(range(256)).percentile(100 * (n + 1) / 256) for n in range(256)] == list(range(256))


def test_a_negative_duration_is_refused_and_leaves_no_trace():
    histogram = histogram_of([10, 0])
    for value in (-1, -300):
        with pytest.raises(ValueError, match="another clock"):
            histogram.record(value)
    assert histogram == histogram_of([10, 0])


def test_an_empty_one_is_all_zero():
    histogram = Histogram()
    assert (histogram.count, histogram.percentile(99), histogram.min, histogram.max, histogram.mean) == (0, 0, 0, 0, 0)


def test_a_percentile_out_of_range_is_refused():
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(101)


def test_the_rank_of_a_decimal_percentile_does_not_suffer_from_floats():
    values = list(range(1, 1001))
    assert histogram_of([min(value, 200) for value in values]).percentile(19.9) == 199
