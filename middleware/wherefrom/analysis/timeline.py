"""Traces and errors over time: for each value of a field, or of all traces together."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from heapq import nlargest
from math import ceil
from typing import Any, Final

from .. import keys
from .._records import Tabular
from ..exceptions import FilterError
from ..query import format_filter
from ..query.fields import TAG, Field, Operator, with_key
from ..query.tree import Compare
from ..stores import Selection, Snapshot
from ..stores.base import HOUR_MS
from .deployments import Deployment, read_deployments
from .scope import Window, find_grouping
from .statistics import Sample, quantile

MAX_VALUES: Final = 100
"""The most values of a field that are shown: those with the most traces."""
MAX_BUCKETS: Final = 1000
_SECOND: Final = 1000
_ANY: Final = with_key(TAG, keys.SPANS_LOCATION_TAG)  # one value for all traces: rollups may count them
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
class Timeline(Tabular):
    """Buckets that hold traces, by time and then by value; times in ms since the epoch."""

    by: str
    width_ms: int
    buckets: tuple[Bucket, ...]

    def _rows(self) -> Iterable[object]:
        return self.buckets

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that can be written as JSON."""
        return asdict(self)


def read_timeline(
    snapshot: Snapshot, selection: Selection, by: str = keys.APP_VERSION, buckets: int = 60
) -> Timeline:
    """Traces and errors of a selection over time for each value of ``by``, in ``buckets`` steps or fewer.

    Raises:
        FilterError: nothing is named ``by``, or ``buckets`` is not 1 to 1,000.
    """
    if not 1 <= buckets <= MAX_BUCKETS:
        raise FilterError(f"buckets takes 1 to {MAX_BUCKETS:,}, not {buckets!r}")
    field = find_grouping(by, snapshot)
    first, last = snapshot.bounds(selection, with_pruned=True) or (0, 0)
    width = _round_width(last - first, buckets)
    counted: dict[tuple[int, str], tuple[int, int]] = {}
    totals: Counter[str] = Counter()
    for value, start, count, errors in snapshot.counts_by(selection, field, width):
        if value is not None:
            counted[start, value] = count, errors
            totals[value] += count
    shown = {value for value, _ in totals.most_common(MAX_VALUES)}
    found = (
        Bucket(value, start, *counts) for (start, value), counts in sorted(counted.items()) if value in shown
    )
    return Timeline(by, width, tuple(found))


def _round_width(span_ms: int, steps: int) -> int:
    """The smallest round width with which ``steps`` cover a span."""
    least = span_ms / steps
    return next((width for width in WIDTHS if width >= least), ceil(least / DAY) * DAY)


BARS: Final = 60  # one bar for each minute of an hour
TIME_TO_COUNT_S: Final = 1.5  # the page gives each part 2 s


