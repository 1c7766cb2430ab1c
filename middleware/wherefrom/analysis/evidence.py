"""What the traffic of two sides shows: differences of errors and of durations, of all routes and of each.

Three differences are of all strata together: of error rates, of durations (the ratio of their geometric
means), and of slow traces (the share above a limit that 1 to 5 % of all exceed). Then each stratum is
compared with the rest: a route that became slower while the others did not stands out, because what makes a
process or a moment slow cancels out. All p-values of a comparison are corrected together by Holm's method,
with weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from .._buckets import LOG_RATIO, NOTHING
from .blocks import (
    MIN_TRACES,
    Blocks,
    Count,
    Traffic,
    measure_durations,
    measure_errors,
    measure_over,
)
from .clusters import Estimate, Setting, Terms, against_rest, estimate, find_excesses, pooled, summed
from .distributions import one_look_level, t_quantile
from .lazy_numpy import np
from .statistics import Interval, fisher_exact

if TYPE_CHECKING:
    from .clusters import Column

MIN_CHANGE: Final = 0.05

_ASSUMED: Final = 0.10
"""The standard deviation of log durations between processes, where no side has two to show it."""
_DENSITIES: Final = {0.5: 0.66, 0.95: 0.17}
"""The density of log-normal durations with a deviation of 0.6 at a quantile."""
_WEIGHTS: Final = {"errors": 0.6, "durations": 0.2, "slow": 0.07}
_STRATA_WEIGHTS: Final = {"errors": 0.03, "durations": 0.1}
"""How the level is shared: the test of errors is the least powerful with few processes."""
_MOST_STRATA: Final = 50
_LEAST_STRATA: Final = 5
_MOST_CLUSTERS: Final = 250_000
_MOST_CELLS: Final = 100_000
"""By cluster and part, of all pairs that are computed together."""
_KINDS: Final = ("errors", "durations", "slow", "p50", "p95")
_ERRORS, _DURATIONS, _SLOW, _P50, _P95 = range(len(_KINDS))
_ARE_SHARES: Final = (True, False, True, True, True)
_Rates = tuple[float, float]
"""The means of the two sides."""
_OWN_LEVEL: Final = 0.05
"""A stratum must differ by itself at this level, besides standing out from the rest."""

_MOST_SLOW: Final = 0.05
_ENOUGH_SLOW: Final = 40
_LEAST_SLOW: Final = 0.01

_MIX_CHANGE: Final = 0.05
_MIX_LEVEL: Final = 0.001
_SOUGHT: Final = math.log(1.10)
_SOUGHT_CONFIDENCE: Final = 1 - 0.05 * _WEIGHTS["durations"]
_POWER: Final = 0.84  # the normal quantile of 80 %


@dataclass(frozen=True, slots=True)
class Effect:
    """One difference, side 0 minus side 1, with its p-value before and after correction.

    ``stratum`` is ``None`` for all together. The effect of ``durations`` is a difference of natural
    logarithms, that of ``errors`` and ``slow`` a difference of shares. ``matters``: durations, or the
    p95 or p99 of slow ones, differ by 5 % or more; errors always matter.
    """

    kind: str
    stratum: str | None
    estimate: Estimate
    p_value: float
    p_adjusted: float
    weight: float
    matters: bool = True
    rates: tuple[float, float] = (0.0, 0.0)
    limit: float | None = None

    @property
    def direction(self) -> int:
        """1 for worse, -1 for better, 0 where it does not matter."""
        if not self.matters:
            return 0
        return (self.estimate.effect > 0) - (self.estimate.effect < 0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two durations, in µs, with its interval.

    They are a quantile of both sides. ``shares`` is the difference of the shares of durations beyond that of
    both together, and ``slope`` how much further the logarithm of the quantile is for each share.
    """

    durations: tuple[float, float]
    interval: Interval
    shares: Estimate
    slope: float

    @property
    def change(self) -> float | None:
        """0.1 for 10 % longer; ``None`` against less than 1 µs."""
        return self.durations[0] / self.durations[1] - 1 if self.durations[1] else None


