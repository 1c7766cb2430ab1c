"""Reading in a snapshot: prepared statements, and traces from their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Dialect, Select, bindparam, or_, select

from ... import keys
from ...model import (
    Assessment,
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
from ..assessments import READ, from_row
from ..base import TraceRow
from ..deadline import check_deadline
from . import expressions
from .expressions import integers_of, texts_of
from .schema import assessments, experiments, is_root, processes, sources, spans, traces
from .types import json_parameter

_NO_VALUES: Final[Mapping[str, Any]] = {}

SourcesOf = Callable[[set[int]], Mapping[int, Source]]
"""Finds sources by their row ids, and possibly more."""


class Prepared:
    """One statement with bound parameters, compiled once.

    SQLAlchemy takes some 100 µs to execute a statement, several times what SQLite takes for it. Here it only
    compiles the statement, once; the driver executes it, and values are returned as the driver has them.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[tuple[Any, ...]]:
        """Fetch all rows in the transaction of ``connection``; ``values`` are the parameters."""
        return self.start(connection, values).fetchall()  # type: ignore[no-any-return]

    def start(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> Any:
        """The driver's cursor, from which all rows are fetched later: see ``Dialect.at_once``."""
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _compile(self._statement, dialect)
        text, names, constants, options = self._compiled[dialect.name]
        given = {**constants, **values}
        cursor: Any = connection.connection.cursor()
        cursor.execute(text, given if names is None else [given[name] for name in names], **options)
        return cursor

    def values(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.rows(connection, values)]


def read_batches(
    connection: Connection, query: Select[*tuple[Any, ...]], size: int
) -> Iterator[list[Sequence[Any]]]:
    """The rows of a query in batches, as the driver has them: SQLAlchemy's rows would take twice as long.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    with closing(connection.execute(query)) as result:
        cursor: Any = result.cursor
        while rows := cursor.fetchmany(size):
            yield rows
            check_deadline()  # the driver may have read all rows at once, and is not interrupted then


_Compiled = tuple[str, Sequence[str] | None, dict[str, Any], dict[str, Any]]


def _compile(statement: Select[Any], dialect: Dialect) -> _Compiled:
    """The SQL, the names of its parameters by place, if it has no names, the constant ones, and options."""
    compiled: Any = statement.compile(dialect=dialect)
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    # SQLite's driver keeps what it has prepared in any case.
    options = {"prepare": True} if dialect.driver == "psycopg" else {}
    return str(compiled), compiled.positiontup, constants, options


_BATCH: Final = 500  # ids in one parameter; a deadline interrupts between batches

# A list of any length as one JSON parameter, so that the statement is compiled once.
_IDS: Final = integers_of(bindparam("ids"))
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
# The columns before those of any size: SQLite reads a row only as far as it has to.
_OUTLINE_COLUMNS: Final = (
    spans.c.span_id,
    spans.c.parent_id,
    spans.c.name,
    spans.c.span_type,
    spans.c.status_code,
    spans.c.status_message,
    spans.c.start_ns,
    spans.c.end_ns,
)
_VALUES: Final = (spans.c.inputs, spans.c.outputs)
_OTHER_CONTENT: Final = (spans.c.attributes, spans.c.events, spans.c.links)
_SPANS: Final = Prepared(
    select(spans.c.trace, *_OUTLINE_COLUMNS, *_VALUES, *_OTHER_CONTENT)
    .where(spans.c.trace.in_(_IDS))
    .order_by(spans.c.trace, spans.c.start_ns, spans.c.id)
)
_OF_TRACE: Final = spans.c.trace == bindparam("trace")
_OUTLINE: Final = Prepared(
    select(traces.c.trace_id, *_OUTLINE_COLUMNS)
    .join_from(spans, traces)
    .where(_OF_TRACE)
    .order_by(spans.c.start_ns, spans.c.id)
)
_SOME_SPANS, _SOME_SPANS_WITHOUT_VALUES = (
    Prepared(
        select(traces.c.trace_id, *_OUTLINE_COLUMNS, *values, *_OTHER_CONTENT)
        .join_from(spans, traces)
        .where(_OF_TRACE, spans.c.span_id.in_(expressions.texts_of(bindparam("span_ids"))))
    )
    for values in (_VALUES, ())
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
_ASSESSMENTS, _ASSESSMENTS_OF_ROWS = (
    Prepared(
        select(*(assessments.c[name] for name in READ))
        .where(assessments.c.trace_id.in_(trace_ids))
        .order_by(assessments.c.created, assessments.c.assessment_id)
    )
    for trace_ids in (texts_of(bindparam("ids")), select(traces.c.trace_id).where(traces.c.id.in_(_IDS)))
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


@lru_cache(maxsize=8)
def _responses(dialect: expressions.Dialect) -> Prepared:
    outcome = dialect.pair(spans.c.attributes, "wherefrom.outcome")
    status = dialect.attribute(spans.c.attributes, "http.response.status_code")
    answered = or_(outcome.is_not(None), status.is_not(None))
    return Prepared(
        select(spans.c.trace, outcome, status)
        .where(spans.c.trace.in_(_IDS), answered, is_root(spans))
        # A dict keeps the last: the one without a parent, else the first.
        .order_by(spans.c.parent_id.is_(None), spans.c.start_ns.desc())
    )


_STATUS: Final = re.compile(r"[1-9][0-9]{2}", re.ASCII)
_STATES: Final = {state.value: state for state in TraceState}
_CODES: Final = {code.value: code for code in SpanStatusCode}
_STATUSES: Final = {code.value: SpanStatus(code) for code in SpanStatusCode}


def read_traces(
    connection: Connection,
    dialect: expressions.Dialect,
    ids: Sequence[int],
    sources_of: SourcesOf,
    *,
    include_spans: bool = True,
) -> list[Trace]:
    """The traces with these row ids, in the order of the ids, with or without their spans."""
    found: list[Trace] = []
    statements = _TRACES, _ASSESSMENTS_OF_ROWS, *((_SPANS,) if include_spans else ())
    for rows, known_sources, assessed, *span_rows in _batches(
        connection, dialect, ids, sources_of, statements
    ):
        by_trace: dict[int, list[Sequence[Any]]] = {}
        for span in chain(*span_rows):
            by_trace.setdefault(span[0], []).append(span)
        of_traces = _by_trace_id(assessed)
        for row in rows:
            info = _to_info(row, known_sources)
            info.assessments = of_traces.get(info.trace_id, [])
            found.append(Trace(info, TraceData(_to_spans(info.trace_id, by_trace.get(row[0], ())))))
    return found


def read_outline(connection: Connection, trace: int) -> list[Span]:
    """The spans of the trace with this row id by their start, without what they hold.

    All have the same empty attributes, events and links, which nobody may change.
    """
    rows = _OUTLINE.rows(connection, {"trace": trace})
    # Thousands of empty containers would cost more than the spans, most of it in garbage collection.
    nothing: tuple[Any, ...] = (None, None, {}, [], [])
    return [
        Span(trace_id, span_id, parent_id, name, span_type, start, end, _to_status(code, message), *nothing)
        for trace_id, span_id, parent_id, name, span_type, code, message, start, end in rows
    ]


def read_spans(
    connection: Connection, trace: int, span_ids: Sequence[str], *, include_values: bool
) -> list[Span]:
    """The spans of the trace with these ids by their start, with or without inputs and outputs."""
    found: list[Span] = []
    for start in range(0, len(span_ids), _BATCH):
        some = {"trace": trace, "span_ids": json_parameter(span_ids[start : start + _BATCH])}
        if include_values:
            rows: Iterable[Sequence[Any]] = _SOME_SPANS.rows(connection, some)
        else:
            listed = _SOME_SPANS_WITHOUT_VALUES.rows(connection, some)
            rows = ((*row[:9], None, None, *row[9:]) for row in listed)
        found += (span for row in rows for span in _to_spans(row[0], [row]))
    return sorted(found, key=lambda span: span.start_time_ns)


def read_assessments(connection: Connection, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
    """By trace id, the feedback and expectations, the oldest first."""
    found: dict[str, list[Assessment]] = {}
    for start in range(0, len(trace_ids), _BATCH):
        listed = orjson.dumps(trace_ids[start : start + _BATCH]).decode()
        found |= _by_trace_id(_ASSESSMENTS.rows(connection, {"ids": listed}))
    return found


def _by_trace_id(rows: Iterable[Sequence[Any]]) -> dict[str, list[Assessment]]:
    found: dict[str, list[Assessment]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(from_row(row))
    return found


def read_rows(
    connection: Connection, dialect: expressions.Dialect, ids: Sequence[int], sources_of: SourcesOf
) -> list[TraceRow]:
    """The traces with these row ids without their spans, in the order of the ids."""
    found: list[TraceRow] = []
    statements = _TRACES, _responses(dialect)
    for rows, known_sources, answered in _batches(connection, dialect, ids, sources_of, statements):
        responses = {trace: rest for trace, *rest in answered}
        found.extend(_to_row(row, known_sources, *responses.get(row[0], (None, None))) for row in rows)
    return found


def read_errors(connection: Connection, ids: Sequence[int]) -> dict[str, str]:
    """By trace id, the status message of the first span that failed and has one."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        found.update(_ERRORS.rows(connection, _listed(ids[start : start + _BATCH])))
    return found


def _batches(
    connection: Connection,
    dialect: expressions.Dialect,
    ids: Sequence[int],
    sources_of: SourcesOf,
    statements: Sequence[Prepared],
) -> Iterator[tuple[Any, ...]]:
    """For each batch of ids: the rows of the traces in the same order, their sources, the other rows.

    The first of the statements reads the traces.
    """
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH]
        with dialect.at_once(connection):
            cursors = [statement.start(connection, _listed(some)) for statement in statements]
        rows, *others = [cursor.fetchall() for cursor in cursors]
        by_id = {row[0]: row for row in rows}
        yield [by_id[id_] for id_ in some if id_ in by_id], sources_of({row[2] for row in rows}), *others


