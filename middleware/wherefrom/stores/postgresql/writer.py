"""Writing: new traces are copied in; of a trace that is there already, each span is merged.

What other writers may wait for, such as the row of a new key, is committed on its own, before the traces: a
writer that is stopped in the middle of a batch holds up nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any, Final, LiteralString

import orjson
from psycopg import Connection, sql

from ... import keys
from ..._capture.values import clean_text
from ..._clock import monotonic
from ...exceptions import StoreUnavailableError, TraceNotFoundError
from ...model import Assessment, AssessmentKind, Source, TraceState
from ...model.parts import precedence
from ...model.record import SPAN_FIELDS, Kind, Record, Shape, is_facts, kind_of, shape_of_facts
from ...process import ProcessReport
from ..assessments import to_row
from ..sql.known_keys import ANY, LONG, MAX_LENGTH, OTHERS, admit, has_row, lists_key
from . import rollups
from .rows import TRACE_COLUMNS, TraceRow, bounded, row_of_facts, row_of_record
from .schema import create_partitions, months_of
from .text import to_json

CHANNEL: Final = "wherefrom_traces"
_MAX_KNOWN: Final = 1_000
_DAY_MS: Final = 86_400_000
_TRY_AGAIN_S: Final = 60.0
_ERROR: Final = TraceState.ERROR.value
_STATE, _TIME = map(TRACE_COLUMNS.index, ("state", "request_time"))
_LOCK_KEYS: Final = 0x7768656B  # "whek"

_COPY_TRACES: Final[LiteralString] = f"COPY traces (id, {', '.join(TRACE_COLUMNS)}) FROM STDIN"
_COPY_SPANS: Final[LiteralString] = f"COPY spans (trace, request_time, {', '.join(SPAN_FIELDS)}) FROM STDIN"
_COPY_VALUES: Final[LiteralString] = "COPY trace_values (key, value, request_time, trace) FROM STDIN"
_NEW_IDS: Final[LiteralString] = "SELECT nextval('trace_ids_id_seq') FROM generate_series(1, %s)"
# In the order of the ids, so that two writers of the same traces do not wait for each other.
_CLAIM: Final[LiteralString] = """
INSERT INTO trace_ids (trace_id, id, request_time)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS new (trace_id, id, request_time)
ORDER BY trace_id
ON CONFLICT DO NOTHING RETURNING trace_id, id
"""
# Held until the end: whoever moves a trace to another time moves its row here too.
_HOLD: Final[LiteralString] = """
SELECT trace_id, id, request_time FROM trace_ids WHERE trace_id = ANY (%s::text[])
ORDER BY trace_id FOR UPDATE
"""
_STANDING: Final[LiteralString] = f"""
SELECT trace_ids.trace_id, state, metadata ->> '{keys.PART}', metadata ->> '{keys.PART_EDITS}' FROM trace_ids
JOIN traces USING (id, request_time) WHERE trace_ids.trace_id = ANY (%s::text[])
"""
_REPLACE_TRACE: Final[LiteralString] = f"""
UPDATE traces SET {", ".join(f"{column} = %s" for column in TRACE_COLUMNS)}
WHERE id = %s AND request_time = %s
"""
_FAIL_TRACE: Final[LiteralString] = "UPDATE traces SET state = %s WHERE id = %s AND request_time = %s"
_MOVE_SPANS: Final[LiteralString] = (
    "UPDATE spans SET request_time = %s WHERE trace = %s AND request_time = %s"
)
_MOVE_ID: Final[LiteralString] = "UPDATE trace_ids SET request_time = %s WHERE trace_id = %s"
_LIST_VALUE: Final[LiteralString] = """
INSERT INTO trace_values (key, value, request_time, trace) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
# What rollups count.
_ROLLED_UP: Final = ("source_id", "name", "state", "duration_bucket", "metadata")
# Whether anything of that has changed, from what was there when the statement began.
_MERGE_TRACE: Final[LiteralString] = f"""
INSERT INTO traces (id, {", ".join(TRACE_COLUMNS)}) VALUES (%s{", %s" * len(TRACE_COLUMNS)})
ON CONFLICT (id, request_time) DO UPDATE SET
    name = excluded.name,
    state = CASE WHEN traces.state = 'ERROR' THEN traces.state ELSE excluded.state END,
    duration_us = CASE WHEN traces.duration_us / 1000 = excluded.duration_us / 1000
        THEN traces.duration_us ELSE excluded.duration_us END,
    duration_bucket = CASE WHEN traces.duration_us / 1000 = excluded.duration_us / 1000
        THEN traces.duration_bucket ELSE excluded.duration_bucket END,
    client_request_id = coalesce(excluded.client_request_id, traces.client_request_id),
    session_id = coalesce(excluded.session_id, traces.session_id),
    user_id = coalesce(excluded.user_id, traces.user_id),
    request_preview = coalesce(excluded.request_preview, traces.request_preview),
    response_preview = coalesce(excluded.response_preview, traces.response_preview),
    source_id = excluded.source_id,
    metadata = traces.metadata || excluded.metadata, tags = excluded.tags || traces.tags
RETURNING coalesce((
    SELECT ({", ".join(f"old.{column}" for column in _ROLLED_UP)}) IS DISTINCT FROM
        ({", ".join(f"traces.{column}" for column in _ROLLED_UP)})
    FROM traces AS old WHERE old.id = traces.id AND old.request_time = traces.request_time
), true)
"""
_MERGE_SPAN: Final[LiteralString] = f"""
INSERT INTO spans (trace, request_time, {", ".join(SPAN_FIELDS)}) VALUES (%s, %s{", %s" * len(SPAN_FIELDS)})
ON CONFLICT (trace, span_id, request_time) DO UPDATE SET
    name = excluded.name, span_type = excluded.span_type, status_code = excluded.status_code,
    status_message = excluded.status_message, end_ns = excluded.end_ns, inputs = excluded.inputs,
    outputs = excluded.outputs, attributes = excluded.attributes, events = excluded.events,
    links = excluded.links
"""