@dataclass(frozen=True, slots=True)
class MixChange:
    """A stratum with another share of the traces of side 0 than of side 1."""

    stratum: str
    share: float
    other_share: float


@dataclass(frozen=True, slots=True)
class Needed:
    """What would show durations that differ by 10 %: so many times the traffic, or processes a side."""

    times: float | None
    processes: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that two sides show; ``effects`` is empty where too few traces can be compared.

    ``traces`` is the number compared of each side: with ``same_time``, those while both had traffic.
    """

    effects: tuple[Effect, ...]
    traces: tuple[int, int]
    same_time: bool
    processes: tuple[int, int]
    p50: Ratio | None = None
    p95: Ratio | None = None
    mix: tuple[MixChange, ...] = ()
    needed: Needed | None = None

    def find(self, kind: str) -> Effect | None:
        """The difference of this kind of all strata together."""
        return next((one for one in self.effects if one.kind == kind and one.stratum is None), None)


def gather(
    first: Traffic | Sequence[Count],
    second: Traffic | Sequence[Count],
    *,
    confidence: float = 0.95,
    anytime: bool = False,
) -> Evidence:
    """Compare two sides; ``anytime`` if it is done again and again while traces arrive."""
    (found,) = gather_all([(first, second)], confidence=confidence, anytime=anytime)
    return found


def gather_all(
    pairs: Iterable[tuple[Traffic | Sequence[Count], Traffic | Sequence[Count]]],
    *,
    confidence: float = 0.95,
    anytime: bool = False,
) -> list[Evidence]:
    """Compare the two sides of each pair, as ``gather`` does. P-values are corrected for all pairs.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    waiting: dict[Setting, dict[int, _Pair]] = {}
    found: dict[int, Evidence] = {}

    def compare(batch: Mapping[int, _Pair]) -> None:
        evidence = _find_evidence([*batch.values()], confidence, anytime=anytime)
        found.update(zip(batch, evidence, strict=True))

    for place, sides in enumerate(pairs):
        first, second = (side if isinstance(side, Traffic) else Traffic.of(side) for side in sides)
        pair = _Pair(first, second)
        batch = waiting.setdefault(pair.setting, {})
        clusters, parts = map(max, zip(pair.size, *(each.size for each in batch.values()), strict=True))
        if batch and (len(batch) + 1) * clusters * parts > _MOST_CELLS:
            compare(batch)
            batch.clear()
        batch[place] = pair
    for batch in waiting.values():
        compare(batch)
    return correct([found[place] for place in range(len(found))])


def correct(found: Sequence[Evidence]) -> list[Evidence]:
    """Correct the p-values of several pairs together.

    A p-value over its weight takes the place of a p-value: Holm 1979, section 4.
    """
    effects = [effect for evidence in found for effect in evidence.effects]
    remaining, largest = sum(effect.weight for effect in effects), 0.0
    adjusted = [0.0] * len(effects)
    weighted = [effect.p_value / effect.weight for effect in effects]
    for place in sorted(range(len(effects)), key=weighted.__getitem__):
        effect = effects[place]
        largest = max(largest, min(1.0, max(remaining, effect.weight) * weighted[place]))
        adjusted[place] = largest
        remaining -= effect.weight
    values = iter(adjusted)
    return [
        replace(one, effects=tuple(replace(effect, p_adjusted=next(values)) for effect in one.effects))
        for one in found
    ]


