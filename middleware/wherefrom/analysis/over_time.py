"""Requests and errors over time, counted from the newest back for as long as there is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from sqlalchemy import Select, bindparam, func, select

from ..model import TraceState
from ..query.logic import is_true
from ..stores import Store
from ..stores.schema import traces
from .buckets import DAY, WIDTHS
from .scope import Scope, scope
from .window import Window, find_window

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
    now_ms = time.time_ns() // 1_000_000
    with scope(store, filter_string, experiment) as inside:
        window = _with_traces(inside, find_window(inside, since, until, now_ms))
        width = _width(window)
        starts = range(window.since // width * width, window.until, width)
        counted = dict(_count(inside, window, starts, clock))
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


def _width(window: Window) -> int:
    """The least round length of which ``BARS`` span the window."""
    least = (window.until - window.since) / BARS
    return next((width for width in WIDTHS if width >= least), ceil(least / DAY) * DAY)


def _count(
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
