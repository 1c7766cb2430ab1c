"""Counts of two sides by block, matched in time where both had traffic at once."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import Final, NamedTuple

from ..stores.base import HOUR_MS, STRETCH_MS, BlockCount, code_of, count_codes, histogram_of
from ..stores.deadline import current_deadline
from .clusters import Kind, Sums, Table
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
    def bucket_sum(self) -> int:
        """The sum of the buckets of all durations."""
        return self.traces * (self.bucket or 0)

    @property
    def bucket_squares(self) -> int:
        """The sum of their squares."""
        return self.traces * (self.bucket or 0) ** 2

    @property
    def codes(self) -> tuple[int, ...]:
        """The traces by bucket, as ``BlockCount`` has them."""
        return () if self.bucket is None else (code_of(self.bucket, self.traces),)

    def succeeded(self) -> Count:
        """The same without the traces that failed."""
        return self._replace(traces=self.traces - self.errors, errors=0)


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


class Bin:
    """The sums of counts: what the measures are of."""

    def __init__(self, counts: Sequence[Counted]) -> None:
        self.counts = counts
        self.traces = sum([count.traces for count in counts])
        self.errors = sum([count.errors for count in counts])

    @cached_property
    def codes(self) -> Counter[int]:
        """The number of times that there is each code, as ``histogram_of`` takes them."""
        return count_codes([count.codes for count in self.counts])

    @cached_property
    def _above(self) -> tuple[list[int], list[int]]:
        """The buckets in order, and the traces of each and of all above it."""
        histogram = histogram_of(self.codes)
        ordered = sorted(histogram)
        above = accumulate([histogram[bucket] for bucket in reversed(ordered)], initial=0)
        return ordered, [*above][::-1]

    def over(self, limit: int) -> int:
        """The traces whose duration is in a bucket above the limit."""
        ordered, above = self._above
        return above[bisect_right(ordered, limit)]

    @cached_property
    def durations(self) -> Sums:
        """The buckets of durations, which are their logarithms."""
        return Sums(
            self._above[1][0],
            sum([count.bucket_sum for count in self.counts]),
            sum([count.bucket_squares for count in self.counts]),
        )

    @cached_property
    def amounts(self) -> Sums:
        """The amounts that are not durations, which only a ``Count`` has."""
        own = [count for count in self.counts if isinstance(count, Count)]
        total, squares = sum([count.total for count in own]), sum([count.squares for count in own])
        return Sums(sum([count.traces for count in own]), total, squares)


Measure = Callable[[Bin], Sums]
"""The number of values, their sum, and the sum of their squares."""


def measure_errors(of: Bin) -> Sums:
    """1 for a trace that failed, 0 for another."""
    return Sums(of.traces, of.errors, of.errors)


def measure_durations(of: Bin) -> Sums:
    """The buckets of durations, which are their logarithms."""
    return of.durations


def measure_amounts(of: Bin) -> Sums:
    """The amounts that are not durations."""
    return of.amounts


def measure_over(limit: int) -> Measure:
    """1 for a duration in a bucket above the limit, 0 for another."""

    def measure(of: Bin) -> Sums:
        over = of.over(limit)
        return Sums(of.durations.traces, over, over)

    return measure


_Place = tuple[str, Hashable]
"""A stratum by name, and what it is compared within."""


class _Margins:
    """The counts of one side by stratum and process, and by stratum and stretch of time.

    Each count has its stretch. ``parts``: strata are divided into so many parts by time.
    """

    def __init__(self, placed: Iterable[tuple[int, Counted]], parts: int | None) -> None:
        by_process: defaultdict[tuple[_Place, str], list[Counted]] = defaultdict(list)
        by_stretch: defaultdict[tuple[_Place, int], list[Counted]] = defaultdict(list)
        for stretch, count in placed:
            name = count.stratum
            place = name, name if parts is None else (name, stretch * parts // STRETCHES)
            by_process[place, count.process].append(count)
            by_stretch[place, stretch].append(count)
        # Sorted, so that sums are the same to the last digit in whichever order and parts a store counts.
        self.processes = {key: Bin(counts) for key, counts in sorted(by_process.items())}
        self.stretches = {key: Bin(counts) for key, counts in sorted(by_stretch.items())}

    @cached_property
    def strata(self) -> Counter[str]:
        """The traces of each stratum."""
        found: Counter[str] = Counter()
        for ((name, _), _), of in self.processes.items():
            found[name] += of.traces
        return found

    @cached_property
    def histograms(self) -> dict[Hashable, Counter[int]]:
        """The traces by bucket, of each part of a stratum."""
        found: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)
        for ((_, within), _), of in self.processes.items():
            found[within].update(of.codes)
        return {within: histogram_of(codes) for within, codes in found.items() if codes}

    @cached_property
    def histogram(self) -> Counter[int]:
        """The traces by bucket, of all strata."""
        found: Counter[int] = Counter()
        for histogram in self.histograms.values():
            found.update(histogram)
        return found


class Traffic:
    """The counts of one value, with what does not depend on the value that it is compared with."""

    def __init__(self, counts: Sequence[Counted]) -> None:
        self.counts = counts
        self.traces = sum([count.traces for count in counts])

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The first and the last time."""
        times = [count.time for count in self.counts]
        return min(times), max(times)

    @cached_property
    def placed(self) -> list[tuple[int, Counted]]:
        """Each count with its stretch of the time of this value."""
        return _placed(self.counts, _divide(self.counts))

    @cached_property
    def margins(self) -> _Margins:
        """The counts in the time of this value."""
        return _Margins(self.placed, None)


