"""Counts over traces: by source, by value, over time, by session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from ... import keys
from ...model import TraceState
from ...query.fields import METADATA, Field, with_key
from ..base import (
    ALONE,
    COST,
    MOST,
    OF_FEEDBACK,
    TOKENS,
    BlockAmount,
    BlockColumns,
    Selection,
    SessionRow,
    SourceRow,
    Tokens,
    ValueCounts,
)
from ..sql.blocks import read_amounts
from ..sql.counts import read_tokens
from .conditions import number_in
from .rollups import Hours, read_blocks, read_columns, read_rollups, read_times, rolled_hours
from .schema import HOUR_MS

if TYPE_CHECKING:
    from .conditions import Query
    from .snapshot import ClickHouseSnapshot

_BATCH: Final = 500
_BY_VERSION: Final = with_key(METADATA, keys.APP_VERSION)
_COST: Final = with_key(METADATA, keys.COST)
_PROCESS: Final = with_key(METADATA, keys.INSTANCE_ID)
_LAST_TIME: Final = 2**63 - 1
_STEPS: Final = 32  # of a timeline, counted in one query
_IS_ERROR: Final = f"t.state = '{TraceState.ERROR.value}'"
_ERRORS: Final = f"countIf({_IS_ERROR})"
_TIME: Final = "t.request_time"


def count(snapshot: ClickHouseSnapshot, selection: Selection) -> int:
    """The number of traces in the selection."""
    query = snapshot.query()
    within = snapshot.within(query, selection)
    rows = snapshot.run(query, f"SELECT count() FROM {query.traces} WHERE {within}")
    return int(rows[0][0])


def bounds(
    snapshot: ClickHouseSnapshot, selection: Selection, *, with_pruned: bool
) -> tuple[int, int] | None:
    """The first and last request time of the selection, by its rollups too."""
    query = snapshot.query()
    within = snapshot.within(query, selection)
    ends = f"SELECT min({_TIME}), max({_TIME}), count() FROM {query.traces} WHERE {within}"
    times = [time for *both, found in snapshot.run(query, ends) if found for time in both]
    if with_pruned and (hours := rolled_hours(snapshot, selection, _BY_VERSION)) is not None:
        times += (time for _, *both in read_times(snapshot, selection, _BY_VERSION, hours) for time in both)
    return (min(times), max(times)) if times else None


def first_seen(
    snapshot: ClickHouseSnapshot, by: Field, values: Sequence[str], selection: Selection
) -> dict[str, int]:
    """The first request time of each of these values of a field, by its rollups too."""
    query = snapshot.query()
    value = query.value(by)
    within = snapshot.within(query, selection, f"{value} IN {query.texts(values)}")
    times: dict[str, int] = {}
    if (hours := rolled_hours(snapshot, selection, by)) is not None:
        of_rollups = read_times(snapshot, selection, by, hours)
        times = {name: first for name, first, _ in of_rollups if name is not None and name in values}
        within += _outside(query, hours)
    first = f"SELECT {value} AS value, min({_TIME}) FROM {query.traces} WHERE {within} GROUP BY value"
    for name, time in snapshot.run(query, first):
        times[name] = min(time, times.get(name, time))
    return times


def _outside(query: Query, hours: Hours) -> str:
    begin, end = map(query.number, hours)
    return f" AND NOT ({_TIME} >= {begin} AND {_TIME} < {end})"


def groups(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, *, with_tokens: bool
) -> list[ValueCounts]:
    """The traces of the selection, grouped by their value of a field."""
    found: dict[str | None, _Totals] = {}
    hours = None if with_tokens else rolled_hours(snapshot, selection, by)
    query = snapshot.query()
    value = query.value(by)
    within = snapshot.within(query, selection)
    if hours is not None:
        for value_, counted in read_rollups(snapshot, selection, by, hours):
            found[value_] = _Totals(*counted)
        within += _outside(query, hours)
    tokens = "groupArray(t.token_usage)" if with_tokens else "[]"
    rows = snapshot.run(
        query,
        f"SELECT {value} AS value, {_IS_ERROR} AS failed, t.duration_bucket AS bucket, count(), min({_TIME}),"
        f" max({_TIME}), {tokens} FROM {query.traces} WHERE {within} GROUP BY value, failed, bucket",
    )
    for value_, *others in rows:
        found.setdefault(value_, _Totals()).add(*others)
    return [
        ValueCounts(
            value_,
            totals.count,
            totals.errors,
            totals.first,
            totals.last,
            totals.succeeded,
            totals.failed,
            totals.tokens,
        )
        for value_, totals in found.items()
    ]


def block_columns(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, stratum: Field | None, width_ms: int
) -> Iterator[BlockColumns]:
    """The traces of the selection by value, stratum, process and step of ``width_ms``."""
    strata = () if stratum is None else (stratum,)
    hours = None if width_ms % HOUR_MS else rolled_hours(snapshot, selection, by, *strata)
    if hours is not None:
        yield from read_blocks(snapshot, selection, by, stratum, width_ms, hours)
    query = snapshot.query()
    value, process = query.value(by), query.value(_PROCESS)
    of_stratum = "''" if stratum is None else f"ifNull(toString({query.value(stratum)}), '')"
    within = snapshot.within(query, selection)
    if hours is not None:
        within += _outside(query, hours)
    is_timed, character = "isNotNull(t.duration_bucket)", f"toUInt16(ifNull(t.duration_bucket, 0) + {ALONE})"
    each = f"""
        SELECT {value} AS value, {of_stratum} AS stratum, ifNull({process}, '') AS process,
            intDiv({_TIME}, {int(width_ms)}) AS step, count() AS number, {_ERRORS} AS errors,
            groupArrayIf({character}, {is_timed}) AS alone, emptyArrayInt64() AS codes,
            groupArrayIf({character}, {is_timed} AND {_IS_ERROR}) AS failed_alone, codes AS failed_codes
        FROM {query.traces} WHERE {within}
        GROUP BY value, stratum, process, step ORDER BY value, step
    """
    yield from read_columns(snapshot, query, each, width_ms)


@dataclass(slots=True)
class _Totals:
    """The counts of one value or source, from those by outcome and bucket."""

    count: int = 0
    errors: int = 0
    first: int = _LAST_TIME
    last: int = -_LAST_TIME
    succeeded: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    tokens: Tokens | None = None

    def add(
        self, failed: bool, bucket: int | None, count: int, first: int, last: int, texts: Sequence[str] = ()
    ) -> None:
        self.count += count
        self.errors += count if failed else 0
        self.first, self.last = min(self.first, first), max(self.last, last)
        if bucket is not None:
            (self.failed if failed else self.succeeded)[bucket] += count
        for tokens in filter(None, map(read_tokens, texts)):
            self.tokens = tokens if self.tokens is None else self.tokens + tokens


def between(
    snapshot: ClickHouseSnapshot, selection: Selection, edges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield traces and errors within each ``(from, before)``, counted lazily."""
    for start in range(0, len(edges), _STEPS):
        some = edges[start : start + _STEPS]
        query = snapshot.query()
        columns: list[str] = []
        for begin, end in some:
            inside = f"{_TIME} >= {query.number(begin)} AND {_TIME} < {query.number(end)}"
            columns += f"countIf({inside})", f"countIf({inside} AND {_IS_ERROR})"
        first, last = min(begin for begin, _ in some), max(end for _, end in some)
        times = f"{_TIME} >= {query.number(first)}", f"{_TIME} < {query.number(last)}"
        within = snapshot.within(query, selection, *times)
        (row,) = snapshot.run(query, f"SELECT {', '.join(columns)} FROM {query.traces} WHERE {within}")
        yield from zip(row[::2], row[1::2], strict=True)


