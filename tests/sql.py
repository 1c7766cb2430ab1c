"""SQL that a test runs on the file of a store, past the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from wherefrom.stores import Store


def execute(store: Store, statement: str) -> None:
    """Run a statement in a transaction of its own."""
    assert store.path is not None
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(statement)