def sources_by_id(connection: Connection, ids: set[int]) -> dict[int, Source]:
    """The sources with these row ids."""
    rows = _SOURCES.rows(connection, _listed(sorted(ids))) if ids else []
    return {id_: Source(orjson.loads(pairs)) for id_, pairs in rows}


def _listed(ids: Sequence[int]) -> dict[str, str]:
    return {"ids": orjson.dumps(ids).decode()}


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


def _to_row(
    row: Sequence[Any], known_sources: Mapping[int, Source], outcome: str | None, status: object
) -> TraceRow:
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
        http_status=int(str(status)) if _STATUS.fullmatch(str(status)) else None,
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
            status=_to_status(code, message),
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


def _to_status(code: str, message: str) -> SpanStatus:
    return SpanStatus(_CODES[code], message) if message else _STATUSES[code]


def _to_event(written: Mapping[str, Any]) -> SpanEvent:
    return SpanEvent(written["name"], written["time_unix_nano"], written["attributes"])


def read_reports(connection: Connection) -> list[ProcessReport]:
    """The last report of each process, the newest first."""
    return [_to_report(*row) for row in _REPORTS.rows(connection)]


def _to_report(host: str, pid: int, started: int, reported: int, text: str) -> ProcessReport:
    rest: dict[str, Any] = orjson.loads(text)
    stats = Stats(**rest["stats"])
    return ProcessReport(host, pid, started, reported, stats, rest["queues"], rest["retention_days"])
