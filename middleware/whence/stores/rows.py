"""Traces as rows for the driver: prepared tuples, ids of experiments and sources known by heart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import orjson

from .. import keys
from ..model import Source, Span, Trace, TraceInfo
from ..values import clean_text, to_json

_TRACE: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SPAN: Final = "((SELECT id FROM traces WHERE trace_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS: Final = 14
_MOST_ROWS: Final = 256

_MAX_KNOWN_KEYS: Final = 10_000
_MAX_KNOWN_SOURCES: Final = 1_000

_INSERT_TRACE: Final = """
INSERT INTO traces (
    trace_id, experiment_id, source_id, name, state, request_time, duration_us, client_request_id,
    session_id, user_id, request_preview, response_preview, metadata, tags
) VALUES {rows}
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

_INSERT_SPAN: Final = """
INSERT INTO spans (
    trace, span_id, parent_id, name, span_type, status_code, status_message, start_ns, end_ns,
    inputs, outputs, attributes, events, links
) VALUES {rows}
ON CONFLICT (trace, span_id) DO UPDATE SET
    name = excluded.name, span_type = excluded.span_type, status_code = excluded.status_code,
    status_message = excluded.status_message, end_ns = excluded.end_ns, inputs = excluded.inputs,
    outputs = excluded.outputs, attributes = excluded.attributes, events = excluded.events,
    links = excluded.links
"""


class KnownIds:
    """Ids that this process has met in the file; a transaction works on a copy, kept when it commits."""

    def __init__(self) -> None:
        self.experiments: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.keys: set[tuple[str, str]] = set()

    def begin(self) -> KnownIds:
        """A copy to work on inside a transaction."""
        copy = KnownIds()
        copy.experiments = self.experiments.copy()
        copy.sources = self.sources.copy()
        copy.keys = self.keys.copy()
        return copy


def insert(connection: sqlite3.Connection, known: KnownIds, traces: Sequence[Trace]) -> None:
    """Write traces and their spans; the caller holds the transaction."""
    _insert_rows(
        connection, _INSERT_TRACE, _TRACE, [_trace_row(connection, known, trace) for trace in traces]
    )
    spans = [(trace.info.trace_id, span) for trace in traces for span in trace.data.spans]
    _insert_rows(connection, _INSERT_SPAN, _SPAN, [_span_row(trace_id, span) for trace_id, span in spans])
    _learn(connection, known, "span", {key for _, span in spans for key in list(span.attributes)})


def delete_before(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete at most ``limit`` traces that started before a time; how many there were."""
    ids = connection.execute(
        "SELECT id FROM traces WHERE request_time < ? ORDER BY request_time LIMIT ?", (before_ms, limit)
    ).fetchall()
    connection.executemany("DELETE FROM spans WHERE trace = ?", ids)
    connection.executemany("DELETE FROM traces WHERE id = ?", ids)
    return len(ids)


def split(info: TraceInfo) -> tuple[Source, dict[str, str]]:
    """Metadata as the source it came from and the trace's own pairs.

    A trace that overrides a key of its source has another source.
    """
    pairs = info.trace_metadata.copy()  # at once: a task that outlives the request may still add to it
    source = info.source
    if source is not None and all(pairs.get(key) is value for key, value in source.items()):
        return source, {key: value for key, value in pairs.items() if key not in source}
    names = keys.SOURCE_KEYS if source is None else keys.SOURCE_KEYS.union(source)
    shared = {key: clean_text(value) for key, value in pairs.items() if key in names}
    return Source(shared), {key: value for key, value in pairs.items() if key not in names}


def _insert_rows(
    connection: sqlite3.Connection, statement: str, row: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert many rows with few calls of the driver.

    Each call gives up the GIL and, while requests keep the event loop busy, waits 5 ms to have it back: with
    a call a row, as ``executemany`` makes, the writer falls behind at some 400 traces a second. Powers of two
    keep the statements few, so that they stay prepared.
    """
    most = min(_MOST_ROWS, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // _COLUMNS)
    start = 0
    while (left := len(rows) - start) > 0:
        size = 1 << (min(left, most).bit_length() - 1)
        values = list(chain.from_iterable(rows[start : start + size]))
        connection.execute(_with_rows(statement, row, size), values)
        start += size


@lru_cache(maxsize=32)
def _with_rows(statement: str, row: str, count: int) -> str:
    return statement.replace("{rows}", ", ".join([row] * count))


def _trace_row(connection: sqlite3.Connection, known: KnownIds, trace: Trace) -> tuple[Any, ...]:
    info = trace.info
    source, own = split(info)
    tags = info.tags.copy()
    others = {key: value for key, value in tags.items() if key != keys.TRACE_NAME_TAG}
    _learn(connection, known, "metadata", own)
    own.pop(keys.SESSION, None)
    own.pop(keys.USER, None)
    _learn(connection, known, "tag", tags)
    return (
        info.trace_id,
        _experiment_id(connection, known, clean_text(info.experiment)),
        _source_id(connection, known, source),
        _text(tags.get(keys.TRACE_NAME_TAG)),
        info.state.value,
        info.request_time,
        _duration_us(trace),
        _text(info.client_request_id),
        _text(info.trace_metadata.get(keys.SESSION)),
        _text(info.trace_metadata.get(keys.USER)),
        _text(info.request_preview),
        _text(info.response_preview),
        _json_pairs(own),
        _json_pairs(others),
    )


def _span_row(trace_id: str, span: Span) -> tuple[Any, ...]:
    return (
        trace_id,
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
    """The duration, from the root span where that tells it finer than the info's milliseconds, or at all.

    As in MLflow, a duration of nothing is one that was not told.
    """
    told = trace.info.execution_duration
    root = trace.data.spans[0] if trace.data.spans else None
    if root is None or root.end_time_ns is None:
        return None if told is None else told * 1000
    measured = (root.end_time_ns - root.start_time_ns) // 1000
    if measured // 1000 == told or (not told and root.parent_id is None):
        return measured
    return None if told is None else told * 1000


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
            (source.digest, _json_pairs(source)),
        )
        found = connection.execute("SELECT id FROM sources WHERE digest = ?", (source.digest,)).fetchone()
        if len(known.sources) >= _MAX_KNOWN_SOURCES:
            known.sources.clear()
        known.sources[source.digest] = found[0]
        _learn(connection, known, "metadata", source)
    return known.sources[source.digest]


def _learn(connection: sqlite3.Connection, known: KnownIds, family: str, names: Iterable[str]) -> None:
    """Remember keys that traces carry, for hints and completion."""
    new = [(family, clean_text(name)) for name in names if (family, name) not in known.keys]
    if new and len(known.keys) < _MAX_KNOWN_KEYS:
        connection.executemany("INSERT INTO known_keys VALUES (?, ?) ON CONFLICT DO NOTHING", new)
        known.keys.update(new)


def _text(value: Any) -> str | None:
    return None if value is None else clean_text(value)


def _json_pairs(pairs: Mapping[Any, Any]) -> str:
    if not pairs:
        return "{}"
    return orjson.dumps({clean_text(key): clean_text(value) for key, value in pairs.items()}).decode()
