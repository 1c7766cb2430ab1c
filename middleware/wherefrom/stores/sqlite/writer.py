"""Writing traces: rows for the driver, with the ids of experiments and sources cached."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import chain, count, repeat
from typing import Any, Final

import orjson

from ... import keys
from ..._capture.values import clean_text, to_json
from ...exceptions import TraceNotFoundError
from ...model import Source, Span, Trace, TraceInfo
from ...process import ProcessReport
from .known_keys import LONG, KnownKeys, lists_key, lists_value

_TRACE_COLUMNS: Final = 15
_SPAN_COLUMNS: Final = 14
_VALUE_COLUMNS: Final = 4
_REQUEST_TIME: Final = 5  # its place in the row of a trace
_SIZES: Final = (1, 8, 64, 512)  # how many rows a statement takes

_MAX_KNOWN_SOURCES: Final = 1_000

_INSERT_TRACE: Final = """
INSERT INTO traces (
    id, trace_id, experiment_id, source_id, name, state, request_time, duration_us, client_request_id,
    session_id, user_id, request_preview, response_preview, metadata, tags
) SELECT * FROM (VALUES {rows}) WHERE column4 IS NOT NULL
ON CONFLICT (trace_id) DO UPDATE SET
    name = excluded.name,
    state = CASE WHEN traces.state = 'ERROR' THEN traces.state ELSE excluded.state END,
    duration_us = CASE WHEN traces.duration_us / 1000 = excluded.duration_us / 1000
        THEN traces.duration_us ELSE excluded.duration_us END,
    client_request_id = excluded.client_request_id, session_id = excluded.session_id,
    user_id = excluded.user_id, request_preview = excluded.request_preview,
    response_preview = excluded.response_preview, source_id = excluded.source_id,
    metadata = json_patch(traces.metadata, excluded.metadata), tags = json_patch(excluded.tags, traces.tags)
"""

# One row, whatever is found: see _execute.
_FIND_TRACES: Final = """
WITH asked (position, trace_id) AS (VALUES {rows})
SELECT json_group_object(asked.position, traces.id) FROM asked JOIN traces USING (trace_id)
"""

_INSERT_SPAN: Final = """
INSERT INTO spans (
    trace, span_id, parent_id, name, span_type, status_code, status_message, start_ns, end_ns,
    inputs, outputs, attributes, events, links
) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
ON CONFLICT (trace, span_id) DO UPDATE SET
    name = excluded.name, span_type = excluded.span_type, status_code = excluded.status_code,
    status_message = excluded.status_message, end_ns = excluded.end_ns, inputs = excluded.inputs,
    outputs = excluded.outputs, attributes = excluded.attributes, events = excluded.events,
    links = excluded.links