class KnownIds:
    """What this process has met in the database; all of it has been committed."""

    def __init__(self) -> None:
        self.experiments: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.keys: dict[tuple[str, str], tuple[int, int]] = {}
        """The id and ``unlisted`` of each key by family and key."""
        self.shapes: set[Shape] = set()
        self.kinds: set[Kind] = set()
        self.months: set[int] = set()
        self.next_tries: dict[int, float] = {}
        """When to try again to make the partitions of a month."""
        self.last_key = 0

    def trim(self) -> None:
        """Forget some, if there are many."""
        for known in (self.experiments, self.sources):
            if len(known) > _MAX_KNOWN:
                known.clear()
                self.shapes.clear()
                self.kinds.clear()


def insert(
    connection: Connection[Any],
    known: KnownIds,
    records: Sequence[Record],
    sources: Mapping[str, Source],
) -> None:
    """Write records in one transaction; ``sources`` are those of facts, by digest."""
    if not records:
        return
    known.trim()
    rows, shapes = _read(known, records, sources)
    _learn(connection, known, shapes)
    mark_long(connection, known, rows)
    for row in rows:
        row.fields[1], row.fields[2] = known.experiments[row.fields[1]], known.sources[row.fields[2]]
    _prepare_partitions(connection, known, rows)
    with connection.transaction():
        _hold_sources(connection, {row.fields[2] for row in rows})
        _write(connection, known, rows)
    connection.execute(sql.SQL("NOTIFY {}").format(sql.Identifier(CHANNEL)))


def _read(
    known: KnownIds, records: Sequence[Record], sources: Mapping[str, Source]
) -> tuple[list[TraceRow], list[Shape]]:
    """The rows of the records, and the shapes that have not been met."""
    rows: list[TraceRow] = []
    shapes: dict[Shape, None] = {}
    for record in records:
        if is_facts(record):
            rows.append(row_of_facts(record))
            kind = kind_of(record)
            if kind not in known.kinds:
                shapes[shape_of_facts(record, sources)] = None
                _remember(known.kinds, kind)
        else:
            data, shape = record
            rows.append(row_of_record(data))
            if shape not in known.shapes:
                shapes[shape] = None
    return rows, list(shapes)


