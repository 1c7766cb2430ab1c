"""Reading in a snapshot: prepared statements, and traces from their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Select, bindparam, func, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import DBAPIError

from ... import keys
from ...exceptions import StoreError, StoreUnavailableError
from ...model import (
    Source,
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)
from ...process import ProcessReport, Stats
from ..base import TraceRow
from ..deadline import Deadline, current_deadline
from .expressions import pair
from .schema import experiments, processes, sources, spans, traces

_NO_VALUES: Final[Mapping[str, Any]] = {}


def store_error(error: BaseException | None) -> StoreError:
    """The error of Wherefrom for an error of the driver."""
    # SQLite also raises OperationalError for an invalid statement, such as one on a missing table.
    of_the_statement = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if isinstance(error, sqlite3.OperationalError) and not of_the_statement:
        return StoreUnavailableError(f"the store cannot be reached now: {error}")
    return StoreError(f"the store cannot be read: {error}")


class Prepared:
    """One statement with bound parameters, compiled once.

    SQLAlchemy takes some 100 µs to execute a statement, several times what SQLite takes for it. Here it only
    compiles the statement, once; the driver executes it, and values are returned as the driver has them.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement

    def rows(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[tuple[Any, ...]]:
        """Fetch all rows in the transaction of ``connection``; ``values`` are the parameters.

        Raises:
            StoreUnavailableError: the store is locked or out of reach.
            StoreError: the store cannot be read.
        """
        text, names, constants = self._compiled
        all_values = {**constants, **values}
        try:
            cursor: Any = connection.connection.cursor()
            found: list[tuple[Any, ...]] = cursor.execute(
                text, [all_values[name] for name in names]
            ).fetchall()
        except sqlite3.Error as error:
            raise store_error(error) from error
        return found

    def values(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.rows(connection, values)]

    @cached_property
    def _compiled(self) -> tuple[str, Sequence[str], dict[str, Any]]:
        """The SQL, the names of its parameters in order, and the values of those that are constant."""
        compiled: Any = self._statement.compile(dialect=sqlite_dialect())
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return str(compiled), compiled.positiontup or (), constants


_BATCH: Final = 500  # ids in one parameter; a deadline interrupts between batches
_PREPARED: Final = "wherefrom.prepared"
_INTERRUPTED: Final = "wherefrom_interrupted"

# A list of any length as one JSON parameter, so that the statement is compiled once.
_IDS: Final = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
_TRACES: Final = Prepared(
    select(
        traces.c.id,
        experiments.c.name,
        traces.c.source_id,
        traces.c.trace_id,
        traces.c.name,
        traces.c.state,
        traces.c.request_time,
        traces.c.duration_us,
        traces.c.client_request_id,
        traces.c.session_id,
        traces.c.user_id,
        traces.c.request_preview,
        traces.c.response_preview,
        traces.c.metadata,
        traces.c.tags,
    )
    .join_from(traces, experiments)
    .where(traces.c.id.in_(_IDS))
)
_SOURCES: Final = Prepared(select(sources.c.id, sources.c.metadata).where(sources.c.id.in_(_IDS)))
_SPANS: Final = Prepared(
    select(
        spans.c.trace,
        spans.c.span_id,
        spans.c.parent_id,
        spans.c.name,
        spans.c.span_type,
        spans.c.status_code,
        spans.c.status_message,
        spans.c.start_ns,
        spans.c.end_ns,
        spans.c.inputs,
        spans.c.outputs,
        spans.c.attributes,
        spans.c.events,
        spans.c.links,
    )
    .where(spans.c.trace.in_(_IDS))
    .order_by(spans.c.trace, spans.c.start_ns, spans.c.id)
)
_OUTCOME: Final = pair(spans.c.attributes, "wherefrom.outcome")
_OUTCOMES: Final = Prepared(
    select(spans.c.trace, _OUTCOME).where(spans.c.trace.in_(_IDS), _OUTCOME.is_not(None))
)
# Descending: a dict keeps the last row of a trace, which is that of the first span.
_ERRORS: Final = Prepared(
    select(traces.c.trace_id, spans.c.status_message)
    .join_from(spans, traces)
    .where(
        spans.c.trace.in_(_IDS),
        spans.c.status_code == SpanStatusCode.ERROR.value,
        spans.c.status_message != "",
    )
    .order_by(spans.c.start_ns.desc(), spans.c.id.desc())
)
_REPORTS: Final = Prepared(
    select(
        processes.c.host,
        processes.c.pid,
        processes.c.started,
        processes.c.reported,
        processes.c.report,
    ).order_by(processes.c.reported.desc(), processes.c.id)
)
_STATES: Final = {state.value: state for state in TraceState}
_CODES: Final = {code.value: code for code in SpanStatusCode}
_STATUSES: Final = {code.value: SpanStatus(code) for code in SpanStatusCode}


@contextmanager
def snapshot(engine: Engine, prepare: Callable[[Any], None]) -> Iterator[Connection]:
    """A connection for reading: all its statements see the same moment, and it blocks no writer.

    ``prepare`` is called with each new SQLite connection. Within a ``Deadline``, statements are interrupted
    when it passes.

    Raises:
        QueryTimeoutError: the deadline has passed.
        QueryCancelledError: the deadline was cancelled.
        StoreUnavailableError: the store is locked or out of reach.
        StoreError: the store cannot be read.
    """
    with mapped_errors(), engine.connect() as connection:
        driver = connection.connection
        if _PREPARED not in driver.info:
            prepare(driver.dbapi_connection)
            driver.info[_PREPARED] = True
        driver.cursor().execute("BEGIN")
        deadline = current_deadline()
        try:
            with nullcontext() if deadline is None else until(deadline, connection):
                yield connection
        finally:
            # SQLAlchemy itself drops the connection of a query that Ctrl-C ends.
            if not connection.invalidated and connection.info.pop(_INTERRUPTED, False):
                connection.invalidate()  # the pool's rollback could be interrupted too


@contextmanager
def until(deadline: Deadline, connection: Connection) -> Iterator[None]:
    """Interrupt the statements of the block at the deadline."""
    driver: Any = connection.connection.dbapi_connection
    # SQLite forgets an interrupt as soon as no statement is active, and one that comes between two statements
    # would be lost. This one stays active to the end, so the interrupt reaches every later statement.
    active = driver.execute("SELECT 1")
    try:
        with deadline.interrupting(driver.interrupt):
            yield
    except (StoreError, DBAPIError, sqlite3.Error):
        deadline.check()
        raise
    finally:
        with suppress(sqlite3.ProgrammingError):  # SQLAlchemy has closed a connection that Ctrl-C came in
            active.close()
        if deadline.is_over and not connection.invalidated:
            connection.info[_INTERRUPTED] = True


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise errors of the driver as errors of Wherefrom."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise store_error(error.orig if isinstance(error, DBAPIError) else error) from error


def read_traces(connection: Connection, ids: Sequence[int], *, include_spans: bool = True) -> list[Trace]:
    """The traces with these row ids, in the order of the ids, with or without their spans."""
    found: list[Trace] = []
    for batch, rows, known_sources in _batches(connection, ids):
        by_trace = _read_spans(connection, batch) if include_spans else {}
        for row in rows:
            info = _to_info(row, known_sources)
            found.append(Trace(info, TraceData(_to_spans(info.trace_id, by_trace.get(row[0], ())))))
    return found


def read_rows(connection: Connection, ids: Sequence[int]) -> list[TraceRow]:
    """The traces with these row ids without their spans, in the order of the ids."""
    found: list[TraceRow] = []
    for batch, rows, known_sources in _batches(connection, ids):
        outcomes = dict(_OUTCOMES.rows(connection, batch))
        found.extend(_to_row(row, known_sources, outcomes.get(row[0])) for row in rows)
    return found


def read_errors(connection: Connection, ids: Sequence[int]) -> dict[str, str]:
    """By trace id, the status message of the first span that failed and has one."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        found.update(_ERRORS.rows(connection, _listed(ids[start : start + _BATCH])))
    return found


def _batches(
    connection: Connection, ids: Sequence[int]
) -> Iterator[tuple[dict[str, str], list[Sequence[Any]], Mapping[int, Source]]]:
    """Batches of ids as a parameter, the rows of their traces in the same order, and the sources of those."""
    known_sources: dict[int, Source] = {}
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH]
        rows = {row[0]: row for row in _TRACES.rows(connection, _listed(some))}
        _read_sources(connection, {row[2] for row in rows.values()}, known_sources)
        yield _listed(some), [rows[id_] for id_ in some if id_ in rows], known_sources


def sources_by_id(connection: Connection, ids: set[int]) -> dict[int, Source]:
    """The sources with these row ids."""
    found: dict[int, Source] = {}
    _read_sources(connection, ids, found)
    return found


def _listed(ids: Sequence[int]) -> dict[str, str]:
    return {"ids": orjson.dumps(ids).decode()}


def _read_sources(connection: Connection, ids: set[int], known: dict[int, Source]) -> None:
    if missing := sorted(ids - known.keys()):
        for id_, pairs in _SOURCES.rows(connection, _listed(missing)):
            known[id_] = Source(orjson.loads(pairs))


def _read_spans(connection: Connection, listed: Mapping[str, str]) -> dict[int, list[Sequence[Any]]]:
    by_trace: dict[int, list[Sequence[Any]]] = {}
    for row in _SPANS.rows(connection, listed):
        by_trace.setdefault(row[0], []).append(row)
    return by_trace


def _to_info(row: Sequence[Any], known_sources: Mapping[int, Source]) -> TraceInfo:
    _, experiment, source_id, trace_id, name, state, request_time, duration_us, *others = row
    client_request_id, session, user, request_preview, response_preview, own, tags = others
    source = known_sources[source_id]
    metadata = source.pairs | orjson.loads(own)
    if session is not None:
        metadata[keys.SESSION] = session
    if user is not None:
        metadata[keys.USER] = user
    named = {} if name is None else {keys.TRACE_NAME_TAG: name}
    return TraceInfo(
        trace_id=trace_id,
        experiment=experiment,
        request_time=request_time,
        execution_duration=None if duration_us is None else duration_us // 1000,
        state=_STATES[state],
        client_request_id=client_request_id,
        request_preview=request_preview,
        response_preview=response_preview,
        trace_metadata=metadata,
        tags=orjson.loads(tags) | named,
        source=source,
    )


def _to_row(row: Sequence[Any], known_sources: Mapping[int, Source], outcome: str | None) -> TraceRow:
    _, experiment, source_id, trace_id, name, state, request_time, duration_us, *others = row
    client_request_id, session, user, request_preview, response_preview, own, tags = others
    return TraceRow(
        trace_id=trace_id,
        experiment=experiment,
        request_time=request_time,
        duration_ms=None if duration_us is None else duration_us / 1000,
        state=state,
        name=name,
        outcome=outcome,
        request_id=client_request_id,
        session=session,
        user=user,
        request_preview=request_preview,
        response_preview=response_preview,
        metadata=known_sources[source_id].pairs | orjson.loads(own),
        tags=orjson.loads(tags),
    )


def _to_spans(trace_id: str, rows: Iterable[Sequence[Any]]) -> list[Span]:
    return [
        Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_id=parent_id,
            name=name,
            span_type=span_type,
            start_time_ns=start,
            end_time_ns=end,
            status=SpanStatus(_CODES[code], message) if message else _STATUSES[code],
            inputs=None if inputs is None else orjson.loads(inputs),
            outputs=None if outputs is None else orjson.loads(outputs),
            attributes=orjson.loads(attributes),
            events=[] if events is None else list(map(_to_event, orjson.loads(events))),
            links=[] if links is None else orjson.loads(links),
        )
        for (
            _, span_id, parent_id, name, span_type, code, message, start, end,
            inputs, outputs, attributes, events, links,
        ) in rows
    ]  # fmt: skip


def _to_event(written: Mapping[str, Any]) -> SpanEvent:
    return SpanEvent(written["name"], written["time_unix_nano"], written["attributes"])


def read_reports(connection: Connection) -> list[ProcessReport]:
    """The last report of each process, the newest first."""
    return [_to_report(*row) for row in _REPORTS.rows(connection)]


def _to_report(host: str, pid: int, started: int, reported: int, text: str) -> ProcessReport:
    rest: dict[str, Any] = orjson.loads(text)
    stats = Stats(**rest["stats"])
    return ProcessReport(host, pid, started, reported, stats, rest["queues"], rest["retention_days"])
