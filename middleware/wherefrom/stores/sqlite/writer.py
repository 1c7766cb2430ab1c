"""Writing traces: one statement a batch for each table, which SQLite runs without the GIL.

What Python does for each trace, and each call of the driver, is time for which the event loop of the app
waits for the GIL. So the facts of a batch are bound in a few calls, and other records are one JSON array,
which SQLite parses itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, Final, TypeVar

import orjson

from ... import keys
from ..._buckets import LOG_RATIO, bucket_of
from ..._capture.values import clean_text
from ...exceptions import TraceNotFoundError
from ...model import Assessment, AssessmentKind, Source
from ...model.record import (
    FIELDS,
    SPAN_FIELDS,
    Encoded,
    Facts,
    FactsTuple,
    Kind,
    Record,
    Shape,
    is_facts,
    kind_of,
    shape_of_facts,
)
from ...process import ProcessReport
from ..assessments import COLUMNS, to_row
from . import rollups
from .known_keys import KnownKeys, list_pairs, listing

T = TypeVar("T")

_MAX_KNOWN: Final = 1_000
_NUL: Final = b"\\u0000"

_INFO: Final = FIELDS[:-1]
_TRACE_ID: Final = FIELDS.index("trace_id")
_DURATION: Final = FIELDS.index("duration_us")


def _of(row: str, position: int) -> str:
    return f"json_extract({row}.value, '$[{position}]')"


_EXPERIMENT_ID: Final = "(SELECT id FROM experiments WHERE name = {})"
_SOURCE_ID: Final = "(SELECT id FROM sources WHERE digest = {})"
_IDS: Final = f"SELECT {_EXPERIMENT_ID.format('?')}, {_SOURCE_ID.format('?')}"
_LOOKED_UP: Final = {"experiment": _EXPERIMENT_ID, "source": _SOURCE_ID}

_INSERTED: Final = (
    "trace_id", "experiment_id", "source_id", "name", "state", "request_time", "duration_us",
    "client_request_id", "session_id", "user_id", "request_preview", "response_preview", "metadata", "tags",
    "duration_bucket",
)  # fmt: skip
_OLD_PART, _NEW_PART = (
    f"""json_extract({row}.metadata, '$."{keys.PART}"')""" for row in ("traces", "excluded")
)
_IS_SAME: Final = f"{_OLD_PART} IS {_NEW_PART}"
"""Whether the record that stands for the trace is of the same service as the new one."""
_PRECEDES: Final = (
    f"({_OLD_PART} IS NOT NULL AND ({_NEW_PART} IS NULL"
    f" OR (excluded.request_time, {_NEW_PART}) < (traces.request_time, {_OLD_PART})))"
)
"""As ``precedence`` in ``model.parts``."""


_EDITS: Final = f"""coalesce(json_extract(traces.metadata, '$."{keys.PART_EDITS}"'), json_object())"""


def _when_preceded(column: str) -> str:
    """The value of a column when the record of another service takes the place of what there is."""
    return f"json_patch(excluded.tags, {_EDITS})" if column == "tags" else f"excluded.{column}"


def _when_again(column: str) -> str:
    """The value of a column when the service that stands for the trace writes it again."""
    match column:
        case "duration_us" | "duration_bucket":
            is_finer = "traces.duration_us / 1000 = excluded.duration_us / 1000"
            return f"CASE WHEN {is_finer} THEN traces.{column} ELSE excluded.{column} END"
        case "client_request_id" | "session_id" | "user_id" | "request_preview" | "response_preview":
            return f"coalesce(excluded.{column}, traces.{column})"
        case "metadata":
            return "json_patch(traces.metadata, excluded.metadata)"
        case "tags":
            return "json_patch(excluded.tags, traces.tags)"
        case "experiment_id" | "request_time":
            return f"traces.{column}"
        case _:
            return f"excluded.{column}"


_MERGED: Final = ", ".join(
    f"{column} = CASE WHEN {_IS_SAME} THEN {_when_again(column)}"
    f" WHEN {_PRECEDES} THEN {_when_preceded(column)} ELSE traces.{column} END"
    for column in _INSERTED
    if column not in {"trace_id", "state"}
)
# A trace without the record of its origin has an error if any part has one; an origin has its own.
_INSERT_TRACES: Final = (
    f"INSERT INTO traces ({', '.join(_INSERTED)}) {{rows}} ON CONFLICT (trace_id) DO UPDATE SET {_MERGED},"
    f" state = CASE WHEN {_OLD_PART} IS NULL AND {_NEW_PART} IS NOT NULL THEN traces.state"
    f" WHEN {_OLD_PART} IS NOT NULL AND {_NEW_PART} IS NULL THEN excluded.state"
    f" WHEN 'ERROR' IN (traces.state, excluded.state) THEN 'ERROR'"
    f" WHEN {_IS_SAME} OR {_PRECEDES} THEN excluded.state ELSE traces.state END"
)

_INSERT_SPANS: Final = """
INSERT INTO spans (
    trace, span_id, parent_id, name, span_type, status_code, status_message, start_ns, end_ns,
    inputs, outputs, attributes, events, links
) {rows}
ON CONFLICT (trace, span_id) DO UPDATE SET
    name = excluded.name, span_type = excluded.span_type, status_code = excluded.status_code,
    status_message = excluded.status_message, end_ns = excluded.end_ns, inputs = excluded.inputs,
    outputs = excluded.outputs, attributes = excluded.attributes, events = excluded.events,
    links = excluded.links
