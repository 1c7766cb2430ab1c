"""Counts of two sides by block, matched in time where both had traffic at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from .clusters import Cell

MIN_TRACES: Final = 30
"""How many traces of each side a comparison needs."""
STRETCHES: Final = 16
"""How many stretches the time of a comparison is divided into, each with as many traces."""
_LEAST_SHARED: Final = 0.5
_LEAST_STRETCHES: Final = 4
_TRACES_EACH: Final = 300


class Count(NamedTuple):
    """Traces of one side that are counted together.

    ``stratum`` is what is compared only with itself, as a route is. ``process`` is ``""`` where it is not
    known. ``time`` is in any unit. ``bucket`` is that of the duration, ``None`` where none was recorded.
    """

    stratum: str
    process: str
    time: int
    bucket: int | None
    traces: int
    errors: int


@dataclass(frozen=True)
class Blocks:
    """Two sides in blocks: each count with the stretch of time that it is in.

    ``same_time``: the sides had traffic at once, and only that traffic is here. ``same_processes``: most
    processes serve both sides, as with a feature flag.
    """

    sides: tuple[Sequence[tuple[int, Count]], Sequence[tuple[int, Count]]]
    same_time: bool

    @classmethod
    def of(cls, first: Sequence[Count], second: Sequence[Count]) -> Blocks:
        """Divide the time of both sides into stretches: together if they had traffic at once."""
        together = _together(first, second)
        if together is not None:
            return cls(together, same_time=True)
        one, other = _divide(first), _divide(second)
        return cls((_placed(first, one), _placed(second, other, STRETCHES)), same_time=False)

    @cached_property
    def same_processes(self) -> bool:
        """Whether at least half of the traces are of processes that serve both sides."""
        traces: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for side, counts in enumerate(self.sides):
            for _, count in counts:
                traces[side][count.process] += count.traces
        both = traces[0].keys() & traces[1].keys() - {""}
        shared = sum(min(each[process] for each in traces) for process in both)
        return 2 * shared >= min(each.total() for each in traces) > 0

    def traces(self, side: int) -> int:
        """The number of traces of a side that are compared."""
        return sum(count.traces for _, count in self.sides[side])

    def strata(self, side: int) -> Counter[str]:
        """The traces of a side in each stratum."""
        found: Counter[str] = Counter()
        for _, count in self.sides[side]:
            found[count.stratum] += count.traces
        return found

    def histogram(self) -> Counter[int]:
        """The traces of both sides by bucket."""
        found: Counter[int] = Counter()
        for counts in self.sides:
            for _, count in counts:
                if count.bucket is not None:
                    found[count.bucket] += count.traces
        return found

    def standardized(self) -> tuple[dict[int, float], dict[int, float]]:
        """The distribution of durations by bucket of each side, both with the same mix of strata."""
        traces: defaultdict[Hashable, list[int]] = defaultdict(lambda: [0, 0])
        for (side, name, _, stretch), counts in self._grouped.items():
            timed = sum([count.traces for count in counts if count.bucket is not None])
            traces[self._stratum(name, stretch)][side] += timed
        found: tuple[defaultdict[int, float], ...] = defaultdict(float), defaultdict(float)
        for (side, name, _, stretch), counts in self._grouped.items():
            n, m = traces[self._stratum(name, stretch)]
            if n and m:
                weight = (m if side == 0 else n) / (n + m)
                for count in counts:
                    if count.bucket is not None:
                        found[side][count.bucket] += weight * count.traces
        return dict(found[0]), dict(found[1])

    def cells(self, measures: Sequence[Measure]) -> list[dict[str, list[Cell]]]:
        """For each measure, the cells of each stratum."""
        found: list[dict[str, list[Cell]]] = [{} for _ in measures]
        for (side, name, process, stretch), counts in self._grouped.items():
            stratum = self._stratum(name, stretch)
            for measure, cells in zip(measures, found, strict=True):
                traces, total, squares = measure(counts)
                if traces:
                    cell = Cell(side, stratum, process, stretch, traces, total, squares)
                    cells.setdefault(name, []).append(cell)
        return found

    def _stratum(self, name: str, stretch: int) -> Hashable:
        """What a block is compared within: its stratum, and its time where both sides have it.

        Stretches are joined where otherwise many would have traces of a route on one side only.
        """
        return (name, stretch * self._parts // STRETCHES) if self.same_time else name

    @cached_property
    def _parts(self) -> int:
        fewest = min(self.traces(side) for side in (0, 1))
        return min(STRETCHES, max(_LEAST_STRETCHES, fewest // _TRACES_EACH))

    @cached_property
    def _grouped(self) -> dict[tuple[int, str, str, int], list[Count]]:
        found: defaultdict[tuple[int, str, str, int], list[Count]] = defaultdict(list)
        for side, counts in enumerate(self.sides):
            for stretch, count in counts:
                found[side, count.stratum, count.process, stretch].append(count)
        return found


Measure = Callable[[Sequence[Count]], tuple[int, float, float]]
"""The number of values in a block, their sum, and the sum of their squares."""


def measure_errors(counts: Sequence[Count]) -> tuple[int, float, float]:
    """1 for a trace that failed, 0 for another."""
    errors = sum([count.errors for count in counts])
    return sum([count.traces for count in counts]), errors, errors


def measure_durations(counts: Sequence[Count]) -> tuple[int, float, float]:
    """The buckets of durations, which are their logarithms."""
    timed = [(count.traces, count.bucket) for count in counts if count.bucket is not None]
    values = [traces * bucket for traces, bucket in timed]
    squares = [traces * bucket * bucket for traces, bucket in timed]
    return sum([traces for traces, _ in timed]), sum(values), sum(squares)


def measure_over(limit: int) -> Measure:
    """1 for a duration in a bucket above the limit, 0 for another."""

    def measure(counts: Sequence[Count]) -> tuple[int, float, float]:
        timed = [count for count in counts if count.bucket is not None]
        over = sum([count.traces for count in timed if (count.bucket or 0) > limit])
        return sum([count.traces for count in timed]), over, over

    return measure


def _divide(counts: Sequence[Count]) -> dict[int, int]:
    """The stretch of each time, so that stretches have as many traces."""
    traces: Counter[int] = Counter()
    for count in counts:
        traces[count.time] += count.traces
    whole, before, found = traces.total(), 0, {}
    for time in sorted(traces):
        found[time] = (2 * before + traces[time]) * STRETCHES // (2 * whole)
        before += traces[time]
    return found


def _placed(counts: Iterable[Count], stretches: dict[int, int], first: int = 0) -> list[tuple[int, Count]]:
    return [(first + stretches[count.time], count) for count in counts if count.time in stretches]


def _together(
    first: Sequence[Count], second: Sequence[Count]
) -> tuple[list[tuple[int, Count]], list[tuple[int, Count]]] | None:
    """The traffic that both sides had at once, if it is at least half of one side's."""
    if not first or not second:
        return None
    ends = [(min(c.time for c in side), max(c.time for c in side)) for side in (first, second)]
    begin, end = max(low for low, _ in ends), min(high for _, high in ends)
    if begin >= end:
        return None
    both = [count for side in (first, second) for count in side if begin <= count.time <= end]
    stretches = _divide(both)
    placed = _placed(first, stretches), _placed(second, stretches)
    common = {stretch for stretch, _ in placed[0]} & {stretch for stretch, _ in placed[1]}
    kept = tuple([each for each in side if each[0] in common] for side in placed)
    traces = [sum(count.traces for _, count in matched) for matched in kept]
    shares = [
        left / sum(count.traces for count in side) for left, side in zip(traces, (first, second), strict=True)
    ]
    if len(common) < _LEAST_STRETCHES or max(shares) < _LEAST_SHARED or min(traces) < MIN_TRACES:
        return None
    return kept[0], kept[1]
