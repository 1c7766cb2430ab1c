"""The store in PostgreSQL: one database, written by any number of processes on any number of hosts."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from math import inf
from typing import Any, Final

import psycopg
from psycopg import errors, sql
from sqlalchemy import Engine, create_engine

from ..._clock import monotonic, wall_ns
from ...exceptions import StoreError, StoreVersionError, TraceNotFoundError
from ...model import Assessment, Source, Trace
from ...model.record import Record, encode
from ...process import ProcessReport, ledger, process
from ..assessments import assessments_of
from ..base import Health
from ..deadline import Deadline
from ..sql.schema import SCHEMA_VERSION
from . import health, rollups, schema, writer
from .address import parse_address
from .catalog import LoadedCatalog
from .connection import connect, connect_to_read, mapped_errors, snapshot
from .empty import EmptySnapshot, empty_snapshot
from .snapshot import PostgreSQLSnapshot

_POOL_SIZE: Final = 1
_MOST_READERS: Final = 50
"""So many questions at once have a connection each; those above ``_POOL_SIZE`` are closed afterwards."""
_STEP: Final = 1_000
_UPKEEP_EVERY_S: Final = 600.0  # retention is counted in days, and rollups in hours
_LOCK_RETENTION: Final = 0x77686570  # "whep"


class PostgreSQLStore:
    """Stores traces in a PostgreSQL database.

    ``url`` is ``postgresql://user@host/database`` with the parameters of libpq, such as ``sslmode``.
    ``schema=name`` in it is the schema of the tables, ``statement_timeout=30`` bounds each statement that
    answers a question, in seconds. The first write creates the tables, reading creates nothing.
    ``retention_days``: while traces are written, a background thread deletes older traces every 10 minutes.
    """

    path = None

    def __init__(self, url: str, *, retention_days: float | None = None) -> None:
        self._address = parse_address(url)
        self._retention_ms = None if retention_days is None else int(retention_days * 86_400_000)
        self._next_upkeep = self._first_upkeep()
        self._stop = threading.Event()
        self._lock = threading.RLock()
        # Readers do not wait for a batch. Who takes both takes this one last.
        self._reading = threading.RLock()
        self._open = _Open()
        self._ids = writer.KnownIds()
        self._sources: dict[str, Source] = {}
        self._is_there = False
        process.on_fork(in_child=self._after_fork_in_child)
        weakref.finalize(self, self._open.close).atexit = False

    @property
    def url(self) -> str:
        """The URL that opens this store again, without the password."""
        return self._address.url

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces in one transaction; a trace that is stored already gains the spans that it lacks.

        Raises:
            StoreUnavailableError: the server cannot be reached, or refuses writes now; try again.
            StoreVersionError: a newer Wherefrom made the tables.
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
            if assessments:  # first: whoever sees a trace sees them
                writer.write_assessments(connection, self._ids, assessments)
            writer.insert(connection, self._ids, records, sources)
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
        if self.missing() is not None:
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        with self._writing() as connection:
            writer.set_tag(connection, self._ids, trace_id, key, value)

    def delete_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            TraceNotFoundError: there is no such trace, or it has no such tag.
        """
        if self.missing() is not None:
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        with self._writing() as connection:
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
        if self.missing() is not None:
            raise TraceNotFoundError(f"trace {trace_id} has no feedback {assessment_id!r}")
        with self._writing() as connection:
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

        They are counted nowhere any more. Without ``trace_ids`` and ``limit``, neither are traces that have
        been pruned, in whole hours up to the time.
        """
        if self.missing() is not None:
            return 0
        with self._connected() as connection:
            found = writer.find(connection, experiment, trace_ids, until_ms, limit)
            steps = range(0, len(found), _STEP)
            deleted = sum(writer.delete(connection, found[start : start + _STEP]) for start in steps)
            if trace_ids is None and until_ms is not None and limit is None:
                writer.forget_kept(connection, experiment, until_ms)
            self._forget_sources(connection)
            return deleted

    def prune(self, before_ms: int, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Delete traces that started before a time (ms since the epoch); return how many.

        Partitions of which all is too old are dropped, other traces are deleted in short transactions.
        ``on_progress`` is called after each with the number deleted so far. Rollups still count them.
        """
        if self.missing() is not None:
            return 0
        deleted = 0
        with self._connected() as connection:
            for count in self._pruned(connection, before_ms, threading.Event()):
                deleted += count
                if on_progress is not None:
                    on_progress(deleted)
            self._forget_sources(connection)
            while writer.delete_stray(connection, before_ms, _STEP):
                pass
        return deleted

    def roll_up(self) -> int:
        """Roll up the hours and days that have ended and are not rolled up; return how many.

        While traces are written, one process of the fleet does so every 10 minutes for the hours that nobody
        has written to meanwhile. While it does, this returns 0.
        """
        if self.missing() is not None:
            return 0
        with self._connected() as connection:
            return rollups.roll_up(connection, wall_ns() // 1_000_000, self._stop)

    def vacuum(self) -> tuple[int, int]:
        """Let PostgreSQL reuse the space of deleted traces; return the size before and after, in bytes.

        Blocks no writer. Dropped partitions have returned their space to the disk already.
        """
        if self.missing() is not None:
            return 0, 0
        with self._connected() as connection:
            before = health.size(connection)
            for table in (
                *schema.PARTITIONED,
                "trace_ids",
                "sources",
                "assessments",
                "rollups",
                "rollup_periods",
                "blocks",
                "block_days",
            ):
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
            return before, health.size(connection)

    def upgrade(self) -> int:
        """Create the tables, or migrate them to this version; return the version of the schema.

        Raises:
            StoreVersionError: a newer Wherefrom made them.
        """
        with self._connected() as connection:
            schema.create(connection, self._address.schema, self._address.place)
        return SCHEMA_VERSION

    def wait(self, seconds: float) -> None:
        """Wait until traces have been written, but no longer than this; the first call returns at once."""
        with self._reading, mapped_errors(self._address):
            self._leave_parent_behind()
            listener = self._open.listener
            if listener is None or listener.closed:
                self._open.listener = listener = connect(self._address)
                listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(writer.CHANNEL)))
                return  # what was written before this is not notified
        with mapped_errors(self._address):
            for _ in listener.notifies(timeout=seconds, stop_after=1):
                pass

    def health(self) -> Health:
        """The state of the store, without creating or changing it."""
        try:
            with self._connected() as connection:
                return health.examine(connection, self._address)
        except StoreError as error:
            return Health(self.url, problems=[str(error)])

    def missing(self) -> str | None:
        """A sentence if the database has no tables yet, ``None`` if it has. Creates nothing.

        Raises:
            StoreUnavailableError: the server cannot be reached.
            StoreVersionError: a newer Wherefrom made the tables.
        """
        if self._is_there:
            return None
        with self._connected() as connection:
            found = schema.version(connection)
        if found is None:
            return health.missing(self._address)
        if found > SCHEMA_VERSION:
            raise StoreVersionError(schema.newer(self._address.place, found))
        self._is_there = True
        return None

    @property
    def engine(self) -> Engine:
        """A SQLAlchemy engine for reading."""
        with self._reading:
            self._leave_parent_behind()
            if self._open.engine is None:
                address = self._address
                self._open.engine = create_engine(
                    "postgresql+psycopg://",
                    creator=lambda: connect_to_read(address),
                    pool_size=_POOL_SIZE,
                    max_overflow=_MOST_READERS - _POOL_SIZE,
                    use_native_hstore=False,
                )
            return self._open.engine

    @contextmanager
    def snapshot(self, *, deadline_s: float | None = None) -> Iterator[PostgreSQLSnapshot | EmptySnapshot]:
        """Open a snapshot, which blocks no writer.

        Queries past the deadline, or past that of a surrounding ``Deadline`` block, raise
        ``QueryTimeoutError``.
        """
        if (nothing := self.missing()) is not None:
            process.say_once(nothing)
            with empty_snapshot(self._address) as empty:
                yield empty
            return
        limit = nullcontext() if deadline_s is None else Deadline(deadline_s)
        with limit, snapshot(self.engine, self._address) as (connection, facts):
            yield PostgreSQLSnapshot(LoadedCatalog(connection, facts, self._sources), self._address)

    def close(self) -> None:
        """Close the connections. The next call opens them again."""
        self._stop.set()
        with self._lock, self._reading:
            self._stop, self._next_upkeep = threading.Event(), self._first_upkeep()
            self._open.close()

    @contextmanager
    def _writing(self) -> Iterator[psycopg.Connection[Any]]:
        """The connection of the writer."""
        with self._lock, mapped_errors(self._address):
            try:
                yield self._connection()
            except TraceNotFoundError:
                raise  # nothing was changed
            except BaseException:
                # The next attempt starts afresh: the server may be another one, or lack what was cached.
                self._open.close_writer()
                raise

    def _connection(self) -> psycopg.Connection[Any]:
        self._leave_parent_behind()
        if self._open.writer is None or self._open.writer.closed:
            self._open.writer = connect(self._address)
            schema.create(self._open.writer, self._address.schema, self._address.place)
            self._is_there = True
            self._ids = writer.KnownIds()
        return self._open.writer

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, so that writers do not wait."""
        with mapped_errors(self._address), connect(self._address) as connection:
            yield connection

    def _pruned(
        self, connection: psycopg.Connection[Any], before_ms: int, stop: threading.Event
    ) -> Iterator[int]:
        suffixes = list(schema.partitions_before(connection, before_ms))
        if suffixes and rollups.may_roll_up(connection):
            # All else that is counted is counted while everybody waits.
            rollups.roll_up(connection, before_ms, stop)
        for suffix in suffixes:
            try:
                yield schema.drop_partitions(connection, suffix)
            except (errors.InsufficientPrivilege, errors.LockNotAvailable, errors.DeadlockDetected):
                break  # row by row then
        while not stop.is_set() and (doomed := writer.find_before(connection, before_ms, _STEP)):
            yield writer.delete(connection, doomed, are_kept=True)

    def _forget_sources(self, connection: psycopg.Connection[Any]) -> None:
        while writer.delete_orphans(connection, _STEP):
            pass

    def _first_upkeep(self) -> float:
        """When the background thread first runs: at once if it is to delete traces."""
        return 0.0 if self._retention_ms is not None else monotonic() + _UPKEEP_EVERY_S

    def _start_upkeep(self) -> None:
        self._next_upkeep = inf
        thread = process.thread(self._keep_up, self._stop, name="wherefrom-upkeep")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, or out of threads
            self._next_upkeep = monotonic() + _UPKEEP_EVERY_S

    def _keep_up(self, stop: threading.Event) -> None:
        """Delete traces that are past their retention, and roll up hours that are over."""
        try:
            with self._connected() as connection:
                if self._retention_ms is not None:
                    self._retain(connection, wall_ns() // 1_000_000 - self._retention_ms, stop)
                if rollups.may_roll_up(connection):
                    rollups.roll_up(connection, wall_ns() // 1_000_000, stop, only_quiet=True)
        except Exception as error:  # noqa: BLE001 - it is tried again later
            ledger.failed("retention", error)
        with self._lock:
            if not stop.is_set():
                self._next_upkeep = monotonic() + _UPKEEP_EVERY_S

    def _retain(self, connection: psycopg.Connection[Any], before_ms: int, stop: threading.Event) -> None:
        # One process of the fleet is enough.
        lock = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_RETENTION,))
        if lock.fetchone() == (True,):
            sum(self._pruned(connection, before_ms, stop))
            self._forget_sources(connection)
            while not stop.is_set() and writer.delete_stray(connection, before_ms, _STEP):
                pass

    def _after_fork_in_child(self) -> None:
        self._lock, self._reading = threading.RLock(), threading.RLock()
        self._next_upkeep = self._first_upkeep()  # the thread that may be running is the parent's

    def _leave_parent_behind(self) -> None:
        """In a forked child: neither use nor close the parent's connections."""
        if self._open.is_ours:
            return
        with self._reading:
            if not self._open.is_ours:
                process.never_close((self._open.writer, self._open.listener, self._open.engine))
                self._open.start_afresh()


class _Open:
    """The open connections of the process that opened them."""

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        self.writer: psycopg.Connection[Any] | None = None
        self.listener: psycopg.Connection[Any] | None = None
        self.engine: Engine | None = None
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        return self._pid == os.getpid()

    def close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    def close(self) -> None:
        if not self.is_ours:
            return
        self.close_writer()
        if self.listener is not None:
            self.listener.close()
        if self.engine is not None:
            self.engine.dispose()
        self.listener = self.engine = None