"""

# As ``bucket_of``, with the duration written once: below 1 µs, the logarithm is cut off at -1.01 buckets.
_BUCKET: Final = f"CAST(ln(max({{}}, 0.98)) / {LOG_RATIO!r} + 1 AS INTEGER) - 1"

# CROSS JOIN: SQLite keeps the order, so that each record is parsed once.
_TRACES_OF_BATCH: Final = _INSERT_TRACES.format(
    rows="SELECT "
    + ", ".join(_LOOKED_UP.get(name, "{}").format(_of("record", at)) for at, name in enumerate(_INFO))
    + f", {_BUCKET.format(_of('record', _DURATION))}"
    + " FROM json_each(CAST(? AS TEXT)) AS record WHERE true"
)
_SPANS_OF_BATCH: Final = _INSERT_SPANS.format(
    rows="SELECT traces.id, "
    + ", ".join(_of("span", at) for at in range(len(SPAN_FIELDS)))
    + " FROM json_each(CAST(? AS TEXT)) AS record"
    f" CROSS JOIN traces ON traces.trace_id = {_of('record', _TRACE_ID)}"
    f" CROSS JOIN json_each(record.value, '$[{len(_INFO)}]') AS span WHERE true"
)
_ONE_TRACE: Final = _INSERT_TRACES.format(
    rows="VALUES (" + ", ".join(_LOOKED_UP.get(name, "{}").format("?") for name in _INFO) + ", ?)"
)
_ONE_SPAN: Final = _INSERT_SPANS.format(
    rows=f"VALUES ((SELECT id FROM traces WHERE trace_id = ?){', ?' * len(SPAN_FIELDS)})"
)


_FACT_NAMES: Final = ", ".join(Facts._fields)
_MAKE_FACTS: Final = f"CREATE TEMP TABLE IF NOT EXISTS facts ({_FACT_NAMES})"
_FACT_ROWS: Final = (256, 16, 1)  # how many rows a statement takes: few sizes, so that they stay prepared
_FACT_ROW: Final = f"({', '.join('?' * len(Facts._fields))})"
_INSERT_FACTS: Final = {
    size: f"INSERT INTO temp.facts VALUES {', '.join([_FACT_ROW] * size)}" for size in _FACT_ROWS
}


def _rest(name: str) -> str:
    return f"CASE WHEN rest IS NOT NULL THEN json_extract(rest, '$.{name}') END"


_FACTS_ID: Final = (
    f"coalesce({_rest('trace_id')},"
    " 'tr-' || printf('%012x%06x%014x', started_ns / 1000000, random_24, random_56))"
)
# The parameters: experiment and source, which the facts have in common.
_TRACES_OF_FACTS: Final = _INSERT_TRACES.format(
    rows=f"SELECT {_FACTS_ID}, ?, ?, name, 'OK', started_ns / 1000000, (ended_ns - started_ns) / 1000,"
    " client_request_id, session_id, user_id, NULL, NULL,"
    f" coalesce({_rest('metadata')}, '{{}}'), '{{}}', {_BUCKET.format('(ended_ns - started_ns) / 1000')}"
    " FROM temp.facts WHERE true"
)
# The attributes are those of the request, its own further ones, and the shared ones.
_ATTRIBUTES_OF_FACTS: Final = (
    """'{"http.response.status_code":' || status || ',"url.path":' || json_quote(path)"""
    """ || coalesce(',"http.response.body.size":' || size, '')"""
    f" || coalesce(',' || trim({_rest('attributes')}, '{{}}'), '') || ',' || substr(shared, 2)"
)
_HEX: Final = "[0-9a-f]"
_LINKS_OF_FACTS: Final = (
    f"CASE WHEN link GLOB '00-{_HEX * 32}-{_HEX * 16}-{_HEX * 2}'"
    f" AND substr(link, 4, 32) <> '{'0' * 32}' AND substr(link, 37, 16) <> '{'0' * 16}'"
    " THEN json_array(json_object('trace_id', 'tr-' || substr(link, 4, 32), 'span_id', substr(link, 37, 16),"
    " 'attributes', json_object())) END"
)
_SPANS_OF_FACTS: Final = _INSERT_SPANS.format(
    rows=f"SELECT traces.id, printf('%016x', random_63), {_rest('parent_id')}, facts.name,"
    f" 'SERVER', 'OK', '', started_ns, ended_ns, NULL, NULL, {_ATTRIBUTES_OF_FACTS}, NULL,"
    f" {_LINKS_OF_FACTS} FROM temp.facts CROSS JOIN traces ON traces.trace_id = {_FACTS_ID} WHERE true"
)

_OLDEST: Final = "SELECT id FROM traces WHERE request_time < ? ORDER BY request_time, id LIMIT ?"
_NAMED: Final = "SELECT id FROM traces WHERE trace_id IN (SELECT value FROM json_each(?))"
_LAST_ID: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'traces'"


class KnownIds:
    """What this process has met in the file: of no use once a transaction has failed that added to it."""

    def __init__(self) -> None:
        self.experiments: set[str] = set()
        self.shapes: set[Shape] = set()
        self.kinds: set[Kind] = set()
        self.keys = KnownKeys()


def insert(
    connection: sqlite3.Connection,
    known: KnownIds,
    records: Sequence[Record],
    sources: Mapping[str, Source],
) -> None:
    """Write records; the caller holds the transaction. ``sources`` are those of facts, by digest.

    A trace that is there already gains the spans that it lacked.
    """
    groups: dict[tuple[str, str], list[FactsTuple]] = {}
    encoded: list[Encoded] = []
    new: dict[Kind, FactsTuple] = {}
    for record in records:
        if not is_facts(record):
            encoded.append(record)
            continue
        kind = kind_of(record)
        if kind not in known.kinds:
            new[kind] = record
        groups.setdefault(kind[:2], []).append(record)
    known.keys.refresh(connection)
    for kind, record in new.items():
        _learn(connection, known, shape_of_facts(record, sources))
        _remember(known.kinds, kind)
    shapes = dict.fromkeys(shape for _, shape in encoded)
    for shape in [shape for shape in shapes if shape not in known.shapes]:
        _learn(connection, known, shape)
        _remember(known.shapes, shape)
    used = [shape.source for shape in shapes] + [sources[digest] for _, digest in groups]
    _add_sources(connection, {source.digest: source for source in used})
    (last,) = connection.execute(_LAST_ID).fetchone()
    for (experiment, digest), facts in groups.items():
        _insert_facts(connection, experiment, digest, facts)
    for run in _in_runs(data for data, _ in encoded):
        if isinstance(run, bytes):
            connection.execute(_TRACES_OF_BATCH, (run,))
            connection.execute(_SPANS_OF_BATCH, (run,))
        else:
            _insert_one(connection, run, last)
    # Of a trace that was there already the triggers list what changes.
    for statement in _LISTING:
        connection.execute(statement, (last,))
    connection.execute(rollups.FORGET_INSERTED, {"last": last})


def _insert_facts(
    connection: sqlite3.Connection, experiment: str, digest: str, facts: Sequence[FactsTuple]
) -> None:
    """Write facts by way of a temporary table: binding their values costs SQLite a third of parsing JSON."""
    connection.execute(_MAKE_FACTS)
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(Facts._fields)
    start = 0
    while left := len(facts) - start:
        size = next(size for size in _FACT_ROWS if size <= left and size <= most)
        values = [*chain.from_iterable(facts[start : start + size])]
        connection.execute(_INSERT_FACTS[size], values)
        start += size
    ids = connection.execute(_IDS, (experiment, digest)).fetchone()
    connection.execute(_TRACES_OF_FACTS, ids)
    connection.execute(_SPANS_OF_FACTS)
    connection.execute("DELETE FROM temp.facts")


_LISTING: Final = tuple(listing("traces.id > ?"))


def _in_runs(records: Iterator[bytes]) -> Iterator[bytes | list[Any]]:
    """Yield runs of records as one JSON array each, and alone those that SQLite's JSON cannot read."""
    run: list[bytes] = []
    for data in records:
        if _NUL not in data:
            run.append(data)
            continue
        if run:
            yield b"[%b]" % b",".join(run)
            run = []
        yield orjson.loads(data)
    if run:
        yield b"[%b]" % b",".join(run)


