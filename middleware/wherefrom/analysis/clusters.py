"""Differences of two sides whose traces are not independent, from sums by block.

A block is one process in one stretch of time. Traces of a process share what makes that process fast or
slow; traces of a moment share its load. So the variance of a difference is estimated from how processes
differ from each other, and how stretches of time do, and not from how traces differ: two-way clustering
(Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering. J. Business & Economic
Statistics 29, 238-249), with t distributions for few clusters (Bell and McCaffrey 2002, Bias reduction in
standard errors for linear regression with multi-stage samples. Survey Methodology 28, 169-181).

The difference itself is stratified: it is the mean of the differences within each stratum, weighted by
n·m / (n + m), as Mantel and Haenszel weight differences of proportions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import add
from typing import Final, Literal, NamedTuple

from .distributions import anytime_p_value, one_look_level, t_p_value, t_quantile
from .statistics import Interval

_LARGEST_CORRELATION: Final = 0.9
_LEAST_DF: Final = 0.5
_LEAST_STRETCHES: Final = 3
_LEAST_SERIES: Final = 8  # the correlation of fewer stretches may be anything
_ROUNDING: Final = 1e-9
_LEAST_MEAN: Final = 1e-30  # the inverse squares of smaller ones may be no numbers
_KNOWN: Final = 0.3  # more finds more, and finds more that is not there: see benchmarks/verdicts.py


class Sums(NamedTuple):
    """Sums over traces: how many, of their values, of the values squared."""

    traces: int = 0
    total: float = 0.0
    squares: float = 0.0


Kind = Literal["process", "stretch"]
_KINDS: Final[tuple[Kind, Kind]] = ("process", "stretch")
Cluster = tuple[int, Hashable]
"""A side and its process or stretch. Side 0 or 1: a difference is side 0 minus side 1."""
Margin = Sequence[tuple[int, Hashable, Hashable, int, float]]
"""Side, stratum and cluster, with the number of traces and the sum of their values."""


@dataclass(frozen=True, slots=True)
class Table:
    """Sums of values by stratum and side, and their margins by process and by stretch of time.

    Traces of an unknown process are in no margin of processes.
    """

    strata: Mapping[Hashable, tuple[Sums, Sums]]
    margins: Mapping[Kind, Margin]

    @classmethod
    def joined(cls, tables: Iterable[Table]) -> Table:
        """One table of several that have other strata."""
        strata: dict[Hashable, tuple[Sums, Sums]] = {}
        margins: dict[Kind, list[tuple[int, Hashable, Hashable, int, float]]] = {kind: [] for kind in _KINDS}
        for table in tables:
            strata |= table.strata
            for kind in _KINDS:
                margins[kind] += table.margins[kind]
        return cls(strata, margins)

    def shared(self) -> dict[Hashable, tuple[Sums, Sums]]:
        """The strata that both sides have."""
        return {stratum: both for stratum, both in self.strata.items() if both[0].traces and both[1].traces}


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


_ByCluster = Mapping[int, Mapping[Hashable, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Contrast:
    """An effect, the scores of the clusters that it is the sum of, and its variance of independent traces.

    A score is what a cluster adds to the effect beyond its expectation. ``clusters`` are scores and shares of
    the information, ``shares`` those of each side, and ``noise`` is the variance from each side.
    """

    effect: float
    traces: int
    clusters: Mapping[Kind, Mapping[Cluster, Sequence[float]]]
    shares: tuple[float, float]
    noise: tuple[float, float]

    def summed(self, kind: Kind, *, paired: bool) -> _ByCluster:
        """Score and share by cluster, for each side; all under side 0 where clusters serve both sides.

        A side whose clusters have no share of the information is left out, as where none of them has tokens.
        """
        found: dict[int, dict[Hashable, list[float]]] = {0: {}, 1: {}}
        for (side, cluster), (score, share) in self.clusters[kind].items():
            sums = found[0 if paired else side].setdefault(cluster, [0.0, 0.0])
            sums[0] += score
            sums[1] += share
        return {side: sums for side, sums in found.items() if any(share for _, share in sums.values())}


class Terms:
    """What the strata of a table add to a contrast: terms of several tables can be added.

    With the place p of a side in the difference of its stratum, and the mean b of both sides, a cluster of
    N traces with the sum T has the score p·(T - N·(b + e·p)) / I at the effect e and the information I. So of
    each cluster p·(T - N·b) and N·p² are kept, and of the noise the parts without e, with e, and with e².
    """

    def __init__(self, table: Table | None = None) -> None:
        self.information = self.weighted = self.scale = 0.0
        self.traces = [0, 0]
        self.shares = [0.0, 0.0]
        self.alike = [0.0, 0.0]
        self.noise = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        self.clusters: dict[Kind, dict[Cluster, list[float]]] = {kind: {} for kind in _KINDS}
        if table is not None:
            self._add(table)

    def _add(self, table: Table) -> None:
        places: dict[Hashable, tuple[float, tuple[float, float]]] = {}
        for stratum, (first, second) in table.shared().items():
            n, m = first.traces, second.traces
            mean = (first.total + second.total) / (n + m)
            self.weighted += n * m / (n + m) * (first.total / n - second.total / m)
            self.information += n * m / (n + m)
            places[stratum] = mean, (m / (n + m), -n / (n + m))
            for side, (sums, place) in enumerate(zip((first, second), places[stratum][1], strict=True)):
                square, beyond = place * place, sums.total - sums.traces * mean
                self.traces[side] += sums.traces
                self.shares[side] += sums.traces * square
                self.alike[side] += sums.traces * square * mean * (1 - mean)
                self.scale += square * sums.squares
                for power, part in enumerate(
                    (_deviation(sums, mean), -2 * place * beyond, sums.traces * square)
                ):
                    self.noise[side][power] += square * part
        for kind in _KINDS:
            clusters = self.clusters[kind]
            for side, stratum, cluster, traces, total in table.margins[kind]:
                if stratum in places:
                    mean, of_sides = places[stratum]
                    sums_of = clusters.setdefault((side, cluster), [0.0, 0.0])
                    sums_of[0] += of_sides[side] * (total - traces * mean)
                    sums_of[1] += traces * of_sides[side] ** 2

    def __add__(self, other: Terms) -> Terms:
        found = Terms()
        found.information = self.information + other.information
        found.weighted = self.weighted + other.weighted
        found.scale = self.scale + other.scale
        found.traces = [*map(add, self.traces, other.traces)]
        found.shares = [*map(add, self.shares, other.shares)]
        found.alike = [*map(add, self.alike, other.alike)]
        found.noise = [[*map(add, *both)] for both in zip(self.noise, other.noise, strict=True)]
        for kind, clusters in found.clusters.items():
            clusters.update(self.clusters[kind])
            for cluster, sums in other.clusters[kind].items():
                known = clusters.get(cluster)
                clusters[cluster] = sums if known is None else [known[0] + sums[0], known[1] + sums[1]]
        return found

    def contrast(self, *, is_share: bool = False) -> Contrast | None:
        """The stratified difference of the means of two sides; ``None`` without a stratum that both have.

        ``is_share``: the values are 0 or 1. A few traces that are all 0 do not show that they never are 1, so
        their noise is at least what it would be if both sides had the same share.
        """
        if not self.information:
            return None
        effect = self.weighted / self.information
        noise = self._noise(effect)
        if is_share:
            noise = max(noise, self._per_information(self.alike), key=sum)
        elif not sum(noise) and effect:
            noise = self._noise(0.0)
        return Contrast(
            effect,
            min(self.traces),
            {
                kind: {
                    cluster: ((score - effect * share) / self.information, share / self.information)
                    for cluster, (score, share) in clusters.items()
                }
                for kind, clusters in self.clusters.items()
            },
            (self.shares[0] / self.information, self.shares[1] / self.information),
            noise,
        )

    def _noise(self, effect: float) -> tuple[float, float]:
        """The variance by side. At no effect: of values that are all alike on each side."""
        parts = [constant + effect * (once + effect * twice) for constant, once, twice in self.noise]
        least = _ROUNDING * self.scale
        return self._per_information([part if part > least else 0.0 for part in parts])

    def _per_information(self, parts: Sequence[float]) -> tuple[float, float]:
        return parts[0] / self.information**2, parts[1] / self.information**2


def contrast(table: Table, *, is_share: bool = False) -> Contrast | None:
    """The stratified difference of the means of two sides, as ``Terms.contrast``."""
    return Terms(table).contrast(is_share=is_share)


def rests(parts: Sequence[Terms]) -> list[Terms]:
    """For each part, the sum of all others."""
    before = list(accumulate(parts, initial=Terms()))
    after = list(accumulate(reversed(parts), initial=Terms()))[::-1]
    return [one + other for one, other in zip(before[:-1], after[1:], strict=True)]


def ratio(table: Table) -> Contrast | None:
    """The logarithm of the stratified ratio of the means of two sides; ``None`` if a mean is as good as 0.

    Mantel and Haenszel's ratio, with scores by the delta method: Greenland and Robins 1985, Estimation of a
    common effect parameter from sparse follow-up data. Biometrics 41, 55-68.
    """
    shared = table.shared()
    first, second = (
        sum(both[side].total * both[1 - side].traces / _size(both) for both in shared.values())
        for side in (0, 1)
    )
    if min(first, second) <= _LEAST_MEAN:
        return None
    times = first / second
    shares, noise, places = [0.0, 0.0], [0.0, 0.0], {}
    for stratum, both in shared.items():
        n, m = both[0].traces, both[1].traces
        mean = (both[0].total + both[1].total) / (n * times + m)  # of side 1, if all have the same ratio
        places[stratum] = tuple(
            (place / (first * (n + m)), expected)
            for place, expected in ((m, mean * times), (-n * times, mean))
        )
        for side, (place, expected) in enumerate(places[stratum]):
            shares[side] += both[side].traces * (place * expected) ** 2
            noise[side] += place**2 * _deviation(both[side], expected)
    if not sum(noise) and times != 1:
        information = sum(
            both[0].traces * both[1].traces * (both[0].total + both[1].total) / _size(both) ** 2
            for both in shared.values()
        )
        noise = _noise_of_no_difference(shared.values(), information)
    clusters: dict[Kind, dict[Cluster, list[float]]] = {kind: {} for kind in _KINDS}
    for kind, of_kind in clusters.items():
        for side, stratum, cluster, traces, total in table.margins[kind]:
            if stratum in places:
                place, expected = places[stratum][side]
                sums = of_kind.setdefault((side, cluster), [0.0, 0.0])
                sums[0] += place * (total - traces * expected)
                sums[1] += traces * (place * expected) ** 2
    fewest = min(sum(both[side].traces for both in shared.values()) for side in (0, 1))
    return Contrast(math.log(times), fewest, clusters, (shares[0], shares[1]), (noise[0], noise[1]))


def _size(both: tuple[Sums, Sums]) -> int:
    return both[0].traces + both[1].traces


def _noise_of_no_difference(strata: Iterable[tuple[Sums, Sums]], information: float) -> list[float]:
    """The variance by side of values that are all alike on each side."""
    noise = [0.0, 0.0]
    for both in strata:
        mean = (both[0].total + both[1].total) / _size(both)
        for side in (0, 1):
            place = both[1 - side].traces / _size(both)
            noise[side] += place**2 * _deviation(both[side], mean) / information**2
    return noise


def _deviation(sums: Sums, expected: float) -> float:
    """The sum of the squared deviations of the values from what is expected."""
    deviation = sums.squares - 2 * expected * sums.total + sums.traces * expected**2
    return deviation if deviation > _ROUNDING * sums.squares else 0.0


def against_rest(one: Contrast, rest: Contrast) -> Contrast:
    """How much more one part of the traces differs than the rest: what all parts share cancels out."""
    clusters: dict[Kind, dict[Cluster, list[float]]] = {}
    for kind in _KINDS:
        of_kind = clusters[kind] = {
            cluster: [-score, share / 2] for cluster, (score, share) in rest.clusters[kind].items()
        }
        for cluster, (score, share) in one.clusters[kind].items():
            sums = of_kind.setdefault(cluster, [0.0, 0.0])
            sums[0] += score
            sums[1] += share / 2
    shares = (one.shares[0] + rest.shares[0]) / 2, (one.shares[1] + rest.shares[1]) / 2
    noise = one.noise[0] + rest.noise[0], one.noise[1] + rest.noise[1]
    return Contrast(one.effect - rest.effect, one.traces, clusters, shares, noise)


class _Clusters(NamedTuple):
    """The variance of an effect between clusters, its df, and the sum of their squared shares."""

    variance: float
    df: float
    concentration: float


def _between(sums: Mapping[Hashable, Sequence[float]]) -> _Clusters:
    """The variance from the score and the share of each cluster.

    Each squared score is divided by what it is expected to be too small by, as the mean is estimated from the
    same clusters: the larger of two corrections, for equal variances of traces and of clusters.
    """
    scores, own = zip(*sums.values(), strict=True)
    whole = sum(own)
    shares = [share / whole for share in own]
    squares = sum([share * share for share in shares])
    if len(sums) < 2 or squares > 0.999:
        return _Clusters(0.0, 0.0, squares)
    parts = [min(1 - share, 1 - 2 * share + squares) for share in shares]
    variance = sum([score * score / part for score, part in zip(scores, parts, strict=True)])
    loads = [share * share / part for share, part in zip(shares, parts, strict=True)]
    by_load = [*zip(loads, shares, strict=True)]
    trace = sum([load * (1 - 2 * share + squares) for load, share in by_load])
    a, b = sum(loads), sum([load * share for load, share in by_load])
    c = sum([load * share * share for load, share in by_load])
    crossed = (squares * a) ** 2 + 2 * a * c - 4 * squares * a * b + 2 * b * b
    each = sum([load * load * (1 + 2 * (squares - 2 * share)) for load, share in by_load])
    return _Clusters(variance, trace**2 / (each + crossed), squares)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the sides of a comparison share.

    ``same_processes``: most processes serve both; ``same_time``: stretches of time have both.
    """

    same_processes: bool
    same_time: bool


