"""Rows back to traces, on a connection that sees one moment of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, Engine, bindparam, select
from sqlalchemy.exc import DBAPIError, OperationalError

from .. import keys
from ..exceptions import StoreError, StoreUnavailableError
from ..model import (
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
from .schema import experiments, sources, spans, traces

_BATCH: Final = 500
_PREPARED: Final = "whence.prepared"

# Built once: SQLAlchemy takes as long to build a statement as SQLite does to answer it.
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_TRACES: Final = (
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
_SOURCES: Final = select(sources.c.id, sources.c.metadata).where(sources.c.id.in_(_IDS))
_SPANS: Final = (
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
_STATUSES: Final = {code.value: SpanStatus(code) for code in SpanStatusCode}


@contextmanager
def snapshot(engine: Engine, prepare: Callable[[Any], None]) -> Iterator[Connection]:
    """A connection for reading alone: each statement on it sees the same moment, and no writer waits for it.

    ``prepare`` is given each new connection of the driver, where that is SQLite's.

    Raises:
        StoreUnavailableError: the store is locked or out of reach.
        StoreError: the store cannot be read.
    """
    with mapped_errors(), engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            if _PREPARED not in connection.info:
                prepare(connection.connection.dbapi_connection)
                connection.info[_PREPARED] = True
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


@contextmanager
def mapped_errors() -> Iterator[None]:
    """What the driver raises, as errors of Whence."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, OperationalError) and not _is_of_the_statement(error):
            raise StoreUnavailableError(f"the store cannot be reached now: {error.orig}") from error
        raise StoreError(f"the store cannot be read: {error.orig}") from error


def _is_of_the_statement(error: OperationalError) -> bool:
    """Whether SQLite means what was asked, such as of a table that is gone: that stays so."""
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def read_traces(connection: Connection, ids: Sequence[int], *, include_spans: bool = True) -> list[Trace]:
    """The traces with these row ids, in the order of the ids; ``include_spans`` says whether with theirs."""
    known_sources: dict[int, Source] = {}
    found: list[Trace] = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        rows = {row[0]: row[1:] for row in connection.execute(_TRACES, {"ids": batch})}
        _read_sources(connection, {row[1] for row in rows.values()}, known_sources)
        by_trace = _read_spans(connection, batch) if include_spans else {}
        for id_ in batch:
            if id_ in rows:
                info = _to_info(rows[id_], known_sources)
                own_spans = [_to_span(info.trace_id, span) for span in by_trace.get(id_, ())]
                found.append(Trace(info, TraceData(own_spans)))
    return found


def _read_sources(connection: Connection, ids: set[int], known: dict[int, Source]) -> None:
    missing = sorted(ids - known.keys())
    if missing:
        rows = connection.execute(_SOURCES, {"ids": missing})
        known.update((id_, Source(pairs)) for id_, pairs in rows)


def _read_spans(connection: Connection, ids: Sequence[int]) -> dict[int, list[Sequence[Any]]]:
    by_trace: dict[int, list[Sequence[Any]]] = {}
    for row in connection.execute(_SPANS, {"ids": ids}):
        by_trace.setdefault(row[0], []).append(row[1:])
    return by_trace


def _to_info(row: Sequence[Any], known_sources: Mapping[int, Source]) -> TraceInfo:
    experiment, source_id, trace_id, name, state, request_time, duration_us, *others = row
    client_request_id, session, user, request_preview, response_preview, own, tags = others
    source = known_sources[source_id]
    metadata = source.pairs | own
    if session is not None:
        metadata[keys.SESSION] = session
    if user is not None:
        metadata[keys.USER] = user
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
        tags=tags if name is None else tags | {keys.TRACE_NAME_TAG: name},
        source=source,
    )


def _to_span(trace_id: str, row: Sequence[Any]) -> Span:
    span_id, parent_id, name, span_type, code, message, start, end, *content = row
    inputs, outputs, attributes, events, links = content
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        span_type=span_type,
        start_time_ns=start,
        end_time_ns=end,
        status=SpanStatus(SpanStatusCode(code), message) if message else _STATUSES[code],
        inputs=inputs,
        outputs=outputs,
        attributes=attributes,
        events=[SpanEvent.from_dict(event) for event in events or ()],
        links=links or [],
    )