def _write(connection: Connection[Any], known: KnownIds, rows: Sequence[TraceRow]) -> None:
    first: dict[str, TraceRow] = {}
    others = [row for row in rows if first.setdefault(row.trace_id, row) is not row]
    given = [id_ for (id_,) in connection.execute(_NEW_IDS, (len(first),)).fetchall()]
    times = [row.request_time for row in first.values()]
    claimed = connection.execute(_CLAIM, (list(first), given, times))
    ids: dict[str, int] = dict(claimed.fetchall())
    new = [(ids[trace_id], row) for trace_id, row in first.items() if trace_id in ids]
    if new:
        _copy(connection, known, new)
    others = [row for trace_id, row in first.items() if trace_id not in ids] + others
    changed = _merge(connection, known, others) if others else set()
    rollups.forget(connection, {*changed, *(row.request_time for _, row in new)})


def _copy(connection: Connection[Any], known: KnownIds, new: Sequence[tuple[int, TraceRow]]) -> None:
    cursor = connection.cursor()
    with cursor.copy(_COPY_TRACES) as copy:
        for id_, row in new:
            copy.write_row((id_, *row.fields))
    with cursor.copy(_COPY_SPANS) as copy:
        for id_, row in new:
            for span in row.spans:
                copy.write_row((id_, row.request_time, *span))
    if values := sorted(_listed(known, new)):
        with cursor.copy(_COPY_VALUES) as copy:
            for value in values:
                copy.write_row(value)


def _listed(known: KnownIds, new: Iterable[tuple[int, TraceRow]]) -> Iterator[tuple[int, str, int, int]]:
    """The entries of ``trace_values`` for new traces."""
    for id_, row in new:
        for family, pairs in (("metadata", row.metadata), ("tag", row.tags)):
            for key, value in pairs.items():
                if len(value) <= MAX_LENGTH and lists_key(key):
                    key_id, unlisted = known.keys.get((family, key), (0, ANY))
                    if unlisted != ANY:
                        yield key_id, value, row.request_time, id_


def _merge(connection: Connection[Any], known: KnownIds, rows: Sequence[TraceRow]) -> set[int]:
    """Add to traces that are there already, in the order of their ids: see ``_CLAIM``.

    Return the times of those of which rollups count something that has changed.
    """
    changed: set[int] = set()
    rows = sorted(rows, key=lambda row: row.trace_id)  # stable: what was recorded first comes first
    ids = [row.trace_id for row in rows]
    places = {trace_id: (id_, time) for trace_id, id_, time in connection.execute(_HOLD, (ids,)).fetchall()}
    standing = {
        trace_id: (state, part, edits)
        for trace_id, state, part, edits in connection.execute(_STANDING, (ids,)).fetchall()
    }
    cursor = connection.cursor()
    for row in rows:
        if row.trace_id not in standing:  # it was deleted just now
            raise StoreUnavailableError(f"trace {row.trace_id} is being deleted")
        place, (state, part, edits) = places[row.trace_id], standing[row.trace_id]
        own, new_state = row.metadata.get(keys.PART), row.fields[_STATE]
        if own == part:
            row.fields[_TIME] = place[1]
            if cursor.execute(_MERGE_TRACE, (place[0], *row.fields)).fetchone() == (True,):
                changed.add(place[1])
        else:
            if None not in (own, part) and _ERROR in (state, new_state):
                row.fields[_STATE] = new_state = _ERROR
            if precedence(row.request_time, own) < precedence(place[1], part):
                changed |= {place[1], row.request_time}
                of_row = row if edits is None else _with_tags(row, orjson.loads(edits))
                places[row.trace_id] = place = _replace(connection, known, of_row, place)
                standing[row.trace_id] = new_state, own, None
            elif part is not None and new_state == _ERROR:
                cursor.execute(_FAIL_TRACE, (_ERROR, *place))
                changed.add(place[1])
                standing[row.trace_id] = _ERROR, part, edits
        for span in row.spans:
            cursor.execute(_MERGE_SPAN, (*place, *span))
    return changed


