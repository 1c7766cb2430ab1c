"""The snapshot of a store in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NamedTuple

from sqlalchemy import BigInteger, Column, column, func, select, tuple_
from sqlalchemy.sql.expression import ColumnClause

from ...exceptions import FilterError
from ..base import Changes, Selection, StoreState
from ..deadline import Deadline
from ..sql.schema import spans, traces
from ..sql.snapshot import SQLSnapshot
from .address import Address
from .catalog import LoadedCatalog
from .connection import mapped_errors, until
from .health import read_state

STRETCH: Final = 20_000
_CURSOR: Final = re.compile(r"([0-9]{1,10})\.([0-9]{1,18})(?:-([0-9]{1,18}))?", re.ASCII)
# The transaction that stored a trace. Those before the oldest that is still running are complete.
_STORED: Final[ColumnClause[int]] = column("stored", BigInteger, _selectable=traces)


class Place(NamedTuple):
    """A trace in the order of storing."""

    stored: int
    id: int


class PostgreSQLSnapshot(SQLSnapshot):
    """Reads on one connection, within its transaction."""

    span_place: ClassVar[Column[Any]] = spans.c.trace

    def __init__(self, catalog: LoadedCatalog, address: Address) -> None:
        super().__init__(catalog)
        self._address = address

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Give the queries in the block a deadline."""
        with mapped_errors(self._address, is_bounded=True), until(deadline, self.connection):
            yield

    def state(self) -> StoreState:
        """Sizes and counts of the store."""
        return read_state(self.connection, self._address)

    def cursor(self) -> str:
        """The cursor of the end of the store, for ``changes``."""
        return self._cursor(self._end())

    def changes(
        self, cursor: str | None, selection: Selection, limit: int, *, until: str | None = None
    ) -> Changes:
        """Traces of the selection stored since the cursor, in the order in which they were stored.

        Transactions commit in another order than they begin. So this ends before the oldest one that runs:
        no trace that is stored later comes before the cursor.

        Raises:
            FilterError: the cursor is malformed.
        """
        begin = Place(0, 0) if cursor is None else self._place(cursor)
        last = self._end() if until is None else self._place(until)
        place = tuple_(_STORED, traces.c.id)
        between = (place > tuple_(*begin), place <= tuple_(*last))
        ordered = (
            select(_STORED, traces.c.id).select_from(traces).where(*between).order_by(_STORED, traces.c.id)
        )
        edge = self.connection.execute(ordered.offset(STRETCH - 1).limit(1)).first()
        end = last if edge is None else Place(*edge)
        found = ordered.where(place <= tuple_(*end), *self.conditions(selection)).limit(limit)
        rows = self.connection.execute(found).all()
        if len(rows) == limit:
            end = Place(*rows[-1])
        return Changes([row[1] for row in rows], self._cursor(end), self._done(end, last))

    def _done(self, end: Place, last: Place) -> float:
        """The share of the store before ``end``, by the transactions."""
        if end >= last:
            return 1.0
        first = self.connection.scalar(select(func.min(_STORED)).select_from(traces)) or 0
        highest = self.connection.scalar(
            select(func.max(_STORED)).select_from(traces).where(last.stored >= _STORED)
        )
        return min((end.stored - first + 1) / ((highest or last.stored) - first + 2), 0.999)

    def _end(self) -> Place:
        """The place after all traces whose transactions can no longer change."""
        oldest = self._number("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return Place(oldest, 0)

    def _cursor(self, place: Place) -> str:
        end = f"-{place.id}" if place.id else ""
        return f"{self._store_id()}.{place.stored}{end}"

    def _place(self, cursor: str) -> Place:
        """The place of a cursor; the first one for a cursor of another store."""
        parts = _CURSOR.fullmatch(cursor)
        if parts is None:
            raise FilterError("this cursor is not one that a store returned")
        return Place(int(parts[2]), int(parts[3] or 0)) if int(parts[1]) == self._store_id() else Place(0, 0)

    def _store_id(self) -> int:
        return self._number("SELECT store_id FROM schema_version")

    def _number(self, query: str) -> int:
        return int(self.connection.exec_driver_sql(query).scalar_one())