def steps(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, width_ms: int
) -> Iterator[tuple[str | None, int, int, int]]:
    """Value, start, traces and errors for each value of a field and each step of ``width_ms``."""
    query = snapshot.query()
    value = query.value(by)
    within = snapshot.within(query, selection)
    start = f"{_TIME} - {_TIME} % {int(width_ms)}"
    rows = snapshot.run(
        query,
        f"SELECT {value} AS value, {start} AS start, count(), {_ERRORS}"
        f" FROM {query.traces} WHERE {within} GROUP BY value, start ORDER BY start, value",
    )
    return ((row[0], row[1], row[2], row[3]) for row in rows)


def values(snapshot: ClickHouseSnapshot, selection: Selection, of: Field) -> Counter[str]:
    """The number of traces with each value of a field."""
    query = snapshot.query()
    value = query.value(of)
    within = snapshot.within(query, selection)
    text = f"SELECT {value} AS value, count() FROM {query.traces} WHERE {within} GROUP BY value"
    return Counter({str(row[0]): row[1] for row in snapshot.run(query, text) if row[0] is not None})


def buckets(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field, width_ms: int
) -> Iterator[tuple[str | None, int, int | None, int, int]]:
    """Value, start, bucket, traces and errors for each value, step of ``width_ms`` and bucket."""
    query = snapshot.query()
    value = query.value(by)
    within = snapshot.within(query, selection)
    rows = snapshot.run(
        query,
        f"SELECT {value} AS value, {_TIME} - {_TIME} % {int(width_ms)} AS start, t.duration_bucket AS bucket,"
        f" count(), {_ERRORS} FROM {query.traces} WHERE {within} GROUP BY value, start, bucket",
    )
    return ((row[0], row[1], row[2], row[3], row[4]) for row in rows)