def _with_tags(row: TraceRow, edits: Mapping[str, str | None]) -> TraceRow:
    """The row with the tags that were edited before it came."""
    tags = {key: value for key, value in {**row.tags, **edits}.items() if value is not None}
    fields = [*row.fields]
    fields[TRACE_COLUMNS.index("tags")] = to_json(tags)
    return row._replace(fields=fields, tags=tags)


def _replace(
    connection: Connection[Any], known: KnownIds, row: TraceRow, place: tuple[int, int]
) -> tuple[int, int]:
    """Put a row in the place of one that it precedes, and return its own id and time."""
    id_, time = place
    cursor = connection.cursor()
    cursor.execute(_REPLACE_TRACE, (*row.fields, *place))
    if row.request_time != time:
        cursor.execute(_MOVE_SPANS, (row.request_time, *place))
        cursor.execute(_MOVE_ID, (row.request_time, row.trace_id))
    # Into another partition it is inserted, which no trigger follows.
    cursor.executemany(_LIST_VALUE, sorted(_listed(known, [(id_, row)])))
    return id_, row.request_time


def _hold_sources(connection: Connection[Any], used: set[int]) -> None:
    """Keep the sources of a batch from being deleted until its traces are there."""
    query = "SELECT id FROM sources WHERE id = ANY (%s) FOR KEY SHARE"
    if len(connection.execute(query, (list(used),)).fetchall()) < len(used):
        raise StoreUnavailableError("a source was deleted meanwhile")


def _prepare_partitions(connection: Connection[Any], known: KnownIds, rows: Sequence[TraceRow]) -> None:
    # The days of a batch are few.
    days = {row.request_time // _DAY_MS * _DAY_MS for row in rows}
    now = monotonic()
    missing = months_of(days) - known.months
    if months := [month for month in sorted(missing) if known.next_tries.get(month, now) <= now]:
        known.months |= create_partitions(connection, months)
        known.next_tries |= dict.fromkeys(months, now + _TRY_AGAIN_S)


def _learn(connection: Connection[Any], known: KnownIds, shapes: Sequence[Shape]) -> None:
    """Give rows to the experiments, sources and keys of shapes, where they have none."""
    if not shapes:
        return
    for shape in shapes:
        if shape.experiment not in known.experiments:
            known.experiments[shape.experiment] = _add(connection, "experiments", "name", shape.experiment)
        if (digest := shape.source.digest) not in known.sources:
            pairs = {clean_text(key): clean_text(value) for key, value in shape.source.pairs.items()}
            known.sources[digest] = _add(connection, "sources", "digest", digest, metadata=to_json(pairs))
    families = {
        "metadata": dict.fromkeys(
            key for shape in shapes for key in (*sorted(shape.metadata), *shape.source)
        ),
        "tag": dict.fromkeys(key for shape in shapes for key in sorted(shape.tags)),
        "span": dict.fromkeys(key for shape in shapes for key in sorted(shape.attributes)),
    }
    learn_keys(connection, known, families)
    for shape in shapes:
        _remember(known.shapes, shape)


def _add(connection: Connection[Any], table: str, column: str, value: str, **others: Any) -> int:
    """The id of a row, which is inserted if it is missing."""
    name, place = sql.Identifier(column), sql.Identifier(table)
    find = sql.SQL("SELECT id FROM {} WHERE {} = %s").format(place, name)
    add = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        place,
        sql.SQL(", ").join([name, *map(sql.Identifier, others)]),
        sql.SQL(", ").join(sql.Placeholder() * (1 + len(others))),
    )
    row = connection.execute(find, (value,)).fetchone()
    if row is None:
        connection.execute(add, (value, *others.values()))
        row = connection.execute(find, (value,)).fetchone()
    if row is None:
        raise StoreUnavailableError(f"a row of {table} was deleted meanwhile")
    return int(row[0])


