"""The state of a store, checked without creating, migrating or changing it, and the space that it takes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from .._sanitize import without_secrets
from ..exceptions import StoreError
from . import Store
from .opening import locate
from .sqlite.file import connect, file_of, missing
from .sqlite.reader import mapped_errors
from .sqlite.schema import SCHEMA_VERSION, traces

_PATIENCE_S: Final = 1.0


@dataclass(slots=True)
class Health:
    """The state of a store; ``problems`` are sentences, and a value that could not be read is ``None``.

    ``size`` includes the write-ahead log; ``free`` is what ``vacuum`` returns to the file system, in bytes.
    ``oldest`` and ``newest`` are ms since the epoch.
    """

    url: str
    file: str | None = None
    size: int | None = None
    free: int | None = None
    schema_version: int | None = None
    traces: int | None = None
    spans: int | None = None
    sources: int | None = None
    oldest: int | None = None
    newest: int | None = None
    journal_mode: str | None = None
    writable: bool | None = None
    integrity: str | None = None
    problems: list[str] = field(default_factory=list)


def examine(url: str) -> Health:
    """The health of the store at this URL."""
    health = Health(without_secrets(url))
    if url == "none":
        return health
    try:
        path = file_of(locate(url))
    except StoreError as error:
        health.problems.append(without_secrets(str(error)))
        return health
    if path is not None:
        health.file = str(path)
        _examine_file(path, health)
    return health


def count_before(store: Store, before_ms: int) -> int:
    """How many traces ``store.prune(before_ms)`` would delete now."""
    query = select(func.count()).select_from(traces).where(traces.c.request_time < before_ms)
    with mapped_errors(), store.engine.connect() as connection:
        return connection.scalar(query) or 0


def vacuum(store: Store) -> tuple[int, int] | None:
    """Shrink the file of an embedded store; its size in bytes before and after, ``None`` without a file."""
    if (path := file_of(store)) is None:
        return None
    before = path.stat().st_size
    with mapped_errors(), store.engine.connect() as connection:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, path.stat().st_size


def _examine_file(path: Path, health: Health) -> None:
    if not path.exists():
        health.problems.append(missing(path))
        return
    try:
        with closing(connect(path, _PATIENCE_S)) as connection:
            _examine_content(connection, health)
            health.writable = _is_writable(connection, path, health.problems)
        health.size = sum(beside.stat().st_size for beside in _files(path) if beside.exists())
    except (sqlite3.Error, OSError) as error:
        health.problems.append(f"{path} cannot be read as a store: {error}")


def _examine_content(connection: sqlite3.Connection, health: Health) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "schema_version" not in tables:
        kind = "an SQLite file, but not a store of Wherefrom" if tables else "an empty file"
        health.problems.append(f"{health.file} is {kind}")
        return
    health.schema_version = _one(connection, "SELECT max(version) FROM schema_version")
    if (health.schema_version or 0) > SCHEMA_VERSION:
        health.problems.append(
            f"a newer Wherefrom wrote the store with schema version {health.schema_version}; this one reads"
            f" up to {SCHEMA_VERSION}: upgrade wherefrom"
        )
        return
    health.journal_mode = _one(connection, "PRAGMA journal_mode")
    health.free = _one(connection, "PRAGMA freelist_count") * _one(connection, "PRAGMA page_size")
    health.integrity = _one(connection, "PRAGMA quick_check(1)")
    if health.integrity != "ok":
        health.problems.append(f"the file is damaged: {health.integrity}")
    health.traces = _one(connection, "SELECT count(*) FROM traces")
    health.spans = _one(connection, "SELECT count(*) FROM spans")
    health.sources = _one(connection, "SELECT count(*) FROM sources")
    health.oldest = _one(connection, "SELECT min(request_time) FROM traces")
    health.newest = _one(connection, "SELECT max(request_time) FROM traces")


def _is_writable(connection: sqlite3.Connection, path: Path, problems: list[str]) -> bool:
    """Whether an app could write now, to the file and to its log."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        problems.append(f"{path} cannot be written: {error}")
        return False
    return True


def _one(connection: sqlite3.Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def _files(path: Path) -> tuple[Path, ...]:
    return path, path.with_name(path.name + "-wal")
