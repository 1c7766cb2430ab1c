"""The store's indexes, as a search goes through them: one value after the other, each from the newest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from sqlalchemy import CTE, Column, Connection, Select, Text, bindparam, column, func, literal, select

from ..stores.prepared import Prepared
from ..stores.schema import trace_values, traces
from .dialects import Condition, Expression, matches_glob, to_glob

MAX_LISTED: Final = 1_000
_KEY: Final = "key_of_index"
_VALUE: Final = "value_of_index"


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """An index whose entries, for one value of ``column``, come in the order of ``time``.

    ``within`` is what all its entries have in common, ``join`` what leads from an entry to its trace.
    """

    column: Column[Any]
    time: Column[Any] = traces.c.request_time
    within: tuple[Condition, ...] = ()
    join: tuple[Condition, ...] = ()


NAMES: Final = Index(traces.c.name, within=(traces.c.name.is_not(None),))
PAIRS: Final = Index(
    trace_values.c.value,
    trace_values.c.request_time,
    within=(trace_values.c.key == bindparam(_KEY),),
    join=(trace_values.c.trace == traces.c.id,),
)
"""Values under one key of the traces' own metadata or tags."""


@lru_cache(maxsize=32)
def on_column(column: Column[Any]) -> Index:
    """The index on a column of ``traces``, and on the time after it."""
    return Index(column)


@dataclass(frozen=True, slots=True)
class Entries:
    """What an index has under some values; in ``PAIRS``, under those of the key with this id."""

    index: Index
    values: Sequence[Any]
    key: int | None = None

    def condition(self) -> Condition:
        """That a trace is among them."""
        among = self.index.column.in_(self.values)
        if self.key is None:
            return among
        listed = select(trace_values.c.trace).where(trace_values.c.key == self.key, among)
        return traces.c.id.in_(listed)

    def count(self, connection: Connection, most: int) -> int:
        """How many there are, as far as ``most``."""
        given = {"values": orjson.dumps(self.values).decode(), "most": most, **_parameters(self.key)}
        count: int = _counting(self.index).values(connection, given)[0]
        return count

    def newest(self, connection: Connection, limit: int, *, descending: bool = True) -> list[tuple[Any, ...]]:
        """Row id, time and trace id, at most ``limit`` for each value: the newest, or else the oldest."""
        walk = _walking(self.index, descending)
        given = {"most": limit, **_parameters(self.key)}
        return [row for value in self.values for row in walk.rows(connection, {_VALUE: value, **given})]

    def each(self, connection: Connection, statement: Select[Any]) -> list[Sequence[Any]]:
        """The rows of a statement on ``traces`` for one value after the other."""
        index = self.index
        statement = statement.where(index.column == bindparam(_VALUE), *index.within, *index.join)
        given = _parameters(self.key)
        rows: list[Sequence[Any]] = []
        for value in self.values:
            rows += connection.execute(statement, {_VALUE: value, **given}).all()
        return rows


def listed_values(
    connection: Connection, index: Index, holds: Callable[[Expression], Condition], key: int | None = None
) -> list[str] | None:
    """The values in the index for which a condition holds; ``None`` where that cannot be told soon."""
    values = _stepping(index).values(connection, _parameters(key))
    if len(values) > MAX_LISTED or _countable(values) is None:
        return None
    each = func.json_each(orjson.dumps(values).decode()).table_valued(column("value", Text())).c.value
    return list(connection.scalars(select(each).where(holds(each))))


def listed_like(
    connection: Connection, index: Index, pattern: str, key: int | None = None
) -> list[str] | None:
    """The values in the index that are like a pattern, as ``listed_values``, in half of its time."""
    given = {"glob": to_glob(pattern), **_parameters(key)}
    rows = _globbing(index).rows(connection, given)
    is_too_long = bool(rows) and rows[-1][1] > MAX_LISTED
    return None if is_too_long else _countable([value for value, _ in rows])


def _countable(values: list[str]) -> list[str] | None:
    """The values, unless one holds a NUL, where SQLite's JSON ends."""
    return None if any("\0" in value for value in values) else values


def _parameters(key: int | None) -> Mapping[str, Any]:
    return {} if key is None else {_KEY: key}


@lru_cache(maxsize=32)
def _walking(index: Index, descending: bool) -> Prepared:
    direction = index.time.desc() if descending else index.time.asc()
    entries = select(traces.c.id, index.time, traces.c.trace_id)
    entries = entries.where(index.column == bindparam(_VALUE), *index.within, *index.join)
    return Prepared(entries.order_by(direction, traces.c.trace_id).limit(bindparam("most")))


@lru_cache(maxsize=32)
def _counting(index: Index) -> Prepared:
    values = select(func.json_each(bindparam("values")).table_valued("value").c.value)
    some = select(literal(1)).where(index.column.in_(values), *index.within).limit(bindparam("most"))
    return Prepared(select(func.count()).select_from(some.subquery()))


@lru_cache(maxsize=32)
def _stepping(index: Index) -> Prepared:
    steps = _steps(index)
    return Prepared(select(steps.c.value).where(steps.c.value.is_not(None)))


@lru_cache(maxsize=32)
def _globbing(index: Index) -> Prepared:
    """The last row may only say that there are too many."""
    steps = _steps(index)
    is_like = matches_glob(steps.c.value, bindparam("glob", type_=Text()))
    is_shown = is_like | (steps.c.place > MAX_LISTED)
    return Prepared(select(steps.c.value, steps.c.place).where(steps.c.value.is_not(None), is_shown))


def _steps(index: Index) -> CTE:
    """The values in an index, from one to the next, however many entries each has."""
    first = select(func.min(index.column).label("value"), literal(1).label("place")).where(*index.within)
    steps = first.cte("steps", recursive=True)
    following = select(func.min(index.column)).where(*index.within, index.column > steps.c.value)
    further = select(following.scalar_subquery(), steps.c.place + 1)
    return steps.union_all(further.where(steps.c.value.is_not(None), steps.c.place <= MAX_LISTED))
