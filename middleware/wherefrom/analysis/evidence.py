"""What the traffic of two sides shows: differences of errors and of durations, of all routes and of each.

Three differences are of all strata together: of error rates, of durations (the ratio of their geometric
means), and of slow traces (the share above a limit that 1 to 5 % of all exceed). Then each stratum is
compared with the rest: a route that became slower while the others did not stands out, because what makes a
process or a moment slow cancels out. All p-values of a comparison are corrected together by Holm's method,
with weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from .._buckets import LOG_RATIO
from .blocks import (
    MIN_TRACES,
    Blocks,
    Count,
    Traffic,
    measure_durations,
    measure_errors,
    measure_over,
)
from .clusters import (
    Contrast,
    Estimate,
    Excesses,
    Setting,
    Table,
    Terms,
    against_rest,
    contrast,
    estimate,
    find_excesses,
    pooled,
    rests,
)
from .distributions import one_look_level, t_quantile
from .statistics import Interval, fisher_exact

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
    strata = blocks.strata(0), blocks.strata(1)
    limits = _limits(blocks.histogram())
    errors, durations = blocks.tables(measure_errors), blocks.tables(measure_durations)
    slow, *beyond = (blocks.tables(measure_over(limit)) for limit in limits)
    comparer = _Comparer(blocks, anytime)
    effects = [
        effect
        for effect in (
            comparer.errors(errors),
            comparer.durations(durations),
            comparer.slow(slow, limits[0]),
        )
        if effect is not None
    ]
    traces = blocks.traces(0), blocks.traces(1)
    shown = [name for name, n in (strata[0] + strata[1]).most_common(_MOST_STRATA) if n]
    if len(strata[0] | strata[1]) > 1:
        effects += comparer.each("errors", errors, shown)
        effects += comparer.each("durations", durations, shown)
    known = {effect.kind: effect for effect in effects if effect.stratum is None}
    duration = known.get("durations")
    found = Evidence(
        effects=tuple(effects),
        traces=traces,
        same_time=blocks.same_time,
        processes=effects[0].estimate.processes if effects else (0, 0),
        mix=tuple(_mix(*strata)) if min(traces) else (),
        needed=None
        if duration is None
        else needed(duration.estimate, _SOUGHT, _SOUGHT_CONFIDENCE, anytime=anytime),
    )
    if duration is not None:
        sides = blocks.standardized()
        ratios: list[Ratio] = []
        for share, tables in zip((0.5, 0.95), beyond, strict=True):
            part = comparer.all(tables, _ASSUMED * _DENSITIES[share], is_share=True)
            if part is not None:
                ratios.append(_ratio(sides, share, part, part.reach(confidence, anytime=anytime)))
        effects = [
            replace(one, matters=_tail_moved(sides, one.estimate.effect)) if one.kind == "slow" else one
            for one in effects
        ]
        found = replace(found, effects=tuple(effects), p50=ratios[0], p95=ratios[1])
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

    def __init__(self, blocks: Blocks, anytime: bool) -> None:
        self._anytime = anytime
        self._setting = Setting(blocks.same_processes, blocks.same_time)

    def all(self, tables: Mapping[str, Table], assumed: float = 0.0, *, is_share: bool) -> Estimate | None:
        found = contrast(Table.joined(tables.values()), is_share=is_share)
        if found is None or found.traces < MIN_TRACES:
            return None
        return estimate(found, self._setting, assumed=assumed)

    def errors(self, tables: Mapping[str, Table]) -> Effect | None:
        found = self.all(tables, is_share=True)
        if found is None:
            return None
        found = replace(found, step=_step(tables.values()))
        return self._effect("errors", None, found, _WEIGHTS["errors"], rates=means(tables.values()))

    def durations(self, tables: Mapping[str, Table]) -> Effect | None:
        found = self.all(tables, _ASSUMED / LOG_RATIO, is_share=False)
        if found is None:
            return None
        return self._effect("durations", None, _in_logs(found), _WEIGHTS["durations"])

    def slow(self, tables: Mapping[str, Table], limit: int) -> Effect | None:
        rates = means(tables.values())
        found = self.all(tables, _ASSUMED * _DENSITIES[0.95] * sum(rates) / 0.1, is_share=True)
        if found is None:
            return None
        return self._effect(
            "slow", None, found, _WEIGHTS["slow"], rates=rates, limit=math.exp(LOG_RATIO * (limit + 1))
        )

    def each(self, kind: str, tables: Mapping[str, Table], shown: Sequence[str]) -> list[Effect]:
        """Each stratum against the rest; fewer strata where clusters are many, as each takes time for all."""
        is_share = kind == "errors"
        clusters = sum(len(of) for table in tables.values() for of in table.margins.values())
        most = max(_LEAST_STRATA, _MOST_CLUSTERS // max(1, clusters))
        terms = {name: Terms(tables[name]) for name in shown[:most] if name in tables}
        # Thousands that are not shown are one part: each part more has all clusters twice.
        hidden = Terms(Table.joined(table for name, table in tables.items() if name not in terms))
        *others, _ = rests([*terms.values(), hidden])
        contrasts: dict[str, tuple[Contrast, Contrast, Excesses]] = {}
        for (name, of_stratum), of_others in zip(terms.items(), others, strict=True):
            one = of_stratum.contrast(is_share=is_share)
            if one is None or one.traces < MIN_TRACES:
                continue
            rest = of_others.contrast(is_share=is_share)
            if rest is not None:
                versus = against_rest(one, rest)
                contrasts[name] = one, versus, find_excesses(versus, self._setting)
        if not contrasts:
            return []
        each = [excesses for *_, excesses in contrasts.values()]
        processes = pooled((one for of in each for one, _ in of.processes), by_noise=True)
        stretches = pooled((one for of in each for one, _ in of.stretches), by_noise=True)
        weight = _STRATA_WEIGHTS[kind] / len(contrasts)
        return [
            self._stratum(
                kind,
                name,
                tables[name],
                one,
                estimate(versus, self._setting, excesses=excesses, processes=processes, stretches=stretches),
                weight,
            )
            for name, (one, versus, excesses) in contrasts.items()
        ]

    def _stratum(
        self, kind: str, name: str, table: Table, one: Contrast, versus: Estimate, weight: float
    ) -> Effect:
        """A stratum that stands out from the rest, and differs by itself in the same direction."""
        scale = LOG_RATIO if kind == "durations" else 1.0
        own = estimate(one, self._setting, assumed=_ASSUMED / LOG_RATIO if kind == "durations" else 0.0)
        p_value = versus.p_value(anytime=self._anytime)
        if kind == "errors":
            p_value = max(p_value, _fisher(table))
        if own.effect * versus.effect <= 0 or own.p_value(anytime=self._anytime) > _OWN_LEVEL:
            p_value = 1.0
        found = _in_logs(own) if kind == "durations" else own
        matters = kind == "errors" or abs(scale * own.effect) >= math.log1p(MIN_CHANGE)
        return Effect(kind, name, found, p_value, p_value, weight, matters, means([table]))

    def _effect(
        self,
        kind: str,
        stratum: str | None,
        found: Estimate,
        weight: float,
        *,
        rates: tuple[float, float] = (0.0, 0.0),
        limit: float | None = None,
    ) -> Effect:
        p_value = found.p_value(anytime=self._anytime)
        matters = kind != "durations" or abs(found.effect) >= math.log1p(MIN_CHANGE)
        return Effect(kind, stratum, found, p_value, p_value, weight, matters, rates, limit)


def _in_logs(found: Estimate) -> Estimate:
    """An estimate in buckets, in natural logarithms."""
    return found.scaled(LOG_RATIO)


def means(tables: Iterable[Table]) -> tuple[float, float]:
    """The means of both sides, weighted by stratum so that both have the same mix."""
    known = [
        (first.traces * second.traces / (first.traces + second.traces), first, second)
        for table in tables
        for first, second in table.shared().values()
    ]
    whole = sum(weight for weight, _, _ in known)
    if not whole:
        return 0.0, 0.0
    return (
        sum(weight * first.total / first.traces for weight, first, _ in known) / whole,
        sum(weight * second.total / second.traces for weight, _, second in known) / whole,
    )


def _step(tables: Iterable[Table]) -> float:
    both = [both for table in tables for both in table.strata.values()]
    return sum(1 / sum(each[side].traces for each in both) for side in (0, 1))


def _fisher(table: Table) -> float:
    """The p-value if traces were independent: exact where a route has few errors."""
    traces, errors = (
        [int(sum(both[side][place] for both in table.strata.values())) for side in (0, 1)] for place in (0, 1)
    )
    return fisher_exact(errors[0], traces[0], errors[1], traces[1])


def _limits(histogram: Counter[int]) -> list[int]:
    """The bucket that the slow exceed, 1 to 5 % of all durations, and those of the p50 and the p95."""
    whole = histogram.total()
    slow = ceil(max(_LEAST_SLOW * whole, min(_MOST_SLOW * whole, _ENOUGH_SLOW)))
    limits = []
    for most in (slow, 0.5 * whole, 0.05 * whole):
        above, limit = 0, 0
        for bucket in sorted(histogram, reverse=True):
            above += histogram[bucket]
            limit = bucket
            if above > most:
                break
        limits.append(limit)
    return limits


def _mix(first: Counter[str], second: Counter[str]) -> list[MixChange]:
    """The strata whose share changed by 5 points or more, the largest change first."""
    n, m = first.total(), second.total()
    changes = [
        MixChange(name, first[name] / n, second[name] / m)
        for name in first.keys() | second.keys()
        if abs(first[name] / n - second[name] / m) >= _MIX_CHANGE
        and fisher_exact(first[name], n, second[name], m) < _MIX_LEVEL
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


def _ratio(
    sides: tuple[Mapping[int, float], Mapping[int, float]], share: float, part: Estimate, reach: float
) -> Ratio:
    """The ratio of a quantile of both sides, whose interval is that of the share of durations beyond it.

    The reach of the share becomes one of logarithms by the density, which is read from the quantiles at half
    the distance to the nearer end. Woodruff 1952, Confidence intervals for medians and other position
    measures. JASA 47, 635-646.
    """
    both = {b: sides[0].get(b, 0.0) + sides[1].get(b, 0.0) for b in sides[0].keys() | sides[1].keys()}
    half = min(share, 1 - share) / 2
    apart = _log_quantile(both, share + half) - _log_quantile(both, share - half)
    logs = [LOG_RATIO * _log_quantile(side, share) for side in sides]
    first, second = (math.exp(log) if log >= 0 else 0.0 for log in logs)
    durations, ratio, slope = (first, second), logs[0] - logs[1], LOG_RATIO * apart / (2 * half)
    if reach >= 1:  # of a share: nothing is known
        return Ratio(durations, Interval(None, None), part, slope)
    ends = Interval(math.exp(ratio - slope * reach), math.exp(ratio + slope * reach))
    return Ratio(durations, ends, part, slope)


def _tail_moved(sides: tuple[Mapping[int, float], Mapping[int, float]], towards: float) -> bool:
    """Whether p95 or p99 differs in a direction by 5 % or more."""
    moves = (_log_quantile(sides[0], share) - _log_quantile(sides[1], share) for share in (0.95, 0.99))
    return any(math.copysign(move, move * towards) * LOG_RATIO >= math.log1p(MIN_CHANGE) for move in moves)


def _log_quantile(weights: Mapping[int, float], share: float) -> float:
    """A quantile in buckets, whose durations are taken to be spread evenly."""
    aim, below = share * sum(weights.values()), 0.0
    for bucket in sorted(weights):
        if below + weights[bucket] >= aim:
            return bucket + (aim - below) / weights[bucket]
        below += weights[bucket]
    return max(weights) + 1.0
