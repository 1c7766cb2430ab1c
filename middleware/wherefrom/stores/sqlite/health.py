"""The state of a SQLite file, also of one that is missing, damaged or not a store."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ...exceptions import StoreError
from ..base import Health, StoreState
from .file import connect, missing, version
from .schema import SCHEMA_VERSION

_PATIENCE_S: Final = 1.0


def examine(path: Path, url: str) -> Health:
    """The health of the file of a store; it is neither created nor changed."""
    health = Health(url, str(path))
    try:
        if (problem := missing(path)) is not None:
            health.problems.append(problem)
            return health
        health.size = size(path)
        with closing(connect(path, _PATIENCE_S)) as connection:
            _examine_content(connection, path, health)
            health.writable = _is_writable(connection, path, health.problems)
    except StoreError as error:
        health.problems.append(str(error))
    except (sqlite3.Error, OSError) as error:
        health.problems.append(f"{path} cannot be read as a store: {error}")
    return health


def read_state(connection: sqlite3.Connection, path: Path) -> StoreState:
    """Sizes and counts of a file that is a store."""
    time = "request_time FROM traces"
    return StoreState(
        kind="sqlite",
        location=str(path),
        size=size(path),
        free=_one(connection, "PRAGMA freelist_count") * _one(connection, "PRAGMA page_size"),
        disk_free=shutil.disk_usage(path.parent).free,
        schema_version=_one(connection, "SELECT max(version) FROM schema_version"),
        traces=_one(connection, "SELECT count(*) FROM traces"),
        sources=_one(connection, "SELECT count(*) FROM sources"),
        experiments=_one(connection, "SELECT count(*) FROM experiments"),
        oldest=_one(connection, f"SELECT {time} ORDER BY request_time LIMIT 1"),
        newest=_one(connection, f"SELECT {time} ORDER BY request_time DESC LIMIT 1"),
    )


def size(path: Path) -> int:
    """The bytes of a file and of the write-ahead log beside it."""
    files = path, path.with_name(path.name + "-wal")
    return sum(file.stat().st_size for file in files if file.exists())


def _examine_content(connection: sqlite3.Connection, path: Path, health: Health) -> None:
    found = version(connection)
    if found is None:
        health.problems.append(f"{path} is an empty file")
        return
    health.schema_version = found
    if found > SCHEMA_VERSION:
        health.problems.append(
            f"the store has schema version {found}, written by a newer Wherefrom than this one,"
            f" which reads up to {SCHEMA_VERSION}: upgrade wherefrom"
        )
        return
    health.journal_mode = _one(connection, "PRAGMA journal_mode")
    health.integrity = _one(connection, "PRAGMA quick_check(1)")
    if health.integrity != "ok":
        health.problems.append(f"the file is damaged: {health.integrity}")
    state = read_state(connection, path)
    health.free, health.traces, health.sources = state.free, state.traces, state.sources
    health.oldest, health.newest = state.oldest, state.newest
    health.spans = _one(connection, "SELECT count(*) FROM spans")


def _is_writable(connection: sqlite3.Connection, path: Path, problems: list[str]) -> bool:
    """Whether an app could write now, the file and the log beside it."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        problems.append(f"{path} cannot be written: {error}")
        return False
    return True


def _one(connection: sqlite3.Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
