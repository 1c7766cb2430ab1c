"""Intervals that need no assumption about how durations are spread, and hold for few traces too."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from statistics import NormalDist
from typing import Final, NamedTuple, overload

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


# Tables as probable as the observed one count as at least as extreme, though rounding sets them apart.
_ROUNDING: Final = 1 + 1e-9
_NEGLIGIBLE: Final = 1e-18


class Sample(Sequence[int]):
    """Ascending values, compact, and what is worked out once for any number of tests."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._values = array("q", sorted(values))

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        return self._values[place]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    @cached_property
    def ties(self) -> int:
        """The sum of t³ - t over groups of t equal values."""
        return sum(count**3 - count for count in Counter(self._values).values() if count > 1)


class RankTest(NamedTuple):
    """What a test of ranks found.

    ``share`` is how often a value of the first group exceeds one of the second, ties counting half:
    0.5 where neither tends to be larger.
    """

    u: float
    p_value: float
    share: float


def fisher_exact(events: int, trials: int, other_events: int, other_trials: int) -> float:
    """The two-sided p-value for two proportions being one (Fisher 1935), exact for any counts.

    Sums the probability of every table with these totals that is no more probable than the observed one.
    """
    table = _Hypergeometric(trials, other_trials, events + other_events)
    limit = table.log_mass(events) + math.log(_ROUNDING)
    if table.log_mass(table.mode) <= limit:
        return 1.0
    below = table.tail(_last_within(table, table.low, table.mode, limit), -1)
    above = table.tail(_last_within(table, table.high, table.mode, limit), +1)
    return min(1.0, below + above)


def mann_whitney(first: Sample, second: Sample) -> RankTest:
    """The two-sided rank test of Mann and Whitney (1947), every value counted.

    The p-value is that of the normal approximation, corrected for ties and for continuity.
    """
    n, m = len(first), len(second)
    if n > m:
        u, p_value, share = mann_whitney(second, first)
        return RankTest(n * m - u, p_value, 1 - share)
    others = list(second)
    below = list(map(bisect_left, repeat(others), first))
    not_above = list(map(bisect_right, repeat(others), first))
    u = (sum(below) + sum(not_above)) / 2
    shared = Counter(
        (value, high - low) for value, low, high in zip(first, below, not_above, strict=True) if high > low
    )
    # Of t = a + b equal values: t³ - t is what it is for a and for b alone, and 3ab(a + b).
    ties = first.ties + second.ties + sum(3 * a * b * (a + b) for (_, b), a in shared.items())
    return RankTest(u, _normal_p_value(u, n, m, ties), u / (n * m))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, each made larger for how many there are, step by step (Holm 1979).

    Where none of the differences is real, the chance that any of the results is below 0.05 is at most 5 %.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class _Hypergeometric:
    """How many of ``marked`` fall among the first ``size``, when all are drawn from ``size + rest``."""

    def __init__(self, size: int, rest: int, marked: int) -> None:
        self._size, self._rest, self._marked = size, rest, marked
        self.low, self.high = max(0, marked - rest), min(marked, size)
        self.mode = (size + 1) * (marked + 1) // (size + rest + 2)
        self._log_total = _log_choose_exact(size + rest, marked)

    def log_mass(self, count: int) -> float:
        """The logarithm of the probability of exactly ``count``."""
        ways = _log_choose_exact(self._size, count) + _log_choose_exact(self._rest, self._marked - count)
        return ways - self._log_total

    def tail(self, start: int | None, step: int) -> float:
        """The probability of ``start`` and all that lies beyond it in the direction of ``step``."""
        if start is None:
            return 0.0
        mass = math.exp(self.log_mass(start))
        total, count = mass, start
        while mass > _NEGLIGIBLE * total and self.low <= count + step <= self.high:
            mass *= self._ratio(count) if step > 0 else 1 / self._ratio(count - 1)
            count += step
            total += mass
        return total

    def _ratio(self, count: int) -> float:
        """The probability of ``count + 1`` over that of ``count``."""
        more = (self._size - count) * (self._marked - count)
        return more / ((count + 1) * (self._rest - self._marked + count + 1))


def _last_within(table: _Hypergeometric, end: int, mode: int, limit: float) -> int | None:
    """From ``end`` towards the mode masses grow: the last count whose mass is within the limit."""
    if table.log_mass(end) > limit:
        return None
    within, beyond = end, mode
    while abs(beyond - within) > 1:
        middle = (within + beyond) // 2
        if table.log_mass(middle) <= limit:
            within = middle
        else:
            beyond = middle
    return within


def _normal_p_value(u: float, n: int, m: int, ties: int) -> float:
    total = n + m
    untied = total**3 - total - ties
    if not untied:  # all values are the same
        return 1.0
    deviation = math.sqrt(n * m * untied / (12 * total * (total - 1)))
    z = max(0.0, abs(u - n * m / 2) - 0.5) / deviation
    return math.erfc(z / math.sqrt(2))


def _log_choose_exact(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)


STEPS: Final = 32
# One trace in a thousand at each end must not squeeze all the others together.
_ENDS: Final = (0.001, 0.999)
_LEAST_RATIO: Final = 1.5


def make_edges(samples: Iterable[Sample]) -> tuple[float, ...]:
    """The bounds of the steps, in µs, ascending; none where there are no durations."""
    ends = [[quantile(sample, share) for share in _ENDS] for sample in samples if sample]
    if not ends:
        return ()
    low = max(1.0, min(low for low, _ in ends))
    high = max(low * _LEAST_RATIO, *(high for _, high in ends))
    each = (high / low) ** (1 / STEPS)
    return tuple(low * each**step for step in range(STEPS + 1))


def count_steps(sample: Sample, edges: Sequence[float]) -> tuple[int, ...]:
    """How many values fall into each step; the first and the last take those beyond them too."""
    if not edges:
        return ()
    places = [bisect_left(sample, math.ceil(edge)) for edge in edges[1:-1]]
    return tuple(high - low for low, high in zip([0, *places], [*places, len(sample)], strict=True))
