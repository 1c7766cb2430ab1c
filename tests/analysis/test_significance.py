"""The tests and the correction, against scipy and against what they promise."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from wherefrom.analysis.statistics import Sample, fisher_exact, holm, mann_whitney

from .test_intervals import proportions

few = proportions(most=300)
many = proportions(most=200_000)


@given(few, few)
@example((0, 1), (0, 1))
@example((1, 1), (0, 1))
@example((5, 10), (5, 10))
@example((20, 300), (20, 300))
def test_fisher_is_scipys(counts: tuple[int, int], others: tuple[int, int]) -> None:
    table = [[counts[0], counts[1] - counts[0]], [others[0], others[1] - others[0]]]
    expected = stats.fisher_exact(table).pvalue
    assert fisher_exact(*counts, *others) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(many, st.floats(-4, 4), st.integers(1, 200_000))
@settings(max_examples=50)
def test_fisher_is_scipys_for_a_million_traces_too(
    counts: tuple[int, int], deviations: float, trials: int
) -> None:
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


samples = st.lists(st.integers(-50, 50) | st.integers(-(10**12), 10**12), min_size=1, max_size=120)


@given(samples, samples)
def test_mann_whitney_is_scipys(first: list[int], second: list[int]) -> None:
    found = mann_whitney(Sample(first), Sample(second))
    expected = stats.mannwhitneyu(first, second, method="asymptotic")
    assert found.u == expected.statistic
    assert found.share == pytest.approx(expected.statistic / (len(first) * len(second)))
    if len({*first, *second}) > 1:  # scipy answers NaN where all are the same
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)
    else:
        assert found.p_value == 1.0


def test_mann_whitney_of_200_000_values_is_scipys() -> None:
    random = Random(3)
    first = [int(random.lognormvariate(11.5, 0.6)) for _ in range(90_000)]
    second = [int(random.lognormvariate(11.505, 0.6)) for _ in range(110_000)]
    expected = stats.mannwhitneyu(np.array(first), np.array(second), method="asymptotic")
    found = mann_whitney(Sample(first), Sample(second))
    assert found.u == expected.statistic
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@given(samples)
def test_a_sample_is_ascending_and_knows_its_ties(values: list[int]) -> None:
    sample = Sample(values)
    assert list(sample) == list(sample[:]) == sorted(values)
    assert sample[0] == min(values)
    assert sample.ties == sum(values.count(value) ** 2 - 1 for value in values)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_the_definition(p_values: list[float]) -> None:
    """Each adjusted p-value is the least level at which Holm's procedure rejects it."""
    adjusted = holm(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        assert [p <= level for p in adjusted] == _rejected(p_values, level)


def _rejected(p_values: list[float], level: float) -> list[bool]:
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - step) * p_values[index] > level:
            break
        rejected[index] = True
    return rejected


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
