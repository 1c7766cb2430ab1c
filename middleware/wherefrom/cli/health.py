"""The state of a store, found without making, migrating or changing anything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .._sanitize import without_secrets
from ..exceptions import StoreError
from ..stores.sqlite.file import connect, file_of, missing
from .opening import unopened

_PATIENCE_S: Final = 1.0


@dataclass(slots=True)
class Health:
    """What is known about a store; ``problems`` are sentences, and what could not be read is ``None``.

    ``size`` counts the log beside the file too; ``free`` is how much of it ``prune --vacuum`` gives back.
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
        path = file_of(unopened(url))
    except StoreError as error:
        health.problems.append(without_secrets(str(error)))
        return health
    if path is not None:
        health.file = str(path)
        _examine_file(path, health)
    return health


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
    from ..stores.sqlite.schema import SCHEMA_VERSION

    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "schema_version" not in tables:
        kind = "an SQLite file, but not a store of Wherefrom" if tables else "an empty file"
        health.problems.append(f"{health.file} is {kind}")
        return
    health.schema_version = _one(connection, "SELECT max(version) FROM schema_version")
    if (health.schema_version or 0) > SCHEMA_VERSION:
        health.problems.append(
            f"the store has schema version {health.schema_version}, written by a newer Wherefrom than this one,"
            f" which reads up to {SCHEMA_VERSION}: upgrade wherefrom"
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
    """Whether an app could write now, the file and the log beside it."""
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
