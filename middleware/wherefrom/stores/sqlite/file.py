"""The SQLite file: opening it to write or to read, and creating its tables."""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, Index, NullPool, Table, create_engine, event
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ..._clock import monotonic
from ..._permissions import make_private, unwritable
from ...exceptions import StoreError, StoreUnavailableError, StoreVersionError
from ..sql.schema import SCHEMA_VERSION, metadata
from . import rollups
from .filesystem import file_system
from .known_keys import triggers

BUSY_TIMEOUT_S: Final = 5.0  # longer than any transaction of ours
_UNAVAILABLE: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
)
# Errors of SQLite if a write-ahead log has no locks, no shared memory or no folder to write to.
_NO_LOG: Final = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
)
_RETRY_S: Final = 1.0
_JOURNAL: Final = (
    "WAL cannot be used at {path} ({place}): {error}. Traces are stored with a rollback journal, which is"
    " slower, and readers and writers wait for each other; a local disk has no such limit"
)


class Opened(NamedTuple):
    """A connection for writing; ``notice`` is a sentence if the file has no write-ahead log."""

    connection: sqlite3.Connection
    notice: str | None


def open_file(path: Path) -> Opened:
    """Open a connection for writing; create the file and its tables if they are missing.

    Where SQLite's write-ahead log (WAL) does not work, as on NFS, the file gets a rollback journal.

    Raises:
        StoreVersionError: the file was written by a newer Wherefrom.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError("this user cannot write to it, or it lies on a read-only file system")
    make_private(path)  # SQLite creates the files beside it with the same mode
    connection = connect(path, BUSY_TIMEOUT_S, check_same_thread=False)
    notice = None
    try:
        reason = _use_wal(connection, path)
        if reason is not None:
            connection.close()
            connection = _without_wal(path)
            notice = _JOURNAL.format(path=path, place=file_system(path) or "an unknown disk", error=reason)
        connection.execute("PRAGMA synchronous=NORMAL" if notice is None else "PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")  # the facts of a batch never touch the disk
        connection.execute("PRAGMA journal_size_limit=67108864")
        ensure_logarithm(connection)
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return Opened(connection, notice)


def ensure_logarithm(connection: sqlite3.Connection) -> None:
    """Give a connection ``ln`` where SQLite was built without its mathematical functions."""
    try:
        connection.execute("SELECT ln(1)").fetchone()
    except sqlite3.OperationalError:
        connection.create_function("ln", 1, math.log, deterministic=True)


def connect(path: Path, timeout: float = 5.0, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a connection to an existing file, without creating a file or tables."""
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=check_same_thread,
    )


def _use_wal(connection: sqlite3.Connection, path: Path) -> str | None:
    """Use the write-ahead log; return why that is not possible.

    Raises:
        sqlite3.OperationalError: another process holds the lock.
    """
    place = file_system(path)
    if place is not None and place.is_shared and not _has_wal(connection):
        return "several hosts may share it"  # and the log works on one host only
    # Switching to WAL ignores busy_timeout, and another process that starts now may hold the lock briefly.
    start = monotonic()
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            # The shared memory of the log is opened by the first write only.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            is_busy = _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if monotonic() - start > (BUSY_TIMEOUT_S if is_busy else _RETRY_S):
                if is_busy:
                    raise
                return str(error)
            time.sleep(0.02)
        else:
            return None if mode == "wal" else "SQLite has none there"


def _has_wal(connection: sqlite3.Connection) -> bool:
    try:
        return bool(one(connection, "PRAGMA journal_mode") == "wal")
    except sqlite3.OperationalError:
        return True  # a log that cannot be read


