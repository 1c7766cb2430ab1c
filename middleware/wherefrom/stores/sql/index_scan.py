"""Scans of the store's indexes: one value after the other, each from the newest entry on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
from sqlalchemy import (
    CTE,
    BindParameter,
    Column,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal,
    select,
)

from .expressions import Condition, Dialect, Expression, integers_of, starting_alike, texts_of, unindexed
from .reader import Prepared
from .schema import trace_values, traces

MAX_LISTED: Final = 1_000  # values to test; more are slower than a scan of the table
_PART: Final = "part_of_index"
_VALUE: Final = "value_of_index"
_VALUES: Final = "values_of_index"
MOST: Final[BindParameter[int]] = bindparam("most")
"""How many entries are read at most."""
FIRST_TIME: Final = -(2**63)
LAST_TIME: Final = 2**63 - 1
_FIRST: Final = "first_value"
_AFTER: Final = "after_values"


Within = Callable[[Any], tuple[Condition, ...]]


def _everything(_: Any) -> tuple[Condition, ...]:
    return ()


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """An index whose entries for one value of ``column`` are in the order of ``time``.

    ``within`` is the condition of one part of it. ``join`` leads from an entry to its trace.
    """

    column: Column[Any]
    time: Column[Any] = traces.c.request_time
    within: Within = _everything
    join: tuple[Condition, ...] = ()

    def of_one(self) -> tuple[Condition, ...]:
        """The condition for an entry under the one value."""
        return (self.column == bindparam(_VALUE), *self.in_part(), *self.join)

    def of_any(self) -> tuple[Condition, ...]:
        """The condition for an entry under one of the values, between two times."""
        values = self.elements_of(bindparam(_VALUES))
        between = self.time.between(bindparam("low"), bindparam("high"))
        return (self.column.in_(values), between, *self.in_part(), *self.join)

    def elements_of(self, array: BindParameter[Any]) -> Select[Any]:
        """The elements of a JSON array of values."""
        return texts_of(array) if isinstance(self.column.type, Text) else integers_of(array)

    def in_part(self) -> tuple[Condition, ...]:
        """The condition for an entry in the part."""
        return self.within(bindparam(_PART))


NAMES: Final = Index(traces.c.name, within=lambda _: (traces.c.name.is_not(None),))
PAIRS: Final = Index(
    trace_values.c.value,
    trace_values.c.request_time,
    within=lambda key: (trace_values.c.key == key,),
    join=(trace_values.c.trace == traces.c.id,),
)
"""Values of the traces' own metadata and tags; its parts are the keys, by their ids."""
SOURCES_IN_STATE: Final = Index(
    traces.c.source_id,
    within=lambda state: (unindexed(traces.c.state) == state,),
)
"""Sources, by an index in which the state stands beside the time; its parts are the states."""


@lru_cache(maxsize=32)
def on_column(column: Column[Any]) -> Index:
    """The index on a column of ``traces`` and then on the time."""
    return Index(column)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries under some values of an index, in one ``part`` of it."""

    index: Index
    values: Sequence[Any]
    part: int | str | None = None

    def condition(self, bounds: Sequence[Condition] = ()) -> Condition:
        """The condition for a trace among them; ``bounds`` are on the time of an entry."""
        index = self.index
        among = and_(index.column.in_(self.values), *index.within(self.part))
        return traces.c.id.in_(select(trace_values.c.trace).where(among, *bounds)) if index.join else among

    def count(self, connection: Connection, most: int, times: tuple[int, int]) -> int:
        """The number of entries between two times, both included, counted up to ``most``."""
        given = {"values": orjson.dumps(self.values).decode(), "most": most, _PART: self.part}
        given |= dict(zip(("low", "high"), times, strict=True))
        count: int = _counting(self.index).values(connection, given)[0]
        return count

    def ends(self, connection: Connection, conditions: Sequence[Condition]) -> Sequence[int | None]:
        """The first and the last time of the entries of those traces for which the conditions hold.

        By two look-ups for each value. For all values at once, PostgreSQL would read its index on time up to
        the first trace that has one of them.
        """
        index = self.index
        values = index.elements_of(bindparam(_VALUES)).subquery("listed")
        (value,) = values.c
        where = index.column == value, *index.in_part(), *index.join, *conditions
        first, last = (
            select(end(index.time)).where(*where).correlate(values).scalar_subquery()
            for end in (func.min, func.max)
        )
        given = {_VALUES: orjson.dumps(self.values).decode(), _PART: self.part}
        query = select(func.min(first), func.max(last)).select_from(values)
        return connection.execute(query, given).one()

    @property
    def is_listable(self) -> bool:
        """Whether the values fit into one JSON parameter: SQLite's JSON functions stop at NUL."""
        return not any(isinstance(value, str) and "\0" in value for value in self.values)

    def each(self, connection: Connection, reading: Reading, most: int) -> list[Sequence[Any]]:
        """The rows of ``reading`` (an ``of_one``) for each value, at most ``most`` of each."""
        given = {"most": most, _PART: self.part}
        return [row for value in self.values for row in reading.rows(connection, {_VALUE: value, **given})]

    def between(
        self, connection: Connection, reading: Reading, most: int, low: int, high: int
    ) -> Sequence[Sequence[Any]]:
        """The rows of ``reading`` (an ``of_any``) for all values between two times, both included."""
        values = orjson.dumps(self.values).decode()
        given = {_VALUES: values, _PART: self.part, "low": low, "high": high, "most": most}
        return reading.rows(connection, given)


