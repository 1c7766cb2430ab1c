"""The snapshot of a SQLite file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select

from ...exceptions import FilterError
from ..base import Changes, Selection, StoreState
from ..deadline import Deadline
from ..sql.conditions import Catalog
from ..sql.schema import traces
from ..sql.snapshot import SQLSnapshot
from .connection import mapped_errors, until
from .dialect import SQLITE
from .health import read_state

# Row ids that one transaction reads: a long transaction would keep the WAL from being checkpointed.
STRETCH: Final = 20_000
_CURSOR: Final = re.compile(r"([0-9]{1,10})\.([0-9]{1,18})", re.ASCII)


class SQLiteSnapshot(SQLSnapshot):
    """Reads on one connection, within its transaction; ``path`` is the file."""

    def __init__(self, connection: Connection, path: Path) -> None:
        super().__init__(Catalog(connection, SQLITE))
        self._driver: Any = connection.connection.dbapi_connection
        self._path = path

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Give the queries in the block a deadline."""
        with mapped_errors(), until(deadline, self.connection):
            yield

    def state(self) -> StoreState:
        """Sizes and counts of the store."""
        return read_state(self._driver, self._path)

    def cursor(self) -> str:
        """The cursor of the end of the store, for ``changes``."""
        return f"{self._file_id()}.{self._last_id()}"

    def changes(
        self, cursor: str | None, selection: Selection, limit: int, *, until: str | None = None
    ) -> Changes:
        """Traces of the selection stored since the cursor, in the order in which they were stored.

        Raises:
            FilterError: the cursor is malformed.
        """
        first = self.connection.scalar(select(func.min(traces.c.id))) or 1
        last = self._last_id() if until is None else self._position(until)
        begin = first - 1 if cursor is None else max(self._position(cursor), first - 1)
        edge = max(min(begin + STRETCH, last), begin)
        found = select(traces.c.id).where(
            traces.c.id > begin, traces.c.id <= edge, *self.conditions(selection)
        )
        ids = list(self.connection.scalars(found.order_by(traces.c.id).limit(limit)))
        end = ids[-1] if len(ids) == limit else edge
        done = 1.0 if end >= last else (end - first + 1) / (last - first + 1)
        return Changes(ids, f"{self._file_id()}.{end}", done)

    def _position(self, cursor: str) -> int:
        """The row id of a cursor; 0 for a cursor of another file: all traces of this one are new then."""
        parts = _CURSOR.fullmatch(cursor)
        if parts is None:
            raise FilterError("this cursor is not one that a store returned")
        position = int(parts[2])
        return position if int(parts[1]) == self._file_id() and position <= self._last_id() else 0

    def _last_id(self) -> int:
        """The highest row id ever used, also by a deleted trace: ids are not reused."""
        return self._number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'traces'")

    def _file_id(self) -> int:
        return self._number("PRAGMA user_version")

    def _number(self, query: str) -> int:
        return int(self._driver.execute(query).fetchone()[0])