def _without_wal(path: Path) -> sqlite3.Connection:
    """Open a file with a rollback journal. The content of a write-ahead log is moved to the file.

    Raises:
        sqlite3.OperationalError: another process has the file open.
    """
    connection = connect(path, BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        # With exclusive access, SQLite needs no shared memory to read the log.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA locking_mode=NORMAL")
        version(connection)  # releases the lock
    except BaseException:
        connection.close()
        raise
    return connection


class Way(NamedTuple):
    """How a file is opened for reading: the options of its URI, and whether access is exclusive."""

    options: tuple[tuple[str, str], ...]
    alone: bool = False

    def connect(self, path: Path, timeout: float) -> sqlite3.Connection:
        """Open a connection."""
        options = "&".join(f"{name}={value}" for name, value in self.options)
        uri = f"{path.as_uri()}?{options}"
        connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)
        self.prepare(connection)
        return connection

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Set up a new connection."""
        if self.alone:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")


SHARED: Final = Way((("mode", "rw"),))
"""With the locks that separate readers and writers."""
# Where nothing can be written, SQLite has neither locks nor the shared memory of the log.
_WITHOUT_LOG: Final = Way((("immutable", "1"),))
_WITH_LOG: Final = Way(
    (("mode", "ro"), ("vfs", "win32-none" if os.name == "nt" else "unix-none")), alone=True
)


def lacks_log(error: sqlite3.OperationalError, path: Path) -> bool:
    """Whether opening the file for writing may help, because its log cannot be used for reading only."""
    return _code(error) in _NO_LOG and unwritable(path) is None


def open_to_read(path: Path, timeout: float = BUSY_TIMEOUT_S) -> tuple[sqlite3.Connection, Way]:
    """Open a connection to an existing file, even if this user can write neither it nor its folder.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    try:
        return _tried(SHARED, path, timeout), SHARED
    except sqlite3.OperationalError as error:
        if _code(error) not in _NO_LOG or unwritable(path) is None:
            raise
    way = _WITH_LOG if log_of(path).exists() and log_of(path).stat().st_size else _WITHOUT_LOG
    return _tried(way, path, timeout), way


def _tried(way: Way, path: Path, timeout: float) -> sqlite3.Connection:
    connection = way.connect(path, timeout)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def log_of(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(path.name + "-wal")


def stamp(path: Path, way: Way = SHARED) -> tuple[int, ...] | None:
    """What identifies a file while it is open: device and inode; ``None`` if it does not exist.

    For a file that is read without locks, times and sizes are included, so each change makes a new stamp.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    identity: tuple[int, ...] = (found.st_dev, found.st_ino)
    if way is not SHARED:
        for file in (path, log_of(path)):
            if file.exists():
                identity += (file.stat().st_mtime_ns, file.stat().st_size)
    return identity


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables if there are none.

    Raises:
        StoreVersionError: the file was written by a newer Wherefrom.
    """
    while (found := version(connection)) != SCHEMA_VERSION:
        # There is no older version yet. A migration is to commit together with its version number.
        if found is not None:
            raise StoreVersionError(newer(str(path), found))
        with transaction(connection):
            if version(connection) is None:  # else another process was faster
                create_tables(connection)
                # A random number that identifies the file, so that a cursor of a replaced one is recognized.
                connection.execute(f"PRAGMA user_version = {secrets.randbits(31)}")


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of a store, in the transaction of the caller."""
    for statement in (*_creation(), *triggers(), *rollups.triggers()):
        connection.execute(statement)
    connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))


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


def find_way(path: Path) -> Way | None:
    """How a store's file can be read as it is; ``None`` if there is no file, or an empty one.

    Raises:
        StoreError: another program made the file, or it cannot be read as SQLite.
        StoreVersionError: the file was written by a newer Wherefrom.
        sqlite3.OperationalError: the file cannot be read now.
    """
    if not _exists(path):
        return None
    connection, way = open_to_read(path)
    with closing(connection):
        found = version(connection)
        if found is None:
            if one(connection, "SELECT 1 FROM sqlite_master"):
                raise StoreError(f"{path} is an SQLite file, but not a store of Wherefrom")
            return None
        if found > SCHEMA_VERSION:
            raise StoreVersionError(newer(str(path), found))
        return way


def newer(place: str, found: int) -> str:
    """A sentence about a schema that this version cannot read."""
    return (
        f"{place} has schema version {found}, written by a newer Wherefrom than this one,"
        f" which reads up to {SCHEMA_VERSION}: upgrade wherefrom"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # the name is too long, or the folder is out of reach
        raise StoreError(f"{path} cannot be read as a store: {error.strerror}") from error


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
    if not _exists(path):
        return (
            f"there is no store at {path}; an app creates it when it records its first trace."
            " For another file, use --store or WHEREFROM_STORE"
        )
    try:
        find_way(path)
    except StoreVersionError:
        pass  # raised when it is read
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError) or not lacks_log(error, path):
            raise StoreError(f"{path} cannot be read as a store: {error}") from error
    return None


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise errors of the driver as errors of Wherefrom."""
    try:
        yield
    except sqlite3.OperationalError as error:
        kind = StoreUnavailableError if _code(error) in _UNAVAILABLE else StoreError
        raise kind(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}") from error
    except OSError as error:
        raise StoreUnavailableError(f"{path}: {error}") from error


def one(connection: sqlite3.Connection, query: str) -> Any:
    """The first value that a query finds."""
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def empty_engine() -> Engine:
    """An engine whose connections read an empty store in memory, so that reading creates no file."""
    engine = create_engine("sqlite://", poolclass=NullPool, connect_args={"isolation_level": None})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        create_tables(connection)

    return engine
