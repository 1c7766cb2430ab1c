"""Counts of two sides by block, matched in time where both had traffic at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._buckets import NOTHING
from ..stores.base import ALONE, CODE, HOUR_MS, STRETCH_MS, BlockColumns, Durations, Numbers
from ..stores.deadline import check_deadline
from .clusters import KINDS, Kind, Margin, Table, summed
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
_BESIDE_MOMENT_MS: Final = 10_000
_LEAST_SHARED: Final = 0.5
_LEAST_STRETCHES: Final = 4
_TRACES_EACH: Final = 300
_FINE: Final = 1 << 30
_DENSE: Final = 8
"""Cells are counted in an array if it is at most so many times as long as what is counted."""


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


def find_moments(groups: Collection[Group]) -> dict[str, int]:
    """The start, in ms since the epoch, of each value whose traces are all within a second.

    Such traffic is one block of time: a few ms of it tell nothing of how load varies. If one value is so, ten
    seconds of another are one block too: how one block varies cannot be compared with how sixteen do.
    """
    took = {group.value: group.last_seen - group.first_seen for group in groups}
    limit = _BESIDE_MOMENT_MS if min(took.values(), default=0) < _MOMENT_MS else _MOMENT_MS
    return {group.value: group.first_seen for group in groups if took[group.value] < limit}


def _integers(numbers: Iterable[int | None]) -> Column:
    return np.fromiter(numbers, np.int64)


def _flat(columns: Iterable[Numbers]) -> Column:
    every = [
        np.fromstring(each, np.int64, sep=",") if isinstance(each, str) else _integers(each)
        for each in columns
    ]
    return np.concatenate([_integers(()), *every])


def _concatenated(one: Column, other: Column) -> Column:
    return np.concatenate([one, other])


class Rows(NamedTuple):
    """Some rows in order, and the first and the last of each run of them that follow each other.

    The rows of one value do so, as those of a day have one source.
    """

    places: Column
    first: Column
    last: Column

    @classmethod
    def of(cls, places: Column) -> Rows:
        """These rows with their runs."""
        ends = np.flatnonzero(places[1:] - places[:-1] != 1)
        return cls(
            places,
            _concatenated(places[:1], places[ends + 1]),
            _concatenated(places[ends], places[-1:]),
        )


class _Ragged:
    """Elements of rows, one row after the other and so many of each."""

    def __init__(self, each: Iterable[Numbers]) -> None:
        self.each = _flat(each)
        self._ends = np.cumsum(self.each)

    def within(self, rows: Rows) -> list[slice]:
        """Where the elements of some rows are."""
        begins, ends = self._ends[rows.first] - self.each[rows.first], self._ends[rows.last]
        return [slice(0), *map(slice, begins.tolist(), ends.tolist())]


class Labels(NamedTuple):
    """Texts in columns: the different ones in order, and the place of each row's."""

    names: tuple[str, ...]
    places: Column

    @classmethod
    def of(cls, texts: Sequence[str]) -> Labels:
        """The labels of rows."""
        names = sorted(set(texts))
        place = {name: number for number, name in enumerate(names)}
        return cls(tuple(names), _integers(map(place.__getitem__, texts)))

    def taken(self, rows: Column) -> Labels:
        """The labels of some rows."""
        return Labels(self.names, self.places[rows])

    def joined(self, other: Labels) -> tuple[tuple[str, ...], tuple[Column, Column]]:
        """The names of both, and for each of the two the places of its names among them."""
        if self.names == other.names:
            same = np.arange(len(self.names))
            return self.names, (same, same)
        names = tuple(sorted({*self.names, *other.names}))
        place = {name: number for number, name in enumerate(names)}
        first, second = (_integers(place[name] for name in of.names) for of in (self, other))
        return names, (first, second)


