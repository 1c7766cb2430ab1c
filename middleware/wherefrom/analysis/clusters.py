"""Differences of two sides whose traces are not independent, from sums by block.

A block is one process in one stretch of time. Traces of a process share what makes that process fast or
slow; traces of a moment share its load. So the variance of a difference is estimated from how processes
differ from each other, and how stretches of time do, and not from how traces differ: two-way clustering
(Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering. J. Business & Economic
Statistics 29, 238-249), with t distributions for few clusters (Bell and McCaffrey 2002, Bias reduction in
standard errors for linear regression with multi-stage samples. Survey Methodology 28, 169-181).

The difference itself is stratified: it is the mean of the differences within each stratum, weighted by
n·m / (n + m), as Mantel and Haenszel weight differences of proportions.

All is computed for several measures and several parts of the strata at once, in arrays whose last axis is
that of the parts. The axes before it are, as far as there are any, those of measures, sides and clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from .distributions import anytime_p_value, one_look_level, t_p_value, t_quantile
from .lazy_numpy import np
from .statistics import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]

_LARGEST_CORRELATION: Final = 0.9
_LEAST_DF: Final = 0.5
_ONE: Final = 0.999  # squared shares of as good as one cluster
_LEAST_STRETCHES: Final = 3
_LEAST_SERIES: Final = 8  # the correlation of fewer stretches may be anything
_ROUNDING: Final = 1e-9
_LEAST_MEAN: Final = 1e-30  # the inverse squares of smaller ones may be no numbers
_KNOWN: Final = 0.3  # more finds more, and finds more that is not there: see benchmarks/verdicts.py


Kind = Literal["process", "stretch"]
KINDS: Final[tuple[Kind, Kind]] = ("process", "stretch")


def summed(values: Column, places: Column, size: int) -> Column:
    """The sums of the last axis by place."""
    rows = math.prod(values.shape[:-1])
    every = places + size * np.arange(rows)[:, None]
    return np.bincount(every.ravel(), values.ravel(), rows * size).reshape(*values.shape[:-1], size)


class Margin(NamedTuple):
    """Sums by side, stratum and cluster, in columns; ``traces`` and ``totals`` have a row for each measure.

    ``number`` is how many clusters there are: both sides number a process or a stretch of time alike.
    """

    number: int
    sides: Column
    strata: Column
    clusters: Column
    traces: Column
    totals: Column

    def scores(self, place: Column, expected: Column, square: Column, parts: Column, number: int) -> Column:
        """Score and share of each cluster, by measure, side, cluster and part.

        ``place``, ``expected`` and ``square`` are by measure, side and stratum: a trace adds its place, for
        each unit that its value is beyond what is expected, and the square to the information.
        """
        at = (slice(None), self.sides, self.strata)
        beyond = place[at] * (self.totals - self.traces * expected[at])
        both = np.stack([beyond, self.traces * square[at]])
        places = (self.sides * self.number + self.clusters) * number + parts[self.strata]
        return summed(both, places, 2 * self.number * number).reshape(*both.shape[:2], 2, self.number, number)


@dataclass(frozen=True, slots=True)
class Table:
    """Sums of values by measure, side and stratum, and their margins by process and by stretch of time.

    Traces of an unknown process are in no margin of processes.
    """

    traces: Column
    totals: Column
    squares: Column
    margins: Mapping[Kind, Margin]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a variance: that of the effect, and that of its own estimate as degrees of freedom."""

    variance: float = 0.0
    spread: float = 0.0
    """The variance of ``variance``, halved: variance² / df."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference with the variances that it has from traces, from processes and from the load over time.

    ``traces`` is the number of traces of the smaller side, ``processes`` that of each side. ``step`` is the
    difference that one trace more makes, for a continuity correction of shares.
    """

    effect: float
    traces: int
    sampling: float
    between_processes: Part
    over_time: Part
    processes: tuple[int, int]
    step: float = 0.0

    @property
    def variance(self) -> float:
        """The variance of the effect: at least what it would be if traces were independent."""
        # A sum of differences: rounding may leave less than nothing of what is zero.
        return max(0.0, self.sampling) + max(0.0, self.between_processes.variance + self.over_time.variance)

    @property
    def error(self) -> float:
        """The standard error of the effect."""
        return math.sqrt(self.variance)

    @property
    def df(self) -> float:
        """The degrees of freedom of the variance, by Satterthwaite."""
        spread = self.between_processes.spread + self.over_time.spread
        return max(0.1, self.variance**2 / spread) if spread else math.inf

    def scaled(self, unit: float) -> Estimate:
        """The same in another unit."""
        parts = [
            Part(unit**2 * part.variance, unit**4 * part.spread)
            for part in (self.between_processes, self.over_time)
        ]
        return replace(
            self,
            effect=unit * self.effect,
            sampling=unit**2 * self.sampling,
            between_processes=parts[0],
            over_time=parts[1],
        )

    def p_value(self, *, anytime: bool = False) -> float:
        """The two-sided p-value of no difference; ``anytime`` if the test is repeated as traces arrive."""
        if not self.variance:
            return 1.0
        p_value = t_p_value(max(0.0, abs(self.effect) - self.step / 2) / self.error, self.df)
        return anytime_p_value(p_value, self.traces) if anytime else p_value

    def reach(self, confidence: float, *, anytime: bool = False) -> float:
        """How far the ends of the confidence interval are from the effect."""
        level = one_look_level(1 - confidence, self.traces) if anytime else 1 - confidence
        return t_quantile(level, self.df) * self.error

    def interval(self, confidence: float, *, anytime: bool = False) -> Interval:
        """The confidence interval of the effect."""
        reach = self.reach(confidence, anytime=anytime)
        return Interval(self.effect - reach, self.effect + reach)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Effects, the scores of the clusters that they are sums of, and their variances of independent traces.

    A score is what a cluster adds to an effect beyond its expectation. ``clusters`` are scores and shares of
    the information by cluster; a cluster without a share is none. ``shares`` are those of each side, and
    ``noise`` is the variance from each. ``traces`` is the number of those compared of the smaller side: 0
    where no stratum has both. ``means`` are those of each side, weighted by stratum so that both have the
    same mix.
    """

    effect: Column
    traces: Column
    means: Column
    clusters: Mapping[Kind, Column]
    shares: Column
    noise: Column

    def summed(self, kind: Kind, *, paired: bool) -> Column:
        """Scores and shares by cluster of each side; of both together where clusters serve both."""
        found = self.clusters[kind]
        return found.sum(2, keepdims=True) if paired else found


class Terms(NamedTuple):
    """What parts of the strata add to a contrast: terms can be added.

    With the place p of a side in the difference of its stratum, and the mean b of both sides, a cluster of
    N traces with the sum T has the score p·(T - N·(b + e·p)) / I at the effect e and the information I. So of
    each cluster p·(T - N·b) and N·p² are kept, and of the noise the parts without e, with e, and with e².
    """

    by_side: Column
    """Traces, information, difference, means, scale, noise of equal shares, and the parts of the noise."""
    process: Column
    stretch: Column

    @classmethod
    def of(cls, table: Table, parts: Column, number: int) -> Terms:
        """The terms of so many parts of the strata; ``parts`` has that of each stratum."""
        shared = (table.traces.min(1) > 0)[:, None]
        traces = np.where(shared, table.traces, 1)
        size = traces.sum(1, keepdims=True)
        mean = table.totals.sum(1, keepdims=True) / size
        place = shared * traces[:, ::-1] / size * np.array([1, -1])[:, None]
        square, information = place * place, traces * place * place
        difference = (table.totals / traces * np.array([1, -1])[:, None]).sum(1, keepdims=True)
        beyond = table.totals - traces * mean
        by_side = [
            traces * shared,
            information,
            information * difference,
            information.sum(1, keepdims=True) * table.totals / traces,
            square * table.squares,
            information * mean * (1 - mean),
            square * _deviation(traces, table.totals, table.squares, mean),
            square * -2 * place * beyond,
            square * information,
        ]
        expected = np.broadcast_to(mean, place.shape)
        scores = (table.margins[kind].scores(place, expected, square, parts, number) for kind in KINDS)
        return cls(summed(np.stack(by_side), parts, number), *scores)

    @classmethod
    def joined(cls, every: Sequence[Terms]) -> Terms:
        """Those of several pairs of sides as measures of one: clusters and parts that a pair lacks are 0."""
        return cls(*map(_stacked, zip(*every, strict=True)))

    def all(self) -> Terms:
        """The sum of all parts."""
        return Terms(*(each.sum(-1, keepdims=True) for each in self))

    def rests(self) -> Terms:
        """For each part, the sum of all others."""
        return Terms(*map(_rests, self))

    def contrast(self, is_share: Column) -> Contrast:
        """The stratified differences of the means of two sides.

        ``is_share``: which measures are 0 or 1. A few traces that are all 0 do not show that they never are
        1, so their noise is at least what it would be if both sides had the same share.
        """
        traces, information, weighted, means, scale, alike, *noises = self.by_side
        whole = information.sum(1, keepdims=True)
        known = np.where(whole > 0, whole, 1.0)
        effect = weighted.sum(1, keepdims=True) / known
        least = _ROUNDING * scale.sum(1, keepdims=True)

        def noise_at(effect: Column) -> Column:
            """The variance by side. At no effect: of values that are all alike on each side."""
            found = noises[0] + effect * (noises[1] + effect * noises[2])
            noise: Column = np.where(found > least, found, 0.0) / known**2
            return noise

        noise, shares = noise_at(effect), is_share[:, None, None]
        own = noise.sum(1, keepdims=True)
        of_equal = alike / known**2
        noise = np.where(shares & (of_equal.sum(1, keepdims=True) > own), of_equal, noise)
        noise = np.where(~shares & (own == 0) & (effect != 0), noise_at(0.0 * effect), noise)
        clusters: dict[Kind, Column] = {}
        for kind, (score, share) in zip(KINDS, (self.process, self.stretch), strict=True):
            of = known[:, :, None]
            clusters[kind] = np.stack([score - effect[:, :, None] * share, share]) / of
        return Contrast(effect[:, 0], traces.min(1), means / known, clusters, information / known, noise)


def _stacked(arrays: Sequence[Column]) -> Column:
    """Arrays one after the other along their second axis, in the room of the largest."""
    first, *others = arrays
    if not others:
        return first
    _, _, *room = (max(sizes) for sizes in zip(*(each.shape for each in arrays), strict=True))
    found = np.zeros((len(first), sum(each.shape[1] for each in arrays), *room))
    begin = 0
    for each in arrays:
        number, *sizes = each.shape[1:]
        found[(slice(None), slice(begin, begin + number), *map(slice, sizes))] = each
        begin += number
    return found


def _rests(each: Column) -> Column:
    none = np.zeros_like(each[..., :1])
    before = np.concatenate([none, np.cumsum(each[..., :-1], -1)], -1)
    after = np.concatenate([np.cumsum(each[..., :0:-1], -1)[..., ::-1], none], -1)
    rests: Column = before + after
    return rests


def contrast(table: Table, *, is_share: bool = False) -> Contrast:
    """The stratified difference of the means of two sides, of all strata together."""
    whole = Terms.of(table, np.zeros(table.traces.shape[-1], np.int64), 1)
    return whole.contrast(np.full(len(table.traces), is_share))


def ratio(table: Table) -> Contrast | None:
    """The logarithm of the stratified ratio of the means of two sides; ``None`` if a mean is as good as 0.

    The table has one measure. Mantel and Haenszel's ratio, with scores by the delta method: Greenland and
    Robins 1985, Estimation of a common effect parameter from sparse follow-up data. Biometrics 41, 55-68.
    """
    shared = table.traces.min(1, keepdims=True) > 0
    traces = np.where(shared, table.traces, 1)
    totals, squares = shared * table.totals, shared * table.squares
    size = traces.sum(1, keepdims=True)
    first, second = (totals * traces[:, ::-1] / size).sum((0, 2)).tolist()
    if min(first, second) <= _LEAST_MEAN:
        return None
    times = first / second
    scale = np.array([[times], [1.0]])
    # The mean of side 1, if all strata have the same ratio.
    mean = totals.sum(1, keepdims=True) / (traces * scale).sum(1, keepdims=True)
    expected = mean * scale
    place = shared * traces[:, ::-1] / size * np.array([[1.0], [-times]]) / first
    noise = place**2 * _deviation(traces, totals, squares, expected)
    if not noise.any() and times != 1:  # of values that are all alike on each side
        alike = totals.sum(1, keepdims=True) / size
        information = (alike * traces.prod(1, keepdims=True) / size).sum()
        noise = (traces[:, ::-1] / size / information) ** 2 * _deviation(traces, totals, squares, alike)
    square, parts = (place * expected) ** 2, np.zeros(size.shape[-1], np.int64)
    weights = shared * traces.prod(1, keepdims=True) / size
    return Contrast(
        np.array([[math.log(times)]]),
        (traces * shared).sum(-1, keepdims=True).min(1),
        (weights * totals / traces).sum(-1, keepdims=True) / weights.sum(),
        {kind: margin.scores(place, expected, square, parts, 1) for kind, margin in table.margins.items()},
        (traces * square).sum(-1, keepdims=True),
        noise.sum(-1, keepdims=True),
    )


def _deviation(traces: Column, totals: Column, squares: Column, expected: Column) -> Column:
    """The sum of the squared deviations of the values from what is expected."""
    deviation = squares - 2 * expected * totals + traces * expected**2
    return np.where(deviation > _ROUNDING * squares, deviation, 0.0)


def against_rest(one: Contrast, rest: Contrast) -> Contrast:
    """How much more one part of the traces differs than the rest: what all parts share cancels out."""
    halves = np.array([1.0, 0.5]).reshape(2, 1, 1, 1, 1)
    signs = np.array([-1.0, 0.5]).reshape(2, 1, 1, 1, 1)
    return Contrast(
        one.effect - rest.effect,
        np.where(rest.traces > 0, one.traces, 0),
        one.means,
        {kind: halves * one.clusters[kind] + signs * rest.clusters[kind] for kind in KINDS},
        (one.shares + rest.shares) / 2,
        one.noise + rest.noise,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """What the sides of a comparison share.

    ``same_processes``: most processes serve both; ``same_time``: stretches of time have both.
    """

    same_processes: bool
    same_time: bool


class Excess(NamedTuple):
    """By side, or for both where clusters serve both: the variance of one cluster beyond its traces' noise.

    ``df`` are those of both together: 0 where clusters show nothing. The effect has ``multiple`` times the
    variance of one cluster.
    """

    variance: Column
    noise: Column
    df: Column
    multiple: Column

    def spread(self, variance: Column) -> Column:
        """The variance of the variance, halved, if it is as given; a part of the noise is known."""
        uncertain = np.maximum(0.0, variance) + (1 - _KNOWN) * self.noise
        return np.where(self.df > 0, uncertain**2 / np.where(self.df > 0, self.df, 1.0), 0.0)


class Pooled(NamedTuple):
    """The mean of excesses, and the variance of that mean, halved; ``is_known`` where clusters show one."""

    variance: Column
    spread: Column
    is_known: Column


class Excesses(NamedTuple):
    """The excesses of a contrast, and the number of processes of each side."""

    processes: Excess
    stretches: Excess
    counts: Column

    def where(self, chosen: Column) -> Excesses:
        """Those of the chosen measures and parts; the others show nothing."""
        processes, stretches = (
            each._replace(df=each.df * chosen[:, None]) for each in (self.processes, self.stretches)
        )
        return Excesses(processes, stretches, self.counts)


def find_excesses(found: Contrast, setting: Setting) -> Excesses:
    """The excesses of the processes and of the stretches of a contrast.

    Stretches that follow each other are alike where load drifts slowly: the variance is multiplied, and its
    df divided, by (1 + r) / (1 - r) with their correlation r, corrected for its bias in short series
    (Kendall 1954, Note on bias in the estimation of autocorrelation. Biometrika 41, 403-404). Fewer than
    three stretches (by the inverse of the sum of their squared shares) show no variance.
    """
    of_processes, processes_own = found.summed("process", paired=setting.same_processes)
    of_stretches, stretches_own = found.summed("stretch", paired=setting.same_time)
    factor = 1.0 if setting.same_time else _slowness(of_stretches, stretches_own)
    processes = _excess(found, of_processes, processes_own)
    stretches = _excess(found, of_stretches, stretches_own, factor)
    is_enough = stretches.multiple * _LEAST_STRETCHES <= 1 + _ROUNDING
    counts = np.broadcast_to((processes_own > 0).sum(2), found.shares.shape)
    return Excesses(processes, stretches._replace(df=stretches.df * is_enough), counts)


def _excess(found: Contrast, scores: Column, own: Column, factor: Column | float = 1.0) -> Excess:
    """The excess of clusters with these scores and shares of the information.

    Each squared score is divided by what it is expected to be too small by, as the mean is estimated from the
    same clusters: the larger of two corrections, for equal variances of traces and of clusters. Their df are
    those of the sum.
    """
    whole = own.sum(2)
    known = np.where(whole > 0, whole, 1.0)
    shares = own / known[:, :, None]
    squares = (shares * shares).sum(2)
    is_one = ((own > 0).sum(2) < 2) | (squares > _ONE)
    expected = 1 - 2 * shares + squares[:, :, None]
    parts = np.where(is_one[:, :, None], 1.0, np.minimum(1 - shares, expected))
    loads = shares * shares / parts
    trace = (loads * expected).sum(2)
    a, b, c = ((loads * each).sum(2) for each in (1.0, shares, shares * shares))
    crossed = (squares * a) ** 2 + 2 * a * c - 4 * squares * a * b + 2 * b * b
    each = (loads * loads * (1 + 2 * (squares[:, :, None] - 2 * shares))).sum(2)
    df = np.where(
        is_one, 0.0, np.maximum(_LEAST_DF, trace**2 / np.where(is_one, 1.0, each + crossed) / factor)
    )
    paired = own.shape[1] == 1
    of_sides, noise = (each.sum(1, keepdims=True) if paired else each for each in (found.shares, found.noise))
    part = known / np.where(of_sides > 0, of_sides, 1.0)
    times = np.where(squares > 0, squares, 1.0)
    noise = np.where(squares > 0, noise / (part * times), 0.0)
    variance = factor * (scores * scores / parts).sum(2) / (part**2 * times) - noise
    return Excess(np.where(is_one, 0.0, variance), noise, df, squares)


def _slowness(scores: Column, own: Column) -> Column:
    lengths = (own > 0).sum(2, keepdims=True)
    # What rounding leaves of 0 is no drift, as where one side never failed.
    least = _ROUNDING * np.abs(scores).max((1, 2), keepdims=True, initial=0.0)
    scores = np.where(np.abs(scores) > least, scores, 0.0)
    # Those that are there in order of time, then the others, whose score is 0.
    order = np.argsort(own <= 0, axis=2, kind="stable")
    series = np.where(lengths >= _LEAST_SERIES, np.take_along_axis(scores, order, 2), 0.0)
    products, squares = (
        (one * other).sum((1, 2), keepdims=True)[:, 0]
        for one, other in ((series[:, :, :-1], series[:, :, 1:]), (series, series))
    )
    shortest = np.where(lengths >= _LEAST_SERIES, lengths, np.inf).min(1)
    correlation = products / np.where(squares > 0, squares, 1.0) * (1 + 4 / shortest)
    correlation = np.clip(correlation, 0.0, _LARGEST_CORRELATION)
    slowness: Column = (1 + correlation) / (1 - correlation)
    return slowness


def pooled(excess: Excess, axis: tuple[int, ...] = (1,), *, by_noise: bool = False) -> Pooled:
    """The mean of excesses that are the same but for chance.

    ``by_noise``: those with less noise weigh more, as strata of many traces do.
    """
    weights = excess.df
    if by_noise:
        weights = np.where(
            excess.noise > 0, weights / np.where(excess.noise > 0, excess.noise, 1.0) ** 2, 0.0
        )
    whole = weights.sum(axis, keepdims=True)
    shares = weights / np.where(whole > 0, whole, 1.0)
    variance = (shares * excess.variance).sum(axis, keepdims=True)
    spread = (shares**2 * excess.spread(variance)).sum(axis, keepdims=True)
    return Pooled(variance, spread, whole > 0)


def _borrowed(known: Excess) -> Pooled:
    """The excess of one stretch, which tells nothing of the load over time, as that of the other side.

    Its df are those of the other side's stretches: how noisy they are does not make this side's vary.
    """
    variance = np.maximum(0.0, pooled(known).variance)
    df = known.df.sum(1, keepdims=True)
    return Pooled(variance, variance**2 / np.where(df > 0, df, 1.0), df > 0)


def estimate(
    found: Contrast,
    setting: Setting,
    *,
    assumed: Column | float = 0.0,
    excesses: Excesses | None = None,
    processes: Pooled | None = None,
    stretches: Pooled | None = None,
) -> list[list[Estimate]]:
    """The effects with their variances, by measure and part.

    ``assumed`` is the standard deviation of processes where neither side has two, of each measure.
    ``excesses`` are those of the contrast where they are known already; ``processes`` and ``stretches`` are
    known better than from each contrast alone.
    """
    own, of_time, counts = excesses or find_excesses(found, setting)
    scale = own.multiple.sum(1, keepdims=True)
    alone = np.zeros_like(scale)
    if not setting.same_processes:
        alone += scale * np.reshape(assumed, (-1, 1, 1)) ** 2
    excess = _or(processes, pooled(own))
    between = np.where(excess.is_known, scale * excess.variance, alone)
    between_spread = np.where(excess.is_known, scale**2 * excess.spread, 0.0)
    each = _or(Pooled(of_time.variance, of_time.spread(of_time.variance), of_time.df > 0), _borrowed(of_time))
    each = _or(stretches, each)
    columns = (
        found.noise.sum(1),
        between[:, 0],
        between_spread[:, 0],
        (of_time.multiple * each.variance).sum(1),
        (of_time.multiple**2 * each.spread).sum(1),
        counts[:, 0],
        counts[:, 1],
    )
    return [
        [
            Estimate(effect, int(traces), noise, Part(*parts[:2]), Part(*parts[2:4]), (parts[4], parts[5]))
            for effect, traces, noise, *parts in zip(*of_measure, strict=True)
        ]
        for of_measure in zip(
            *(column.tolist() for column in (found.effect, found.traces, *columns)), strict=True
        )
    ]


def _or(known: Pooled | None, other: Pooled) -> Pooled:
    """What is known, and the other where it is not."""
    if known is None:
        return other
    return Pooled(*(np.where(known.is_known, *both) for both in zip(known, other, strict=True)))
