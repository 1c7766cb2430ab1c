"""Student's t and the boundary of repeated tests, against scipy, by enumeration and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.analysis.distributions import anytime_p_value, one_look_level, t_p_value, t_quantile

dfs = st.floats(0.5, 1e6)
levels = st.floats(1e-6, 0.5)


@given(st.floats(-60, 60), dfs)
def test_t_is_scipys(statistic: float, df: float) -> None:
    from scipy import stats

    expected = 2 * stats.t.sf(abs(statistic), df)
    assert t_p_value(statistic, df) == pytest.approx(expected, rel=1e-7, abs=1e-13)


@given(levels, dfs)
def test_a_quantile_has_its_p_value(level: float, df: float) -> None:
    assert t_p_value(t_quantile(level, df), df) == pytest.approx(level, rel=1e-6)


def test_infinitely_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    from scipy import stats

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


def test_over_all_walks_of_4_000_steps_one_in_twenty_is_ever_found() -> None:
    """Exactly: the probability of every place of a walk of ±1 that has not been found yet, step by step."""
    steps = 4_000
    alive, found = np.zeros(2 * steps + 1), 0.0
    alive[steps] = 1.0
    places = np.arange(-steps, steps + 1)
    for step in range(1, steps + 1):
        alive[1:-1] = (alive[:-2] + alive[2:]) / 2
        limit = t_quantile(one_look_level(0.05, step), math.inf) * math.sqrt(step)
        beyond = np.abs(places) >= limit
        found += alive[beyond].sum()
        alive[beyond] = 0.0
    assert found + alive.sum() == pytest.approx(1)
    assert 0.02 < found <= 0.05


@settings(max_examples=25)
@given(st.floats(0.1, 6), st.integers(30, 10**5))
def test_an_anytime_p_value_is_the_inverse_of_the_likelihood_ratio_of_a_mixture(
    z: float, traces: int
) -> None:
    """The mean, over normal effects of a tenth of a deviation, of how much likelier they make it."""
    from scipy import integrate, stats

    spread = 0.1
    width = 1 / math.sqrt(traces + 1 / spread**2)  # what is integrated is about so wide
    middle = z * math.sqrt(traces) * width**2

    def likelier(effect: float) -> float:
        gained = effect * z * math.sqrt(traces) - traces * effect**2 / 2
        return math.exp(gained - z**2 / 2) * float(stats.norm.pdf(effect, scale=spread))

    ratio, _ = integrate.quad(likelier, middle - 12 * width, middle + 12 * width, points=[middle])
    expected = min(1.0, math.exp(-(z**2) / 2) / ratio)
    assert anytime_p_value(2 * float(stats.norm.sf(z)), traces) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("df", [1e8, 1e13, 1e17])
def test_many_degrees_of_freedom_are_as_good_as_infinitely_many(df: float) -> None:
    assert t_p_value(1.96, df) == pytest.approx(t_p_value(1.96, math.inf))
    assert t_quantile(0.05, df) == pytest.approx(t_quantile(0.05, math.inf))
