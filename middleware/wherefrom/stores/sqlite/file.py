"""The file of an embedded store: whether it is there, and ours, found out without making or changing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ...exceptions import StoreError
from .. import Store


def file_of(store: Store) -> Path | None:
    """The file that an embedded store is kept in."""
    from .store import SQLiteStore

    return store.path if isinstance(store, SQLiteStore) else None


def not_ours(path: Path) -> str:
    """The sentence for a file that something else made."""
    return f"{path} is an SQLite file, but not a store of Wherefrom"


def missing(path: Path) -> str:
    """The sentence for a file that is not there."""
    return (
        f"there is no store at {path}: it is made when an app records its first trace;"
        " if yours keeps them elsewhere, name that place with WHEREFROM_STORE or --store"
    )


def connect(path: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """A connection to a file that exists; it is neither made nor given tables."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)


def is_wherefrom_file(path: Path) -> bool:
    """Whether a SQLite file holds our tables, or nothing yet.

    Raises:
        StoreError: it cannot be read as SQLite.
    """
    try:
        with closing(connect(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a store: {error}") from error
    return not tables or "schema_version" in tables
