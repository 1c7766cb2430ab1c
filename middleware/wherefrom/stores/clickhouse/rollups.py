"""Answers from hourly rollups: counts by bucket, which outlive the traces.

They answer a selection by what they count by: experiment, name, feature flags, and the metadata that is the
same for all traces of a process. Of a time range they answer the whole hours; the rest is counted trace by
trace.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Final

from ... import keys
from ...query.fields import Family, Field, Operator, stored_key
from ...query.tree import Compare, Node, conditions, flatten
from ...query.values import to_moment
from ..base import ALONE, CODE, BlockColumns, Durations, Selection, grouped
from .conditions import all_of
from .rows import is_flag
from .schema import COLUMN_OF_KEY, HOUR_MS, ROLLED_COLUMNS

if TYPE_CHECKING:
    from .conditions import Query
    from .snapshot import ClickHouseSnapshot

_FIRST: Final = -(2**62)
_FRESH_MS: Final = HOUR_MS
"""Traces of the last hour are counted one by one: rollups know no moment of arrival."""

Hours = tuple[int, int]
"""From the first to before the second, in ms since the epoch."""


def rolled_hours(snapshot: ClickHouseSnapshot, selection: Selection, *by: Field) -> Hours | None:
    """The hours of a selection that rollups can count by some fields; ``None`` if they cannot."""
    times, others = _parts(selection)
    fields = [*by, *(node.field for part in others for node in conditions(part))]
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
    within = _within(snapshot, query, selection, hours)
    return snapshot.run(
        query,
        f"SELECT {value} AS value, sum(t.traces) AS counted, {columns} FROM rollups AS t WHERE {within}"
        " GROUP BY value HAVING counted > 0",
    )


def _within(snapshot: ClickHouseSnapshot, query: Query, selection: Selection, hours: Hours) -> str:
    begin, end = map(query.number, hours)
    _, others = _parts(selection)
    return all_of(
        (
            f"t.hour >= {begin}",
            f"t.hour < {end}",
            snapshot.inside(query, selection.experiments),
            *map(query.compile, others),
        )
    )


def read_blocks(
    snapshot: ClickHouseSnapshot,
    selection: Selection,
    by: Field,
    stratum: Field | None,
    width_ms: int,
    hours: Hours,
) -> Iterator[BlockColumns]:
    """The traces of these hours by value, stratum, process and step of ``width_ms``, which is whole hours."""
    query = snapshot.query_of_rollups()
    value = query.value(by)
    of_stratum = "''" if stratum is None else f"ifNull(toString({query.value(stratum)}), '')"
    within = _within(snapshot, query, selection, hours)
    each = f"""
        SELECT {value} AS value, {of_stratum} AS stratum, ifNull(t.process, '') AS process,
            intDiv(t.hour, {int(width_ms)}) AS step, sum(t.traces) AS number, sum(t.errors) AS errors,
            {_counted("succeeded")} AS ok, {_counted("failed")} AS failed,
            {_alone("failed")} AS failed_alone, {_codes("failed")} AS failed_codes,
            arrayConcat({_alone("ok")}, failed_alone) AS alone,
            arrayConcat({_codes("ok")}, failed_codes) AS codes
        FROM rollups AS t WHERE {within}
        GROUP BY value, stratum, process, step HAVING number > 0 ORDER BY value, step
    """
    yield from read_columns(snapshot, query, each, width_ms)


def read_columns(
    snapshot: ClickHouseSnapshot, query: Query, each: str, width_ms: int
) -> Iterator[BlockColumns]:
    """The blocks that ``each`` selects, in columns: a Python object for each would take longer than to count.

    It selects value, stratum, process, step, number, errors, and lists of the characters and the codes of
    durations, in the order of values.
    """
    columns = ("tuple(value)", "stratum", "process", f"step * {int(width_ms)}", "number", "errors")
    listed = (f"groupArray({column})" for column in columns)
    lists = (f"{_joined(of + 'alone')}, {_joined_codes(of + 'codes')}" for of in ("", "failed_"))
    ((of_values, *found),) = snapshot.run(
        query,
        f"SELECT {', '.join([*listed, *lists])} FROM ({each})",
    )
    if of_values:
        both = [
            Durations(b64decode(text).decode("utf-16-le"), *others)
            for text, *others in (found[5:9], found[9:])
        ]
        yield BlockColumns(*grouped([value for (value,) in of_values], found[0]), *found[1:5], *both)


def _joined(lists: str) -> str:
    """The elements of all lists as the two bytes of a character each, and how many each has."""
    characters = f"arrayMap(x -> char(x, intDiv(x, 256)), groupArrayArray({lists}))"
    return f"base64Encode(arrayStringConcat({characters})), groupArray(length({lists}))"


def _joined_codes(lists: str) -> str:
    return f"groupArrayArray({lists}), groupArray(length({lists}))"


def _counted(counts: str) -> str:
    """The buckets of several rollups, and the traces of each.

    They are added up only where traces are taken back: ``sumMap`` of all takes five times as long.
    """
    buckets, traces = (f"groupArrayArray(map{of}(t.{counts}))" for of in ("Keys", "Values"))
    both = f"arrayReduce('sumMap', [{buckets}], [{traces}])"
    return f"if(arrayExists(n -> n < 1, {traces}), {both}, tuple({buckets}, {traces}))"


def _alone(counts: str) -> str:
    """The characters of the buckets that one trace is in."""
    return f"arrayMap(b -> toUInt16(b + {ALONE}), arrayFilter((b, n) -> n = 1, {counts}.1, {counts}.2))"


def _codes(counts: str) -> str:
    """The codes of the buckets that several traces are in."""
    codes = f"arrayMap((b, n) -> n * {CODE} + b + 1, {counts}.1, {counts}.2)"
    return f"arrayFilter(code -> code >= {2 * CODE}, {codes})"


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
    return +Counter({int(bucket): count for bucket, count in counts.items()})