_ADD_KEY: Final[LiteralString] = (
    "INSERT INTO known_keys (family, key, unlisted) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
)


def learn_keys(connection: Connection[Any], known: KnownIds, families: Mapping[str, Iterable[str]]) -> None:
    """Give a row to each key that has none yet, as far as there is room."""
    unseen = {
        family: [
            key
            for key in dict.fromkeys(map(clean_text, names))
            if has_row(key) and (family, key) not in known.keys
        ]
        for family, names in families.items()
    }
    if any(unseen.values()):
        refresh_keys(connection, known)
    missing = {
        family: [key for key in names if (family, key) not in known.keys] for family, names in unseen.items()
    }
    if not any(names and (family, OTHERS) not in known.keys for family, names in missing.items()):
        return
    with connection.transaction():
        # One at a time: which keys still fit is decided by those that are there.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEYS,))
        refresh_keys(connection, known)
        counts = Counter(family for family, _ in known.keys)
        for family, names in missing.items():
            new = [key for key in names if (family, key) not in known.keys]
            for key, unlisted in admit(new, counts[family], is_closed=(family, OTHERS) in known.keys):
                connection.execute(_ADD_KEY, (family, key, unlisted))
    refresh_keys(connection, known)


def refresh_keys(connection: Connection[Any], known: KnownIds) -> None:
    """Read the rows that were added since; they are added one after the other, with ascending ids."""
    rows = connection.execute(
        "SELECT id, family, key, unlisted FROM known_keys WHERE id > %s ORDER BY id", (known.last_key,)
    ).fetchall()
    for id_, family, key, unlisted in rows:
        known.keys[family, key] = (id_, unlisted)
        known.last_key = id_


def mark_long(connection: Connection[Any], known: KnownIds, rows: Sequence[TraceRow]) -> None:
    """Say of which keys the index lacks values because they are too long."""
    for row in rows:
        for family, pairs in (("metadata", row.metadata), ("tag", row.tags)):
            for key, value in pairs.items():
                if len(value) > MAX_LENGTH and (found := known.keys.get((family, key))) and found[1] < LONG:
                    connection.execute(
                        "UPDATE known_keys SET unlisted = %s WHERE id = %s AND unlisted < %s",
                        (LONG, found[0], LONG),
                    )
                    known.keys[family, key] = (found[0], LONG)


def _remember(known: set[Any], item: Any) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(item)


def set_tag(connection: Connection[Any], known: KnownIds, trace_id: str, key: str, value: str) -> None:
    """Set a tag.

    Raises:
        TraceNotFoundError: there is no such trace.
    """
    learn_keys(connection, known, {"tag": [key]})
    with connection.transaction():
        place, tags = _tags(connection, trace_id)
        _set_tags(connection, place, tags, tags | {key: value}, {key: value})


def delete_tag(connection: Connection[Any], trace_id: str, key: str) -> None:
    """Remove a tag.

    Raises:
        TraceNotFoundError: there is no such trace, or it has no such tag.
    """
    with connection.transaction():
        place, tags = _tags(connection, trace_id)
        if key not in tags:
            raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
        _set_tags(connection, place, tags, {name: tags[name] for name in tags if name != key}, {key: None})


def _tags(connection: Connection[Any], trace_id: str) -> tuple[tuple[int, int], dict[str, str]]:
    held = connection.execute(_HOLD, ([trace_id],)).fetchone()
    query = "SELECT name, tags FROM traces WHERE id = %s AND request_time = %s"
    found = None if held is None else connection.execute(query, held[1:]).fetchone()
    if held is None or found is None:
        raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
    (name, text), (_, id_, time) = found, held
    return (id_, time), orjson.loads(text) | ({} if name is None else {keys.TRACE_NAME_TAG: name})


_KEEP_EDIT: Final[LiteralString] = f"""
UPDATE traces SET metadata = metadata || jsonb_build_object(
    '{keys.PART_EDITS}', (coalesce((metadata ->> '{keys.PART_EDITS}')::jsonb, '{{}}') || %s::jsonb)::text
)
WHERE id = %s AND request_time = %s AND metadata ->> '{keys.PART}' IS NOT NULL
"""


