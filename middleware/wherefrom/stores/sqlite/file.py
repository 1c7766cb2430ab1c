"""The SQLite file: opening it, creating its tables, and examining it without changing it."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Index, Table
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ..._permissions import is_shared, make_private
from ...exceptions import StoreError, StoreUnavailableError, StoreVersionError
from ..base import Health, StoreState
from .known_keys import triggers
from .schema import SCHEMA_VERSION, metadata

BUSY_TIMEOUT_S: Final = 5.0  # longer than any transaction of ours
_UNAVAILABLE: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)


def open_file(path: Path) -> sqlite3.Connection:
    """Open a connection for writing; create the file and its tables if they are missing.

    Raises:
        StoreVersionError: the file was written by a newer Wherefrom.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    make_private(path)  # SQLite creates the files beside it with the same mode
    connection = connect(path, BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA temp_store=MEMORY")  # the facts of a batch never touch the disk
        connection.execute("PRAGMA journal_size_limit=67108864")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, timeout: float = 5.0, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a connection to an existing file, without creating a file or tables."""
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=check_same_thread,
    )


def _use_wal(connection: sqlite3.Connection) -> None:
    # Switching to WAL ignores busy_timeout, and another process that starts now may hold the lock briefly.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables if there are none.

    Raises:
        StoreVersionError: the file was written by a newer Wherefrom.
    """
    while (found := version(connection)) != SCHEMA_VERSION:
        # There is no older version yet. A migration is to commit together with its version number.
        if found is not None:
            raise StoreVersionError(
                f"{path} has schema version {found}, written by a newer Wherefrom than this one,"
                f" which reads up to {SCHEMA_VERSION}: upgrade wherefrom"
            )
        with transaction(connection):
            if version(connection) is None:  # else another process was faster
                for statement in (*_creation(), *triggers()):
                    connection.execute(statement)
                connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
                # A random number that identifies the file, so that a cursor of a replaced one is recognized.
                connection.execute(f"PRAGMA user_version = {secrets.randbits(31)}")


def _creation() -> Iterator[str]:
    for table in metadata.sorted_tables:
        yield _create(table)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield _create(index)


def _create(item: Table | Index) -> str:
    create = CreateTable(item) if isinstance(item, Table) else CreateIndex(item)
    return str(create.compile(dialect=sqlite_dialect()))


def version(connection: sqlite3.Connection) -> int | None:
    """The version of the schema in a file; ``None`` without a schema."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    row = connection.execute("SELECT version FROM schema_version").fetchone() if there else None
    return None if row is None else int(row[0])


def is_current(path: Path) -> bool:
    """Whether the file can be read as it is: then a reader needs neither a lock nor write permission."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return version(connection) == SCHEMA_VERSION
    except sqlite3.Error:
        return False


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


def missing(path: Path) -> str | None:
    """A sentence if the file does not exist; ``None`` if it has our tables or is empty.

    Raises:
        StoreError: another program made the file, or it cannot be read as SQLite.
    """
    try:
        exists = path.exists()
    except OSError as error:  # the name is too long, or the folder is out of reach
        raise StoreError(f"{path} cannot be read as a store: {error.strerror}") from error
    if not exists:
        return (
            f"there is no store at {path}; an app creates it when it records its first trace."
            " For another file, use --store or WHEREFROM_STORE"
        )
    try:
        with closing(connect(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a store: {error}") from error
    if tables and "schema_version" not in tables:
        raise StoreError(f"{path} is an SQLite file, but not a store of Wherefrom")
    return None


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise errors of the driver as errors of Wherefrom."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", None)
        kind = StoreUnavailableError if code is not None and code & 0xFF in _UNAVAILABLE else StoreError
        raise kind(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}") from error
    except OSError as error:
        raise StoreUnavailableError(f"{path}: {error}") from error


_PATIENCE_S: Final = 1.0  # ``doctor`` reports a lock instead of waiting for it


def examine(path: Path, url: str) -> Health:
    """The health of the file of a store, without creating or changing it."""
    health = Health(url, str(path))
    try:
        if (problem := missing(path)) is not None:
            health.problems.append(problem)
            return health
        health.size = size(path)
        health.warnings += _shared_files(path)
        with closing(connect(path, _PATIENCE_S)) as connection:
            _examine_content(connection, path, health)
            health.writable = _is_writable(connection, path, health.problems)
    except StoreError as error:
        health.problems.append(str(error))
    except (sqlite3.Error, OSError) as error:
        health.problems.append(f"{path} cannot be read as a store: {error}")
    return health


def read_state(connection: sqlite3.Connection, path: Path) -> StoreState:
    """Sizes and counts of a store's file."""
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


def _shared_files(path: Path) -> Iterator[str]:
    """A sentence for each file of the store that other accounts may read."""
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if is_shared(file):
            yield f"other accounts of this machine can read {file}: chmod 600 {shlex.quote(str(file))}"


def size(path: Path) -> int:
    """The size of a file and its write-ahead log in bytes."""
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
    """Whether an app could write now to the file and its log."""
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
