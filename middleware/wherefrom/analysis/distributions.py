"""Student's t distribution, and the boundary of tests that may be repeated while traces arrive."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()
_TINY: Final = 1e-300
_PRECISION: Final = 1e-15
_MOST_TERMS: Final = 10_000
_FARTHEST: Final = 1e12
_FARTHEST_LOG: Final = math.log(_FARTHEST)
_MOST_STEPS: Final = 100
_NEAR: Final = 1e-6  # each step squares what is left
_AS_GOOD_AS_NORMAL: Final = 1e7  # degrees of freedom: above, the logarithms of gamma functions lose digits

# The traces of a side at which a repeated test is about as sharp as it can be: a few hundred to 100,000.
_TUNED_FOR: Final = 100


def t_p_value(statistic: float, df: float) -> float:
    """The two-sided p-value of a t statistic; ``df`` may be fractional, and infinite for a normal one."""
    if math.isinf(statistic):
        return 0.0
    if df > _AS_GOOD_AS_NORMAL:
        return math.erfc(abs(statistic) / math.sqrt(2))
    square = statistic * statistic
    return _incomplete_beta(df / 2, 0.5, df / (df + square), square / (df + square))


def t_quantile(p_value: float, df: float) -> float:
    """The t statistic whose two-sided p-value this is; at most 10¹²."""
    normal = min(_FARTHEST, -_NORMAL.inv_cdf(max(_TINY, p_value) / 2))
    if df > _AS_GOOD_AS_NORMAL or normal <= 0:
        return normal
    if t_p_value(_FARTHEST, df) > p_value:
        return _FARTHEST
    # Newton's method on logarithms: the p-value is concave there, so that it converges from anywhere.
    aim, place = math.log(max(_TINY, p_value)), math.log(normal + (normal**3 + normal) / (4 * df))
    for _ in range(_MOST_STEPS):
        statistic = math.exp(place)
        reached = max(_TINY, t_p_value(statistic, df))
        slope = 2 * max(_TINY, _density(statistic, df) * statistic)
        step = (math.log(reached) - aim) * reached / slope
        place = min(_FARTHEST_LOG, place + step)
        if abs(step) < _NEAR:
            break
    return math.exp(place)


def _density(statistic: float, df: float) -> float:
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    return scale * math.exp(-(df + 1) / 2 * math.log1p(statistic * statistic / df))


def anytime_p_value(p_value: float, traces: int) -> float:
    """The p-value of one look, widened so that a test may be repeated after every trace.

    The chance that it ever falls below a level is at most that level, for a statistic that behaves as a
    Brownian motion in the number of traces. It is the inverse of a normal mixture's likelihood ratio.
    Robbins 1970, Statistical methods related to the law of the iterated logarithm. Annals of Mathematical
    Statistics 41, 1397-1409; Lindon, Sanden and Shirikian 2022, Rapid regression detection in software
    deployments through sequential testing. KDD, 3336-3346.
    """
    ratio = traces / _TUNED_FOR
    square = _NORMAL.inv_cdf(max(_TINY, p_value) / 2) ** 2
    return min(1.0, math.sqrt(1 + ratio) * math.exp(-square * ratio / (2 * (1 + ratio))))


def one_look_level(level: float, traces: int) -> float:
    """The p-value of one look whose ``anytime_p_value`` is ``level``: for the intervals of repeated tests."""
    ratio = traces / _TUNED_FOR
    square = (1 + 1 / ratio) * (math.log1p(ratio) - 2 * math.log(level))
    return math.erfc(math.sqrt(square / 2))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularized incomplete beta function at ``x`` = 1 - ``rest``.

    By its continued fraction (DLMF 8.17.22), evaluated by the modified Lentz method.
    """
    if x <= 0 or rest <= 0:
        return float(x > 0)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _fraction(b, a, rest) / b
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    value = d
    for term in range(1, _MOST_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for coefficient in (even, odd):
            d = 1 / (1 + coefficient * d or _TINY)
            c = 1 + coefficient / c or _TINY
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value
