"""The embedded store: one SQLite file, written in batches by any number of processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, Engine, create_engine, event

from ..._clock import monotonic, wall_ns
from ..._permissions import data_path
from ...exceptions import StoreError, TraceNotFoundError
from ...model import Assessment, Source, Trace
from ...model.record import Record, encode
from ...process import ProcessReport, ledger, process
from ..assessments import assessments_of
from ..base import Health
from ..deadline import Deadline
from ..sql.schema import DAY_MS, HOUR_MS, SCHEMA_VERSION
from . import rollups, writer
from .connection import snapshot
from .dialect import register
from .file import (
    BUSY_TIMEOUT_S,
    SHARED,
    Way,
    empty_engine,
    find_way,
    lacks_log,
    mapped_errors,
    missing,
    one,
    open_file,
    stamp,
    transaction,
)
from .health import examine, used_bytes
from .snapshot import SQLiteSnapshot

# Another process that reads or writes need not be waited for: its own end moves the rest.
_CHECKPOINT_MS = 200
_POLL_S = 0.25  # new traces appear without visible delay, at little cost
_UPKEEP_EVERY_S = 600.0  # retention is counted in days, and rollups in hours
_TRIM_EVERY_S = 10.0  # a busy app writes some 50 MB meanwhile
_TRIMMED_TO = 0.9
# The target for how long a step of a deletion holds the write lock, and how many traces it deletes.
_STEP_S = 0.05
_FIRST_STEP = 50
_SMALLEST_STEP = 20
_LATEST = 2**63 - 1
_LARGEST_STEP = 1000  # a fast disk would otherwise delete too many at once
_LONGEST_WAIT_TO_FORK_S = 1.0  # a fork waits for a transaction of another thread


_COUNT = "SELECT count(*) FROM (SELECT 1 FROM traces LIMIT 100000)"


class SQLiteStore:
    """Stores traces in one SQLite file (WAL, or a rollback journal where that is not possible).

    The first write creates the file and its schema; reading and editing create nothing. ``path`` is the
    file; a leading ``~`` is the home directory. ``retention_days``: while traces are written, a background
    thread deletes older traces every 10 minutes. ``max_store_mb``: every 10 seconds it looks whether more
    megabytes of the file than these are in use, and deletes the oldest traces until 90 % of them are.
    """

    batch_size = 256
    """Traces to write at once: some 4 ms of CPU, for which the requests of a busy machine wait."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        retention_days: float | None = None,
        max_store_mb: float | None = None,
    ) -> None:
        try:
            self.path = data_path(path)
        except ValueError as error:
            raise StoreError(f"the path of the store {error}") from None
        self._retention_ms = None if retention_days is None else int(retention_days * 86_400_000)
        self._cap = None if max_store_mb is None else int(max_store_mb * 1_000_000)
        self._next_upkeep = self._first_upkeep()
        self._next_retention = self._next_upkeep
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._rolling_up = threading.Lock()
        self._open = _Open()
        self._file: tuple[int, ...] | None = None
        self._read_file: tuple[int, ...] | None = None
        self._way: Way | None = None
        self._ids = writer.KnownIds()
        # If a process forks while another thread writes, the child inherits a locked lock.
        process.on_fork(
            before=self._before_fork, in_parent=self._after_fork_in_parent, in_child=self._after_fork_in_child
        )
        weakref.finalize(
            self, self._open.close
        ).atexit = False  # close the store when it is garbage-collected

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces in one transaction; a trace that is stored already gains the spans that it lacks.

        Raises:
            StoreUnavailableError: the file is locked, the disk full or the folder missing; try again.
            StoreVersionError: the file was written by a newer Wherefrom.
        """
        self._write([encode(trace) for trace in traces], {}, assessments_of(traces))

    def write_records(self, records: Sequence[Record], sources: Mapping[str, Source]) -> None:
        """Write traces as ``write`` does, from records and their sources by digest."""
        self._write(records, sources)

    def _write(
        self,
        records: Sequence[Record],
        sources: Mapping[str, Source],
        assessments: Sequence[Assessment] = (),
    ) -> None:
        with self._writing() as connection:
            writer.insert(connection, self._ids, records, sources)
            if assessments:
                writer.write_assessments(connection, self._ids, assessments)
        with self._lock:
            if monotonic() >= self._next_upkeep:
                self._start_upkeep()

    def report(self, report: ProcessReport) -> None:
        """Replace the last report of this process.

        Raises:
            StoreUnavailableError: not now.
        """
        with self._writing() as connection:
            writer.write_report(connection, report)

    def set_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag.

        Raises:
            TraceNotFoundError: there is no such trace.
        """
        with self._editing(trace_id) as connection:
            writer.set_tag(connection, self._ids, trace_id, key, value)

    def delete_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            TraceNotFoundError: there is no such trace, or it has no such tag.
        """
        with self._editing(trace_id) as connection:
            writer.delete_tag(connection, trace_id, key)

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Store feedback and expectations, whose traces need not be stored yet.

        Raises:
            StoreUnavailableError: not now.
        """
        with self._writing() as connection:
            writer.write_assessments(connection, self._ids, assessments)

    def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Remove one.

        Raises:
            TraceNotFoundError: the trace has no such feedback.
        """
        with self._editing(trace_id) as connection:
            writer.delete_assessment(connection, trace_id, assessment_id)

    def delete(
        self,
        experiment: str,
        *,
        trace_ids: Sequence[str] | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete traces of an experiment by id or up to a time, the oldest first; return how many.

        They are deleted in short transactions, as in ``prune``, and counted nowhere any more. Without
        ``trace_ids`` and ``limit``, so are traces that have been pruned, in whole hours up to the time.
        """
        if self._is_empty():
            return 0
        with self._lock, mapped_errors(self.path):
            found = writer.find_ids(
                self._connection(), experiment, trace_ids=trace_ids, until_ms=until_ms, limit=limit
            )
        left = iter(found)

        def delete_some(connection: sqlite3.Connection, limit: int) -> tuple[int, bool]:
            some = list(islice(left, limit))
            return writer.delete(connection, some), len(some) == limit

        deleted = sum(self._in_steps(delete_some))
        if trace_ids is None and until_ms is not None and limit is None:
            with self._writing() as connection:
                writer.forget_kept(connection, experiment, until_ms)
        self._forget_sources()
        return deleted

    def prune(self, before_ms: int, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Delete traces that started before a time (ms since the epoch); return how many.

        They are deleted in short transactions with pauses, in which others write. ``on_progress`` is called
        after each with the number deleted so far. Rollups still count them.
        """
        if self._is_empty():
            return 0
        deleted = 0
        for count in self._in_steps(_deleting_before(before_ms)):
            deleted += count
            if on_progress is not None:
                on_progress(deleted)
        self._forget_sources()
        for _ in self._in_steps(_deleting_stray(before_ms)):
            pass
        return deleted

    def roll_up(self) -> int:
        """Roll up the hours and days that have ended and are not rolled up; return how many.

        While traces are written, a background thread does so every 10 minutes for the hours that nobody has
        written to meanwhile.
        """
        return 0 if self._is_empty() else self._roll_up(self._stop, only_quiet=False)

    @property
    def engine(self) -> Engine:
        """A SQLAlchemy engine for reading; reading never blocks writing."""
        with self._lock, mapped_errors(self.path):
            self._leave_parent_behind()
            engine = self._open.engine
            if engine is not None and (self._way is None or stamp(self.path, self._way) != self._read_file):
                engine.dispose()  # the file was created, removed or replaced, and writers use the new one
                engine = None
            if engine is None:
                self._way = way = self._find_way()
                if way is None and (nothing := missing(self.path)) is not None:
                    process.say_once(nothing)
                self._read_file = stamp(self.path, way or SHARED)
                engine = self._open.engine = empty_engine() if way is None else _make_engine(self.path, way)
            return engine

    def _find_way(self) -> Way | None:
        """How the file is read; ``None`` if nothing is stored there."""
        try:
            return find_way(self.path)
        except sqlite3.OperationalError as error:
            if not lacks_log(error, self.path):
                raise
            self._connection()  # gives the file a rollback journal
            return SHARED

    @property
    def url(self) -> str:
        """The URL that opens this store again."""
        return f"sqlite:///{self.path}"

    @contextmanager
    def snapshot(self, *, deadline_s: float | None = None) -> Iterator[SQLiteSnapshot]:
        """Open a snapshot, which blocks no writer.

        Queries past the deadline, or past that of a surrounding ``Deadline`` block, raise
        ``QueryTimeoutError``.
        """
        limit = nullcontext() if deadline_s is None else Deadline(deadline_s)
        with limit, snapshot(self.engine, prepare=register) as connection:
            yield SQLiteSnapshot(connection, self.path)

    def upgrade(self) -> int:
        """Create the file, or migrate it to this version; return the version of its schema.

        Raises:
            StoreVersionError: the file was written by a newer Wherefrom.
        """
        with self._lock, mapped_errors(self.path):
            self._connection()
        return SCHEMA_VERSION

    def wait(self, seconds: float) -> None:
        """Wait a quarter of a second at most: SQLite does not say when another process has written."""
        time.sleep(min(seconds, _POLL_S))

    def vacuum(self) -> tuple[int, int]:
        """Return unused space to the disk; return the size before and after, in bytes. Blocks writers."""
        if self._is_empty():
            return 0, 0
        with self._lock, mapped_errors(self.path):
            connection = self._connection()
            before = self.path.stat().st_size
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return before, self.path.stat().st_size

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log to the file, as far as no reader or writer is in the way."""
        with self._lock, mapped_errors(self.path):
            if self._open.writer is not None and self._open.is_ours:
                self._open.writer.execute(f"PRAGMA busy_timeout={_CHECKPOINT_MS}")
                try:
                    self._open.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self._open.writer.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")

    def health(self) -> Health:
        """The state of the file, without creating or changing it."""
        return examine(self.path, self.url, self._cap)

    def missing(self) -> str | None:
        """A sentence if the file does not exist yet, ``None`` if it does. Creates nothing.

        Raises:
            StoreError: another program made the file.
        """
        return missing(self.path)

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        self._stop.set()
        with self._lock:
            self._stop = threading.Event()
            self._next_upkeep = self._next_retention = self._first_upkeep()
            self._open.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction that is committed after the block."""
        with self._lock, mapped_errors(self.path):
            connection = self._connection()
            try:
                with transaction(connection):
                    yield connection
            except TraceNotFoundError:
                raise  # raised before anything was written, so the cached ids are still valid
            except BaseException as error:
                self._ids = writer.KnownIds()  # some of the cached ids were rolled back
                if isinstance(error, sqlite3.OperationalError) and lacks_log(error, self.path):
                    self._open.close()  # the journal mode may be another one after it is reopened
                raise

    @contextmanager
    def _editing(self, trace_id: str) -> Iterator[sqlite3.Connection]:
        if self._is_empty():
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        with self._writing() as connection:
            yield connection

    def _is_empty(self) -> bool:
        """Whether there is no file yet. Only ``write`` and ``report`` create it."""
        with mapped_errors(self.path):
            return not self.path.exists()

    def _forget_sources(self, stop: threading.Event | None = None) -> None:
        """Delete the sources without traces."""
        for _ in self._in_steps(writer.delete_orphans, stop):
            pass

    def _in_steps(self, step: _Step, stop: threading.Event | None = None) -> Iterator[int]:
        """Yield the number of traces that each transaction deleted; pause after each as long as it took."""
        stop = stop or threading.Event()
        limit, has_more = _FIRST_STEP, True
        while has_more:
            with self._lock, mapped_errors(self.path):
                if stop.is_set():
                    return
                connection = self._connection()
                with transaction(connection):
                    began = monotonic()
                    deleted, has_more = step(connection, limit)
                took = max(monotonic() - began, 0.001)
            yield deleted
            limit = min(max(int(limit * _STEP_S / took), _SMALLEST_STEP), _LARGEST_STEP)
            if has_more:
                stop.wait(took)

    def _first_upkeep(self) -> float:
        """When the background thread first runs: at once if it is to delete traces."""
        deletes = self._retention_ms is not None or self._cap is not None
        return 0.0 if deletes else monotonic() + _UPKEEP_EVERY_S

    def _start_upkeep(self) -> None:
        self._next_upkeep = inf
        thread = process.thread(self._keep_up, self._stop, name="wherefrom-upkeep")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, or out of threads
            self._next_upkeep = monotonic() + _UPKEEP_EVERY_S

    def _keep_up(self, stop: threading.Event) -> None:
        """Delete traces that are past their retention or over the cap, and roll up hours that are over."""
        is_whole = monotonic() >= self._next_retention
        try:
            if is_whole and self._retention_ms is not None:
                before_ms = wall_ns() // 1_000_000 - self._retention_ms
                sum(self._in_steps(_deleting_stray(before_ms), stop))
                sum(self._in_steps(_deleting_before(before_ms), stop))
                self._forget_sources(stop)
            if self._cap is not None:
                self._trim(self._cap, stop)
            if is_whole:
                self._roll_up(stop, only_quiet=True)
        except Exception as error:  # noqa: BLE001 - it is tried again later
            ledger.failed("retention", error)
        with self._lock:
            if not stop.is_set():
                if is_whole:
                    self._next_retention = monotonic() + _UPKEEP_EVERY_S
                self._next_upkeep = self._next_retention
                if self._cap is not None:
                    self._next_upkeep = min(self._next_upkeep, monotonic() + _TRIM_EVERY_S)

    def _trim(self, cap: int, stop: threading.Event) -> None:
        """Delete the oldest traces of a file that is larger than its cap.

        Each step looks at the size itself: several processes delete no more than one would.
        """
        with self._lock, mapped_errors(self.path):
            if stop.is_set() or used_bytes(self._connection()) <= cap:
                return
        aim = int(cap * _TRIMMED_TO)

        def delete_some(connection: sqlite3.Connection, limit: int) -> tuple[int, bool]:
            over = used_bytes(connection) - aim
            if over <= 0:
                return 0, False
            # A few large traces are not deleted with the many that a step could. Of more traces than are
            # counted here, a step deletes fewer than it might.
            count = one(connection, _COUNT)
            wanted = over * count // used_bytes(connection) + 1
            deleted = writer.delete_before(connection, _LATEST, min(limit, wanted))
            return deleted, deleted > 0

        if sum(self._in_steps(delete_some, stop)):
            self._forget_sources(stop)

    def _roll_up(self, stop: threading.Event, *, only_quiet: bool) -> int:
        """Roll up hours and days; ``only_quiet``: those that nobody has written to since the last call."""
        with self._rolling_up:
            quiet = self._mark(HOUR_MS, stop)
            hours = quiet if only_quiet else self._mark(HOUR_MS, stop)
            done = sum(self._roll_up_period(start, HOUR_MS, stop) for start in hours)
            self._mark(DAY_MS, stop)
            days = self._mark(DAY_MS, stop)
            return done + sum(self._roll_up_period(start, DAY_MS, stop) for start in days)

    def _mark(self, width: int, stop: threading.Event) -> list[int]:
        """Mark the hours or days to roll up; return the starts of those that were marked before."""
        with self._unless_stopped(stop) as connection:
            if connection is None:
                return []
            marked = rollups.pending(connection, width)
            rollups.mark(connection, width, wall_ns() // 1_000_000)
            return marked

    def _roll_up_period(self, start: int, width: int, stop: threading.Event) -> bool:
        """Roll up one hour or day; return whether it was, and nobody wrote to it meanwhile."""
        with self._lock, mapped_errors(self.path):
            if stop.is_set():
                return False
            connection = self._connection()
            mark = rollups.mark_of(connection, start, width)
            if mark is None:
                return False
        steps = rollups.count_period(connection, start, width)
        is_counted = False
        while not is_counted:
            with self._lock, mapped_errors(self.path):
                if stop.is_set() or self._connection() is not connection:
                    return False  # what was counted went with the connection
                is_counted = next(steps, steps) is steps
        with self._unless_stopped(stop) as connected:
            return connected is connection and rollups.store_period(connection, start, width, mark)

    @contextmanager
    def _unless_stopped(self, stop: threading.Event) -> Iterator[sqlite3.Connection | None]:
        """The connection in a transaction, as ``_writing``; ``None`` once the store was closed."""
        with self._lock:
            if stop.is_set():
                yield None
                return
            with self._writing() as connection:
                yield connection

    def _connection(self) -> sqlite3.Connection:
        self._leave_parent_behind()
        if self._open.writer is not None and stamp(self.path) != self._file:
            self._open.close()  # the file was removed or replaced: writes to it would be lost
        if self._open.writer is None:
            self._open.writer, notice = open_file(self.path)
            if notice is not None:
                process.say_once(notice)
            self._file = stamp(self.path)
            self._ids = writer.KnownIds()
        return self._open.writer

    def _before_fork(self) -> None:
        if self._lock.acquire(timeout=_LONGEST_WAIT_TO_FORK_S):
            self._open.close()

    def _after_fork_in_parent(self) -> None:
        with suppress(RuntimeError):  # the lock could not be acquired in time
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._rolling_up = threading.Lock()
        self._next_upkeep = self._first_upkeep()  # the thread that may be running is the parent's

    def _leave_parent_behind(self) -> None:
        """In a forked child: neither use nor close the parent's connections."""
        if not self._open.is_ours:
            process.never_close((self._open.writer, self._open.engine))
            self._open.start_afresh()


_Step = Callable[[sqlite3.Connection, int], tuple[int, bool]]
"""Deletes at most so many traces; returns how many it deleted, and whether there may be more."""


def _deleting_before(before_ms: int) -> _Step:
    def delete_some(connection: sqlite3.Connection, limit: int) -> tuple[int, bool]:
        deleted = writer.delete_before(connection, before_ms, limit)
        return deleted, deleted == limit

    return delete_some


def _deleting_stray(before_ms: int) -> _Step:
    return lambda connection, limit: writer.delete_stray(connection, before_ms, limit)


class _Open:
    """The open connections of the process that opened them."""

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        self.writer: sqlite3.Connection | None = None
        self.engine: Engine | None = None
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        return self._pid == os.getpid()

    def close(self) -> None:
        """Close them, in this process.

        They are closed before a fork too: SQLite has a process-wide table of its locks on a file. A child
        inherits the table without the locks and believes that it holds them; whoever closes the file next
        deletes its WAL.
        """
        if not self.is_ours:
            return
        if self.writer is not None:
            self.writer.close()
        if self.engine is not None:
            self.engine.dispose()
        self.writer = self.engine = None


def _make_engine(path: Path, way: Way) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=path.as_uri(), query={**dict(way.options), "uri": "true"}),
        max_overflow=-1,  # readers have a thread each, and waiting for a connection has no deadline
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        way.prepare(connection)
        connection.execute("PRAGMA foreign_keys=ON")

    return engine
