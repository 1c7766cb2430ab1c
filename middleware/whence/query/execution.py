"""Search: a filter, an order and a page, to the ids of traces and the token for what comes after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, bindparam, select

from ..stores.schema import traces
from .catalog import Catalog
from .compare import Comparer
from .dialects import Condition
from .logic import FALSE, TRUE, all_of, is_true
from .order import Key, is_by_time, parse_order
from .page import beyond, check_max_results, decode_token, encode_token
from .parser import parse_filter
from .plan import Plan, make_plan

# How many of the newest traces are tried by the index on time before all are read in the order of the file.
PROBE: Final = 20_000
_MAX_BRANCHES: Final = 64
_VALUE: Final = "value_of_index"


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for; the same as the arguments of ``TraceClient.search_traces``."""

    filter_string: str | None = None
    experiments: Sequence[str] | None = None
    order_by: Sequence[str] | None = None
    max_results: int = 100
    page_token: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Row ids of the traces found, in order, and the token for the next page."""

    ids: list[int]
    token: str | None = None


def search(connection: Connection, query: Query, now_ms: int) -> Page:
    """The page of traces that a query asks for.

    Raises:
        FilterError: something in the query cannot be read.
    """
    limit = check_max_results(query.max_results)
    catalog = Catalog(connection)
    tree = parse_filter(query.filter_string, catalog.spelled_keys)
    order = parse_order(query.order_by, catalog.spelled_keys)
    after = decode_token(query.page_token, order) if query.page_token else None
    comparer = Comparer(catalog, now_ms)
    plan = make_plan(tree, catalog, comparer)
    plan = replace(plan, rest=all_of([_inside(query.experiments, catalog), plan.rest]))
    if plan.is_empty:
        return Page([])
    rows = _Search(connection, plan, order, comparer, after).rows(limit + 1)
    token = encode_token(order, rows[limit - 1][1:]) if len(rows) > limit else None
    return Page([row[0] for row in rows[:limit]], token)


def _inside(names: Sequence[str] | None, catalog: Catalog) -> Condition:
    """In one of these experiments; no names means in any."""
    if not names:
        return TRUE
    ids, is_all = catalog.experiment_ids(names)
    if is_all:
        return TRUE
    return catalog.dialect.plain(traces.c.experiment_id).in_(ids) if ids else FALSE


class _Search:
    """Runs a plan: by the index that it names, else from the newest on, else through the whole table."""

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
        self._sort_values = [comparer.sort_value(key.field) for key in order]
        first = traces.c.request_time if self._by_time else self._sort_values[0]
        self._indexed = [first, *self._sort_values[1:]]

    def rows(self, limit: int) -> Sequence[Row[Any]]:
        """At most ``limit`` rows: the id, then the values of the order's keys."""
        plan = self._plan
        if plan.column is not None:
            return self._by_column(plan.column, plan.values, limit)
        is_sqlite = self._connection.dialect.name == "sqlite"
        if is_sqlite and self._by_time and not is_true(plan.rest):
            return self._from_the_newest(limit)
        return self._fetch(limit, self._indexed)

    def _by_column(self, column: Column[Any], values: Sequence[Any], limit: int) -> Sequence[Row[Any]]:
        if not self._by_time or len(values) > _MAX_BRANCHES:
            return self._fetch(limit, self._sort_values, column.in_(values))
        # One statement for all the values: building it takes longer than an answer.
        statement = self._statement(limit, self._indexed, column == bindparam(_VALUE))
        found = [row for value in values for row in self._connection.execute(statement, {_VALUE: value})]
        if len(values) > 1:
            found.sort(key=itemgetter(2))
            found.sort(key=itemgetter(1), reverse=self._order[0].descending)
        return found[:limit]

    def _from_the_newest(self, limit: int) -> Sequence[Row[Any]]:
        """Where matches are common, the first few thousand traces fill the page; else all have to be read."""
        edge = self._connection.scalars(self._edge()).first()
        if edge is None:
            return self._fetch(limit, self._indexed)
        time = traces.c.request_time
        near = time >= edge if self._order[0].descending else time <= edge
        found = self._fetch(limit, self._indexed, near)
        return found if len(found) == limit else self._fetch(limit, self._sort_values)

    def _edge(self) -> Select[Any]:
        """The time of the last trace to try; by the time alone, which the index has without the rows."""
        time, *_ = self._indexed
        within = select(time).where(*self._where(self._indexed, rest=False))
        return within.order_by(_directed(self._order[0], time)).offset(PROBE).limit(1)

    def _fetch(
        self, limit: int, keys: Sequence[ColumnElement[Any]], *conditions: Condition
    ) -> Sequence[Row[Any]]:
        return self._connection.execute(self._statement(limit, keys, *conditions)).all()

    def _statement(
        self, limit: int, keys: Sequence[ColumnElement[Any]], *conditions: Condition
    ) -> Select[Any]:
        ordered = [_directed(key, value) for key, value in zip(self._order, keys, strict=True)]
        chosen = select(traces.c.id, *keys).where(*conditions, *self._where(keys))
        return chosen.order_by(*ordered).limit(limit)

    def _where(self, keys: Sequence[ColumnElement[Any]], *, rest: bool = True) -> Iterator[Condition]:
        yield from self._plan.bounds
        if self._after is not None:
            yield beyond(self._order, keys, self._after)
        if rest:
            yield self._plan.rest


def _directed(key: Key, value: ColumnElement[Any]) -> ColumnElement[Any]:
    directed = value.desc() if key.descending else value.asc()
    return directed.nulls_last() if key.field.nullable else directed
