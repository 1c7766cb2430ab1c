"""The store on ClickHouse: any number of processes and servers write and read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, Final

import orjson

from ..._capture.values import clean_text
from ...exceptions import StoreError, StoreUnavailableError, StoreVersionError, TraceNotFoundError
from ...model import Assessment, Source, Trace
from ...model.record import Record, encode
from ...process import ProcessReport, process
from ..assessments import assessments_of
from ..base import Health
from ..deadline import Deadline
from . import schema, state
from .connection import Connection, is_missing, parse_url, to_lines
from .moment import Moment
from .rows import ROLLUP_COLUMNS
from .snapshot import ClickHouseSnapshot, TracePlace
from .writer import Writer, new_id, new_token

_ALL: Final = 2**62
_POLL_S: Final = 0.5
_STEP: Final = 2_000  # traces that one statement names by id: servers refuse values of more than 128 KiB
_AGED: Final = tuple(name for name, table in schema.TABLES.items() if table.aged)
# The first id is that of the database, should two processes have made it at once.
_FACTS: Final = (
    "SELECT maxIf(value, name = 'schema_version'), argMinIf(value, created, name = 'id') FROM facts"
)


class ClickHouseStore:
    """Stores traces in a ClickHouse database, at ``clickhouse://…`` or ``chdb:///folder``.

    The first use creates the database and its tables. ``retention_days``: the tables drop the days that are
    older, a partition at a time.
    """

    path = None

    def __init__(self, url: str, *, retention_days: float | None = None) -> None:
        self._target = parse_url(url)
        self._retention_days = retention_days
        self._connection = Connection(self._target)
        self._writer = Writer(self._connection)
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._is_ready = False
        self._id = 0
        self._last_moment: Moment | None = None
        self._names: set[str] = set()
        process.on_fork(in_child=self._after_fork)

    @property
    def url(self) -> str:
        """The URL that opens this store again, without credentials."""
        return self._target.url

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces; a trace that is stored already gains the spans that it lacks.

        Raises:
            StoreUnavailableError: the server is out of reach or overloaded; try again.
            StoreVersionError: the tables were made by a newer Wherefrom.
        """
        self.write_records([encode(trace) for trace in traces], {})
        if assessments := assessments_of(traces):
            self.write_assessments(assessments)

    def write_records(self, records: Sequence[Record], sources: Mapping[str, Source]) -> None:
        """Write traces as ``write`` does, from records and their sources by digest."""
        with self._using(is_writing=True), self._writing:
            self._writer.write(records, sources)

    def report(self, report: ProcessReport) -> None:
        """Replace the last report of this process.

        Raises:
            StoreUnavailableError: not now.
        """
        rest = {
            "stats": asdict(report.stats),
            "queues": report.queues,
            "retention_days": report.retention_days,
        }
        row = (report.host, report.pid, report.started, report.reported, orjson.dumps(rest).decode())
        columns = ("host", "pid", "started", "reported", "report")
        with self._using(is_writing=True):
            self._connection.insert("processes", columns, to_lines([row]), new_token())

    def set_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag.

        Raises:
            TraceNotFoundError: there is no such trace.
        """
        with self._using():
            self._edit(self._find(trace_id), key, value, deleted=False)

    def delete_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            TraceNotFoundError: there is no such trace, or it has no such tag.
        """
        with self._using():
            place = self._find(trace_id)
            (trace,) = self._open().read([place], include_spans=False)
            if key not in trace.info.tags:
                raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
            self._edit(place, key, "", deleted=True)

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Store feedback and expectations, whose traces need not be stored yet.

        Raises:
            StoreUnavailableError: not now.
        """
        with self._using(is_writing=True), self._writing:
            self._writer.write_assessments(assessments)

    def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Remove one.

        Raises:
            TraceNotFoundError: the trace has no such feedback.
        """
        with self._using():
            found = self._open().assessments([trace_id]).get(trace_id, [])
            if all(one.assessment_id != assessment_id for one in found):
                raise TraceNotFoundError(f"trace {trace_id} has no feedback {assessment_id!r}")
            condition = "trace_id = {trace_id:String} AND assessment_id = {id:String}"
            self._delete("assessments", condition, {"trace_id": trace_id, "id": assessment_id})

    def delete(
        self,
        experiment: str,
        *,
        trace_ids: Sequence[str] | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete traces of an experiment by id or up to a time, the oldest first; return how many.

        Rollups count them no more. Without ``trace_ids`` and ``limit``, neither do they count traces that
        were pruned, in whole hours up to the time.
        """
        query = "SELECT request_time, trace_id FROM traces FINAL WHERE experiment IN {names:Array(String)}"
        values: dict[str, Any] = {}
        named: list[list[str]] = [[]]
        if trace_ids is not None:
            query += " AND trace_id IN {ids:Array(String)}"
            ids = list(dict.fromkeys(trace_ids))
            named = [ids[start : start + _STEP] for start in range(0, len(ids), _STEP)]
        if until_ms is not None:
            query += " AND request_time <= {until:Int64}"
            values["until"] = until_ms
        query += " ORDER BY request_time LIMIT {limit:UInt64}"
        values["limit"] = _ALL if limit is None else limit
        with self._using():
            values["names"] = self._open().experiment_names([experiment])
            rows = [row for part in named for row in self._connection.rows(query, {**values, "ids": part})]
            found = [id_ for _, id_ in sorted(rows)[:limit]]
            for start in range(0, len(found), _STEP):
                some = {"ids": found[start : start + _STEP]}
                doomed = "traces FINAL WHERE trace_id IN {ids:Array(String)}"
                self._connection.execute(
                    f"INSERT INTO rollups ({', '.join(ROLLUP_COLUMNS)}) {schema.rolled(doomed, '-')}",
                    some,
                )
                for table in reversed(_AGED):
                    self._delete(table, "trace_id IN {ids:Array(String)}", some)
            if trace_ids is None and limit is None:
                past = "experiment IN {names:Array(String)} AND hour <= {last:Int64}"
                last = _ALL if until_ms is None else until_ms - schema.HOUR_MS
                self._delete("rollups", past, {"names": values["names"], "last": last})
        return len(found)

    def prune(self, before_ms: int, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Delete traces that started before a time (ms since the epoch); return how many.

        ``on_progress`` is called with the number at the end. Rollups still count them.
        """
        values = {"before": before_ms}
        with self._using():
            query = "SELECT count() FROM traces FINAL WHERE request_time < {before:Int64}"
            count = int(self._connection.rows(query, values)[0][0])
            if count:
                for table in reversed(_AGED):
                    self._delete(table, "request_time < {before:Int64}", values)
        if on_progress is not None and count:
            on_progress(count)
        return count

    def vacuum(self) -> tuple[int, int]:
        """Merge what was replaced and deleted away; return the size before and after, in bytes."""
        with self._using():
            before = self._open().state().size
            for table in schema.TABLES:
                self._connection.execute(f"OPTIMIZE TABLE {schema.local(table, self._target.cluster)} FINAL")
            return before, self._open().state().size

    def upgrade(self) -> int:
        """Create the tables; return the version of the schema.

        Raises:
            StoreVersionError: a newer Wherefrom made them.
        """
        with self._using():
            return schema.SCHEMA_VERSION

    def wait(self, seconds: float) -> None:
        """Wait half a second at most: ClickHouse does not say when another process has written."""
        time.sleep(min(seconds, _POLL_S))

    def health(self) -> Health:
        """The state of the store, without creating or changing it."""
        return state.examine(self._connection)

    def missing(self) -> str | None:
        """A sentence if the tables do not exist yet, ``None`` if they do. Creates nothing."""
        return state.missing(self._connection)

    def ddl(self) -> list[str]:
        """The statements that create the database and its tables."""
        target = self._target
        return list(
            schema.statements(target.database, cluster=target.cluster, retention_days=self._retention_days)
        )

    @contextmanager
    def snapshot(self, *, deadline_s: float | None = None) -> Iterator[ClickHouseSnapshot]:
        """Open a snapshot.

        Queries past the deadline, or past that of a surrounding ``Deadline`` block, raise
        ``QueryTimeoutError``.
        """
        limit = nullcontext() if deadline_s is None else Deadline(deadline_s)
        with limit:
            with self._using():
                opened = self._open()
            yield opened

    def close(self) -> None:
        """Close the connections. The next call opens them again."""
        self._connection.close()

    @contextmanager
    def _using(self, *, is_writing: bool = False) -> Iterator[None]:
        """The tables exist; if somebody drops them, the next call makes them again."""
        with self._lock:
            if not self._is_ready:
                self._prepare()
                self._is_ready = True
        try:
            yield
        except StoreError as error:
            if is_missing(error):
                self._is_ready = False
                self._writer.forget()
                if is_writing:
                    raise StoreUnavailableError(str(error)) from error
            raise

    def _prepare(self) -> None:
        """Create what does not exist; any number of processes may do so at once."""
        if self.missing() is not None:
            for statement in self.ddl():
                self._connection.execute(statement, with_database=False)
            # Last, so that tables that were made in part are completed.
            rows = to_lines([["id", new_id()], ["schema_version", schema.SCHEMA_VERSION]])
            self._connection.insert("facts", ("name", "value"), rows, new_token())
        found, self._id = self._connection.rows(_FACTS)[0]
        if found > schema.SCHEMA_VERSION:
            raise StoreVersionError(state.newer(found))
        if self._retention_days is not None:
            self._keep_days(self._retention_days)

    def _keep_days(self, days: float) -> None:
        clause = schema.time_to_live(days)
        suffix = "_local" if self._target.cluster else ""
        made = dict(
            self._connection.rows(
                "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()"
            )
        )
        for table in _AGED:
            if f"TTL {clause}" not in made.get(table + suffix, ""):
                place = schema.local(table, self._target.cluster)
                self._connection.execute(
                    f"ALTER TABLE {place} MODIFY TTL {clause} SETTINGS materialize_ttl_after_modify = 0"
                )

    def _open(self) -> ClickHouseSnapshot:
        opened = ClickHouseSnapshot(self._connection, self._id, self._names, self._last_moment)
        self._last_moment = opened.moment
        return opened

    def _find(self, trace_id: str) -> TracePlace:
        found = self._open().find([trace_id])
        if not found:
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        return found[0]

    def _edit(self, place: TracePlace, key: str, value: str, *, deleted: bool) -> None:
        key, value = clean_text(key), clean_text(value)
        if not deleted:
            self._writer.learn("tag", [key])
        columns = ("trace_id", "request_time", "key", "value", "deleted")
        row = to_lines([[place.trace_id, place.request_time, key, value, int(deleted)]])
        self._connection.insert("tags", columns, row, new_token())

    def _delete(self, table: str, condition: str, values: Mapping[str, Any]) -> None:
        place = schema.local(table, self._target.cluster)
        self._connection.execute(f"DELETE FROM {place} WHERE {condition}", values)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._connection.after_fork()
