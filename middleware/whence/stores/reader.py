"""Rows back to traces, on a connection that sees one moment of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, select
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
    except OperationalError as error:
        raise StoreUnavailableError(f"the store cannot be reached now: {error.orig}") from error
    except DBAPIError as error:
        raise StoreError(f"the store cannot be read: {error.orig}") from error


def read_traces(connection: Connection, ids: Sequence[int]) -> list[Trace]:
    """The traces with these row ids, in the order of the ids."""
    names = {row.id: row.name for row in connection.execute(select(experiments))}
    known_sources: dict[int, Source] = {}
    found: list[Trace] = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        rows = {row.id: row for row in connection.execute(select(traces).where(traces.c.id.in_(batch)))}
        _read_sources(connection, {row.source_id for row in rows.values()}, known_sources)
        by_trace = _read_spans(connection, batch)
        for row in (rows[id_] for id_ in batch if id_ in rows):
            info = _to_info(row, names[row.experiment_id], known_sources[row.source_id])
            own_spans = [_to_span(info.trace_id, span) for span in by_trace.get(row.id, ())]
            found.append(Trace(info, TraceData(own_spans)))
    return found


def _read_sources(connection: Connection, ids: set[int], known: dict[int, Source]) -> None:
    missing = sorted(ids - known.keys())
    if missing:
        query = select(sources.c.id, sources.c.metadata).where(sources.c.id.in_(missing))
        known.update((id_, Source(pairs)) for id_, pairs in connection.execute(query))


def _read_spans(connection: Connection, ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
    by_trace: dict[int, list[Row[Any]]] = {}
    in_order = spans.c.trace, spans.c.start_ns, spans.c.id
    for row in connection.execute(select(spans).where(spans.c.trace.in_(ids)).order_by(*in_order)):
        by_trace.setdefault(row.trace, []).append(row)
    return by_trace


def _to_info(row: Row[Any], experiment: str, source: Source) -> TraceInfo:
    own = {keys.SESSION: row.session_id, keys.USER: row.user_id}
    metadata = {**source, **row.metadata, **{key: value for key, value in own.items() if value is not None}}
    name = {} if row.name is None else {keys.TRACE_NAME_TAG: row.name}
    return TraceInfo(
        trace_id=row.trace_id,
        experiment=experiment,
        request_time=row.request_time,
        execution_duration=None if row.duration_us is None else row.duration_us // 1000,
        state=TraceState(row.state),
        client_request_id=row.client_request_id,
        request_preview=row.request_preview,
        response_preview=row.response_preview,
        trace_metadata=metadata,
        tags=row.tags | name,
        source=source,
    )


def _to_span(trace_id: str, row: Row[Any]) -> Span:
    return Span(
        trace_id=trace_id,
        span_id=row.span_id,
        parent_id=row.parent_id,
        name=row.name,
        span_type=row.span_type,
        start_time_ns=row.start_ns,
        end_time_ns=row.end_ns,
        status=SpanStatus(SpanStatusCode(row.status_code), row.status_message),
        inputs=row.inputs,
        outputs=row.outputs,
        attributes=row.attributes,
        events=[SpanEvent.from_dict(event) for event in row.events or ()],
        links=row.links or [],
    )
