"""Statements that never change, compiled once and run by the driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Select, bindparam, func, select
from sqlalchemy.exc import DBAPIError, OperationalError

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
from ..deadline import current_deadline
from .schema import experiments, sources, spans, traces

_Compiled = tuple[str, list[str] | None, dict[str, Any]]
"""The text, the names of its parameters where they go by position, and the values of those that have one."""

_NO_VALUES: Final[Mapping[str, Any]] = {}


def store_error(error: BaseException | None, *, is_operational: bool) -> StoreError:
    """What to raise for an error of the driver; ``is_operational`` as DB-API 2.0 sorts them."""
    # SQLite also counts as operational what is wrong with the statement, such as a table that is gone.
    of_the_statement = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if is_operational and not of_the_statement:
        return StoreUnavailableError(f"the store cannot be reached now: {error}")
    return StoreError(f"the store cannot be read: {error}")


class Prepared:
    """One statement with bound parameters.

    SQLAlchemy takes some 100 µs to execute a statement, several times what SQLite takes to answer it. Here it
    is only asked, once for each dialect, how the statement is written; values come as the driver gives them.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[tuple[Any, ...]]:
        """All rows, read in the transaction of ``connection``; ``values`` are those of the parameters.

        Raises:
            StoreUnavailableError: the store is locked or out of reach.
            StoreError: the store cannot be read.
        """
        text, names, constants = self._compiled.get(connection.dialect.name) or self._compile(connection)
        all_values = {**constants, **values}
        given = all_values if names is None else [all_values[name] for name in names]
        driver: Any = connection.dialect.loaded_dbapi
        try:
            cursor: Any = connection.connection.cursor()
            found: list[tuple[Any, ...]] = cursor.execute(text, given).fetchall()
        except driver.Error as error:
            raise store_error(error, is_operational=isinstance(error, driver.OperationalError)) from error
        return found

    def values(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.rows(connection, values)]

    def _compile(self, connection: Connection) -> _Compiled:
        compiled: Any = self._statement.compile(dialect=connection.dialect)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        made = self._compiled[connection.dialect.name] = str(compiled), compiled.positiontup, constants
        return made


_BATCH: Final = 500
_PREPARED: Final = "wherefrom.prepared"

# A list of any length in one parameter, so that the statement stays the same.
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
_STATES: Final = {state.value: state for state in TraceState}
_CODES: Final = {code.value: code for code in SpanStatusCode}
_STATUSES: Final = {code.value: SpanStatus(code) for code in SpanStatusCode}


@contextmanager
def snapshot(engine: Engine, prepare: Callable[[Any], None]) -> Iterator[Connection]:
    """A connection for reading alone: each statement on it sees the same moment, and no writer waits for it.

    ``prepare`` is given each new connection of the driver, where that is SQLite's. Within a ``Deadline``
    statements are interrupted when that is over.

    Raises:
        QueryTimeoutError: the deadline is over.
        QueryCancelledError: the deadline was cancelled.
        StoreUnavailableError: the store is locked or out of reach.
        StoreError: the store cannot be read.
    """
    with mapped_errors(), engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            driver = connection.connection
            if _PREPARED not in driver.info:
                prepare(driver.dbapi_connection)
                driver.info[_PREPARED] = True
            driver.cursor().execute("BEGIN")
            with _ending_in_time(connection, driver.dbapi_connection):
                yield connection
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection


@contextmanager
def _ending_in_time(connection: Connection, driver: Any) -> Iterator[None]:
    """Interrupts what SQLite does when the caller's deadline is over."""
    deadline = current_deadline()
    if deadline is None:
        yield
        return
    # SQLite forgets an interrupt as soon as no statement is active, and one that comes between two statements
    # would be lost. This one stays active to the end, so the interrupt reaches every later statement.
    active = driver.execute("SELECT 1")
    try:
        with deadline.interrupting(driver.interrupt):
            yield
    except (StoreError, DBAPIError):
        deadline.check()
        raise
    finally:
        active.close()
        if deadline.is_over:
            connection.invalidate()  # the pool could not roll it back: that would be interrupted too


@contextmanager
def mapped_errors() -> Iterator[None]:
    """What the driver raises, as errors of Wherefrom."""
    try:
        yield
    except DBAPIError as error:
        raise store_error(error.orig, is_operational=isinstance(error, OperationalError)) from error


def read_traces(connection: Connection, ids: Sequence[int], *, include_spans: bool = True) -> list[Trace]:
    """The traces with these row ids, in the order of the ids; ``include_spans`` says whether with theirs."""
    known_sources: dict[int, Source] = {}
    found: list[Trace] = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        listed = {"ids": orjson.dumps(batch).decode()}
        rows = {row[0]: row for row in _TRACES.rows(connection, listed)}
        _read_sources(connection, {row[2] for row in rows.values()}, known_sources)
        by_trace = _read_spans(connection, listed) if include_spans else {}
        for id_ in batch:
            if id_ in rows:
                info = _to_info(rows[id_], known_sources)
                found.append(Trace(info, TraceData(_to_spans(info.trace_id, by_trace.get(id_, ())))))
    return found


def _read_sources(connection: Connection, ids: set[int], known: dict[int, Source]) -> None:
    if missing := sorted(ids - known.keys()):
        for id_, pairs in _SOURCES.rows(connection, {"ids": orjson.dumps(missing).decode()}):
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