def _set_tags(
    connection: Connection[Any],
    place: tuple[int, int],
    old: dict[str, str],
    tags: dict[str, str],
    edit: Mapping[str, str | None],
) -> None:
    name = bounded(tags.pop(keys.TRACE_NAME_TAG, None))
    query = "UPDATE traces SET name = %s, tags = %s WHERE id = %s AND request_time = %s"
    connection.execute(query, (name, to_json(tags), *place))
    if name != old.get(keys.TRACE_NAME_TAG):
        rollups.forget(connection, [place[1]])
    connection.execute(_KEEP_EDIT, (to_json(edit), *place))


_WRITE_ASSESSMENT: Final[LiteralString] = """
INSERT INTO assessments (
    trace_id, assessment_id, kind, name, value, text, number, valid, covers_session, created, content
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (trace_id, assessment_id) DO UPDATE SET
    kind = excluded.kind, name = excluded.name, value = excluded.value, text = excluded.text,
    number = excluded.number, valid = excluded.valid, covers_session = excluded.covers_session,
    created = excluded.created, content = excluded.content
"""


def write_assessments(
    connection: Connection[Any], known: KnownIds, assessments: Sequence[Assessment]
) -> None:
    """Store feedback and expectations, in the order of their ids: two writers do not wait for each other."""
    names = {kind.value: [one.name for one in assessments if one.kind is kind] for kind in AssessmentKind}
    learn_keys(connection, known, names)
    rows = sorted((to_row(one) for one in assessments), key=itemgetter(0, 1))
    with connection.transaction():
        connection.cursor().executemany(_WRITE_ASSESSMENT, rows)


def delete_assessment(connection: Connection[Any], trace_id: str, assessment_id: str) -> None:
    """Remove one.

    Raises:
        TraceNotFoundError: the trace has no such feedback.
    """
    query = "DELETE FROM assessments WHERE trace_id = %s AND assessment_id = %s"
    if not connection.execute(query, (trace_id, assessment_id)).rowcount:
        raise TraceNotFoundError(f"trace {trace_id} has no feedback {assessment_id!r}")


def delete_stray(connection: Connection[Any], before_ms: int, limit: int) -> bool:
    """Delete old feedback whose trace never came; return whether there may be more."""
    query = (
        "DELETE FROM assessments WHERE (trace_id, assessment_id) IN"
        " (SELECT trace_id, assessment_id FROM assessments WHERE created < %s AND NOT EXISTS"
        " (SELECT FROM trace_ids WHERE trace_ids.trace_id = assessments.trace_id) LIMIT %s)"
    )
    return connection.execute(query, (before_ms, limit)).rowcount == limit


# Named so, or with that id where none is named so.
_EXPERIMENT: Final[LiteralString] = (
    "SELECT id FROM experiments WHERE name = %(experiment)s OR (id::text = %(experiment)s"
    " AND NOT EXISTS (SELECT FROM experiments WHERE name = %(experiment)s))"
)
_FIND: Final[LiteralString] = f"""
SELECT id, request_time, trace_id FROM traces
WHERE experiment_id IN ({_EXPERIMENT})
    AND (%(trace_ids)s::text[] IS NULL OR trace_id = ANY (%(trace_ids)s::text[]))
    AND (%(until_ms)s::bigint IS NULL OR request_time <= %(until_ms)s::bigint)
ORDER BY request_time LIMIT %(limit)s
"""
_OLDEST: Final[LiteralString] = """
SELECT id, request_time, trace_id FROM traces WHERE request_time < %s ORDER BY request_time LIMIT %s
"""
Doomed = Sequence[tuple[int, int, str]]
"""The id, the time and the trace id of traces to delete."""


def find(
    connection: Connection[Any],
    experiment: str,
    trace_ids: Sequence[str] | None,
    until_ms: int | None,
    limit: int | None,
) -> Doomed:
    """The traces of an experiment that are named, or those up to a time, the oldest first."""
    given = {
        "experiment": experiment,
        "trace_ids": None if trace_ids is None else list(trace_ids),
        "until_ms": until_ms,
        "limit": limit,
    }
    return connection.execute(_FIND, given).fetchall()