class Excess(NamedTuple):
    """The variance of one cluster beyond the noise of its traces, with the df of both together.

    ``uncertain`` is the part of both that is not known.
    """

    variance: float
    noise: float
    df: float

    @property
    def spread(self) -> float:
        """The variance of the variance, halved."""
        return self.uncertain**2 / self.df

    @property
    def uncertain(self) -> float:
        """What the clusters alone show: a part of the noise is known from the traces."""
        return max(0.0, self.variance) + (1 - _KNOWN) * self.noise


class Pooled(NamedTuple):
    """The mean of excesses, and the variance of that mean, halved."""

    variance: float
    spread: float


class Excesses(NamedTuple):
    """For each side, or for both where clusters serve both: the excess of a cluster, and its multiple.

    ``counts`` is the number of processes of each side.
    """

    processes: list[tuple[Excess, float]]
    stretches: list[tuple[Excess, float]]
    counts: tuple[int, int]


def find_excesses(found: Contrast, setting: Setting) -> Excesses:
    """The excesses of the processes and of the stretches of a contrast.

    Stretches that follow each other are alike where load drifts slowly: the variance is multiplied, and its
    df divided, by (1 + r) / (1 - r) with their correlation r, corrected for its bias in short series
    (Kendall 1954, Note on bias in the estimation of autocorrelation. Biometrika 41, 403-404). Fewer than
    three stretches (by the inverse of the sum of their squared shares) show no variance.
    """
    by_process = found.summed("process", paired=setting.same_processes)
    by_stretch = found.summed("stretch", paired=setting.same_time)
    factor = 1.0 if setting.same_time else _slowness(by_stretch.values())
    first, second = (len(by_process.get(0 if setting.same_processes else side, ())) for side in (0, 1))
    return Excesses(
        _excess(found, "process", by_process, paired=setting.same_processes),
        _excess(found, "stretch", by_stretch, paired=setting.same_time, factor=factor),
        (first, second),
    )


