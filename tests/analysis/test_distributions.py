"""Student's t and the boundary of repeated tests, against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wherefrom.analysis.distributions import anytime_p_value, one_look_level, t_p_value, t_quantile

dfs = st.floats(0.5, 1e6)
levels = st.floats(1e-6, 0.5)


@given(st.floats(-60, 60), dfs)
def test_t_is_scipys(statistic: float, df: float) -> None:
    expected = 2 * stats.t.sf(abs(statistic), df)
    assert t_p_value(statistic, df) == pytest.approx(expected, rel=1e-7, abs=1e-13)


@given(levels, dfs)
def test_a_quantile_has_its_p_value(level: float, df: float) -> None:
    assert t_p_value(t_quantile(level, df), df) == pytest.approx(level, rel=1e-6)


def test_infinitely_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert t_p_value(1.96, math.inf) == pytest.approx(2 * stats.norm.sf(1.96))
    assert t_quantile(0.05, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert t_p_value(math.inf, 3) == 0


@given(levels, st.integers(30, 10**7))
def test_the_level_of_one_look_is_that_of_all(level: float, traces: int) -> None:
    assert anytime_p_value(one_look_level(level, traces), traces) == pytest.approx(level, rel=1e-6)
    assert one_look_level(level, traces) < level


def test_one_in_twenty_is_ever_found_however_often_one_looks() -> None:
    """2,000 Brownian motions, looked at after each of 20,000 steps: 100 are expected at most."""
    random = np.random.default_rng(1)
    steps = np.unique(np.geomspace(30, 20_000, 400).astype(int))
    limits = np.array([t_quantile(one_look_level(0.05, int(n)), math.inf) for n in steps])
    grown = random.normal(size=(2000, len(steps))) * np.sqrt(np.diff(steps, prepend=0))
    ever = (np.abs(grown.cumsum(axis=1)) / np.sqrt(steps) > limits).any(axis=1)
    assert 20 < ever.sum() <= 100


@pytest.mark.parametrize("df", [1e8, 1e13, 1e17])
def test_many_degrees_of_freedom_are_as_good_as_infinitely_many(df: float) -> None:
    assert t_p_value(1.96, df) == pytest.approx(t_p_value(1.96, math.inf))
    assert t_quantile(0.05, df) == pytest.approx(t_quantile(0.05, math.inf))