@dataclass(frozen=True, slots=True)
class Bar:
    """The traces that started within one width from ``start``; ``None`` if they were not counted."""

    start: int
    traces: int | None
    errors: int | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of equal width, the oldest first, in ms since the epoch; ``is_whole``: all traces were counted."""

    width_ms: int
    bars: tuple[Bar, ...]
    traces: int
    errors: int
    is_whole: bool


def read_histogram(
    snapshot: Snapshot,
    selection: Selection,
    window: Window,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Histogram:
    """Count the traces of a selection over a time range in at most 61 bars, from the first trace on.

    Counting stops after 1.5 s: older bars then have ``None``.
    """
    until = window.until
    since, width = _steps_of(snapshot, window)
    starts = range(since // width * width, until, width)
    deadline = clock() + TIME_TO_COUNT_S
    bars: list[Bar] = []
    counting = _count_newest_first(snapshot, selection, range(since, until), starts)
    while len(bars) < len(starts) and clock() <= deadline:
        bars += next(counting)
    bars += [Bar(start, None, None) for start in starts[: len(starts) - len(bars)][::-1]]
    return Histogram(
        width,
        tuple(reversed(bars)),
        sum(bar.traces or 0 for bar in bars),
        sum(bar.errors or 0 for bar in bars),
        bars[-1].traces is not None,
    )


def _count_newest_first(
    snapshot: Snapshot, selection: Selection, window: range, starts: range
) -> Iterator[list[Bar]]:
    """Yield the bars in batches: one at a time where an index counts them, else twice as many each time."""
    edges = [(max(start, window.start), min(start + starts.step, window.stop)) for start in starts]
    if selection.tree is None and starts.step % HOUR_MS:
        counts = snapshot.counts(selection, edges[::-1])
        yield from ([Bar(start, *found)] for start, found in zip(starts[::-1], counts, strict=True))
        return
    end, size = len(starts), 1
    while end:
        # A filter is read once for a batch, and the first batches are soon there.
        begin = max(end - size, 0)
        within = Window(edges[begin][0], edges[end - 1][1]).limit(selection)
        counted = dict.fromkeys(starts[begin:end], (0, 0))
        for _, start, *found in snapshot.counts_by(within, _ANY, starts.step, with_pruned=False):
            counted[start] = found[0], found[1]
        yield [Bar(start, *found) for start, found in reversed(counted.items())]
        end, size = begin, 2 * size


MOST_TRENDS: Final = 6
"""The most values that are told apart in one chart."""


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """The traces that started within one step from ``start``; durations in ms, ``None`` if there are none."""

    start: int
    traces: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Trend:
    """The traces with one value over time, a point for each step; ``value`` is ``None`` for all traces.

    ``filter`` selects those with the value; ``None`` where no filter does, and for all traces.
    """

    value: str | None
    traces: int
    errors: int
    points: tuple[TrendPoint, ...]
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Trends:
    """Requests, errors and durations in steps of ``width_ms``; times in ms since the epoch.

    ``trends`` are those of the six values of ``by`` with the most traces, in the order of their first step,
    or one of all traces. ``others`` counts the further values. ``deployments`` are those whose first trace is
    in the time range.
    """

    by: str | None
    width_ms: int
    trends: tuple[Trend, ...]
    others: int
    deployments: tuple[Deployment, ...]


@dataclass(slots=True)
class _Step:
    traces: int = 0
    errors: int = 0
    durations: Counter[int] = field(default_factory=Counter)


def read_trends(snapshot: Snapshot, selection: Selection, window: Window, by: str | None = None) -> Trends:
    """The traces of a selection over a time range, in at most 61 steps from the first trace on.

    Raises:
        FilterError: nothing is named ``by``, or traces cannot be grouped by it.
    """
    grouping = _ANY if by is None else find_grouping(by, snapshot)
    since, width = _steps_of(snapshot, window)
    found: dict[str | None, dict[int, _Step]] = defaultdict(lambda: defaultdict(_Step))
    within = Window(since, window.until).limit(selection)
    for value, start, bucket, traces, errors in snapshot.buckets_by(within, grouping, width):
        if by is None or value is not None:
            step = found[None if by is None else value][start]
            step.traces += traces
            step.errors += errors
            if bucket is not None:
                step.durations[bucket] += traces
    most = nlargest(MOST_TRENDS, found, key=lambda value: sum(step.traces for step in found[value].values()))
    starts = range(since // width * width, window.until, width)
    in_order = sorted(most, key=lambda value: (min(found[value]), value or ""))
    trends = [_trend(value, found[value], starts, grouping) for value in in_order]
    deployments = read_deployments(snapshot, replace(selection, tree=None), window).found
    inside = (one for one in deployments if since <= one.first_seen < window.until)
    return Trends(by, width, tuple(trends), max(len(found) - MOST_TRENDS, 0), tuple(inside))


def _trend(value: str | None, steps: dict[int, _Step], starts: Iterable[int], grouping: Field) -> Trend:
    points = tuple(_point(start, steps.get(start) or _Step()) for start in starts)
    can_filter = value is not None and Operator.EQ in grouping.operators
    return Trend(
        value,
        sum(one.traces for one in points),
        sum(one.errors for one in points),
        points,
        format_filter(Compare(grouping, Operator.EQ, value)) if can_filter else None,
    )


def _point(start: int, step: _Step) -> TrendPoint:
    sample = Sample(step.durations)
    p50, p95, p99 = (quantile(sample, share) / 1000 if sample else None for share in (0.5, 0.95, 0.99))
    return TrendPoint(start, step.traces, step.errors, p50, p95, p99)


def _steps_of(snapshot: Snapshot, window: Window) -> tuple[int, int]:
    """Where a time range begins to have traces, and the width of its steps."""
    since, until = window.since, window.until
    if (ends := snapshot.bounds(Selection())) is not None:
        since = max(since, min(ends[0], until - 1))
    return since, _round_width(until - since, BARS)
