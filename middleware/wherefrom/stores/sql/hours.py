"""Traces that are counted one by one, by source, hour, name and process: in columns, as they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, func, select

from ...model import TraceState
from ..base import Durations, integers
from .durations import of_alone
from .expressions import Condition, alone
from .reader import read_batches
from .schema import HOUR_MS, HOUR_OF_TRACE, traces

_ROWS: Final = 5_000  # of one batch: a deadline interrupts between batches


class Hours(NamedTuple):
    """An element of each column for each source, hour, name and process.

    ``hours`` are since the epoch. ``failed`` are the durations of the traces that failed. ``first`` and
    ``last`` are request times in ms since the epoch.
    """

    sources: Sequence[int]
    hours: Sequence[int]
    names: Sequence[str | None]
    processes: Sequence[str | None]
    traces: Sequence[int]
    errors: Sequence[int]
    durations: Durations
    failed: Durations
    first: Sequence[int]
    last: Sequence[int]

    def by_source(self) -> Iterator[tuple[int, Hours]]:
        """Each source and its part of the columns; a source may come several times."""
        ends = [0, *accumulate(len([*same]) for _, same in groupby(self.sources))]
        both = [_cut(durations, ends) for durations in (self.durations, self.failed)]
        for (begin, end), durations, failed in zip(pairwise(ends), *both, strict=True):
            columns: list[Any] = [column[begin:end] for column in self]
            columns[6:8] = durations, failed
            yield self.sources[begin], Hours(*columns)


def read_hours(connection: Connection, *conditions: Condition) -> Hours | None:
    """The traces for which the conditions hold; ``None`` if there are none.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    rows = [*chain.from_iterable(read_batches(connection, _by_hour(*conditions), _ROWS))]
    if not rows:
        return None
    columns: list[Any] = [*zip(*rows, strict=True)]
    columns[6:8] = map(of_alone, columns[6:8])
    return Hours(*columns)


def _by_hour(*conditions: Condition) -> Select[Any]:
    columns = traces.c.source_id, HOUR_OF_TRACE.label("hour"), traces.c.name, traces.c.process
    time, state, bucket = traces.c.request_time, traces.c.state, traces.c.duration_bucket
    each = select(*columns, time, state, bucket).where(*conditions).subquery().c
    key = each.source_id, each.hour, each.name, each.process
    has_failed, is_timed = each.state == TraceState.ERROR.value, each.duration_bucket.is_not(None)
    durations = alone(each.duration_bucket)
    return select(
        *key,
        func.count(),
        func.count().filter(has_failed),
        durations.filter(is_timed),
        durations.filter(is_timed, has_failed),
        func.min(each.request_time),
        func.max(each.request_time),
    ).group_by(*key)


def _cut(durations: Durations, ends: Sequence[int]) -> Iterator[Durations]:
    """The durations of the blocks from each of the ends to the next one."""
    alone_each, codes, codes_each = map(integers, durations[1:])
    alone_ends, codes_ends = ([0, *accumulate(each)] for each in (alone_each, codes_each))
    for begin, end in pairwise(ends):
        yield Durations(
            durations.alone[alone_ends[begin] : alone_ends[end]],
            alone_each[begin:end],
            codes[codes_ends[begin] : codes_ends[end]],
            codes_each[begin:end],
        )


def hours_of(begin: int | None, end: int | None) -> Iterator[Condition]:
    """The hours of a stretch. Without these conditions SQLite would read its whole index of hours."""
    hour = HOUR_OF_TRACE
    if begin is not None:
        yield hour >= step_of(begin, HOUR_MS) // HOUR_MS
    if end is not None:
        yield hour <= step_of(end, HOUR_MS) // HOUR_MS


def step_of(time: int, width: int) -> int:
    """The start of the step of ``width`` that a time is in, as SQL divides: towards 0."""
    return time // width * width if time >= 0 else -(-time // width * width)
