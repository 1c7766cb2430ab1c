"""The snapshot of a database without tables: that of an empty SQLite database in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from ..base import StoreState
from ..sql.schema import SCHEMA_VERSION
from ..sqlite.connection import snapshot
from ..sqlite.dialect import register
from ..sqlite.file import empty_engine
from ..sqlite.snapshot import SQLiteSnapshot
from .address import Address


class EmptySnapshot(SQLiteSnapshot):
    """Without any trace; its state is that of the database at ``address``."""

    def __init__(self, connection: Connection, address: Address) -> None:
        super().__init__(connection, Path())
        self._address = address

    def state(self) -> StoreState:
        """Sizes and counts of the store: none."""
        place = self._address.place
        return StoreState("postgresql", place, 0, None, None, SCHEMA_VERSION, 0, 0, 0, None, None)


@contextmanager
def empty_snapshot(address: Address) -> Iterator[EmptySnapshot]:
    """Open the snapshot."""
    with snapshot(empty_engine(), prepare=register) as connection:
        yield EmptySnapshot(connection, address)