class Blocks:
    """Two sides in blocks, which are processes and stretches of time.

    ``same_time``: the sides had traffic at once, and only that traffic is here.
    """

    def __init__(self, first: Traffic, second: Traffic) -> None:
        together = _together(first, second)
        self.same_time = together is not None
        self.sides = (first.placed, second.placed) if together is None else together
        if together is None:
            self._margins = first.margins, second.margins
        else:
            fewest = min(sum(count.traces for _, count in side) for side in together)
            # Parts are joined where otherwise many would have traces of a route on one side only.
            parts = min(STRETCHES, max(_LEAST_STRETCHES, fewest // _TRACES_EACH))
            self._margins = _Margins(together[0], parts), _Margins(together[1], parts)

    @classmethod
    def of(cls, first: Sequence[Counted], second: Sequence[Counted]) -> Blocks:
        """Divide the time of both sides into stretches: together if they had traffic at once."""
        return cls(Traffic(first), Traffic(second))

    @cached_property
    def same_processes(self) -> bool:
        """Whether at least half of the traces are of processes that serve both sides, as with a flag."""
        traces: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for side, margins in enumerate(self._margins):
            for (_, process), of in margins.processes.items():
                traces[side][process] += of.traces
        both = traces[0].keys() & traces[1].keys() - {""}
        shared = sum(min(each[process] for each in traces) for process in both)
        return 2 * shared >= min(each.total() for each in traces) > 0

    def traces(self, side: int) -> int:
        """The number of traces of a side that are compared."""
        return self._margins[side].strata.total()

    def strata(self, side: int) -> Counter[str]:
        """The traces of a side in each stratum."""
        return self._margins[side].strata

    def histogram(self) -> Counter[int]:
        """The traces of both sides by bucket."""
        return self._margins[0].histogram + self._margins[1].histogram

    def standardized(self) -> tuple[dict[int, float], dict[int, float]]:
        """The distribution of durations by bucket of each side, both with the same mix of strata."""
        timed = [{key: h.total() for key, h in margins.histograms.items()} for margins in self._margins]
        found: tuple[defaultdict[int, float], ...] = defaultdict(float), defaultdict(float)
        for side, margins in enumerate(self._margins):
            for within, histogram in margins.histograms.items():
                own, other = timed[side][within], timed[1 - side].get(within, 0)
                if other:
                    weight = other / (own + other)
                    for bucket, traces in histogram.items():
                        found[side][bucket] += weight * traces
        return dict(sorted(found[0].items())), dict(sorted(found[1].items()))

    def tables(self, measure: Measure) -> dict[str, Table]:
        """The table of a measure for each stratum.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        # One pair of thousands of processes may take as long as many pairs.
        if (deadline := current_deadline()) is not None:
            deadline.check()
        sums: defaultdict[str, dict[Hashable, list[Sums]]] = defaultdict(dict)
        margins_of: defaultdict[str, dict[Kind, list[tuple[int, Hashable, Hashable, int, float]]]]
        margins_of = defaultdict(lambda: {"process": [], "stretch": []})
        for side, margins in enumerate(self._margins):
            for ((name, within), process), of in margins.processes.items():
                found = measure(of)
                if found.traces:
                    both = sums[name].setdefault(within, [Sums(), Sums()])
                    both[side] = Sums(*map(add, both[side], found))
                    if process:
                        margins_of[name]["process"].append((side, within, process, found.traces, found.total))
            for ((name, within), stretch), of in margins.stretches.items():
                found = measure(of)
                if found.traces:
                    margins_of[name]["stretch"].append((side, within, stretch, found.traces, found.total))
        return {
            name: Table({within: (one, other) for within, (one, other) in of.items()}, margins_of[name])
            for name, of in sorted(sums.items())
        }


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


def _placed(counts: Iterable[Counted], stretches: dict[int, int]) -> list[tuple[int, Counted]]:
    return [(stretches[count.time], count) for count in counts if count.time in stretches]


def _together(
    first: Traffic, second: Traffic
) -> tuple[list[tuple[int, Counted]], list[tuple[int, Counted]]] | None:
    """The traffic that both sides had at once, if it is at least half of one side's."""
    if not first.counts or not second.counts:
        return None
    begin, end = max(first.ends[0], second.ends[0]), min(first.ends[1], second.ends[1])
    if begin >= end:
        return None
    both = [count for side in (first, second) for count in side.counts if begin <= count.time <= end]
    stretches = _divide(both)
    placed = _placed(first.counts, stretches), _placed(second.counts, stretches)
    common = {stretch for stretch, _ in placed[0]} & {stretch for stretch, _ in placed[1]}
    kept = tuple([each for each in side if each[0] in common] for side in placed)
    traces = [sum(count.traces for _, count in matched) for matched in kept]
    shares = [left / side.traces for left, side in zip(traces, (first, second), strict=True)]
    if len(common) < _LEAST_STRETCHES or max(shares) < _LEAST_SHARED or min(traces) < MIN_TRACES:
        return None
    return kept[0], kept[1]
