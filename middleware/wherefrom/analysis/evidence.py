"""What the traffic of two sides shows: differences of errors and of durations, of all routes and of each.

Three differences are of all strata together: of error rates, of durations (the ratio of their geometric
means), and of slow traces (the share above a limit that 1 to 5 % of all exceed). Then each stratum is
compared with the rest: a route that became slower while the others did not stands out, because what makes a
process or a moment slow cancels out. All p-values of a comparison are corrected together by Holm's method,
with weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Final

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
from .clusters import Estimate, Setting, Table, Terms, against_rest, estimate, find_excesses, pooled, summed
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
_KINDS: Final = ("errors", "durations", "slow", "p50", "p95")
_ERRORS, _DURATIONS, _SLOW, _P50, _P95 = range(len(_KINDS))
_ARE_SHARES: Final = (True, False, True, True, True)
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
    """Compare two sides; ``anytime`` if it is done again and again while traces arrive.

    P-values are corrected for this pair alone: ``correct`` does it for several.
    """
    blocks = Blocks(*(side if isinstance(side, Traffic) else Traffic.of(side) for side in (first, second)))
    limits = _limits(blocks.histograms().sum(0))
    table = blocks.table([measure_errors, measure_durations, *map(measure_over, limits)])
    counts = np.stack([table.traces[_ERRORS], table.totals[_ERRORS]])
    by_name = summed(counts, blocks.of_names, len(blocks.names)).astype(np.int64)
    comparer = _Comparer(blocks, table, by_name, anytime=anytime)
    effects = [*comparer.together(limits[0]), *comparer.each()]
    traces = blocks.traces(0), blocks.traces(1)
    found = Evidence(
        effects=tuple(effects),
        traces=traces,
        same_time=blocks.same_time,
        processes=effects[0].estimate.processes if effects else (0, 0),
        mix=tuple(_mix(blocks.names, by_name[0])) if min(traces) else (),
    )
    duration = found.find("durations")
    if duration is not None:
        sides = blocks.standardized(table.traces[_DURATIONS])
        p50, p95 = (
            _ratio(sides, share, part, part.reach(confidence, anytime=anytime))
            for share, part in ((0.5, comparer.all[_P50]), (0.95, comparer.all[_P95]))
        )
        found = replace(
            found,
            effects=tuple(
                replace(one, matters=_tail_moved(sides, one.estimate.effect)) if one.kind == "slow" else one
                for one in effects
            ),
            p50=p50,
            p95=p95,
            needed=needed(duration.estimate, _SOUGHT, _SOUGHT_CONFIDENCE, anytime=anytime),
        )
    return correct([found])[0]


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


class _Comparer:
    """The tests of one pair."""

    def __init__(self, blocks: Blocks, table: Table, by_name: Column, *, anytime: bool) -> None:
        self._anytime, self._table, self._by_name = anytime, table, by_name
        self._setting = Setting(blocks.same_processes, blocks.same_time)
        clusters = 2 * sum(margin.number for margin in table.margins.values())
        most = min(_MOST_STRATA, max(_LEAST_STRATA, _MOST_CLUSTERS // clusters))
        traces = by_name[0].sum(0)
        shown = np.argsort(-traces, kind="stable")
        self._shown = shown[traces[shown] > 0][:most]
        self._has_several = np.count_nonzero(traces) > 1
        self._names = [blocks.names[place] for place in self._shown.tolist()]
        # Thousands that are not shown are one part: each part more has all clusters twice.
        parts = np.full(len(blocks.names), len(self._names))
        parts[self._shown] = np.arange(len(self._names))
        self._terms = Terms.of(table, parts[blocks.of_names], len(self._names) + 1)
        whole = self._terms.all().contrast(np.array(_ARE_SHARES))
        self._means = [(first, second) for (first,), (second,) in whole.means.tolist()]
        share = _ASSUMED * _DENSITIES[0.95]
        assumed = np.array(
            [
                0.0,
                _ASSUMED / LOG_RATIO,
                share * sum(self._means[_SLOW]) / 0.1,
                _ASSUMED * _DENSITIES[0.5],
                share,
            ]
        )
        self.all = [one for (one,) in estimate(whole, self._setting, assumed=assumed)]
        """The estimates of all strata together, by measure."""

    def together(self, limit: int) -> Iterator[Effect]:
        """The differences of all strata together; ``limit`` is the bucket that slow ones exceed."""
        for kind, place in (("errors", _ERRORS), ("durations", _DURATIONS), ("slow", _SLOW)):
            found, matters = self.all[place], True
            if found.traces < MIN_TRACES:
                continue
            if kind == "errors":
                found = replace(found, step=float((1 / self._table.traces[place].sum(-1)).sum()))
            if kind == "durations":
                found = found.scaled(LOG_RATIO)
                matters = abs(found.effect) >= math.log1p(MIN_CHANGE)
            p_value = found.p_value(anytime=self._anytime)
            rates = self._means[place] if _ARE_SHARES[place] else (0.0, 0.0)
            slow = math.exp(LOG_RATIO * (limit + 1)) if kind == "slow" else None
            yield Effect(kind, None, found, p_value, p_value, _WEIGHTS[kind], matters, rates, slow)

    def each(self) -> Iterator[Effect]:
        """The differences of errors and of durations of each stratum that stands out from the rest."""
        if not self._has_several:
            return
        terms = Terms(*(each[:, : _DURATIONS + 1] for each in self._terms))
        are_shares = np.array(_ARE_SHARES[: _DURATIONS + 1])
        one = terms.contrast(are_shares)
        versus = against_rest(one, terms.rests().contrast(are_shares))
        chosen = (versus.traces >= MIN_TRACES) & (np.arange(versus.traces.shape[-1]) < len(self._names))
        excesses = find_excesses(versus, self._setting).where(chosen)
        processes, stretches = (pooled(each, (1, 2), by_noise=True) for each in excesses[:2])
        stands_out = estimate(
            versus, self._setting, excesses=excesses, processes=processes, stretches=stretches
        )
        own = estimate(one, self._setting, assumed=np.array([0.0, _ASSUMED / LOG_RATIO]))
        means = one.means.transpose(0, 2, 1).tolist()
        for measure, kind in enumerate(("errors", "durations")):
            places = np.flatnonzero(chosen[measure]).tolist()
            for place in places:
                both = own[measure][place], stands_out[measure][place]
                weight = _STRATA_WEIGHTS[kind] / len(places)
                yield self._stratum(
                    kind, place, *both, weight, (means[measure][place][0], means[measure][place][1])
                )

    def _stratum(
        self,
        kind: str,
        place: int,
        own: Estimate,
        versus: Estimate,
        weight: float,
        rates: tuple[float, float],
    ) -> Effect:
        """A stratum that stands out from the rest, and differs by itself in the same direction."""
        p_value, matters = 1.0, True
        if own.effect * versus.effect > 0 and own.p_value(anytime=self._anytime) <= _OWN_LEVEL:
            p_value = versus.p_value(anytime=self._anytime)
            if kind == "errors":
                # If traces were independent: exact where a route has few errors.
                (n, m), (errors, others) = self._by_name[:, :, self._shown[place]].tolist()
                p_value = max(p_value, fisher_exact(errors, n, others, m))
        if kind == "durations":
            own = own.scaled(LOG_RATIO)
            matters = abs(own.effect) >= math.log1p(MIN_CHANGE)
        return Effect(kind, self._names[place], own, p_value, p_value, weight, matters, rates)


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