"""

_LIST_VALUE: Final = """
INSERT OR IGNORE INTO trace_values (key, value, request_time, trace)
SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
"""

_OLDEST: Final = "SELECT id FROM traces WHERE request_time < ? ORDER BY request_time, id LIMIT ?"
_NAMED: Final = "SELECT id FROM traces WHERE trace_id IN (SELECT value FROM json_each(?))"

_MARK_LONG: Final = "UPDATE known_keys SET unlisted = ? WHERE id = ? AND unlisted < ?"


class KnownIds:
    """Ids that this process has met in the file: of no use once a transaction has failed that used them."""

    def __init__(self) -> None:
        self.experiments: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.keys = KnownKeys()
        self.long: set[int] = set()


_FREE_ID: Final = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'traces'"


def insert(connection: sqlite3.Connection, known: KnownIds, traces: Sequence[Trace]) -> None:
    """Write traces and their spans; the caller holds the transaction."""
    known.keys.refresh(connection)
    first = {trace.info.trace_id: trace for trace in reversed(traces)}
    _insert_some(connection, known, list(reversed(first.values())))
    if len(first) < len(traces):
        _insert_some(connection, known, [t for t in traces if t is not first[t.info.trace_id]])


def _insert_some(connection: sqlite3.Connection, known: KnownIds, traces: Sequence[Trace]) -> None:
    """Write traces of which those that are not stored yet differ from one another."""
    ids = _stored_ids(connection, [trace.info.trace_id for trace in traces])
    free = count(connection.execute(_FREE_ID).fetchone()[0])
    new = {trace.info.trace_id: next(free) for trace in traces if trace.info.trace_id not in ids}
    made = [_trace_row(connection, known, trace) for trace in traces]
    _execute(connection, _INSERT_TRACE, _TRACE_COLUMNS, [(new.get(row[0]), *row) for row, _ in made])
    _execute(connection, _LIST_VALUE, _VALUE_COLUMNS, _value_rows(made, new))
    ids |= new
    spans = [(ids[trace.info.trace_id], span) for trace in traces for span in trace.data.spans]
    _execute(connection, _INSERT_SPAN, _SPAN_COLUMNS, [_span_row(id_, span) for id_, span in spans])
    known.keys.learn(connection, "span", {key for _, span in spans for key in list(span.attributes)})


def set_tag(connection: sqlite3.Connection, known: KnownIds, trace_id: str, key: str, value: str) -> None:
    """Set a tag; the caller holds the transaction.

    Raises:
        TraceNotFoundError: there is no such trace.
    """
    id_, tags = _tags(connection, trace_id)
    known.keys.refresh(connection)
    known.keys.learn(connection, "tag", [key])
    _set_tags(connection, id_, tags | {key: value})


def delete_tag(connection: sqlite3.Connection, trace_id: str, key: str) -> None:
    """Remove a tag; the caller holds the transaction.

    Raises:
        TraceNotFoundError: there is no such trace, or it has no such tag.
    """
    id_, tags = _tags(connection, trace_id)
    if tags.pop(key, None) is None:
        raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
    _set_tags(connection, id_, tags)


def _tags(connection: sqlite3.Connection, trace_id: str) -> tuple[int, dict[str, str]]:
    found = connection.execute("SELECT id, name, tags FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    if found is None:
        raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
    id_, name, text = found
    return id_, orjson.loads(text) | ({} if name is None else {keys.TRACE_NAME_TAG: name})


def _set_tags(connection: sqlite3.Connection, id_: int, tags: dict[str, str]) -> None:
    name = tags.pop(keys.TRACE_NAME_TAG, None)
    connection.execute("UPDATE traces SET name = ?, tags = ? WHERE id = ?", (name, _json_pairs(tags), id_))


def find_ids(
    connection: sqlite3.Connection,
    experiment: str,
    *,
    trace_ids: Sequence[str] | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
) -> list[str]:
    """The ids of traces of an experiment: of those named, or of those up to a time, the oldest first."""
    query = f"SELECT trace_id FROM traces WHERE experiment_id IN ({_EXPERIMENT})"
    values: list[str | int] = [experiment] * 3
    if trace_ids is not None:
        query += " AND trace_id IN (SELECT value FROM json_each(?))"
        values.append(orjson.dumps(trace_ids).decode())
    if until_ms is not None:
        query += " AND request_time <= ?"
        values.append(until_ms)
    query += " ORDER BY request_time LIMIT ?"
    return [id_ for (id_,) in connection.execute(query, (*values, -1 if limit is None else limit))]


# Named so, or with that id where none is named so.
_EXPERIMENT: Final = (
    "SELECT id FROM experiments WHERE name = ?"
    " OR (CAST(id AS TEXT) = ? AND NOT EXISTS (SELECT 1 FROM experiments WHERE name = ?))"
)


def delete_before(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest ``limit`` traces that started before a time; returns how many."""
    return _delete(connection, _OLDEST, (before_ms, limit))


def delete(connection: sqlite3.Connection, trace_ids: Sequence[str]) -> int:
    """Delete the traces with these ids; returns how many."""
    return _delete(connection, _NAMED, (orjson.dumps(trace_ids).decode(),))


