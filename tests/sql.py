"""SQL that a test runs past the store, and what the store runs itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
from sqlalchemy import event

from wherefrom.stores import Store
from wherefrom.stores.clickhouse.store import ClickHouseStore


def execute(store: Store, statement: str) -> None:
    """Run a statement in a transaction of its own."""
    if isinstance(store, ClickHouseStore):
        store._connection.execute(statement)
        return
    if store.path is None:
        url, _, schema = store.url.partition("&schema=")
        with psycopg.connect(url, options=f"-c search_path={schema}") as server:
            server.execute(statement.encode())
        return
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(statement)


@contextmanager
def noted(store: Any) -> Iterator[list[tuple[str, Any]]]:
    """The SQL that reading a store executes, with its parameters."""
    seen: list[tuple[str, Any]] = []
    if isinstance(store, ClickHouseStore):
        rows = store._connection.rows

        def note_rows(sql: str, values: Any = None, *others: Any, **named: Any) -> list[list[Any]]:
            seen.append((sql, values))
            return rows(sql, values, *others, **named)

        with patch.object(store._connection, "rows", note_rows):
            yield seen
        return

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)
