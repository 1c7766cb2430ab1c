"""The intervals, against scipy and against what they promise."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wherefrom.analysis import Interval
from wherefrom.analysis.statistics import newcombe, quantile, quantile_interval, wilson

confidences = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def proportions(draw: st.DrawFn, most: int = 100_000) -> tuple[int, int]:
    trials = draw(st.integers(1, most))
    return draw(st.integers(0, trials)), trials


@given(proportions(), confidences)
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    expected = stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    found = wilson(*counts, confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@given(proportions(), confidences)
def test_wilson_holds_the_rate_and_stays_within_0_and_1(counts: tuple[int, int], confidence: float) -> None:
    found = wilson(*counts, confidence)
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
    found = wilson(*counts)
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
    found = newcombe(*counts, 0.95)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-4)


values = st.lists(st.integers(0, 10**9), min_size=1, max_size=200).map(sorted)
shares = st.sampled_from([0.01, 0.25, 0.5, 0.95, 0.99])


@given(values, shares)
def test_a_quantile_is_numpys(ordered: list[int], share: float) -> None:
    assert quantile(ordered, share) == pytest.approx(float(np.quantile(ordered, share)))


# Of these confidences none is met exactly by a binomial of the shares, where rounding would decide.
@given(st.integers(1, 20_000), shares, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_quantile_interval_is_scipys(count: int, share: float, confidence: float) -> None:
    """On the ranks themselves, so that it is the ranks which are compared."""
    ordered = range(count)
    expected = stats.quantile_test(np.arange(count), p=share).confidence_interval(confidence)
    found = quantile_interval(ordered, share, confidence)
    assert found.low == (None if np.isnan(expected.low) else expected.low)
    assert found.high == (None if np.isnan(expected.high) else expected.high)


def test_too_few_values_leave_an_end_open() -> None:
    """Five traces say nothing of how slow the slowest hundredth is."""
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
