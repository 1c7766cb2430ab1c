"""Intervals, tests and corrections, against scipy, statsmodels and numpy; histograms by hand."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wherefrom._buckets import RATIO, bucket_of
from wherefrom.analysis import Interval, compare
from wherefrom.analysis.statistics import (
    STEPS,
    Sample,
    confint_proportions_2indep,
    count_steps,
    fisher_exact,
    holm_correction,
    make_edges,
    proportion_confint,
    quantile,
    quantile_interval,
    superiority,
)
from wherefrom.stores import Store

from .traffic import make_trace, release

confidences = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def proportions(draw: st.DrawFn, most: int = 100_000) -> tuple[int, int]:
    trials = draw(st.integers(1, most))
    return draw(st.integers(0, trials)), trials


@given(proportions(), confidences)
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    from scipy import stats

    expected = stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    found = proportion_confint(*counts, confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@given(proportions(), confidences)
def test_wilson_holds_the_rate_and_stays_within_0_and_1(counts: tuple[int, int], confidence: float) -> None:
    found = proportion_confint(*counts, confidence)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= counts[0] / counts[1] <= found.high <= 1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # Table I of Newcombe 1998 (single proportion), method 3.
        ((81, 263), (0.2553, 0.3662)),
        ((15, 148), (0.0624, 0.1605)),
        ((0, 20), (0.0, 0.1611)),
        ((1, 29), (0.0061, 0.1718)),
    ],
)
def test_wilson_is_as_published(counts: tuple[int, int], expected: tuple[float, float]) -> None:
    found = proportion_confint(*counts)
    assert (found.low, found.high) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Table II of Newcombe 1998, method 10.
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
    ],
)
def test_newcombe_is_as_published(counts: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    found = confint_proportions_2indep(*counts, 0.95)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-4)


@given(proportions(), proportions(), confidences)
def test_newcombe_is_that_of_statsmodels(
    counts: tuple[int, int], others: tuple[int, int], confidence: float
) -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep as newcombe

    found = confint_proportions_2indep(*counts, *others, confidence)
    expected = newcombe(*counts, *others, method="newcomb", compare="diff", alpha=1 - confidence)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


values = st.lists(st.integers(0, 10**9), min_size=1, max_size=200).map(sorted)
shares = st.sampled_from([0.01, 0.25, 0.5, 0.95, 0.99])


@given(values, shares)
def test_a_quantile_is_numpys(ordered: list[int], share: float) -> None:
    assert quantile(ordered, share) == pytest.approx(float(np.quantile(ordered, share)))


# Of these confidences none is met exactly by a binomial of the shares, where rounding would decide.
@given(st.integers(1, 20_000), shares, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_quantile_interval_is_scipys(count: int, share: float, confidence: float) -> None:
    """On the ranks themselves, so that it is the ranks which are compared."""
    from scipy import stats

    ordered = range(count)
    expected = stats.quantile_test(np.arange(count), p=share).confidence_interval(confidence)
    found = quantile_interval(ordered, share, confidence)
    assert found.low == (None if np.isnan(expected.low) else expected.low)
    assert found.high == (None if np.isnan(expected.high) else expected.high)


def test_too_few_values_leave_an_end_open() -> None:
    """Five traces cannot bound the 99th percentile."""
    assert quantile_interval([1, 2, 3, 4, 5], 0.99) == Interval(4, None)
    assert quantile_interval([1, 2], 0.5) == Interval(None, None)


def test_without_values_there_is_no_interval() -> None:
    assert quantile_interval([], 0.5) == Interval(None, None)


@pytest.mark.parametrize(("share", "true"), [(0.5, 0.0), (0.95, 1.6449)])
def test_quantile_intervals_hold_the_true_quantile_as_often_as_they_say(share: float, true: float) -> None:
    random = Random(7)
    intervals = [quantile_interval(sorted(random.gauss() for _ in range(200)), share) for _ in range(1000)]
    held = sum(found.low is not None and found.low <= true <= (found.high or true) for found in intervals)
    assert 940 <= held <= 990


few = proportions(most=300)
many = proportions(most=200_000)


@given(few, few)
@example((0, 1), (0, 1))
@example((1, 1), (0, 1))
@example((5, 10), (5, 10))
@example((20, 300), (20, 300))
def test_fisher_is_scipys(counts: tuple[int, int], others: tuple[int, int]) -> None:
    from scipy import stats

    table = [[counts[0], counts[1] - counts[0]], [others[0], others[1] - others[0]]]
    expected = stats.fisher_exact(table).pvalue
    assert fisher_exact(*counts, *others) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(many, st.floats(-4, 4), st.integers(1, 200_000))
@settings(max_examples=50)
def test_fisher_is_scipys_for_a_million_traces_too(
    counts: tuple[int, int], deviations: float, trials: int
) -> None:
    from scipy import stats

    rate = counts[0] / counts[1]
    shifted = round(trials * rate + deviations * (trials * rate * (1 - rate)) ** 0.5)
    others = min(max(shifted, 0), trials), trials
    table = [[counts[0], counts[1] - counts[0]], [others[0], others[1] - others[0]]]
    expected = stats.fisher_exact(table).pvalue
    assert fisher_exact(*counts, *others) == pytest.approx(expected, rel=1e-5, abs=1e-12)


@given(few, few)
def test_fisher_does_not_mind_which_comes_first(counts: tuple[int, int], others: tuple[int, int]) -> None:
    assert fisher_exact(*counts, *others) == pytest.approx(fisher_exact(*others, *counts))


def test_fisher_of_what_cannot_be_chance() -> None:
    assert fisher_exact(100_000, 500_000, 0, 500_000) == 0.0


buckets = st.lists(st.integers(-1, 30) | st.integers(-1, 2205), min_size=1, max_size=120)


@given(buckets, buckets)
def test_superiority_is_mann_and_whitneys_statistic_of_pairs(first: list[int], second: list[int]) -> None:
    from scipy import stats

    expected = stats.mannwhitneyu(first, second, method="asymptotic").statistic / (len(first) * len(second))
    assert superiority(Sample(Counter(first)), Sample(Counter(second))) == pytest.approx(expected)


def test_superiority_of_200_000_durations_is_almost_that_of_the_durations_themselves() -> None:
    from scipy import stats

    random = Random(3)
    first = [int(random.lognormvariate(11.5, 0.6)) for _ in range(90_000)]
    second = [int(random.lognormvariate(11.505, 0.6)) for _ in range(110_000)]
    expected = stats.mannwhitneyu(np.array(first), np.array(second), method="asymptotic")
    found = superiority(Sample.of(first), Sample.of(second))
    assert found == pytest.approx(expected.statistic / (len(first) * len(second)), rel=1e-4)


def test_superiority_of_more_durations_than_pairs_fit_in_32_bits() -> None:
    many = 10**9
    assert superiority(Sample({5: many}), Sample({4: many, 5: 2 * many, 6: many})) == 0.5
    assert superiority(Sample({7: 1}), Sample({4: many})) == 1.0


durations_us = st.lists(st.integers(0, 50) | st.integers(0, 10**11), min_size=1, max_size=100)


@given(durations_us, shares)
def test_a_quantile_of_a_sample_is_that_of_its_durations_to_1_percent(
    values: list[int], share: float
) -> None:
    sample = Sample.of(values)
    assert quantile(sample, share) == pytest.approx(float(np.quantile(values, share)), rel=0.01)
    exact, found = quantile_interval(sorted(values), share), quantile_interval(sample, share)
    for end, true in ((found.low, exact.low), (found.high, exact.high)):
        assert end == (None if true is None else pytest.approx(true, rel=0.01))


@given(durations_us, durations_us)
def test_a_sample_counts_its_durations(values: list[int], others: list[int]) -> None:
    sample = Sample.of(values)
    ordered = sorted(map(bucket_of, values))
    assert [sample.bucket_at(rank) for rank in range(len(sample))] == ordered
    assert dict(sample.items()) == Counter(ordered)
    for bucket in {*ordered, -2, 10_000}:
        assert sample.below(bucket) == sum(own < bucket for own in ordered)
    assert dict((sample + Sample.of(others)).items()) == Counter(map(bucket_of, [*values, *others]))


def test_a_sample_of_nothing() -> None:
    empty = Sample()
    assert (len(empty), empty.below(5), list(Sample({3: 0}).items())) == (0, 0, [])
    assert not empty + empty
    with pytest.raises(IndexError):
        empty.bucket_at(0)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_the_definition(p_values: list[float]) -> None:
    """Each adjusted p-value is the least level at which Holm's procedure rejects it."""
    from statsmodels.stats.multitest import multipletests

    adjusted = holm_correction(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        assert [p <= level for p in adjusted] == _rejected(p_values, level)
    if p_values:
        assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def _rejected(p_values: list[float], level: float) -> list[bool]:
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - step) * p_values[index] > level:
            break
        rejected[index] = True
    return rejected


