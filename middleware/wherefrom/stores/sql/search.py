"""Runs the plan of a search: with its index, else from the newest trace on, else over the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Connection, Select, Text, and_, bindparam, literal, or_, select

from ...query.order import Key, is_by_time
from ..base import Page
from .conditions import Comparer
from .expressions import Condition, integers_of, is_true
from .index_scan import FIRST_TIME, LAST_TIME, MOST, Built, Entries, Index, Reading, newest
from .plan import Plan
from .reader import Prepared
from .schema import traces


def beyond(order: Sequence[Key], columns: Sequence[ColumnElement[Any]], values: Sequence[Any]) -> Condition:
    """The condition for rows after one with these sort values."""
    alternatives = []
    equal: list[Condition] = []
    for key, column, value in zip(order, columns, values, strict=True):
        if value is not None:
            later = column < value if key.descending else column > value
            later = later | column.is_(None) if key.field.nullable else later
            alternatives.append(and_(*equal, later))
        equal.append(column.is_(None) if value is None else column == value)
    condition = or_(*alternatives)
    if order[0].field.nullable:
        return condition
    # Implied by the rest. Stated on its own, an index serves it.
    first: Condition = columns[0] <= values[0] if order[0].descending else columns[0] >= values[0]
    return first & condition


FEW: Final = 8
"""The newest of so few values are best looked up one value after the other."""
MAX_BRANCHES: Final = 64
"""Of no more values at any rate."""
# How many of the newest traces are read by the index on time, before all are read in the order of the file.
PROBES: Final = (1_000, 20_000)


def search(
    plan: Plan, comparer: Comparer, order: tuple[Key, ...], limit: int, after: Sequence[Any] | None
) -> Page:
    """At most ``limit`` traces of a plan in an order, starting after the sort values ``after``."""
    if plan.is_empty:
        return Page([])
    rows = _Search(comparer.connection, plan, order, comparer, after).rows(limit + 1)
    return Page([row[0] for row in rows[:limit]], list(rows[limit - 1][1:]) if len(rows) > limit else None)


class _Search:
    """Runs one plan: with the index that it names, else from the newest on, else over the whole table."""

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        order: tuple[Key, ...],
        comparer: Comparer,
        after: Sequence[Any] | None,
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._order = order
        self._after = after
        self._by_time = is_by_time(order)
        self._comparer = comparer

    @cached_property
    def _sort_values(self) -> list[ColumnElement[Any]]:
        return [self._comparer.value(key.field) for key in self._order]

    def _indexed(self, time: ColumnElement[Any] = traces.c.request_time) -> list[ColumnElement[Any]]:
        """The sort expressions; the first is the column itself, so that an index on the time serves it."""
        return [time, *self._sort_values[1:]] if self._by_time else self._sort_values

    def rows(self, limit: int) -> Sequence[Sequence[Any]]:
        """At most ``limit`` rows: the id, then the values of the sort keys."""
        plan = self._plan
        if plan.entries is not None:
            return self._by_index(plan.entries, limit)
        if self._by_time:
            return self._fetch(limit, self._indexed()) if is_true(plan.rest) else self._from_the_newest(limit)
        return self._by_first_key(limit)

    def _by_index(self, entries: Entries, limit: int) -> Sequence[Sequence[Any]]:
        if not self._by_time:
            return self._by_first_key(limit, self._among(entries))
        if len(entries.values) > FEW and entries.is_listable:
            found = self._from_the_newest_of(entries, limit)
            if found is not None:
                return found
        if len(entries.values) > MAX_BRANCHES:
            return self._fetch(limit, self._sort_values, self._among(entries))
        rows = self._of_each(entries, limit)
        rows.sort(key=itemgetter(2))
        rows.sort(key=itemgetter(1), reverse=self._order[0].descending)
        return rows[:limit]

    def _of_each(self, entries: Entries, limit: int) -> list[Sequence[Any]]:
        """The first entries of each value; all are asked for at once, if the statement is a prepared one."""
        reading = self._reading(entries.index, of_any=False)
        if not isinstance(reading, Prepared) or len(entries.values) == 1:
            return entries.each(self._connection, reading, limit)
        with self._comparer.dialect.at_once(self._connection):
            started = entries.each(self._connection, _Started(reading), limit)
        return [row for (cursor,) in started for row in cursor.fetchall()]

    def _by_first_key(self, limit: int, *conditions: Condition) -> Sequence[Sequence[Any]]:
        """Sort all traces by the first key alone, in half the time, and those that come first by all keys."""
        query = self._statement(2 * limit, self._sort_values, *conditions, by=1)
        found = self._connection.execute(query).all()
        if len(found) == 2 * limit and found[-1][1] == found[limit - 1][1]:
            return self._fetch(limit, self._sort_values, *conditions)  # too many are equal in it
        first = orjson.dumps([row[0] for row in found]).decode()
        return self._fetch(limit, self._sort_values, traces.c.id.in_(integers_of(literal(first, Text()))))

    def _among(self, entries: Entries) -> Condition:
        return entries.condition(self._plan.related(entries.index.time, self._comparer))

    def _from_the_newest_of(self, entries: Entries, limit: int) -> Sequence[Sequence[Any]] | None:
        """The rows of all values at once, if the traces of the last probe are enough to find them in."""
        reading = self._reading(entries.index, of_any=True)
        count = 2 * limit
        while count <= PROBES[-1]:
            edge = self._edge(count)
            found = entries.between(self._connection, reading, limit, *self._span(edge))
            if edge is None or len(found) == limit:
                return found
            count *= 2 * limit // max(len(found), 1)  # the number in which twice the limit is expected
        return None

    def _reading(self, index: Index, *, of_any: bool) -> Reading:
        """The statement that reads the entries from the newest on; a prepared one where possible."""
        descending = self._order[0].descending
        if is_true(self._plan.rest) and not self._plan.bounds and self._after is None:
            return newest(index, of_any=of_any, descending=descending)
        among = index.of_any() if of_any else index.of_one()
        return Built(self._statement(MOST, self._indexed(index.time), *among))

    def _span(self, edge: int | None) -> tuple[int, int]:
        """The range of times from the first to the edge, or all."""
        if edge is None:
            return FIRST_TIME, LAST_TIME
        return (edge, LAST_TIME) if self._order[0].descending else (FIRST_TIME, edge)

    def _from_the_newest(self, limit: int) -> Sequence[Sequence[Any]]:
        """Read the newest traces: common matches fill the page from a few; otherwise all have to be read."""
        time = traces.c.request_time
        for count in PROBES[: self._comparer.dialect.probes(has_spans=self._plan.has_spans)]:
            edge = self._edge(count)
            if edge is None:
                return self._fetch(limit, self._indexed())
            near = time >= edge if self._order[0].descending else time <= edge
            found = self._fetch(limit, self._indexed(), near)
            if len(found) == limit:
                return found
        return self._fetch(limit, self._sort_values)

    def _edge(self, count: int) -> int | None:
        """The time of the last trace to try, read from the index on time alone."""
        descending = self._order[0].descending
        if not self._plan.bounds and self._after is None:
            edges = _edges(descending).values(self._connection, {"count": count})
            return edges[0] if edges else None
        time = traces.c.request_time
        within = select(time).where(*self._where(self._indexed(), rest=False))
        return self._connection.scalars(_one_after(within, count, descending=descending)).first()

    def _fetch(
        self, limit: int, keys: Sequence[ColumnElement[Any]], *conditions: Condition
    ) -> Sequence[Sequence[Any]]:
        return self._connection.execute(self._statement(limit, keys, *conditions)).all()

    def _statement(
        self, limit: Any, keys: Sequence[ColumnElement[Any]], *conditions: Condition, by: int | None = None
    ) -> Select[Any]:
        """The row ids and sort values in the order of the keys, or of the first ``by`` alone."""
        ordered = [_directed(key, value) for key, value in zip(self._order, keys, strict=True)]
        chosen = select(traces.c.id, *keys[:by]).where(*conditions, *self._where(keys))
        return chosen.order_by(*ordered[:by]).limit(limit)

    def _where(self, keys: Sequence[ColumnElement[Any]], *, rest: bool = True) -> Iterator[Condition]:
        time = keys[0] if self._by_time else traces.c.request_time
        yield from (self._comparer.related(time, bound) for bound in self._plan.bounds)
        if self._after is not None:
            yield beyond(self._order, keys, self._after)
        if rest:
            yield self._plan.rest


@dataclass(frozen=True, slots=True)
class _Started:
    """A reading whose one row is the cursor that will have the rows."""

    statement: Prepared

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The row with the cursor."""
        return [(self.statement.start(connection, values),)]


def _directed(key: Key, value: ColumnElement[Any]) -> ColumnElement[Any]:
    directed = value.desc() if key.descending else value.asc()
    return directed.nulls_last() if key.field.nullable else directed


@lru_cache(maxsize=2)
def _edges(descending: bool) -> Prepared:
    return Prepared(_one_after(select(traces.c.request_time), bindparam("count"), descending=descending))


def _one_after(times: Select[Any], count: Any, *, descending: bool) -> Select[Any]:
    time = traces.c.request_time
    return times.order_by(time.desc() if descending else time.asc()).offset(count).limit(1)
