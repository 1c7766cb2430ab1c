"""Counts of two sides by block, matched in time where both had traffic at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from ..stores.base import CODE, HOUR_MS, STRETCH_MS, BlockCount, histogram_of
from .clusters import Cell
from .results import Group

MIN_TRACES: Final = 30
"""How many traces of each side a comparison needs."""
STRETCHES: Final = 16
"""How many stretches the time of a comparison is divided into, each with as many traces."""
_STEPS_EACH: Final = 64
_LEAST_STEPS: Final = 32
_MOST_STEPS: Final = 2048
_MOMENT_MS: Final = 1000
_LEAST_SHARED: Final = 0.5
_LEAST_STRETCHES: Final = 4
_TRACES_EACH: Final = 300


class Count(NamedTuple):
    """Traces of one side that are counted together.

    ``stratum`` is what is compared only with itself, as a route is. ``process`` is ``""`` where it is not
    known. ``time`` is in any unit. ``bucket`` is that of the duration, ``None`` where none was recorded.
    ``total`` and ``squares`` are sums of another amount than durations.
    """

    stratum: str
    process: str
    time: int
    bucket: int | None
    traces: int
    errors: int
    total: float = 0.0
    squares: float = 0.0

    @property
    def timed(self) -> int:
        """The traces with a duration."""
        return 0 if self.bucket is None else self.traces

    @property
    def bucket_sum(self) -> int:
        """The sum of the buckets of all durations."""
        return self.traces * (self.bucket or 0)

    @property
    def bucket_squares(self) -> int:
        """The sum of their squares."""
        return self.traces * (self.bucket or 0) ** 2

    def over(self, limit: int) -> int:
        """The traces whose duration is in a bucket above the limit."""
        return self.traces if self.bucket is not None and self.bucket > limit else 0

    def succeeded(self) -> Count:
        """The same without the traces that failed."""
        return self._replace(traces=self.traces - self.errors, errors=0)

    def add_to(self, codes: Counter[int]) -> None:
        """Add the traces by bucket, as ``BlockCount`` does."""
        if self.bucket is not None:
            codes[self.bucket * CODE + 1] += self.traces


Counted = Count | BlockCount
"""Traces of one bucket, or of several that a store has counted together."""


def step_of(groups: Collection[Group]) -> int:
    """How many ms to count together: what is counted beforehand where that is short enough."""
    shortest = min(group.last_seen - group.first_seen for group in groups)
    whole = max(group.last_seen for group in groups) - min(group.first_seen for group in groups)
    longest = max(1, shortest // _LEAST_STEPS, whole // _MOST_STEPS)
    if longest >= HOUR_MS:
        return max(1, whole // _MOST_STEPS // HOUR_MS) * HOUR_MS
    return STRETCH_MS if longest >= STRETCH_MS else max(1, shortest // _STEPS_EACH, whole // _MOST_STEPS)


def find_moments(groups: Iterable[Group]) -> dict[str, int]:
    """The start, in ms since the epoch, of each value whose traces are all within a second.

    Such traffic is one block of time: a few ms of it tell nothing of how load varies.
    """
    return {
        group.value: group.first_seen for group in groups if group.last_seen - group.first_seen < _MOMENT_MS
    }


@dataclass(frozen=True)
class Blocks:
    """Two sides in blocks: each count with the stretch of time that it is in.

    ``same_time``: the sides had traffic at once, and only that traffic is here. ``same_processes``: most
    processes serve both sides, as with a feature flag.
    """

    sides: tuple[Sequence[tuple[int, Counted]], Sequence[tuple[int, Counted]]]
    same_time: bool

    @classmethod
    def of(cls, first: Sequence[Counted], second: Sequence[Counted]) -> Blocks:
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
        for (of_side, name, _, _), counts in self._grouped.items():
            if of_side == side:
                found[name] += sum([count.traces for count in counts])
        return found

    def histogram(self) -> Counter[int]:
        """The traces of both sides by bucket."""
        found: Counter[int] = Counter()
        for histogram in self._histograms.values():
            found.update(histogram)
        return found

    def standardized(self) -> tuple[dict[int, float], dict[int, float]]:
        """The distribution of durations by bucket of each side, both with the same mix of strata."""
        timed = {key: histogram.total() for key, histogram in self._histograms.items()}
        found: tuple[defaultdict[int, float], ...] = defaultdict(float), defaultdict(float)
        for (side, stratum), histogram in self._histograms.items():
            own, other = timed[side, stratum], timed.get((1 - side, stratum), 0)
            if other:
                weight = other / (own + other)
                for bucket, traces in histogram.items():
                    found[side][bucket] += weight * traces
        return dict(sorted(found[0].items())), dict(sorted(found[1].items()))

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
    def _histograms(self) -> dict[tuple[int, Hashable], Counter[int]]:
        """For each side and what is compared with each other, the traces by bucket."""
        found: defaultdict[tuple[int, Hashable], Counter[int]] = defaultdict(Counter)
        for (side, name, _, stretch), counts in self._grouped.items():
            codes = found[side, self._stratum(name, stretch)]
            for count in counts:
                count.add_to(codes)
        return {key: histogram_of(codes) for key, codes in found.items() if codes}

    @cached_property
    def _grouped(self) -> dict[tuple[int, str, str, int], list[Counted]]:
        # Sorted, so that sums are the same to the last digit in whichever order and parts a store counts.
        found: defaultdict[tuple[int, str, str, int], list[Counted]] = defaultdict(list)
        for side, counts in enumerate(self.sides):
            for stretch, count in counts:
                found[side, count.stratum, count.process, stretch].append(count)
        return dict(sorted(found.items()))


Measure = Callable[[Sequence[Counted]], tuple[int, float, float]]
"""The number of values in a block, their sum, and the sum of their squares."""


def measure_errors(counts: Sequence[Counted]) -> tuple[int, float, float]:
    """1 for a trace that failed, 0 for another."""
    errors = sum([count.errors for count in counts])
    return sum([count.traces for count in counts]), errors, errors


def measure_durations(counts: Sequence[Counted]) -> tuple[int, float, float]:
    """The buckets of durations, which are their logarithms."""
    timed = sum([count.timed for count in counts])
    return timed, sum([count.bucket_sum for count in counts]), sum([count.bucket_squares for count in counts])


def measure_amounts(counts: Sequence[Counted]) -> tuple[int, float, float]:
    """The amounts that are not durations, which only a ``Count`` has."""
    own = [count for count in counts if isinstance(count, Count)]
    sums = sum([count.total for count in own]), sum([count.squares for count in own])
    return sum([count.traces for count in own]), *sums


def measure_over(limit: int) -> Measure:
    """1 for a duration in a bucket above the limit, 0 for another."""

    def measure(counts: Sequence[Counted]) -> tuple[int, float, float]:
        over = sum([count.over(limit) for count in counts])
        return sum([count.timed for count in counts]), over, over

    return measure


def _divide(counts: Sequence[Counted]) -> dict[int, int]:
    """The stretch of each time, so that stretches have as many traces."""
    traces: Counter[int] = Counter()
    for count in counts:
        traces[count.time] += count.traces
    whole, before, found = traces.total(), 0, {}
    for time in sorted(traces):
        found[time] = (2 * before + traces[time]) * STRETCHES // (2 * whole)
        before += traces[time]
    return found


def _placed(
    counts: Iterable[Counted], stretches: dict[int, int], first: int = 0
) -> list[tuple[int, Counted]]:
    return [(first + stretches[count.time], count) for count in counts if count.time in stretches]


def _together(
    first: Sequence[Counted], second: Sequence[Counted]
) -> tuple[list[tuple[int, Counted]], list[tuple[int, Counted]]] | None:
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
