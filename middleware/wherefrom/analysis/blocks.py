"""Counts of two sides by block, matched in time where both had traffic at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._buckets import NOTHING
from ..stores.base import ALONE, CODE, HOUR_MS, STRETCH_MS, BlockColumns, Durations
from ..stores.deadline import check_deadline
from .clusters import Kind, Sums, Table
from .lazy_numpy import np
from .results import Group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[Any]

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
_FINE: Final = 1 << 30


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


def _integers(numbers: Iterable[int | None]) -> Column:
    return np.fromiter(numbers, np.int64)


class Labels(NamedTuple):
    """Texts in columns: the different ones in order, and the place of each row's."""

    names: tuple[str, ...]
    places: Column

    @classmethod
    def of(cls, texts: Sequence[str]) -> Labels:
        """The labels of rows."""
        names = sorted(set(texts))
        place = {name: number for number, name in enumerate(names)}
        return cls(tuple(names), _integers(place[text] for text in texts))

    def taken(self, rows: Column) -> Labels:
        """The labels of some rows."""
        return Labels(self.names, self.places[rows])


class Buckets(NamedTuple):
    """Durations by bucket in columns: the row of their block, their bucket, and how many there are.

    ``traces`` are floats, as numpy adds weights as floats: up to 2^53 they are exact.
    """

    rows: Column
    buckets: Column
    traces: Column

    @classmethod
    def of(cls, durations: Sequence[Durations]) -> Buckets:
        """Those of several batches of blocks, whose rows follow each other."""
        alone = np.frombuffer("".join([each.alone for each in durations]).encode("utf-16-le"), "<u2")
        codes = _integers(code for each in durations for code in each.codes)
        rows = [
            np.repeat(np.arange(len(each)), each)
            for each in (
                _integers(number for one in durations for number in one.alone_each),
                _integers(number for one in durations for number in one.codes_each),
            )
        ]
        return cls(
            np.concatenate(rows),
            np.concatenate([alone.astype(np.int16) - ALONE, (codes % CODE - 1).astype(np.int16)]),
            np.concatenate([np.ones(len(alone)), codes // CODE]),
        )

    def taken(self, rows: Column, of: int) -> Buckets:
        """Those of some rows ``of`` so many, which are numbered anew."""
        number = np.full(of, -1, np.int64)
        number[rows] = np.arange(len(rows))
        new = number[self.rows]
        return Buckets(*(column[new >= 0] for column in (new, self.buckets, self.traces)))

    def split(self, parts: Column, number: int) -> list[Buckets]:
        """Those of the rows of each part, which are numbered anew in each; ``parts`` has that of each row."""
        places = np.empty(len(parts), np.int64)
        for part in range(number):
            rows = np.flatnonzero(parts == part)
            places[rows] = np.arange(len(rows))
        # Integers of 16 bits are sorted by radix.
        of_part = parts.astype(np.int16)[self.rows]
        order = np.argsort(of_part, kind="stable")
        ends = np.searchsorted(of_part[order], np.arange(number + 1, dtype=np.int16))
        columns = [column[order] for column in (places[self.rows], self.buckets, self.traces)]
        return [Buckets(*(column[begin:end] for column in columns)) for begin, end in pairwise(ends.tolist())]

    def less(self, others: Buckets) -> Buckets:
        """The durations that are left without ``others``."""
        rows, buckets = (np.concatenate([self[place], others[place]]) for place in (0, 1))
        width = int(buckets.max(initial=NOTHING)) - NOTHING + 1
        keys, places = np.unique(rows * width + buckets - NOTHING, return_inverse=True)
        traces = np.bincount(places, np.concatenate([self.traces, -others.traces]), len(keys))
        left = np.flatnonzero(traces > 0)
        return Buckets(keys[left] // width, keys[left] % width + NOTHING, traces[left])

    def summed(self, rows: int, weights: Column) -> Column:
        """The sum of the weights of each of so many rows."""
        return np.bincount(self.rows, weights, rows)


@dataclass(frozen=True)
class Traffic:
    """The counts of one value by block, in columns, with what does not depend on what it is compared with.

    ``totals`` and ``squares`` are of an amount that is not a duration.
    """

    strata: Labels
    processes: Labels
    times: Column
    traces: Column
    errors: Column
    durations: Buckets
    failed: Buckets
    totals: Column
    squares: Column

    @classmethod
    def of(cls, counts: Iterable[Count]) -> Traffic:
        """The traffic of single counts."""
        # In order, so that sums are the same to the last digit in whichever order a store counts.
        ordered = sorted(counts, key=lambda count: (count.stratum, count.process, count.time))
        timed = [(row, one) for row, one in enumerate(ordered) if one.bucket is not None]
        rows, buckets = _integers(row for row, _ in timed), _integers(one.bucket for _, one in timed)
        return cls(
            Labels.of([one.stratum for one in ordered]),
            Labels.of([one.process for one in ordered]),
            _integers(one.time for one in ordered),
            _integers(one.traces for one in ordered),
            _integers(one.errors for one in ordered),
            Buckets(rows, buckets, np.array([one.traces for _, one in timed], np.float64)),
            Buckets(rows, buckets, np.array([one.errors for _, one in timed], np.float64)),
            np.array([one.total for one in ordered], np.float64),
            np.array([one.squares for one in ordered], np.float64),
        )

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def total(self) -> int:
        """The number of traces."""
        return int(self.traces.sum())

    @cached_property
    def steps(self) -> tuple[Column, Column]:
        """The different times in order, and the traces of each."""
        times, places = np.unique(self.times, return_inverse=True)
        return times, np.bincount(places, self.traces, len(times)).astype(np.int64)

    @cached_property
    def timed(self) -> Column:
        """The traces of each block that have a duration."""
        return self.durations.summed(len(self), self.durations.traces)

    @cached_property
    def sums(self) -> tuple[Column, Column, Column]:
        """Of each block: the durations, the sum of their buckets, and that of the squares."""
        by_bucket = self.durations.buckets * self.durations.traces
        summed = self.durations.summed
        return self.timed, summed(len(self), by_bucket), summed(len(self), by_bucket * self.durations.buckets)

    def over(self, limit: int) -> Column:
        """The durations of each block that are in a bucket above the limit."""
        is_over = self.durations.buckets > limit
        return np.bincount(self.durations.rows[is_over], self.durations.traces[is_over], len(self))

    def taken(self, rows: Column) -> Traffic:
        """The traffic of some blocks."""
        if len(rows) == len(self):
            return self
        return Traffic(
            self.strata.taken(rows),
            self.processes.taken(rows),
            self.times[rows],
            self.traces[rows],
            self.errors[rows],
            self.durations.taken(rows, len(self)),
            self.failed.taken(rows, len(self)),
            self.totals[rows],
            self.squares[rows],
        )

    def succeeded(self) -> Traffic:
        """The traffic without the traces that failed."""
        left = self.durations.less(self.failed)
        traces = self.traces - self.errors
        none = Buckets(*(np.zeros(0, np.int64) for _ in range(3)))
        found = replace(self, traces=traces, errors=np.zeros_like(traces), durations=left, failed=none)
        return found.taken(np.flatnonzero(traces > 0))

    @cached_property
    def alone(self) -> Side:
        """The blocks with their stretches of the time of this value."""
        times, traces = self.steps
        stretches = _divide(traces)
        return Side(self, stretches[np.searchsorted(times, self.times)])


class _Groups(NamedTuple):
    """Rows by label: the labels in order, and the place of each row's; -1 for a row without one."""

    labels: list[tuple[Any, ...]]
    places: Column

    def summed(self, *columns: Column) -> Iterator[tuple[Any, ...]]:
        """Each label, and the sum of each column of its rows, the first as an integer."""
        is_in = self.places >= 0
        places, size = self.places[is_in], len(self.labels)
        sums = [np.bincount(places, column[is_in], size).tolist() for column in columns]
        return zip(self.labels, map(int, sums[0]), *sums[1:], strict=True)


@dataclass(frozen=True)
class Side:
    """Traffic with the stretch of time of each block.

    ``parts``: strata are divided into so many parts by time.
    """

    traffic: Traffic
    stretches: Column
    parts: int | None = None

    @cached_property
    def strata(self) -> _Groups:
        """The rows by stratum, and what it is compared within."""
        (names, places), parts = self.traffic.strata, self.parts or 1
        keys, rows = np.unique(places * parts + self.stretches * parts // STRETCHES, return_inverse=True)
        known = [divmod(key, parts) for key in keys.tolist()]
        if self.parts is None:
            return _Groups([(names[place], names[place]) for place, _ in known], rows)
        return _Groups([(names[place], (names[place], part)) for place, part in known], rows)

    @cached_property
    def processes(self) -> _Groups:
        """The rows whose process is known, by stratum and process."""
        names, places = self.traffic.processes
        return self._by([*names], np.where(np.array([*map(bool, names)], bool)[places], places, -1))

    @cached_property
    def by_stretch(self) -> _Groups:
        """The rows by stratum and stretch of time."""
        return self._by(range(STRETCHES), self.stretches)

    def _by(self, clusters: Sequence[Hashable], places: Column) -> _Groups:
        strata, of_row = self.strata
        keys, rows = np.unique(np.where(places < 0, -1, of_row * len(clusters) + places), return_inverse=True)
        known = [divmod(key, len(clusters)) for key in keys.tolist() if key >= 0]
        labels = [(*strata[stratum], clusters[place]) for stratum, place in known]
        return _Groups(labels, rows - (len(keys) - len(known)))

    def histogram(self, weights: Column | None = None) -> Column:
        """The durations by bucket, from ``NOTHING`` on; ``weights`` are those of each row."""
        rows, buckets, traces = self.traffic.durations
        return np.bincount(buckets - NOTHING, traces if weights is None else weights[rows] * traces)


Measure = Callable[[Traffic], "tuple[Column, Column, Column]"]
"""Of each block: the number of values, their sum, and the sum of their squares."""


def measure_errors(of: Traffic) -> tuple[Column, Column, Column]:
    """1 for a trace that failed, 0 for another."""
    return of.traces, of.errors, of.errors


def measure_durations(of: Traffic) -> tuple[Column, Column, Column]:
    """The buckets of durations, which are their logarithms."""
    return of.sums


def measure_amounts(of: Traffic) -> tuple[Column, Column, Column]:
    """The amounts that are not durations."""
    return of.traces, of.totals, of.squares


def measure_over(limit: int) -> Measure:
    """1 for a duration in a bucket above the limit, 0 for another."""

    def measure(of: Traffic) -> tuple[Column, Column, Column]:
        over = of.over(limit)
        return of.timed, over, over

    return measure


class Blocks:
    """Two sides in blocks, which are processes and stretches of time.

    ``same_time``: the sides had traffic at once, and only that traffic is here.
    """

    def __init__(self, first: Traffic, second: Traffic) -> None:
        together = _together(first, second)
        self.same_time = together is not None
        self.sides = (first.alone, second.alone) if together is None else together

    @classmethod
    def of(cls, first: Iterable[Count], second: Iterable[Count]) -> Blocks:
        """Divide the time of both sides into stretches: together if they had traffic at once."""
        return cls(Traffic.of(first), Traffic.of(second))

    @cached_property
    def same_processes(self) -> bool:
        """Whether at least half of the traces are of processes that serve both sides, as with a flag."""
        traces: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for of_process, side in zip(traces, self.sides, strict=True):
            for (*_, process), number in side.processes.summed(side.traffic.traces):
                of_process[process] += number
        shared = sum((traces[0] & traces[1]).values())
        return 2 * shared >= min(self.traces(0), self.traces(1)) > 0

    def traces(self, side: int) -> int:
        """The number of traces of a side that are compared."""
        return self.sides[side].traffic.total

    def strata(self, side: int) -> Counter[str]:
        """The traces of a side in each stratum."""
        found: Counter[str] = Counter()
        of = self.sides[side]
        for (name, _), traces in of.strata.summed(of.traffic.traces):
            if traces:
                found[name] += traces
        return found

    def histogram(self) -> Counter[int]:
        """The traces of both sides by bucket."""
        return Counter(_by_bucket(self.sides[0].histogram())) + Counter(_by_bucket(self.sides[1].histogram()))

    def standardized(self) -> tuple[dict[int, float], dict[int, float]]:
        """The distribution of durations by bucket of each side, both with the same mix of strata."""
        timed = [
            {within: traces for (_, within), traces in side.strata.summed(side.traffic.timed)}
            for side in self.sides
        ]
        found = []
        for place, side in enumerate(self.sides):
            labels, of_row = side.strata
            pairs = [(timed[place][within], timed[1 - place].get(within, 0)) for _, within in labels]
            weights = np.array([other / (own + other) if other else 0.0 for own, other in pairs])
            # Rounded, so that their sums are exact in whichever order a store counts.
            found.append(_by_bucket(side.histogram((np.round(weights * _FINE) / _FINE)[of_row])))
        return found[0], found[1]

    def tables(self, measure: Measure) -> dict[str, Table]:
        """The table of a measure for each stratum.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        # One pair of thousands of processes may take as long as many pairs.
        check_deadline()
        sums: defaultdict[str, dict[Hashable, list[Sums]]] = defaultdict(dict)
        margins: defaultdict[str, dict[Kind, list[tuple[int, Hashable, Hashable, int, float]]]]
        margins = defaultdict(lambda: {"process": [], "stretch": []})
        for place, side in enumerate(self.sides):
            measured = measure(side.traffic)
            for (name, within), *of_stratum in side.strata.summed(*measured):
                if of_stratum[0]:
                    sums[name].setdefault(within, [Sums(), Sums()])[place] = Sums(*of_stratum)
            of_kind: tuple[tuple[Kind, _Groups], ...]
            of_kind = ("process", side.processes), ("stretch", side.by_stretch)
            for kind, groups in of_kind:
                for (name, within, cluster), traces, total in groups.summed(*measured[:2]):
                    if traces:
                        margins[name][kind].append((place, within, cluster, traces, total))
        return {
            name: Table({within: (one, other) for within, (one, other) in of.items()}, margins[name])
            for name, of in sorted(sums.items())
        }


def _by_bucket(histogram: Column) -> dict[int, float]:
    buckets = np.flatnonzero(histogram > 0)
    return dict(zip((buckets + NOTHING).tolist(), histogram[buckets].tolist(), strict=True))


def _divide(traces: Column) -> Column:
    """The stretch of each time, so that stretches have as many traces."""
    before: Column = np.cumsum(traces) - traces
    found: Column = (2 * before + traces) * STRETCHES // (2 * traces.sum())
    return found


def _together(first: Traffic, second: Traffic) -> tuple[Side, Side] | None:
    """The traffic that both sides had at once, if it is at least half of one side's."""
    if not len(first) or not len(second):
        return None
    both = first, second
    begin, end = max(of.steps[0][0] for of in both), min(of.steps[0][-1] for of in both)
    if begin >= end:
        return None
    times, places = np.unique(np.concatenate([of.steps[0] for of in both]), return_inverse=True)
    traces = np.bincount(places, np.concatenate([of.steps[1] for of in both])).astype(np.int64)
    is_within = (times >= begin) & (times <= end)
    times, stretches = times[is_within], _divide(traces[is_within])
    rows = [np.flatnonzero((of.times >= begin) & (of.times <= end)) for of in both]
    of_rows = [
        stretches[np.searchsorted(times, of.times[within])] for of, within in zip(both, rows, strict=True)
    ]
    common = np.intersect1d(of_rows[0], of_rows[1])
    kept = [np.isin(of_row, common) for of_row in of_rows]
    rows = [within[are_kept] for within, are_kept in zip(rows, kept, strict=True)]
    left = [int(of.traces[within].sum()) for of, within in zip(both, rows, strict=True)]
    shares = [traces / of.total for traces, of in zip(left, both, strict=True)]
    if len(common) < _LEAST_STRETCHES or max(shares) < _LEAST_SHARED or min(left) < MIN_TRACES:
        return None
    # Parts are joined where otherwise many would have traces of a route on one side only.
    parts = min(STRETCHES, max(_LEAST_STRETCHES, min(left) // _TRACES_EACH))
    one, other = (
        Side(of.taken(within), of_row[are_kept], parts)
        for of, within, of_row, are_kept in zip(both, rows, of_rows, kept, strict=True)
    )
    return one, other


def read_traffic(
    batches: Iterable[BlockColumns], values: Collection[str], moments: Mapping[str, int]
) -> dict[str, Traffic]:
    """The traffic of some values, those of ``moments`` all at one time.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    every, number = [*batches], {value: place for place, value in enumerate(values)}

    def column(name: str) -> list[Any]:
        check_deadline()  # millions of blocks take a second each time
        return [item for batch in every for item in getattr(batch, name)]

    parts = _integers(number.get(value, -1) for value in column("values"))
    strata, processes = Labels.of(column("strata")), Labels.of(column("processes"))
    numbers = [_integers(column(name)) for name in ("times", "traces", "errors")]
    durations, failed = (
        Buckets.of([getattr(batch, name) for batch in every]).split(parts, len(number))
        for name in ("durations", "failed")
    )
    found = {}
    for value, place in number.items():
        rows = np.flatnonzero(parts == place)
        times, traces, errors = (each[rows] for each in numbers)
        if value in moments:
            times = np.full(len(rows), moments[value], np.int64)
        labels = strata.taken(rows), processes.taken(rows)
        none = np.zeros(len(rows))
        found[value] = Traffic(
            *labels, times, traces, errors, durations[place], failed[place], totals=none, squares=none
        )
    return found
