"""Confidence intervals, tests and histograms that assume no distribution and hold for few traces too.

Durations are counts by bucket: what is computed from them is as of durations rounded to within 1 %.

Functions have the names of statsmodels and scipy, whose results the tests compare them with.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import NormalDist
from types import MappingProxyType
from typing import Final, Literal, Protocol

from .._buckets import bucket_of, middle_of
from .lazy_numpy import np

_NORMAL: Final = NormalDist()
# A binomial tail this many standard deviations from the mean is below the precision of a float.
_FAR: Final = 10
_SIDES: Final[tuple[Literal["left"], Literal["right"]]] = ("left", "right")


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; ``None`` at an end that too few traces leave open."""

    low: float | None
    high: float | None


def proportion_confint(count: int, nobs: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion, without continuity correction.

    Wilson 1927, Probable inference, the law of succession, and statistical inference. JASA 22, 209-212.
    """
    return Interval(*_score_bounds(count, nobs, confidence))


def confint_proportions_2indep(
    count1: int, nobs1: int, count2: int, nobs2: int, confidence: float = 0.95
) -> Interval:
    """The Newcombe interval of ``count1 / nobs1 - count2 / nobs2``, from the two Wilson intervals.

    Newcombe 1998, Interval estimation for the difference between independent proportions: comparison of
    eleven methods. Statistics in Medicine 17, 873-890: method 10.
    """
    rate1, rate2 = count1 / nobs1, count2 / nobs2
    low1, high1 = _score_bounds(count1, nobs1, confidence)
    low2, high2 = _score_bounds(count2, nobs2, confidence)
    return Interval(
        rate1 - rate2 - math.hypot(rate1 - low1, high2 - rate2),
        rate1 - rate2 + math.hypot(high1 - rate1, rate2 - low2),
    )


class Ordered(Protocol):
    """Ascending values: a list, or a ``Sample``."""

    def __len__(self) -> int: ...
    def __getitem__(self, rank: int, /) -> float: ...


def quantile(ordered: Ordered, share: float) -> float:
    """The value below which ``share`` of the ascending values lie, interpolated between the two nearest.

    Definition 7 of Hyndman and Fan 1996, Sample quantiles in statistical packages. American Statistician 50,
    361-365: the default of numpy and pandas, and PostgreSQL's ``percentile_cont``.
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (high - low) * (place - below)


def quantile_interval(ordered: Ordered, share: float, confidence: float = 0.95) -> Interval:
    """The confidence interval of a quantile, between two of the ascending values.

    The number of values below the true quantile is binomial for any distribution. An end is ``None`` where
    even the outermost value does not reach the confidence. Conover 1999, Practical Nonparametric Statistics,
    3rd edition, section 3.2.
    """
    count, tail = len(ordered), (1 - confidence) / 2
    low = _binomial_quantile(count, share, tail) - 1
    high = count - _binomial_quantile(count, 1 - share, tail)
    return Interval(ordered[low] if low >= 0 else None, ordered[high] if high < count else None)


def _score_bounds(count: int, nobs: int, confidence: float) -> tuple[float, float]:
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    scale = 1 + z * z / nobs
    center = (count + z * z / 2) / nobs
    reach = z * math.sqrt(count * (nobs - count) / nobs + z * z / 4) / nobs
    # At the ends the bound is exactly 0 or 1, which rounding would miss.
    low = 0.0 if count == 0 else max(0.0, (center - reach) / scale)
    high = 1.0 if count == nobs else min(1.0, (center + reach) / scale)
    return low, high


def _binomial_quantile(trials: int, share: float, probability: float) -> int:
    """The smallest k for which at most k successes have at least this probability."""
    mean = trials * share
    deviation = math.sqrt(mean * (1 - share))
    successes = max(0, int(mean - _FAR * deviation - _FAR))
    powers = successes * math.log(share) + (trials - successes) * math.log1p(-share)
    mass = math.exp(_log_choose(trials, successes) + powers)
    end = min(trials, int(mean + _FAR * deviation) + _FAR)
    before = np.arange(successes, end)
    steps = (trials - before) / (before + 1) * (share / (1 - share))
    reached = np.cumsum(np.cumprod(np.concatenate([[mass], steps])))
    return min(end, successes + int(np.searchsorted(reached, probability)))


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)


# Tables as probable as the observed one count as extreme, although rounding makes them differ.
_ROUNDING: Final = 1 + 1e-9
_NEGLIGIBLE: Final = 1e-18  # smaller terms do not change a sum of floats


