"""Traces and errors over time, for each value: what a chart is drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from operator import add
from typing import Any, Final

from sqlalchemy import func, select

from .. import keys
from ..exceptions import FilterError
from ..model import TraceState
from ..stores import Store
from ..stores.schema import traces
from .grouping import Part, find_grouping, make_parts
from .rows import MAX_VALUES
from .scope import Scope, scope

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