def test_holm_by_hand() -> None:
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.6, 0.7]) == [1.0, 1.0]
    assert holm_correction([]) == []


@given(durations_us, durations_us)
def test_every_duration_is_counted_once(first: list[int], second: list[int]) -> None:
    samples = Sample.of(first), Sample.of(second)
    edges = make_edges(samples)
    assert 17 <= len(edges) - 1 <= STEPS
    assert list(edges) == sorted(edges)
    for sample in samples:
        counts = count_steps(sample, edges)
        assert len(counts) == len(edges) - 1
        assert sum(counts) == len(sample)


@given(durations_us)
def test_a_step_holds_what_lies_between_its_edges(durations: list[int]) -> None:
    sample = Sample.of(durations)
    edges = make_edges([sample])
    counts = count_steps(sample, edges)
    for place, count in enumerate(counts[1:-1], start=1):
        low, high = RATIO ** edges[place], RATIO ** edges[place + 1]
        assert count == sum(low <= duration < high for duration in durations)


def test_steps_are_of_equal_ratio_and_shared_by_all(store: Store) -> None:
    store.write([*release("1.0", 100, ms=50), *release("1.1", 100, first=100, ms=500)])
    found = compare(store=store)
    ratios = [high / low for low, high in zip(found.edges, found.edges[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert [sum(row.histogram) for row in found.rows] == [100, 100]
    p50 = found.rows[0].p50
    assert p50 is not None
    assert found.edges[0] < p50 < found.edges[-1]


def test_one_that_took_for_ever_does_not_squeeze_the_others(store: Store) -> None:
    slow = make_trace(5000, version="1.0", ms=3_600_000)
    store.write([*release("1.0", 2000, ms=50), slow])
    found = compare(store=store)
    assert found.edges[-1] < 1000
    assert sum(found.rows[0].histogram) == 2001


def test_without_durations_there_are_no_steps(store: Store) -> None:
    store.write([make_trace(0, version="1.0", ms=None)])
    found = compare(store=store)
    assert (found.edges, found.rows[0].histogram) == ((), ())