class Reading(Protocol):
    """A statement with parameters, such as ``Prepared``."""

    def rows(self, connection: Connection, values: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        """All rows."""


@dataclass(frozen=True, slots=True)
class Built:
    """A statement that is built for one search."""

    statement: Select[Any]

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows."""
        return connection.execute(self.statement, values).all()


def listed_values(
    connection: Connection,
    index: Index,
    holds: Callable[[Expression], Condition],
    dialect: Dialect,
    part: int | None = None,
) -> list[str] | None:
    """The values in the index for which a condition holds; ``None`` if there are too many to test."""
    values = _stepping(index).values(connection, {_FIRST: "", _AFTER: dialect.after_all_text, _PART: part})
    if len(values) > MAX_LISTED or _countable(values) is None:
        return None
    array = texts_of(literal(orjson.dumps(values).decode())).subquery()
    return list(connection.scalars(select(array.c.value).where(holds(array.c.value))))


def listed_like(
    connection: Connection, index: Index, pattern: str, dialect: Dialect, part: int | None = None
) -> list[str] | None:
    """Like ``listed_values`` for a ``LIKE`` pattern, at least twice as fast."""
    first, after = starting_alike(pattern, dialect)
    given = {"pattern": dialect.pattern(pattern), _FIRST: first, _AFTER: after, _PART: part}
    rows = _matching(index, dialect).rows(connection, given)
    is_too_long = bool(rows) and rows[-1][1] > MAX_LISTED
    return None if is_too_long else _countable([value for value, _ in rows])


def _countable(values: list[str]) -> list[str] | None:
    """The values, unless one contains NUL, where SQLite's JSON functions stop."""
    return None if any("\0" in value for value in values) else values


@lru_cache(maxsize=64)
def newest(index: Index, *, of_any: bool, descending: bool) -> Prepared:
    """Row id, time and trace id of the newest entries, or of the oldest."""
    direction = index.time.desc() if descending else index.time.asc()
    entries = select(traces.c.id, index.time, traces.c.trace_id)
    entries = entries.where(*(index.of_any() if of_any else index.of_one()))
    return Prepared(entries.order_by(direction, traces.c.trace_id).limit(MOST))


@lru_cache(maxsize=32)
def _counting(index: Index) -> Prepared:
    values = index.elements_of(bindparam("values"))
    between = index.time.between(bindparam("low"), bindparam("high"))
    some = select(literal(1)).where(index.column.in_(values), between, *index.in_part()).limit(MOST)
    return Prepared(select(func.count()).select_from(some.subquery()))


@lru_cache(maxsize=32)
def _stepping(index: Index) -> Prepared:
    steps = _steps(index)
    return Prepared(select(steps.c.value).where(steps.c.value.is_not(None)))


@lru_cache(maxsize=32)
def _matching(index: Index, dialect: Dialect) -> Prepared:
    """The statement for values that match a pattern. Its last row only shows that there are too many."""
    steps = _steps(index)
    is_like = dialect.matches(steps.c.value, bindparam("pattern", type_=Text()))
    is_shown = is_like | (steps.c.place > MAX_LISTED)
    return Prepared(select(steps.c.value, steps.c.place).where(steps.c.value.is_not(None), is_shown))


def _steps(index: Index) -> CTE:
    """The distinct values of an index within a range: a skip scan, whatever the number of entries of each."""
    value, before = index.column, index.column < bindparam(_AFTER)
    first = select(func.min(value).label("value"), literal(1).label("place"))
    steps = first.where(*index.in_part(), value >= bindparam(_FIRST), before).cte("steps", recursive=True)
    following = select(func.min(value)).where(*index.in_part(), value > steps.c.value, before)
    further = select(following.scalar_subquery(), steps.c.place + 1)
    return steps.union_all(further.where(steps.c.value.is_not(None), steps.c.place <= MAX_LISTED))
