"""SQL that a test runs on the tables of a store, past the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg

from wherefrom.stores import Store


def execute(store: Store, statement: str) -> None:
    """Run a statement in a transaction of its own."""
    if store.path is None:
        url, _, schema = store.url.partition("&schema=")
        with psycopg.connect(url, options=f"-c search_path={schema}") as server:
            server.execute(statement.encode())
        return
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(statement)