def _insert_one(connection: sqlite3.Connection, record: list[Any], last: int) -> None:
    """Write a record that holds a NUL: SQLite's JSON functions read a string up to its first."""
    named = dict(zip(FIELDS, record, strict=True))
    trace_id = named["trace_id"]
    duration_us = named["duration_us"]
    bucket = None if duration_us is None else bucket_of(duration_us)
    connection.execute(_ONE_TRACE, [*map(_json, record[:-1]), bucket])
    connection.executemany(_ONE_SPAN, [(trace_id, *map(_json, span)) for span in named["spans"]])
    (id_,) = connection.execute("SELECT id FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    if id_ > last:
        list_pairs(connection, trace_id, "metadata", named["metadata"])
        list_pairs(connection, trace_id, "tag", named["tags"])


def _json(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value


def _learn(connection: sqlite3.Connection, known: KnownIds, shape: Shape) -> None:
    """Give rows to the experiment, the source and the keys of a shape, where they have none."""
    if shape.experiment not in known.experiments:
        insert = "INSERT INTO experiments (name) VALUES (?) ON CONFLICT DO NOTHING"
        connection.execute(insert, (shape.experiment,))
        _remember(known.experiments, shape.experiment)
    known.keys.learn(connection, "metadata", (*sorted(shape.metadata), *shape.source))
    known.keys.learn(connection, "tag", sorted(shape.tags))
    known.keys.learn(connection, "span", sorted(shape.attributes))


def _add_sources(connection: sqlite3.Connection, used: Mapping[str, Source]) -> None:
    """Insert the sources that have no row. Checked each time, as another process may delete them."""
    for digest, source in used.items():
        if connection.execute("SELECT 1 FROM sources WHERE digest = ?", (digest,)).fetchone() is None:
            pairs = {clean_text(key): clean_text(value) for key, value in source.pairs.items()}
            insert = "INSERT INTO sources (digest, metadata) VALUES (?, ?)"
            connection.execute(insert, (digest, _json_pairs(pairs)))


def _remember(known: set[T], item: T) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(item)


def set_tag(connection: sqlite3.Connection, known: KnownIds, trace_id: str, key: str, value: str) -> None:
    """Set a tag; the caller holds the transaction.

    Raises:
        TraceNotFoundError: there is no such trace.
    """
    id_, tags = _tags(connection, trace_id)
    known.keys.refresh(connection)
    known.keys.learn(connection, "tag", [key])
    _set_tags(connection, id_, tags | {key: value}, {key: value})


def delete_tag(connection: sqlite3.Connection, trace_id: str, key: str) -> None:
    """Remove a tag; the caller holds the transaction.

    Raises:
        TraceNotFoundError: there is no such trace, or it has no such tag.
    """
    id_, tags = _tags(connection, trace_id)
    if tags.pop(key, None) is None:
        raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
    _set_tags(connection, id_, tags, {key: None})


def _tags(connection: sqlite3.Connection, trace_id: str) -> tuple[int, dict[str, str]]:
    found = connection.execute("SELECT id, name, tags FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    if found is None:
        raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
    id_, name, text = found
    return id_, orjson.loads(text) | ({} if name is None else {keys.TRACE_NAME_TAG: name})


_KEEP_EDIT: Final = (
    f"UPDATE traces SET metadata = json_set("
    f"""metadata, '$."{keys.PART_EDITS}"', json_patch({_EDITS}, ?) || '')"""
    f""" WHERE id = ? AND json_extract(metadata, '$."{keys.PART}"') IS NOT NULL"""
)


def _set_tags(
    connection: sqlite3.Connection, id_: int, tags: dict[str, str], edit: Mapping[str, str | None]
) -> None:
    name = tags.pop(keys.TRACE_NAME_TAG, None)
    connection.execute("UPDATE traces SET name = ?, tags = ? WHERE id = ?", (name, _json_pairs(tags), id_))
    connection.execute(_KEEP_EDIT, (orjson.dumps(edit).decode(), id_))


_WRITE_ASSESSMENT: Final = (
    f"INSERT OR REPLACE INTO assessments ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
)


def write_assessments(
    connection: sqlite3.Connection, known: KnownIds, assessments: Sequence[Assessment]
) -> None:
    """Store feedback and expectations; the caller holds the transaction."""
    known.keys.refresh(connection)
    for kind in AssessmentKind:
        known.keys.learn(connection, kind.value, [one.name for one in assessments if one.kind is kind])
    connection.executemany(_WRITE_ASSESSMENT, map(to_row, assessments))


def delete_assessment(connection: sqlite3.Connection, trace_id: str, assessment_id: str) -> None:
    """Remove one; the caller holds the transaction.

    Raises:
        TraceNotFoundError: the trace has no such feedback.
    """
    query = "DELETE FROM assessments WHERE trace_id = ? AND assessment_id = ?"
    if not connection.execute(query, (trace_id, assessment_id)).rowcount:
        raise TraceNotFoundError(f"trace {trace_id} has no feedback {assessment_id!r}")


_STRAY: Final = (
    "SELECT trace_id, assessment_id FROM assessments WHERE created < ? AND NOT EXISTS"
    " (SELECT 1 FROM traces WHERE traces.trace_id = assessments.trace_id) LIMIT ?"
)


def delete_stray(connection: sqlite3.Connection, before_ms: int, limit: int) -> tuple[int, bool]:
    """Delete old feedback whose trace never came; return 0 traces, and whether there may be more."""
    doomed = f"DELETE FROM assessments WHERE (trace_id, assessment_id) IN ({_STRAY})"
    return 0, connection.execute(doomed, (before_ms, limit)).rowcount == limit


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


def forget_kept(connection: sqlite3.Connection, experiment: str, until_ms: int) -> None:
    """Delete what rollups keep of an experiment's pruned traces up to a time, in whole hours."""
    rollups.forget_kept(connection, _EXPERIMENT, (experiment,) * 3, until_ms)


def delete_before(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest ``limit`` traces that started before a time; returns how many. Rollups keep them."""
    rollups.keep_pruned(connection, _OLDEST, (before_ms, limit))
    return _delete(connection, _OLDEST, (before_ms, limit))


def delete(connection: sqlite3.Connection, trace_ids: Sequence[str]) -> int:
    """Delete the traces with these ids; returns how many."""
    return _delete(connection, _NAMED, (orjson.dumps(trace_ids).decode(),))


def _delete(connection: sqlite3.Connection, doomed: str, values: tuple[Any, ...]) -> int:
    connection.execute(f"DELETE FROM spans WHERE trace IN ({doomed})", values)
    ids = f"SELECT trace_id FROM traces WHERE id IN ({doomed})"
    connection.execute(f"DELETE FROM assessments WHERE trace_id IN ({ids})", values)
    return connection.execute(f"DELETE FROM traces WHERE id IN ({doomed})", values).rowcount


_HAS_TRACE: Final = "SELECT 1 FROM traces WHERE traces.source_id = sources.id"
_IS_KEPT: Final = "SELECT 1 FROM rollups WHERE rollups.source_id = sources.id AND rollups.is_kept = 1"
_ORPHANS: Final = (
    f"SELECT id FROM sources WHERE NOT EXISTS ({_HAS_TRACE}) AND NOT EXISTS ({_IS_KEPT}) LIMIT ?"
)


def delete_orphans(connection: sqlite3.Connection, limit: int) -> tuple[int, bool]:
    """Delete at most ``limit`` sources that no trace had; return how many, and whether there may be more."""
    deleted = connection.execute(f"DELETE FROM sources WHERE id IN ({_ORPHANS})", (limit,)).rowcount
    return deleted, deleted == limit


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