def _excess(
    found: Contrast, kind: Kind, clustered: _ByCluster, *, paired: bool, factor: float = 1.0
) -> list[tuple[Excess, float]]:
    excesses = []
    for side, sums in clustered.items():
        clusters = _between(sums)
        whole = sum(found.shares) if paired else found.shares[side]
        known = sum(share for _, share in sums.values()) / whole
        noise = (sum(found.noise) if paired else found.noise[side]) / (known * clusters.concentration)
        one = factor * clusters.variance / (known**2 * clusters.concentration)
        is_few = kind == "stretch" and clusters.concentration * _LEAST_STRETCHES > 1 + _ROUNDING
        df = max(_LEAST_DF, clusters.df / factor) if clusters.df and not is_few else 0.0
        excesses.append((Excess(one - noise if df else 0.0, noise, df), clusters.concentration))
    return excesses


def _slowness(series: Iterable[Mapping[Hashable, Sequence[float]]]) -> float:
    products = squares = 0.0
    lengths = []
    for sums in series:
        if len(sums) < _LEAST_SERIES:
            continue
        values = [sums[stretch][0] for stretch in sorted(sums)]  # type: ignore[type-var]
        products += sum(one * following for one, following in pairwise(values))
        squares += sum(value * value for value in values)
        lengths.append(len(values))
    if not squares:
        return 1.0
    correlation = products / squares * (1 + 4 / min(lengths))
    correlation = min(_LARGEST_CORRELATION, max(0.0, correlation))
    return (1 + correlation) / (1 - correlation)


