"""Examines a SQLite file without creating or changing it."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from ..._permissions import is_shared, unwritable
from ..._units import size as spoken_size
from ...exceptions import StoreError
from ..base import Health, StoreState
from ..sql.schema import SCHEMA_VERSION
from .file import log_of, missing, newer, one, open_to_read, version
from .filesystem import file_system

_PATIENCE_S: Final = 1.0  # ``doctor`` reports a lock instead of waiting for it


def examine(path: Path, url: str, cap: int | None = None) -> Health:
    """Return the health of the file of a store with a size cap, without creating or changing it."""
    health = Health(url, str(path), cap=cap)
    try:
        place, blocked = file_system(path), unwritable(path)
        health.file_system = None if place is None else str(place)
        if (problem := missing(path)) is not None:
            health.problems.append(problem)
            if blocked is not None:
                health.writable = False
                health.problems.append(f"{path} cannot be created: this user cannot write to {blocked}")
            return health
        health.size = size(path)
        health.warnings += _shared_files(path)
        connection, _ = open_to_read(path, _PATIENCE_S)
        with closing(connection):
            _examine_content(connection, path, health)
            if blocked is not None:
                health.writable = False
                health.problems.append(f"{path} cannot be written: this user cannot write to {blocked}")
            else:
                health.writable = _is_writable(connection, path, health.problems)
        if place is not None and place.is_shared and health.journal_mode == "wal":
            health.warnings.append(_ONE_HOST.format(place=place))
        elif health.journal_mode not in ("wal", None):
            health.warnings.append(_SLOWER.format(mode=health.journal_mode, place=place or "an unknown disk"))
    except StoreError as error:
        health.problems.append(str(error))
    except (sqlite3.Error, OSError) as error:
        where = f" ({health.file_system})" if health.file_system else ""
        health.problems.append(f"{path} cannot be read as a store: {error}{where}")
    return health


_ONE_HOST: Final = (
    "the store has a write-ahead log on a file system that several hosts may share ({place}):"
    " use it from one host only"
)
_SLOWER: Final = (
    "the journal mode of the store is {mode}, not wal ({place}): it is slower, and readers and writers wait"
    " for each other"
)
_OVER_CAP: Final = (
    "the store uses {used}, more than its cap of {cap}: the oldest traces are deleted while an app writes"
)


def used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of a file that are in use, in the log or not: without its free pages."""
    pages = one(connection, "PRAGMA page_count") - one(connection, "PRAGMA freelist_count")
    return int(pages * one(connection, "PRAGMA page_size"))


def read_state(connection: sqlite3.Connection, path: Path) -> StoreState:
    """Sizes and counts of a store's file."""
    time = "request_time FROM traces"
    return StoreState(
        kind="sqlite",
        location=str(path),
        size=size(path),
        free=one(connection, "PRAGMA freelist_count") * one(connection, "PRAGMA page_size"),
        disk_free=_disk_free(path),
        schema_version=one(connection, "SELECT max(version) FROM schema_version"),
        traces=one(connection, "SELECT count(*) FROM traces"),
        sources=one(connection, "SELECT count(*) FROM sources"),
        experiments=one(connection, "SELECT count(*) FROM experiments"),
        oldest=one(connection, f"SELECT {time} ORDER BY request_time LIMIT 1"),
        newest=one(connection, f"SELECT {time} ORDER BY request_time DESC LIMIT 1"),
    )


def _disk_free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:  # the folder does not exist yet
        return None


def _shared_files(path: Path) -> Iterator[str]:
    """A sentence for each file of the store that other accounts may read."""
    for file in (path, log_of(path), path.with_name(path.name + "-shm")):
        if is_shared(file):
            yield f"other accounts of this machine can read {file}: chmod 600 {shlex.quote(str(file))}"


def size(path: Path) -> int:
    """The size of a file and its write-ahead log in bytes."""
    files = path, log_of(path)
    return sum(file.stat().st_size for file in files if file.exists())


def _examine_content(connection: sqlite3.Connection, path: Path, health: Health) -> None:
    found = version(connection)
    if found is None:
        health.problems.append(f"{path} is an empty file")
        return
    health.schema_version = found
    if found > SCHEMA_VERSION:
        health.problems.append(newer("the store", found))
        return
    health.journal_mode = one(connection, "PRAGMA journal_mode")
    health.integrity = one(connection, "PRAGMA quick_check(1)")
    if health.integrity != "ok":
        health.problems.append(f"the file is damaged: {health.integrity}")
    if health.cap is not None and (used := used_bytes(connection)) > health.cap:
        health.warnings.append(_OVER_CAP.format(used=spoken_size(used), cap=spoken_size(health.cap)))
    state = read_state(connection, path)
    health.free, health.traces, health.sources = state.free, state.traces, state.sources
    health.oldest, health.newest = state.oldest, state.newest
    health.spans = one(connection, "SELECT count(*) FROM spans")


def _is_writable(connection: sqlite3.Connection, path: Path, problems: list[str]) -> bool:
    """Whether an app could write now to the file and its log."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        problems.append(f"{path} cannot be written: {error}")
        return False
    return True