def find_before(connection: Connection[Any], before_ms: int, limit: int) -> Doomed:
    """The oldest traces that started before a time."""
    return connection.execute(_OLDEST, (before_ms, limit)).fetchall()


def delete(connection: Connection[Any], doomed: Doomed, *, are_kept: bool = False) -> int:
    """Delete traces; return how many there were. ``are_kept``: rollups still count them."""
    gone = "unnest(%s::bigint[], %s::bigint[]) AS gone (id, request_time)"
    with connection.transaction():
        if are_kept:
            rollups.lock_kept(connection)
        # Their times as they are now: a trace may have moved since it was found.
        rows = connection.execute(
            "DELETE FROM trace_ids WHERE trace_id = ANY (%s) RETURNING id, request_time",
            ([row[2] for row in doomed],),
        ).fetchall()
        given = ([row[0] for row in rows], times := [row[1] for row in rows])
        connection.execute("DELETE FROM assessments WHERE trace_id = ANY (%s)", ([row[2] for row in doomed],))
        connection.execute(
            f"DELETE FROM spans USING {gone}"
            " WHERE spans.trace = gone.id AND spans.request_time = gone.request_time",
            given,
        )
        if are_kept:
            deleted = rollups.delete_and_keep(connection, *given)
        else:
            deleted = connection.execute(
                f"DELETE FROM traces USING {gone}"
                " WHERE traces.id = gone.id AND traces.request_time = gone.request_time",
                given,
            ).rowcount
        rollups.forget(connection, times)
        return deleted


def forget_kept(connection: Connection[Any], experiment: str, until_ms: int) -> None:
    """Delete what rollups keep of an experiment's pruned traces up to a time, in whole hours."""
    rollups.forget_kept(connection, _EXPERIMENT, {"experiment": experiment}, until_ms)


_HAS_TRACE: Final[LiteralString] = "SELECT FROM traces WHERE traces.source_id = sources.id"
_IS_KEPT: Final[LiteralString] = (
    "SELECT FROM rollups WHERE rollups.source_id = sources.id AND rollups.is_kept = 1"
)
_IS_ORPHAN: Final[LiteralString] = f"NOT EXISTS ({_HAS_TRACE}) AND NOT EXISTS ({_IS_KEPT})"
_ORPHANS: Final[LiteralString] = f"SELECT id FROM sources WHERE {_IS_ORPHAN} LIMIT %s FOR UPDATE SKIP LOCKED"


def delete_orphans(connection: Connection[Any], limit: int) -> bool:
    """Delete at most ``limit`` sources that no trace had; return whether there may be more."""
    with connection.transaction():
        ids = [id_ for (id_,) in connection.execute(_ORPHANS, (limit,)).fetchall()]
        # Asked again, now that no writer holds them: one may have committed a trace meanwhile.
        connection.execute(
            f"DELETE FROM sources WHERE id = ANY (%s) AND {_IS_ORPHAN}",
            (ids,),
        )
    return len(ids) == limit


_KEPT_MS: Final = 7 * 86_400_000
_WRITE_REPORT: Final[LiteralString] = """
INSERT INTO processes (host, pid, started, reported, report) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (host, pid, started) DO UPDATE SET reported = excluded.reported, report = excluded.report
"""


def write_report(connection: Connection[Any], report: ProcessReport) -> None:
    """Put a report in the place of the last one of its process.

    Reports of processes that have been silent for a week go, if this role may delete.
    """
    rest = {"stats": asdict(report.stats), "queues": report.queues, "retention_days": report.retention_days}
    row = (report.host, report.pid, report.started, report.reported, to_json(rest))
    connection.execute(_WRITE_REPORT, row)
    if connection.execute("SELECT has_table_privilege('processes', 'DELETE')").fetchone() == (True,):
        connection.execute("DELETE FROM processes WHERE reported < %s", (report.reported - _KEPT_MS,))