class Buckets(NamedTuple):
    """Durations by bucket in columns: the row of their block, their bucket, and how many there are.

    ``traces`` are floats, as numpy adds weights as floats: up to 2^53 they are exact.
    """

    rows: Column
    buckets: Column
    traces: Column

    @classmethod
    def of(cls, durations: Sequence[Durations], signs: Column, parts: Sequence[Rows]) -> Iterator[Buckets]:
        """Those of the rows of each part, which are numbered anew; a row with the sign -1 is subtracted."""
        text = "".join([each.alone for each in durations])
        alone = np.frombuffer(text.encode("utf-16-le"), "<u2").astype(np.int16) - ALONE
        codes = _flat(each.codes for each in durations)
        coded, traces = (codes % CODE - 1).astype(np.int16), (codes // CODE).astype(np.float64)
        of_alone = _Ragged(each.alone_each for each in durations)
        of_coded = _Ragged(each.codes_each for each in durations)
        traces *= np.repeat(signs, of_coded.each)
        for rows in parts:
            alone_each, coded_each = of_alone.each[rows.places], of_coded.each[rows.places]
            in_alone, in_coded = of_alone.within(rows), of_coded.within(rows)
            places, sign = np.arange(len(rows.places)), signs[rows.places]
            yield cls(
                np.concatenate([np.repeat(places, alone_each), np.repeat(places, coded_each)]),
                np.concatenate([*(alone[run] for run in in_alone), *(coded[run] for run in in_coded)]),
                np.concatenate([np.repeat(sign, alone_each), *(traces[run] for run in in_coded)]),
            )

    def taken(self, rows: Column, of: int) -> Buckets:
        """Those of some rows ``of`` so many, which are numbered anew."""
        number = np.full(of, -1, np.int64)
        number[rows] = np.arange(len(rows))
        new = number[self.rows]
        return Buckets(*(column[new >= 0] for column in (new, self.buckets, self.traces)))

    def within(self, limits: Column) -> Buckets:
        """Those in the buckets between the two limits of their row."""
        first, last = limits[:, self.rows]
        is_within = (first <= self.buckets) & (self.buckets <= last)
        return Buckets(*(column[is_within] for column in self))

    def joined(self, places: Column, number: int) -> Buckets:
        """By bucket, those of rows that have the same of so many places, which become their rows."""
        keys = np.multiply(self.buckets, number, dtype=np.int64)
        keys += (places - NOTHING * number)[self.rows]
        if (most := int(keys.max(initial=0))) < _DENSE * (len(keys) + number):
            sums = np.bincount(keys, self.traces, most + 1)
            keys = left = np.flatnonzero(sums)
        else:  # most of so many cells would be empty
            keys, of_rows = np.unique(keys, return_inverse=True)
            sums = np.bincount(of_rows, self.traces, len(keys))
            left = np.flatnonzero(sums)
            keys = keys[left]
        return Buckets(keys % number, keys // number + NOTHING, sums[left])


@dataclass(frozen=True)
class Traffic:
    """The counts of one value by block, in columns, with what does not depend on what it is compared with.

    Blocks may come in parts, which are added; where traces are subtracted, numbers are less than 0.
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

    def within(self, limits: Column) -> Traffic:
        """The traffic in the buckets between the limits of each block: all of it if these are infinite."""
        timed, failed = self.durations.within(limits), self.failed.within(limits)
        traces, errors = (
            np.where(np.isinf(limits[0]), whole, np.bincount(each.rows, each.traces, len(self))).astype(
                np.int64
            )
            for whole, each in ((self.traces, timed), (self.errors, failed))
        )
        found = replace(self, traces=traces, errors=errors, durations=timed, failed=failed)
        return found.taken(np.flatnonzero(traces))

    def succeeded(self) -> Traffic:
        """The traffic without the traces that failed."""
        traces, failed = self.traces - self.errors, self.failed._replace(traces=-self.failed.traces)
        timed, none = (
            Buckets(*map(_concatenated, self.durations, failed)),
            Buckets(*(each[:0] for each in failed)),
        )
        found = replace(self, traces=traces, errors=np.zeros_like(traces), durations=timed, failed=none)
        return found.taken(np.flatnonzero(traces)).without_empty_steps()

    def without_empty_steps(self) -> Traffic:
        """The traffic without the steps all of whose traces are subtracted."""
        times, traces = self.steps
        return self if traces.all() else self.taken(np.flatnonzero(np.isin(self.times, times[traces > 0])))

    @cached_property
    def alone(self) -> Side:
        """The blocks with their stretches of the time of this value."""
        times, traces = self.steps
        stretches = _divide(traces)
        return Side(self, stretches[np.searchsorted(times, self.times)])


@dataclass(frozen=True)
class Cells:
    """The blocks of a side joined by stratum and cluster, in columns; durations are in order of buckets."""

    strata: Column
    clusters: Column
    traces: Column
    errors: Column
    totals: Column
    squares: Column
    durations: Buckets

    @cached_property
    def sums(self) -> tuple[Column, Column, Column]:
        """Of each cell: the durations, the sum of their buckets, and that of the squares."""
        rows, buckets, traces = self.durations
        number, by_bucket = len(self.strata), buckets * traces
        timed, total, squares = (
            np.bincount(rows, each, number) for each in (traces, by_bucket, by_bucket * buckets)
        )
        return timed, total, squares

    def over(self, limit: int) -> Column:
        """The durations of each cell that are in a bucket above the limit."""
        rows, buckets, traces = self.durations
        begin = np.searchsorted(buckets, limit, "right")
        return np.bincount(rows[begin:], traces[begin:], len(self.strata))


@dataclass(frozen=True)
class Side:
    """Traffic with the stretch of time of each block.

    ``parts``: strata are divided into so many parts by time.
    """

    traffic: Traffic
    stretches: Column
    parts: int = 1

    @cached_property
    def cells(self) -> dict[Kind, Cells]:
        """The traffic by stratum, and by process or stretch of time. A stratum is a place and a part."""
        strata = self.traffic.strata.places * self.parts + self.stretches * self.parts // STRETCHES
        return {
            "process": self._joined(strata, self.traffic.processes.places),
            "stretch": self._joined(strata, self.stretches),
        }

    def _joined(self, strata: Column, clusters: Column) -> Cells:
        of, width = self.traffic, int(clusters.max(initial=0)) + 1
        keys, rows = np.unique(strata * width + clusters, return_inverse=True)
        traces, errors, totals, squares = (
            np.bincount(rows, column, len(keys)) for column in (of.traces, of.errors, of.totals, of.squares)
        )
        durations = of.durations.joined(rows, len(keys))
        return Cells(keys // width, keys % width, traces, errors, totals, squares, durations)


Measure = Callable[[Cells], "tuple[Column, Column, Column]"]
"""Of each cell: the number of values, their sum, and the sum of their squares."""


def measure_errors(of: Cells) -> tuple[Column, Column, Column]:
    """1 for a trace that failed, 0 for another."""
    return of.traces, of.errors, of.errors


def measure_durations(of: Cells) -> tuple[Column, Column, Column]:
    """The buckets of durations, which are their logarithms."""
    return of.sums


def measure_amounts(of: Cells) -> tuple[Column, Column, Column]:
    """The amounts that are not durations."""
    return of.traces, of.totals, of.squares


def measure_over(limit: int) -> Measure:
    """1 for a duration in a bucket above the limit, 0 for another."""

    def measure(of: Cells) -> tuple[Column, Column, Column]:
        over = of.over(limit)
        return of.sums[0], over, over

    return measure


class Blocks:
    """Two sides in blocks, which are processes and stretches of time.

    ``same_time``: the sides had traffic at once, and only that traffic is here. ``names`` are of what is
    compared only with itself, and ``of_names`` has the place of each stratum's name among them.
    """

    def __init__(self, first: Traffic, second: Traffic) -> None:
        together = _together(first, second)
        self.same_time = together is not None
        self.sides = (first.alone, second.alone) if together is None else together
        one, other = (side.traffic for side in self.sides)
        self.names, of_names = one.strata.joined(other.strata)
        processes, of_processes = one.processes.joined(other.processes)
        parts = self.sides[0].parts
        keys = {
            kind: [
                places[cells.strata // parts] * parts + cells.strata % parts
                for places, cells in zip(of_names, self._cells(kind), strict=True)
            ]
            for kind in KINDS
        }
        strata = np.unique(np.concatenate(keys["stretch"]))  # each trace is in a stretch
        self.of_names = strata // parts
        self._strata = {kind: [np.searchsorted(strata, key) for key in keys[kind]] for kind in KINDS}
        places = [of[cells.clusters] for of, cells in zip(of_processes, self._cells("process"), strict=True)]
        known, numbers = np.unique(np.concatenate(places), return_inverse=True)
        # The first name of all is that of processes that are not known: those are number -1.
        unknown = int(processes[:1] == ("",) and not known[:1].any())
        self._clusters: dict[Kind, tuple[Column, int]] = {
            "process": (numbers - unknown, len(known) - unknown),
            "stretch": (np.concatenate([cells.clusters for cells in self._cells("stretch")]), STRETCHES),
        }

    @classmethod
    def of(cls, first: Iterable[Count], second: Iterable[Count]) -> Blocks:
        """Divide the time of both sides into stretches: together if they had traffic at once."""
        return cls(Traffic.of(first), Traffic.of(second))

    def _cells(self, kind: Kind) -> tuple[Cells, Cells]:
        return self.sides[0].cells[kind], self.sides[1].cells[kind]

    @cached_property
    def same_processes(self) -> bool:
        """Whether at least half of the traces are of processes that serve both sides, as with a flag."""
        clusters, number = self._clusters["process"]
        cells = self._cells("process")
        places = np.repeat([0, number], [len(each.traces) for each in cells]) + clusters
        known = clusters >= 0
        counts = _concatenated(*(each.traces for each in cells))
        traces = np.bincount(places[known], counts[known], 2 * number).reshape(2, number)
        return bool(2 * traces.min(0).sum() >= min(self.traces(0), self.traces(1)) > 0)

    def traces(self, side: int) -> int:
        """The number of traces of a side that are compared."""
        return self.sides[side].traffic.total

    def histograms(self, weights: Column | None = None) -> Column:
        """The durations of each side by bucket, from ``NOTHING`` on; ``weights`` are by side and stratum."""
        durations = [cells.durations for cells in self._cells("stretch")]
        width = max(int(each.buckets.max(initial=0)) for each in durations) - NOTHING + 1
        found = []
        for side, (rows, buckets, traces) in enumerate(durations):
            weighted = (
                traces if weights is None else weights[side, self._strata["stretch"][side]][rows] * traces
            )
            found.append(np.bincount(buckets - NOTHING, weighted, width))
        return np.stack(found)

    def standardized(self, timed: Column) -> Column:
        """As ``histograms``, both with the same mix: ``timed`` are the durations by side and stratum."""
        other, whole = timed[::-1], timed.sum(0)
        weights = np.where(other > 0, other / np.where(whole > 0, whole, 1.0), 0.0)
        # Rounded, so that their sums are exact in whichever order a store counts.
        return self.histograms(np.round(weights * _FINE) / _FINE)

    def table(self, measures: Sequence[Measure]) -> Table:
        """The table of some measures.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        # One pair of thousands of processes may take as long as many pairs.
        check_deadline()
        margins: dict[Kind, Margin] = {}
        for kind in KINDS:
            cells = self._cells(kind)
            # By traces, totals and squares; by measure; by cell.
            sums = np.stack(
                [np.concatenate([measure(each) for each in cells], axis=1) for measure in measures], axis=1
            )
            sides = np.repeat([0, 1], [len(each.strata) for each in cells])
            strata = np.concatenate(self._strata[kind])
            clusters, number = self._clusters[kind]
            known = clusters >= 0
            places = sides[known], strata[known], clusters[known]
            margins[kind] = Margin(number, *places, *(each[:, known] for each in sums[:2]))
        whole = len(self.of_names)
        traces, totals, squares = (
            summed(each, sides * whole + strata, 2 * whole).reshape(len(measures), 2, whole) for each in sums
        )
        return Table(traces, totals, squares, margins)


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
    every = [*batches]
    number = {value: place for place, value in enumerate(values)}

    def column(name: str) -> Iterator[Any]:
        check_deadline()  # millions of blocks take a second each time
        return (getattr(batch, name) for batch in every)

    groups = [*chain.from_iterable(column("groups"))]
    before = accumulate((len(batch.groups) for batch in every), initial=0)
    of_groups = np.concatenate(
        [
            _integers(()),
            *(_integers(of) + start for of, start in zip(column("of_groups"), before, strict=False)),
        ]
    )
    places = _integers(-1 if group is None else number.get(group[0], -1) for group in groups)[of_groups]
    of_parts = [Rows.of(np.flatnonzero(places == place)) for place in number.values()]
    all_strata = Labels.of(["" if group is None else group[1] for group in groups]).taken(of_groups)
    all_processes = Labels.of([*chain.from_iterable(column("processes"))])
    signs = _flat([batch.sign] * len(batch.of_groups) for batch in every)
    numbers = [_flat(column("times")), *(signs * _flat(column(name)) for name in ("traces", "errors"))]
    durations = Buckets.of([batch.durations for batch in every], signs, of_parts)
    failed = Buckets.of([batch.failed for batch in every], signs, of_parts)
    limits = _limits(every)
    found = {}
    for value, (rows, *_), timed, failing in zip(number, of_parts, durations, failed, strict=True):
        times, traces, errors = (each[rows] for each in numbers)
        if value in moments:
            times = np.full(len(rows), moments[value], np.int64)
        labels, none = (all_strata.taken(rows), all_processes.taken(rows)), np.zeros(len(rows))
        traffic = Traffic(*labels, times, traces, errors, timed, failing, none, none)
        traffic = traffic if limits is None else traffic.within(limits[:, rows])
        found[value] = traffic.without_empty_steps()
    return found


def _limits(every: Sequence[BlockColumns]) -> Column | None:
    """The first and the last bucket of each block, infinite where all are counted; ``None`` if all are."""
    if all(batch.buckets is None for batch in every):
        return None
    limits = [batch.buckets or (-np.inf, np.inf) for batch in every]
    return np.repeat(np.array(limits, np.float64).T, [len(batch.of_groups) for batch in every], axis=1)
