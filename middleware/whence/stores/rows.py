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
from .trace_values import LONG, lists_key, lists_value

_TRACE: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SPAN: Final = _TRACE
_VALUE: Final = "(?, ?, ?, ?)"
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
RETURNING trace_id, id, request_time, metadata, tags
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

_LIST_VALUE: Final = """
INSERT OR IGNORE INTO trace_values (key, value, request_time, trace) VALUES {rows}
"""

_MARK_LONG: Final = "UPDATE known_keys SET unlisted = ? WHERE id = ? AND unlisted < ?"


class KnownIds:
    """Ids that this process has met in the file; a transaction works on a copy, kept when it commits."""

    def __init__(self) -> None:
        self.experiments: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.keys: dict[tuple[str, str], int] = {}
        self.long: set[int] = set()

    def begin(self) -> KnownIds:
        """A copy to work on inside a transaction."""
        copy = KnownIds()
        copy.experiments = self.experiments.copy()
        copy.sources = self.sources.copy()
        copy.keys = self.keys.copy()
        copy.long = self.long.copy()
        return copy


def insert(connection: sqlite3.Connection, known: KnownIds, traces: Sequence[Trace]) -> None:
    """Write traces and their spans; the caller holds the transaction."""
    made = [_trace_row(connection, known, trace) for trace in traces]
    returned = _insert_rows(connection, _INSERT_TRACE, _TRACE, [row for row, _ in made])
    stored = {trace_id: as_stored for trace_id, *as_stored in returned}
    _insert_rows(connection, _LIST_VALUE, _VALUE, _value_rows(made, stored))
    spans = [(stored[trace.info.trace_id][0], span) for trace in traces for span in trace.data.spans]
    _insert_rows(connection, _INSERT_SPAN, _SPAN, [_span_row(id_, span) for id_, span in spans])
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
) -> list[tuple[Any, ...]]:
    """Insert many rows with few calls of the driver; what the statement returns.

    Each call gives up the GIL and, while requests keep the event loop busy, waits 5 ms to have it back: with
    a call a row, as ``executemany`` makes, the writer falls behind at some 400 traces a second. Powers of two
    keep the statements few, so that they stay prepared.
    """
    most = min(_MOST_ROWS, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // _COLUMNS)
    start = 0
    returned: list[tuple[Any, ...]] = []
    while (left := len(rows) - start) > 0:
        size = 1 << (min(left, most).bit_length() - 1)
        values = list(chain.from_iterable(rows[start : start + size]))
        returned += connection.execute(_with_rows(statement, row, size), values).fetchall()
        start += size
    return returned


@lru_cache(maxsize=48)
def _with_rows(statement: str, row: str, count: int) -> str:
    return statement.replace("{rows}", ", ".join([row] * count))


_Listed = list[tuple[int, str]]


def _trace_row(
    connection: sqlite3.Connection, known: KnownIds, trace: Trace
) -> tuple[tuple[Any, ...], _Listed]:
    """The row of a trace, and the values under their keys' ids that are listed for it."""
    info = trace.info
    source, own = split(info)
    own, tags = _clean(own), _clean(info.tags.copy())
    _learn(connection, known, "metadata", own)
    _learn(connection, known, "tag", tags)
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
        id_ = known.keys.get((family, key))
        if id_ is None or not lists_key(key):  # None: there are too many keys to know them all
            continue
        if lists_value(value):
            listed.append((id_, value))
        elif id_ not in known.long:
            connection.execute(_MARK_LONG, (LONG, id_, LONG))
            known.long.add(id_)
    return listed


def _value_rows(
    made: Sequence[tuple[tuple[Any, ...], _Listed]], stored: Mapping[str, Sequence[Any]]
) -> list[tuple[Any, ...]]:
    """What to list, in the order in which it is kept, so that each page of it is found once.

    A trace that was there already and has been changed by this write is the trigger's.
    """
    rows = []
    for row, listed in made:
        if listed:
            id_, time, *pairs = stored[row[0]]
            if pairs == [*row[-2:]]:
                rows += [(key, value, time, id_) for key, value in listed]
    return sorted(rows)


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
            (source.digest, _json_pairs(_clean(source))),
        )
        found = connection.execute("SELECT id FROM sources WHERE digest = ?", (source.digest,)).fetchone()
        if len(known.sources) >= _MAX_KNOWN_SOURCES:
            known.sources.clear()
        known.sources[source.digest] = found[0]
        _learn(connection, known, "metadata", source)
    return known.sources[source.digest]


def _learn(connection: sqlite3.Connection, known: KnownIds, family: str, names: Iterable[str]) -> None:
    """Remember keys that traces carry: for hints, for completion, and for the list of their values."""
    new = [(family, clean_text(name)) for name in names if (family, name) not in known.keys]
    if not new or len(known.keys) >= _MAX_KNOWN_KEYS:
        return
    insert = "INSERT INTO known_keys (family, key) VALUES (?, ?) ON CONFLICT DO NOTHING"
    connection.executemany(insert, new)
    for place in new:
        row = connection.execute("SELECT id FROM known_keys WHERE family = ? AND key = ?", place).fetchone()
        known.keys[place] = row[0]


def _text(value: Any) -> str | None:
    return None if value is None else clean_text(value)


def _clean(pairs: Mapping[Any, Any]) -> dict[str, str]:
    return {clean_text(key): clean_text(value) for key, value in pairs.items()}


def _json_pairs(pairs: dict[str, str]) -> str:
    return orjson.dumps(pairs).decode() if pairs else "{}"
