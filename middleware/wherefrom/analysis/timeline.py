"""Traces and errors over time: for each value of a field, or of all traces together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

from .. import keys
from .._records import Tabular
from ..exceptions import FilterError
from ..query.fields import find_field
from ..stores import Selection, Snapshot
from .scope import Window, find_grouping

MAX_VALUES: Final = 100
"""The most values of a field that are shown: those with the most traces."""
MAX_BUCKETS: Final = 1000
_SECOND: Final = 1000
_STATUS: Final = find_field(None, "status")
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
    since, until = window.since, window.until
    if (ends := snapshot.bounds(Selection())) is not None:
        since = max(since, min(ends[0], until - 1))
    width = _round_width(until - since, BARS)
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
    if selection.tree is None:
        counts = snapshot.counts(selection, edges[::-1])
        yield from ([Bar(start, *found)] for start, found in zip(starts[::-1], counts, strict=True))
        return
    end, size = len(starts), 1
    while end:
        # A filter is read once for a batch, and the first batches are soon there.
        begin = max(end - size, 0)
        within = Window(edges[begin][0], edges[end - 1][1]).limit(selection)
        counted = dict.fromkeys(starts[begin:end], (0, 0))
        for _, start, *found in snapshot.counts_by(within, _STATUS, starts.step):
            counted[start] = counted[start][0] + found[0], counted[start][1] + found[1]
        yield [Bar(start, *found) for start, found in reversed(counted.items())]
        end, size = begin, 2 * size