def sources(snapshot: ClickHouseSnapshot, selection: Selection, limit: int | None) -> list[SourceRow]:
    """The sources with traces in the selection, the one with the latest trace first."""
    query = snapshot.query()
    within = snapshot.within(query, None)
    newest = snapshot.run(
        query,
        f"SELECT t.source, min({_TIME}), max({_TIME}) FROM {query.traces} WHERE {within}"
        " GROUP BY t.source ORDER BY min(t.created) DESC, t.source"
        + ("" if limit is None else f" LIMIT {int(limit)}"),
    )
    seen = {source: (first, last) for source, first, last in newest}
    query = snapshot.query()
    within = snapshot.within(query, selection)
    rows = snapshot.run(
        query,
        f"SELECT t.source, {_IS_ERROR} AS failed, t.duration_bucket AS bucket, count(), min({_TIME}),"
        f" max({_TIME}) FROM {query.traces} WHERE {within} GROUP BY t.source, failed, bucket",
    )
    found: dict[str, _Totals] = {}
    for source, *others in rows:
        if source in seen:
            found.setdefault(source, _Totals()).add(*others)
    listed = [
        SourceRow(
            source,
            orjson.loads(source),
            totals.count,
            totals.errors,
            *seen[source],
            totals.succeeded + totals.failed,
        )
        for source, totals in found.items()
    ]
    return sorted(listed, key=lambda row: row.last_seen, reverse=True)


_STARTED_US: Final = f"{_TIME} * 1000"
_OF_SESSION: Final = (
    f"t.session_id, count(), {_ERRORS}, min({_TIME}), max({_TIME}),"
    f" max({_STARTED_US} + ifNull(t.duration_us, 0)) - min({_STARTED_US}),"
    " uniqExact(t.user_id), if(uniqExact(t.user_id) = 1, max(t.user_id), NULL)"
)


