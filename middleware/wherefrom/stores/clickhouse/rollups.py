"""Answers from hourly rollups: counts by bucket, which outlive the traces.

They answer a selection by what they count by: experiment, name, feature flags, and the metadata that is the
same for all traces of a process. Of a time range they answer the whole hours; the rest is counted trace by
trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Final

from ... import keys
from ...query.fields import Family, Field, Operator, stored_key
from ...query.tree import Compare, Node, conditions, flatten
from ...query.values import to_moment
from ..base import Selection
from .conditions import all_of
from .rows import is_flag
from .schema import COLUMN_OF_KEY, HOUR_MS, ROLLED_COLUMNS

if TYPE_CHECKING:
    from .snapshot import ClickHouseSnapshot

_FIRST: Final = -(2**62)
_FRESH_MS: Final = HOUR_MS
"""Traces of the last hour are counted one by one: rollups know no moment of arrival."""

Hours = tuple[int, int]
"""From the first to before the second, in ms since the epoch."""


def rolled_hours(snapshot: ClickHouseSnapshot, selection: Selection, by: Field) -> Hours | None:
    """The hours of a selection that rollups can count by a field; ``None`` if they cannot."""
    times, others = _parts(selection)
    fields = [by, *(node.field for part in others for node in conditions(part))]
    if not all(_is_rolled(field, snapshot) for field in fields):
        return None
    since, until = _FIRST, snapshot.now_ms - _FRESH_MS
    for node in times:
        moment = to_moment(node.value, snapshot.now_ms) if isinstance(node.value, str) else node.value
        if not isinstance(moment, (int, float)) or abs(moment) > -_FIRST:
            return None
        match node.operator:
            case Operator.GE:
                since = max(since, ceil(moment))
            case Operator.GT:
                since = max(since, floor(moment) + 1)
            case Operator.LT:
                until = min(until, ceil(moment))
            case Operator.LE:
                until = min(until, floor(moment) + 1)
            case _:
                return None
    begin, end = -(-since // HOUR_MS) * HOUR_MS, until // HOUR_MS * HOUR_MS
    return (begin, end) if begin < end else None


def read_times(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, hours: Hours
) -> Iterator[tuple[str | None, int, int]]:
    """Each value, and its first and last time."""
    for name, _, first, last in _read(snapshot, selection, by, hours, "min(t.first), max(t.last)"):
        yield name, first, last


def read_rollups(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, hours: Hours
) -> Iterator[tuple[str | None, tuple[int, int, int, int, Counter[int], Counter[int]]]]:
    """Each value, its traces and errors, the first and last time, and the durations of both outcomes."""
    columns = "sum(t.errors), min(t.first), max(t.last), sumMap(t.succeeded), sumMap(t.failed)"
    for name, *numbers, succeeded, failed in _read(snapshot, selection, by, hours, columns):
        yield name, (*numbers, _to_counter(succeeded), _to_counter(failed))


def _read(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, hours: Hours, columns: str
) -> list[list[Any]]:
    """Each value with traces, their number, and these columns."""
    query = snapshot.query_of_rollups()
    value = query.value(by)
    begin, end = map(query.number, hours)
    _, others = _parts(selection)
    within = all_of(
        (
            f"t.hour >= {begin}",
            f"t.hour < {end}",
            snapshot.inside(query, selection.experiments),
            *map(query.compile, others),
        )
    )
    return snapshot.run(
        query,
        f"SELECT {value} AS value, sum(t.traces) AS counted, {columns} FROM rollups AS t WHERE {within}"
        " GROUP BY value HAVING counted > 0",
    )


def _parts(selection: Selection) -> tuple[list[Compare], list[Node]]:
    """The conditions on the time, which all have to hold, and the others."""
    parts = [] if selection.tree is None else flatten([selection.tree])
    times = [part for part in parts if _is_on_time(part)]
    return [part for part in times if isinstance(part, Compare)], [
        part for part in parts if part not in times
    ]


def _is_on_time(node: Node) -> bool:
    return isinstance(node, Compare) and node.field.name == "timestamp"


def _is_rolled(field: Field, snapshot: ClickHouseSnapshot) -> bool:
    if field.name == "name" or (field.family is Family.TAG and stored_key(field) == keys.TRACE_NAME_TAG):
        return not snapshot.is_edited(keys.TRACE_NAME_TAG)
    if field.family is not Family.METADATA or field.constant is not None:
        return False
    key = stored_key(field)
    return COLUMN_OF_KEY.get(key) in ROLLED_COLUMNS or is_flag(key)


def _to_counter(counts: dict[str, Any]) -> Counter[int]:
    return Counter({int(bucket): count for bucket, count in counts.items()})
