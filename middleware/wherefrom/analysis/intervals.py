"""Intervals that need no assumption about how durations are spread, and hold for few traces too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()
# A binomial tail this many standard deviations from the mean is below the precision of a float.
_FAR: Final = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies; ``None`` at an end that so few traces leave open."""

    low: float | None
    high: float | None


def wilson(events: int, trials: int, confidence: float = 0.95) -> Interval:
    """The score interval of a proportion (Wilson 1927), without continuity correction."""
    low, high = _wilson(events, trials, confidence)
    return Interval(low, high)


def newcombe(events: int, trials: int, other_events: int, other_trials: int, confidence: float) -> Interval:
    """The interval of ``events / trials - other_events / other_trials``.

    From the two Wilson intervals, as method 10 of Newcombe 1998 joins them.
    """
    rate, other = events / trials, other_events / other_trials
    low, high = _wilson(events, trials, confidence)
    other_low, other_high = _wilson(other_events, other_trials, confidence)
    return Interval(
        rate - other - math.hypot(rate - low, other_high - other),
        rate - other + math.hypot(high - rate, other - other_low),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the ascending values lie, interpolated between the two nearest.

    Definition 7 of Hyndman and Fan 1996: what numpy, pandas and PostgreSQL's ``percentile_cont`` answer.
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (high - low) * (place - below)


def quantile_interval(ordered: Sequence[float], share: float, confidence: float = 0.95) -> Interval:
    """Between which of the ascending values the true quantile lies: exact order statistics (Conover 1999).

    How many of n values lie below the true quantile is binomial, whatever their distribution is. An end
    is ``None`` where even the outermost value does not make it that sure.
    """
    count, tail = len(ordered), (1 - confidence) / 2
    low = _binomial_quantile(count, share, tail) - 1
    high = count - _binomial_quantile(count, 1 - share, tail)
    return Interval(ordered[low] if low >= 0 else None, ordered[high] if high < count else None)


def _wilson(events: int, trials: int, confidence: float) -> tuple[float, float]:
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    scale = 1 + z * z / trials
    center = (events + z * z / 2) / trials
    reach = z * math.sqrt(events * (trials - events) / trials + z * z / 4) / trials
    # At the ends the bound is exactly 0 or 1, which rounding would miss.
    low = 0.0 if events == 0 else max(0.0, (center - reach) / scale)
    high = 1.0 if events == trials else min(1.0, (center + reach) / scale)
    return low, high


def _binomial_quantile(trials: int, share: float, probability: float) -> int:
    """The least k for which at most k successes are at least this probable."""
    mean = trials * share
    successes = max(0, int(mean - _FAR * math.sqrt(mean * (1 - share)) - _FAR))
    odds = share / (1 - share)
    mass = math.exp(_log_choose(trials, successes) + _log_powers(trials, successes, share))
    total = mass
    while total < probability and successes < trials:
        mass *= (trials - successes) / (successes + 1) * odds
        successes += 1
        total += mass
    return successes


def _log_powers(trials: int, successes: int, share: float) -> float:
    return successes * math.log(share) + (trials - successes) * math.log1p(-share)


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)