def pooled(excesses: Iterable[Excess], *, by_noise: bool = False) -> Pooled | None:
    """The mean of excesses that are the same but for chance; ``None`` where clusters show none.

    ``by_noise``: those with less noise weigh more, as strata of many traces do.
    """
    known = [excess for excess in excesses if excess.df and (excess.noise or not by_noise)]
    if not known:
        return None
    weights = [excess.df / (excess.noise**2 if by_noise else 1.0) for excess in known]
    shares = [weight / sum(weights) for weight in weights]
    variance = sum(share * excess.variance for share, excess in zip(shares, known, strict=True))
    alike = [excess._replace(variance=variance) for excess in known]
    spread = sum(share**2 * excess.spread for share, excess in zip(shares, alike, strict=True))
    return Pooled(variance, spread)


def _borrowed(known: Sequence[Excess]) -> Pooled:
    """The excess of one stretch, which tells nothing of the load over time, as that of the other side.

    Its df are those of the other side's stretches: how noisy they are does not make this side's vary.
    """
    found = pooled(known)
    if found is None or found.variance <= 0:
        return Pooled(0.0, 0.0)
    return Pooled(found.variance, found.variance**2 / sum(each.df for each in known))


def estimate(
    found: Contrast,
    setting: Setting,
    *,
    assumed: float = 0.0,
    excesses: Excesses | None = None,
    processes: Pooled | None = None,
    stretches: Pooled | None = None,
) -> Estimate:
    """The effect with its variances.

    ``assumed`` is the standard deviation of processes where neither side has two. ``excesses`` are those of
    the contrast where they are known already; ``processes`` and ``stretches`` are known better than from this
    contrast alone.
    """
    between = Part()
    own, of_time, counts = excesses or find_excesses(found, setting)
    scale = sum(concentration for _, concentration in own)
    excess = processes or pooled(each for each, _ in own)
    if excess is not None:
        between = Part(scale * excess.variance, scale**2 * excess.spread)
    elif not setting.same_processes:
        between = Part(scale * assumed**2)
    other = _borrowed([each for each, _ in of_time if each.df])
    parts = [
        (stretches or (Pooled(each.variance, each.spread) if each.df else other), scale)
        for each, scale in of_time
    ]
    over_time = Part(
        sum(scale * each.variance for each, scale in parts),
        sum(scale**2 * each.spread for each, scale in parts),
    )
    noise = sum(found.noise)
    return Estimate(found.effect, found.traces, noise, between, over_time, counts)
