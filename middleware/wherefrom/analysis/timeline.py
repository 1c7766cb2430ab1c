"""Traces and errors over time, for each value: what a chart is drawn from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from operator import add
from typing import Any, Final

from sqlalchemy import Select, bindparam, func, select

from .. import keys
from ..exceptions import FilterError
from ..model import TraceState
from ..stores import Store
from ..stores.sqlite.expressions import is_true
from ..stores.sqlite.schema import traces
from .comparison import MAX_VALUES
from .groups import Part, find_grouping, make_parts
from .scope import Scope, Window, find_window, scope

MAX_BUCKETS: Final = 1000
_SECOND: Final = 1000
WIDTHS: Final = tuple(
    seconds * _SECOND
    for seconds in (
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    )
)  # fmt: skip
DAY: Final = WIDTHS[-1]


@dataclass(frozen=True, slots=True)
class Bucket:
    """The traces with one value that started within ``width_ms`` from ``start``."""

    value: str
    start: int
    traces: int
    errors: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Buckets that hold traces, by time and then by value; times in ms since the epoch."""

    by: str
    width_ms: int
    buckets: tuple[Bucket, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return asdict(self)


def timeline(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    buckets: int = 60,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Timeline:
    """Traces and errors over time for each value of ``by``, in ``buckets`` steps of a round length, or fewer.

    ``by`` and which of its values are shown are as in ``compare``.

    Raises:
        FilterError: the filter cannot be read, nothing is named ``by``, or ``buckets`` is not 1 to 1,000.
    """
    if not 1 <= buckets <= MAX_BUCKETS:
        raise FilterError(f"buckets takes 1 to {MAX_BUCKETS:,}, not {buckets!r}")
    with scope(store, filter_string, experiment) as inside:
        parts = make_parts(find_grouping(by, inside), inside)
        width = _width(inside, buckets)
        counted = _count(inside, parts, width)
    return Timeline(by, width, tuple(_shown(counted)))


def _width(inside: Scope, buckets: int) -> int:
    """The least round length of which ``buckets`` span all the traces."""
    time = traces.c.request_time
    # One at a time: together they would be looked for in all rows.
    first, last = (
        inside.connection.scalar(select(end(time)).where(*inside.conditions)) for end in (func.min, func.max)
    )
    least = ((last or 0) - (first or 0)) / buckets
    return next((width for width in WIDTHS if width >= least), ceil(least / DAY) * DAY)


def _count(inside: Scope, parts: Sequence[Part], width: int) -> dict[tuple[int, str], list[int]]:
    counted: dict[tuple[int, str], list[int]] = {}
    time = traces.c.request_time
    for part in parts:
        each = part.select(inside, (time - time % width).label("start"), traces.c.state).subquery("each").c
        failed = func.count().filter(each.state == TraceState.ERROR.value)
        query = select(each.value, each.start, func.count(), failed).group_by(each.value, each.start)
        for value, (start, *counts) in part.name(inside.connection.execute(query)):
            if value is not None:
                known = counted.setdefault((start, value), [0, 0])
                known[:] = map(add, known, counts)
    return counted


def _shown(counted: dict[tuple[int, str], list[int]]) -> Iterator[Bucket]:
    totals: Counter[str] = Counter()
    for (_, value), (count, _) in counted.items():
        totals[value] += count
    values = {value for value, _ in totals.most_common(MAX_VALUES)}
    for (start, value), (count, errors) in sorted(counted.items()):
        if value in values:
            yield Bucket(value, start, count, errors)


BARS: Final = 60
TIME_TO_COUNT_S: Final = 1.5
Counts = tuple[int, ...]
_TIME: Final = traces.c.request_time
_WITHIN: Final = (bindparam("begin") <= _TIME, bindparam("end") > _TIME)


@dataclass(frozen=True, slots=True)
class Bar:
    """The traces that came in from ``start`` on, for one width; ``None`` where they were not counted."""

    start: int
    traces: int | None
    errors: int | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of equal width, the oldest first, in ms since the epoch; ``is_whole``: all were counted."""

    width_ms: int
    bars: tuple[Bar, ...]
    traces: int
    errors: int
    is_whole: bool


def count_over_time(
    filter_string: str | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Histogram:
    """How many traces pass a filter over a window, as ``find_window`` takes it, in at most 61 bars.

    Counting stops after a second and a half: bars before that moment hold ``None``.

    Raises:
        FilterError: the filter or a moment cannot be read.
    """
    with scope(store, filter_string, experiment) as inside:
        window = _with_traces(inside, find_window(inside.snapshot, since, until))
        width = _bar_width(window)
        starts = range(window.since // width * width, window.until, width)
        counted = dict(_count_window(inside, window, starts, clock))
    bars = tuple(Bar(start, *counted.get(start, (None, None))) for start in starts)
    return Histogram(
        width,
        bars,
        sum(bar.traces or 0 for bar in bars),
        sum(bar.errors or 0 for bar in bars),
        len(counted) == len(bars),
    )


def _with_traces(inside: Scope, window: Window) -> Window:
    """The window without the time before there were any traces."""
    oldest = inside.connection.scalar(select(func.min(_TIME)))
    if oldest is None or oldest <= window.since:
        return window
    return Window(min(oldest, window.until - 1), window.until)


def _bar_width(window: Window) -> int:
    """The least round length of which ``BARS`` span the window."""
    least = (window.until - window.since) / BARS
    return next((width for width in WIDTHS if width >= least), ceil(least / DAY) * DAY)


def _count_window(
    inside: Scope, window: Window, starts: range, clock: Callable[[], float]
) -> Iterator[tuple[int, tuple[int, int]]]:
    if inside.is_empty:
        yield from ((start, (0, 0)) for start in starts)
        return
    deadline = clock() + TIME_TO_COUNT_S
    statements = list(_statements(inside))
    for start in reversed(starts):
        if clock() > deadline:
            return
        bounds = {"begin": max(start, window.since), "end": min(start + starts.step, window.until)}
        yield start, _read(inside, statements, bounds)


def _statements(inside: Scope) -> Iterator[Select[*Counts]]:
    """Without a filter two statements, each answered by an index alone."""
    failed = traces.c.state == TraceState.ERROR.value
    conditions = *inside.conditions, *_WITHIN
    if not all(map(is_true, inside.filter)):
        yield select(func.count(), func.count().filter(failed)).select_from(traces).where(*conditions)
    else:
        yield select(func.count()).select_from(traces).where(*conditions)
        yield select(func.count()).select_from(traces).where(*conditions, failed)


def _read(inside: Scope, statements: list[Select[*Counts]], bounds: dict[str, int]) -> tuple[int, int]:
    rows = [inside.connection.execute(statement, bounds).one() for statement in statements]
    count, errors = (number for row in rows for number in row)
    return count, errors