class _Pair:
    """What the estimates of the differences of two sides are made from."""

    def __init__(self, first: Traffic, second: Traffic) -> None:
        blocks = Blocks(first, second)
        self.setting = Setting(blocks.same_processes, blocks.same_time)
        self.traces = blocks.traces(0), blocks.traces(1)
        self.limits = _limits(blocks.histograms().sum(0))
        """The bucket that slow traces exceed, and those of the p50 and the p95."""
        table = blocks.table([measure_errors, measure_durations, *map(measure_over, self.limits)])
        self.by_side = table.traces.sum(-1)
        """The values of each measure and side."""
        self.histograms = blocks.standardized(table.traces[_DURATIONS])
        counts = np.stack([table.traces[_ERRORS], table.totals[_ERRORS]])
        self.names = blocks.names
        self.by_name = summed(counts, blocks.of_names, len(self.names)).astype(np.int64)
        """Traces and errors, by side and name of a stratum."""
        numbers = [margin.number for margin in table.margins.values()]
        most = min(_MOST_STRATA, max(_LEAST_STRATA, _MOST_CLUSTERS // (2 * sum(numbers))))
        traces = self.by_name[0].sum(0)
        shown = np.argsort(-traces, kind="stable")
        self.shown = shown[traces[shown] > 0][:most]
        """The strata that are tested, as places of their names."""
        self.has_several = np.count_nonzero(traces) > 1
        # Thousands that are not shown are one part: each part more has all clusters twice.
        parts = np.full(len(self.names), len(self.shown))
        parts[self.shown] = np.arange(len(self.shown))
        self.size = max(numbers), len(self.shown) + 1
        """The clusters of one kind, and the parts of the strata."""
        self.terms = Terms.of(table, parts[blocks.of_names], self.size[1])

    def together(
        self, found: Sequence[Estimate], means: Sequence[_Rates], *, anytime: bool
    ) -> Iterator[Effect]:
        """The differences of all strata together."""
        for kind, place in (("errors", _ERRORS), ("durations", _DURATIONS), ("slow", _SLOW)):
            own, matters = found[place], True
            if own.traces < MIN_TRACES:
                continue
            if kind == "errors":
                own = replace(own, step=float((1 / self.by_side[place]).sum()))
            if kind == "durations":
                own = own.scaled(LOG_RATIO)
                matters = abs(own.effect) >= math.log1p(MIN_CHANGE)
            p_value = own.p_value(anytime=anytime)
            rates = means[place] if _ARE_SHARES[place] else (0.0, 0.0)
            slow = math.exp(LOG_RATIO * (self.limits[0] + 1)) if kind == "slow" else None
            yield Effect(kind, None, own, p_value, p_value, _WEIGHTS[kind], matters, rates, slow)

    def stratum(
        self,
        kind: str,
        place: int,
        own: Estimate,
        versus: Estimate,
        weight: float,
        rates: _Rates,
        *,
        anytime: bool,
    ) -> Effect:
        """A stratum that stands out from the rest, and differs by itself in the same direction."""
        p_value, matters = 1.0, True
        if own.effect * versus.effect > 0 and own.p_value(anytime=anytime) <= _OWN_LEVEL:
            p_value = versus.p_value(anytime=anytime)
            if kind == "errors":
                # If traces were independent: exact where a route has few errors.
                (n, m), (errors, others) = self.by_name[:, :, self.shown[place]].tolist()
                p_value = max(p_value, fisher_exact(errors, n, others, m))
        if kind == "durations":
            own = own.scaled(LOG_RATIO)
            matters = abs(own.effect) >= math.log1p(MIN_CHANGE)
        return Effect(kind, self.names[self.shown[place]], own, p_value, p_value, weight, matters, rates)

    def evidence(
        self, found: Sequence[Estimate], effects: Sequence[Effect], confidence: float, *, anytime: bool
    ) -> Evidence:
        """All that the two sides show; ``found`` are the estimates of all strata together, by measure."""
        evidence = Evidence(
            effects=tuple(effects),
            traces=self.traces,
            same_time=self.setting.same_time,
            processes=effects[0].estimate.processes if effects else (0, 0),
            mix=tuple(_mix(self.names, self.by_name[0])) if min(self.traces) else (),
        )
        duration = evidence.find("durations")
        if duration is None:
            return evidence
        sides = self.histograms
        p50, p95 = (
            _ratio(sides, share, part, part.reach(confidence, anytime=anytime))
            for share, part in ((0.5, found[_P50]), (0.95, found[_P95]))
        )
        return replace(
            evidence,
            effects=tuple(
                replace(one, matters=_tail_moved(sides, one.estimate.effect)) if one.kind == "slow" else one
                for one in effects
            ),
            p50=p50,
            p95=p95,
            needed=needed(duration.estimate, _SOUGHT, _SOUGHT_CONFIDENCE, anytime=anytime),
        )


def _find_evidence(pairs: Sequence[_Pair], confidence: float, *, anytime: bool) -> Iterator[Evidence]:
    """The evidence of each pair; they all have the same setting."""
    setting, terms = pairs[0].setting, Terms.joined([pair.terms for pair in pairs])
    whole = terms.all().contrast(np.tile(_ARE_SHARES, len(pairs)))
    means: list[Any] = whole.means.reshape(len(pairs), len(_KINDS), 2).tolist()
    assumed = np.array([*map(_assumed, means)]).ravel()
    every = [one for (one,) in estimate(whole, setting, assumed=assumed)]
    strata = _each(pairs, terms, anytime=anytime)
    for place, (pair, rates, of_strata) in enumerate(zip(pairs, means, strata, strict=True)):
        found = every[place * len(_KINDS) : (place + 1) * len(_KINDS)]
        effects = [*pair.together(found, [(own, other) for own, other in rates], anytime=anytime), *of_strata]
        yield pair.evidence(found, effects, confidence, anytime=anytime)


def _assumed(means: Sequence[_Rates]) -> list[float]:
    """The standard deviation of processes by measure, where no side has two."""
    share = _ASSUMED * _DENSITIES[0.95]
    slow = share * sum(means[_SLOW]) / 0.1
    return [0.0, _ASSUMED / LOG_RATIO, slow, _ASSUMED * _DENSITIES[0.5], share]


def _each(pairs: Sequence[_Pair], terms: Terms, *, anytime: bool) -> list[list[Effect]]:
    """For each pair, the differences of errors and of durations of strata that stand out from the rest."""
    found: list[list[Effect]] = [[] for _ in pairs]
    if not any(pair.has_several for pair in pairs):
        return found
    number, kinds = len(pairs), _STRATA_WEIGHTS
    rows = (np.arange(number)[:, None] * len(_KINDS) + np.arange(len(kinds))).ravel()
    terms = Terms(*(each[:, rows] for each in terms))
    are_shares = np.tile(_ARE_SHARES[: len(kinds)], number)
    one = terms.contrast(are_shares)
    versus = against_rest(one, terms.rests().contrast(are_shares))
    tested = np.repeat([len(pair.shown) if pair.has_several else 0 for pair in pairs], len(kinds))
    chosen = (versus.traces >= MIN_TRACES) & (np.arange(versus.traces.shape[-1]) < tested[:, None])
    excesses = find_excesses(versus, pairs[0].setting).where(chosen)
    processes, stretches = (pooled(each, (1, 2), by_noise=True) for each in excesses[:2])
    stands_out = estimate(
        versus, pairs[0].setting, excesses=excesses, processes=processes, stretches=stretches
    )
    own = estimate(one, pairs[0].setting, assumed=np.tile([0.0, _ASSUMED / LOG_RATIO], number))
    means = one.means.transpose(0, 2, 1).tolist()
    for row, (place, kind) in enumerate(product(range(number), kinds)):
        places = np.flatnonzero(chosen[row]).tolist()
        for part in places:
            both, weight = (own[row][part], stands_out[row][part]), kinds[kind] / len(places)
            effect = pairs[place].stratum(kind, part, *both, weight, means[row][part], anytime=anytime)
            found[place].append(effect)
    return found


def _limits(histogram: Column) -> list[int]:
    """The bucket that the slow exceed, 1 to 5 % of all durations, and those of the p50 and the p95."""
    above, whole = np.cumsum(histogram[::-1]), float(histogram.sum())
    slow = ceil(max(_LEAST_SLOW * whole, min(_MOST_SLOW * whole, _ENOUGH_SLOW)))
    # Where a few traces are no more than that: the lowest bucket that has any.
    most = [min(each, whole - 0.5) for each in (slow, 0.5 * whole, 0.05 * whole)]
    places: list[int] = np.searchsorted(above, most, "right").tolist()
    return [len(histogram) - 1 - place + NOTHING for place in places]


def _mix(names: Sequence[str], by_name: Column) -> list[MixChange]:
    """The strata whose share changed by 5 points or more, the largest change first."""
    shares = by_name / by_name.sum(1, keepdims=True)
    (n, m), changed = by_name.sum(1).tolist(), np.abs(shares[0] - shares[1]) >= _MIX_CHANGE
    changes = [
        MixChange(names[place], *shares[:, place].tolist())
        for place in np.flatnonzero(changed).tolist()
        if fisher_exact(int(by_name[0, place]), n, int(by_name[1, place]), m) < _MIX_LEVEL
    ]
    return sorted(changes, key=lambda change: (-abs(change.share - change.other_share), change.stratum))


def needed(found: Estimate, sought: float, confidence: float, *, anytime: bool) -> Needed | None:
    """What would show a difference as large as ``sought`` four times in five; ``None`` if it is shown now."""
    if found.reach(confidence, anytime=anytime) + _POWER * found.error <= sought:
        return None
    level = 1 - confidence
    if anytime:
        level = one_look_level(level, found.traces)
    aim = (sought / (t_quantile(level, math.inf) + _POWER)) ** 2
    between = found.between_processes
    # What cannot be told from chance yet is no reason to ask for more processes.
    of_processes = between.variance if between.variance > math.sqrt(2 * between.spread) else 0.0
    if of_processes < aim / 2:
        times = (found.variance - of_processes) / (aim - of_processes)
        if round(times, 1) > 1:
            return Needed(times, None)
        # Traces are enough: what lacks is that clusters are too few to know how they differ.
        return Needed(None, max(found.processes) + 1) if min(found.processes) else None
    if not aim:
        return Needed(math.inf, None)
    return Needed(None, max(max(found.processes) + 1, ceil(max(found.processes) * found.variance / aim)))


def _ratio(sides: Column, share: float, part: Estimate, reach: float) -> Ratio:
    """The ratio of a quantile of both sides, whose interval is that of the share of durations beyond it.

    The reach of the share becomes one of logarithms by the density, which is read from the quantiles at half
    the distance to the nearer end. Woodruff 1952, Confidence intervals for medians and other position
    measures. JASA 47, 635-646.
    """
    both, half = sides.sum(0), min(share, 1 - share) / 2
    apart = _log_quantile(both, share + half) - _log_quantile(both, share - half)
    logs = [LOG_RATIO * _log_quantile(side, share) for side in sides]
    first, second = (math.exp(log) if log >= 0 else 0.0 for log in logs)
    durations, ratio, slope = (first, second), logs[0] - logs[1], LOG_RATIO * apart / (2 * half)
    if reach >= 1:  # of a share: nothing is known
        return Ratio(durations, Interval(None, None), part, slope)
    ends = Interval(math.exp(ratio - slope * reach), math.exp(ratio + slope * reach))
    return Ratio(durations, ends, part, slope)


def _tail_moved(sides: Column, towards: float) -> bool:
    """Whether p95 or p99 differs in a direction by 5 % or more."""
    moves = (_log_quantile(sides[0], share) - _log_quantile(sides[1], share) for share in (0.95, 0.99))
    return any(math.copysign(move, move * towards) * LOG_RATIO >= math.log1p(MIN_CHANGE) for move in moves)


def _log_quantile(weights: Column, share: float) -> float:
    """A quantile in buckets, whose durations are taken to be spread evenly."""
    reached = np.cumsum(weights)
    aim = share * reached[-1]
    place = int(np.searchsorted(reached, aim))
    return float(place + NOTHING + 1 - (reached[place] - aim) / weights[place])