def _delete(connection: sqlite3.Connection, doomed: str, values: tuple[Any, ...]) -> int:
    connection.execute(f"DELETE FROM spans WHERE trace IN ({doomed})", values)
    return connection.execute(f"DELETE FROM traces WHERE id IN ({doomed})", values).rowcount


def split(info: TraceInfo) -> tuple[Source, dict[str, str]]:
    """Metadata as the source it came from and the trace's own pairs.

    A trace that overrides a key of its source has another source.
    """
    pairs = info.trace_metadata.copy()  # at once: a task that outlives the request may still add to it
    source = info.source
    if source is not None:
        shared = source.pairs  # the dict itself: a Mapping's items are read three times as slowly
        if all(pairs.get(key) is value for key, value in shared.items()):
            return source, {key: value for key, value in pairs.items() if key not in shared}
    names = keys.SOURCE_KEYS if source is None else keys.SOURCE_KEYS.union(source)
    shared = {key: clean_text(value) for key, value in pairs.items() if key in names}
    return Source(shared), {key: value for key, value in pairs.items() if key not in names}


def _execute(
    connection: sqlite3.Connection, statement: str, columns: int, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Hand many rows to a statement with few calls of the driver; what the statement returns.

    Each call, and each row that it returns, gives up the GIL twice or more and, while requests keep the event
    loop busy, waits 5 ms each time to have it back: with a call a row, as ``executemany`` makes, the writer
    falls behind at some 100 traces a second. Statements come in few sizes, so that they stay prepared, and
    what is left of one is filled with NULL, which they pass over.
    """
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // columns
    sizes = [size for size in _SIZES if size <= most]
    returned: list[tuple[Any, ...]] = []
    start = 0
    while some := rows[start : start + sizes[-1]]:
        size = next(size for size in sizes if size >= len(some))
        filling = repeat(None, columns * (size - len(some)))
        values = [*chain.from_iterable(some), *filling]
        returned += connection.execute(_with_rows(statement, columns, size), values).fetchall()
        start += size
    return returned


@lru_cache(maxsize=32)
def _with_rows(statement: str, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.replace("{rows}", ", ".join([row] * count))


def _stored_ids(connection: sqlite3.Connection, trace_ids: Sequence[str]) -> dict[str, int]:
    """The ids of the rows of those traces that are in the file already."""
    found = _execute(connection, _FIND_TRACES, 2, list(enumerate(trace_ids)))
    ids = (orjson.loads(text) for (text,) in found)
    return {trace_ids[int(position)]: id_ for some in ids for position, id_ in some.items()}


_Listed = list[tuple[int, str]]


def _trace_row(
    connection: sqlite3.Connection, known: KnownIds, trace: Trace
) -> tuple[tuple[Any, ...], _Listed]:
    """The row of a trace, and the values under their keys' ids that are listed for it."""
    info = trace.info
    source, own = split(info)
    own, tags = _clean(own), _clean(info.tags.copy())
    known.keys.learn(connection, "metadata", own)
    known.keys.learn(connection, "tag", tags)
    own.pop(keys.SESSION, None)
    own.pop(keys.USER, None)
    name = tags.pop(keys.TRACE_NAME_TAG, None)
    row = (
        info.trace_id,
        _experiment_id(connection, known, clean_text(info.experiment)),
        _source_id(connection, known, source),
        name,
        info.state.value,
        info.request_time,
        _duration_us(trace),
        _text(info.client_request_id),
        _text(info.trace_metadata.get(keys.SESSION)),
        _text(info.trace_metadata.get(keys.USER)),
        _text(info.request_preview),
        _text(info.response_preview),
        _json_pairs(own),
        _json_pairs(tags),
    )
    listed = _listed(connection, known, "metadata", own) if own else []
    return row, listed + _listed(connection, known, "tag", tags) if tags else listed


def _listed(
    connection: sqlite3.Connection, known: KnownIds, family: str, pairs: Mapping[str, str]
) -> _Listed:
    listed = []
    for key, value in pairs.items():
        id_ = known.keys.listing_id(family, key)
        if id_ is None or not lists_key(key):
            continue
        if lists_value(value):
            listed.append((id_, value))
        elif id_ not in known.long:
            connection.execute(_MARK_LONG, (LONG, id_, LONG))
            known.long.add(id_)
    return listed


def _value_rows(
    made: Sequence[tuple[tuple[Any, ...], _Listed]], new: Mapping[str, int]
) -> list[tuple[Any, ...]]:
    """The rows to list, in the order of the table, so that each page of it is visited once.

    Of a trace that was there already the triggers list what changes.
    """
    return sorted(
        (key, value, row[_REQUEST_TIME], new[row[0]])
        for row, listed in made
        if row[0] in new
        for key, value in listed
    )


def _span_row(id_: int, span: Span) -> tuple[Any, ...]:
    return (
        id_,
        span.span_id,
        span.parent_id,
        clean_text(span.name),
        clean_text(span.span_type),
        span.status.code.value,
        clean_text(span.status.description),
        span.start_time_ns,
        span.end_time_ns,
        None if span.inputs is None else to_json(span.inputs),
        None if span.outputs is None else to_json(span.outputs),
        to_json(span.attributes) if span.attributes else "{}",
        to_json([event.to_dict() for event in span.events]) if span.events else None,
        to_json(span.links) if span.links else None,
    )


def _duration_us(trace: Trace) -> int | None:
    """The duration in µs: the root span's where the info's is missing or the same in milliseconds.

    As in MLflow, a duration of 0 counts as missing.
    """
    given = trace.info.execution_duration
    root = trace.data.spans[0] if trace.data.spans else None
    if root is None or root.end_time_ns is None:
        return None if given is None else given * 1000
    measured = (root.end_time_ns - root.start_time_ns) // 1000
    if measured // 1000 == given or (not given and root.parent_id is None):
        return measured
    return None if given is None else given * 1000


def _experiment_id(connection: sqlite3.Connection, known: KnownIds, name: str) -> int:
    if name not in known.experiments:
        connection.execute("INSERT INTO experiments (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
        found = connection.execute("SELECT id FROM experiments WHERE name = ?", (name,)).fetchone()
        known.experiments[name] = found[0]
    return known.experiments[name]


def _source_id(connection: sqlite3.Connection, known: KnownIds, source: Source) -> int:
    if source.digest not in known.sources:
        connection.execute(
            "INSERT INTO sources (digest, metadata) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (source.digest, _json_pairs(_clean(source))),
        )
        found = connection.execute("SELECT id FROM sources WHERE digest = ?", (source.digest,)).fetchone()
        if len(known.sources) >= _MAX_KNOWN_SOURCES:
            known.sources.clear()
        known.sources[source.digest] = found[0]
        known.keys.learn(connection, "metadata", source)
    return known.sources[source.digest]


def _text(value: Any) -> str | None:
    return None if value is None else clean_text(value)


def _clean(pairs: Mapping[Any, Any]) -> dict[str, str]:
    return {clean_text(key): clean_text(value) for key, value in pairs.items()}


def _json_pairs(pairs: dict[str, str]) -> str:
    return orjson.dumps(pairs).decode() if pairs else "{}"


_KEPT_MS: Final = 7 * 86_400_000
_WRITE_REPORT: Final = """
INSERT INTO processes (host, pid, started, reported, report) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (host, pid, started) DO UPDATE SET reported = excluded.reported, report = excluded.report
"""


def write_report(connection: sqlite3.Connection, report: ProcessReport) -> None:
    """Put a report in the place of the last one of its process; the caller holds the transaction.

    Reports of processes that have been silent for a week go.
    """
    rest = {"stats": asdict(report.stats), "queues": report.queues, "retention_days": report.retention_days}
    row = (report.host, report.pid, report.started, report.reported, orjson.dumps(rest).decode())
    connection.execute(_WRITE_REPORT, row)
    connection.execute("DELETE FROM processes WHERE reported < ?", (report.reported - _KEPT_MS,))
