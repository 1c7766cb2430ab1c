"""The tables of a SQLite file: made when they are missing, brought forward when they are older.

Each step commits together with the version that it leads to, so that a file is never between two.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Index, Table
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ...exceptions import StoreVersionError
from .known_keys import bound_all
from .schema import SCHEMA_VERSION, known_keys, metadata, processes, trace_values, traces
from .trace_values import list_all, triggers


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring them to the version that this Wherefrom writes.

    Raises:
        StoreVersionError: the file was written by a newer Wherefrom.
    """
    while (found := version(connection)) != SCHEMA_VERSION:
        if found is not None and found > SCHEMA_VERSION:
            raise StoreVersionError(
                f"{path} has schema version {found}, written by a newer Wherefrom than this one,"
                f" which reads up to {SCHEMA_VERSION}: upgrade wherefrom"
            )
        with transaction(connection):
            if version(connection) == found:  # else another process was faster
                _advance(connection, found)


def version(connection: sqlite3.Connection) -> int | None:
    """The version of the schema in a file; ``None`` where there is none yet."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    row = connection.execute("SELECT version FROM schema_version").fetchone() if there else None
    return None if row is None else int(row[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the file's write lock, and commit at the end of the block."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _advance(connection: sqlite3.Connection, found: int | None) -> None:
    if found is None:
        _run(connection, (*_creation(), *triggers()))
        connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
    else:
        _STEPS[found](connection)
        connection.execute("UPDATE schema_version SET version = ?", (found + 1,))


def _creation() -> Iterator[str]:
    for table in metadata.sorted_tables:
        yield _create(table)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield _create(index)


def _list_values(connection: sqlite3.Connection) -> None:
    """1 to 2: ids for known keys, the list of what traces hold under them, and a place for reports."""
    connection.execute("ALTER TABLE known_keys RENAME TO known_keys_1")
    _run(connection, map(_create, (known_keys, trace_values, processes)))
    connection.execute("INSERT INTO known_keys (family, key) SELECT family, key FROM known_keys_1")
    connection.execute("DROP TABLE known_keys_1")
    name = next(index for index in traces.indexes if index.name == "ix_traces_name")
    _run(connection, (_create(name), *list_all(), *triggers()))


def _bound_keys(connection: sqlite3.Connection) -> None:
    """2 to 3: a bounded number of known keys, a row where there are others, and triggers of constant cost."""
    _run(connection, triggers())
    connection.execute("DELETE FROM known_keys WHERE key = ''")
    (count,) = connection.execute("SELECT count(*) FROM known_keys").fetchone()
    if count >= _MAX_KEYS_2:
        _run(connection, bound_all())


_MAX_KEYS_2: Final = 10_000
"""With fewer, a writer of version 2 has left none out."""
_STEPS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {1: _list_values, 2: _bound_keys}
"""What leads from each version to the next."""


def _create(item: Table | Index) -> str:
    create = CreateTable(item) if isinstance(item, Table) else CreateIndex(item)
    return str(create.compile(dialect=sqlite_dialect()))


def _run(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)