def sessions(
    snapshot: ClickHouseSnapshot, selection: Selection, limit: int, after: tuple[int, str] | None
) -> list[SessionRow]:
    """At most ``limit`` sessions with a trace in the selection, the latest first, after ``after``."""
    query = snapshot.query()
    whole = Selection(experiments=selection.experiments)
    within = snapshot.within(query, whole, "isNotNull(t.session_id)")
    if selection.tree is not None:
        inside = snapshot.within(query, selection, "isNotNull(t.session_id)")
        within += f" AND t.session_id IN (SELECT t.session_id FROM {query.traces} WHERE {inside})"
    later = ""
    if after is not None:
        last, own = query.number(after[0]), query.bind(after[1])
        later = f"HAVING max({_TIME}) < {last} OR (max({_TIME}) = {last} AND t.session_id > {own})"
    rows = snapshot.run(
        query,
        f"SELECT {_OF_SESSION} FROM traces AS t FINAL WHERE {within} GROUP BY t.session_id {later}"
        f" ORDER BY max({_TIME}) DESC, t.session_id LIMIT {int(limit)}",
    )
    return [SessionRow(*row) for row in rows]


def read_sessions(
    snapshot: ClickHouseSnapshot, ids: Sequence[str], experiments: tuple[str, ...] | None
) -> Iterator[SessionRow]:
    """The sessions with these ids, unordered; those without traces are left out."""
    for start in range(0, len(ids), _BATCH):
        query = snapshot.query()
        whole = Selection(experiments=experiments)
        within = snapshot.within(query, whole, f"t.session_id IN {query.texts(ids[start : start + _BATCH])}")
        rows: list[list[Any]] = snapshot.run(
            query, f"SELECT {_OF_SESSION} FROM {query.traces} WHERE {within} GROUP BY t.session_id"
        )
        yield from (SessionRow(*row) for row in rows)


def amounts(
    snapshot: ClickHouseSnapshot,
    selection: Selection,
    by: Field,
    stratum: Field | None,
    width_ms: int,
    measures: Sequence[str],
) -> Iterator[BlockAmount]:
    """Tokens, cost and feedback of the traces of the selection, by block."""

    def ask(query: Query, columns: str, sums: str, joined: str = "", group: str = "") -> list[list[Any]]:
        value, process = query.value(by), query.value(_PROCESS)
        of_stratum = "NULL" if stratum is None else query.value(stratum)
        within = snapshot.within(query, selection)
        return snapshot.run(
            query,
            f"SELECT value, stratum, process, step, {sums} FROM (SELECT {value} AS value,"
            f" {of_stratum} AS stratum, {process} AS process, {_TIME} - {_TIME} % {int(width_ms)} AS step,"
            f" {columns} FROM {query.traces} {joined} WHERE {within})"
            f" GROUP BY value, stratum, process, step{group}",
        )

    rows: list[list[Any]] = []
    if {TOKENS, COST} & {*measures}:
        query = snapshot.query()
        tokens, cost = (
            _bounded(number_in(f"ifNull({text}, '')", f"total_{name}"))
            for text, name in (("t.token_usage", TOKENS), (query.value(_COST), COST))
        )
        rows += ask(
            query,
            f"{tokens} AS tokens, {cost} AS cost",
            f"'{TOKENS}', count(), sum(tokens), sum(tokens * tokens),"
            f" '{COST}', countIf(isNotNull(cost) OR isNull(tokens)), sum(cost), sum(cost * cost)",
        )
    if names := [one.removeprefix(OF_FEEDBACK) for one in measures if one.startswith(OF_FEEDBACK)]:
        query = snapshot.query()
        given = (
            "SELECT trace_id, name, multiIf(value = 'true', 1., value = 'false', 0., number) AS number"
            f" FROM assessments FINAL WHERE kind = 'feedback' AND valid AND name IN {query.texts(names)}"
        )
        rows += ask(
            query,
            f"concat('{OF_FEEDBACK}', given.name) AS measure, {_bounded('given.number', -MOST)} AS number",
            "measure, count(number), sum(number), sum(number * number)",
            f"INNER JOIN ({given}) AS given ON given.trace_id = t.trace_id",
            ", measure",
        )
    for row in rows:
        yield from read_amounts(row[0], row[1:], measures)


def _bounded(number: str, least: float = 0) -> str:
    return f"if({number} BETWEEN {least} AND {MOST}, {number}, NULL)"