class Sample:
    """Durations as counts by bucket; as a sequence, the middle of each duration's bucket in µs, ascending."""

    def __init__(self, counts: Mapping[int, int] = MappingProxyType({})) -> None:
        self.buckets = sorted(bucket for bucket, count in counts.items() if count)
        self.counts = [counts[bucket] for bucket in self.buckets]
        self._reached = list(accumulate(self.counts))  # how many are in each bucket or below

    @classmethod
    def of(cls, durations_us: Iterable[int]) -> Sample:
        """The sample of durations in µs."""
        return cls(Counter(map(bucket_of, durations_us)))

    def __len__(self) -> int:
        return self._reached[-1] if self._reached else 0

    def __getitem__(self, rank: int) -> float:
        return middle_of(self.bucket_at(rank))

    def __add__(self, other: Sample) -> Sample:
        return Sample(Counter(dict(self.items())) + Counter(dict(other.items())))

    def items(self) -> Iterator[tuple[int, int]]:
        """Each bucket, ascending, and the number of durations in it."""
        return zip(self.buckets, self.counts, strict=True)

    def bucket_at(self, rank: int) -> int:
        """The bucket of the duration with so many before it.

        Raises:
            IndexError: there are not as many.
        """
        return self.buckets[bisect_right(self._reached, rank)]

    def below(self, bucket: int) -> int:
        """The number of durations in lower buckets."""
        place = bisect_left(self.buckets, bucket)
        return self._reached[place - 1] if place else 0


def fisher_exact(count1: int, nobs1: int, count2: int, nobs2: int) -> float:
    """The two-sided p-value of Fisher's exact test that two proportions are equal.

    It sums the probabilities of all tables with these totals that are not more probable than the observed
    one. Fisher 1935, The logic of inductive inference. J. Royal Statistical Society 98, 39-82.
    """
    table = _Hypergeometric(nobs1, nobs2, count1 + count2)
    limit = table.log_mass(count1) + math.log(_ROUNDING)
    if table.log_mass(table.mode) <= limit:
        return 1.0
    below = table.tail(_last_within(table, table.low, table.mode, limit), -1)
    above = table.tail(_last_within(table, table.high, table.mode, limit), +1)
    return min(1.0, below + above)


def superiority(first: Sample, second: Sample) -> float:
    """The probability that a duration of the first exceeds one of the second, of which neither is empty.

    It is the U statistic of Mann and Whitney over the number of pairs, of which those in one bucket count
    half: 0.5 where neither tends to be longer. Mann and Whitney 1947, On a test of whether one of two random
    variables is stochastically larger than the other. Annals of Mathematical Statistics 18, 50-60.
    """
    reached = np.array([0, *accumulate(second.counts)])
    below, within = (reached[np.searchsorted(second.buckets, first.buckets, side)] for side in _SIDES)
    return int((np.array(first.counts) * (below + within)).sum()) / (2 * len(first) * len(second))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, so that the family-wise error rate stays below the level.

    Holm 1979, A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6,
    65-70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class _Hypergeometric:
    """The number of the ``marked`` among ``size`` drawn from ``size + rest``."""

    def __init__(self, size: int, rest: int, marked: int) -> None:
        self._size, self._rest, self._marked = size, rest, marked
        self.low, self.high = max(0, marked - rest), min(marked, size)
        self.mode = (size + 1) * (marked + 1) // (size + rest + 2)
        self._log_total = _log_choose(size + rest, marked)

    def log_mass(self, count: int) -> float:
        """The logarithm of the probability of exactly ``count``."""
        ways = _log_choose(self._size, count) + _log_choose(self._rest, self._marked - count)
        return ways - self._log_total

    def tail(self, start: int | None, step: int) -> float:
        """The probability of ``start`` and of all counts beyond it in the direction of ``step``."""
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
    """The last count from ``end`` towards the mode whose mass is within the limit: masses grow that way."""
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


STEPS: Final = 32
"""The most steps of a histogram."""
# One trace in a thousand at each end must not squeeze all others together.
_ENDS: Final = (0.001, 0.999)
_LEAST_BUCKETS: Final = 21  # equal durations still have an axis: its ends differ by the factor 1.5


def make_edges(samples: Iterable[Sample]) -> tuple[int, ...]:
    """The first bucket of each step of a histogram, and of the step after it; none without durations."""
    ends = [
        [sample.bucket_at(round(share * (len(sample) - 1))) for share in _ENDS]
        for sample in samples
        if sample
    ]
    if not ends:
        return ()
    low = max(0, min(low for low, _ in ends))
    span = max(_LEAST_BUCKETS, max(high for _, high in ends) + 1 - low)
    width = math.ceil(span / STEPS)
    return tuple(range(low, low + span + width, width))


def count_steps(sample: Sample, edges: Sequence[int]) -> tuple[int, ...]:
    """The number of durations in each step; the first and the last step include those beyond."""
    if not edges:
        return ()
    places = map(sample.below, edges[1:-1])
    return tuple(high - low for low, high in pairwise([0, *places, len(sample)]))
