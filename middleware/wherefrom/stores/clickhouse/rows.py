"""Rows from records, and from two writes of one trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from ... import keys
from ..._buckets import bucket_of
from ..._capture.values import clean_text
from ..._ids import format_ids
from ...model import Source, SpanType, TraceState
from ...model.parts import precedence
from ...model.record import FIELDS, SPAN_FIELDS, Encoded, Facts, FactsTuple, links_to
from .schema import COLUMN_OF_KEY, HOUR_MS, ROLLED_COLUMNS, SOURCE_COLUMNS

Row = dict[str, Any]

SPAN_COLUMNS: Final = ("trace_id", "request_time", "place", *SPAN_FIELDS, "content")
TRACE_COLUMNS: Final = (
    "trace_id", "experiment", "request_time", "place", "source", "name", "state", "duration_us",
    "duration_bucket", "client_request_id", "request_preview", "response_preview", *COLUMN_OF_KEY.values(),
    "metadata", "tags",
)  # fmt: skip
READ_COLUMNS: Final = tuple(
    name for name in TRACE_COLUMNS if name not in {*SOURCE_COLUMNS, "place", "duration_bucket"}
)
"""What a trace is read from."""
_FILLED: Final = (
    "client_request_id", "request_preview", "response_preview", COLUMN_OF_KEY[keys.SESSION],
    COLUMN_OF_KEY[keys.USER],
)  # fmt: skip
_NO_KEYS: Final = dict.fromkeys(COLUMN_OF_KEY.values())


def from_encoded(record: Encoded) -> tuple[Row, list[list[Any]]]:
    """The row of a trace, and those of its spans without trace id and time."""
    data, shape = record
    row: Row = dict(zip(FIELDS, orjson.loads(data), strict=True))
    spans = [_span(place, fields) for place, fields in enumerate(row.pop("spans"))]
    given = row.pop("metadata")
    for key, column in ((keys.SESSION, "session_id"), (keys.USER, "user_id")):
        if (value := row.pop(column)) is not None:
            given[key] = value
    row |= _of_pairs(shape.source, given)
    duration_us = row["duration_us"]
    row["duration_bucket"] = None if duration_us is None else bucket_of(duration_us)
    return row, spans


def from_facts(record: FactsTuple, sources: Mapping[str, Source]) -> tuple[Row, list[list[Any]]]:
    """The same for a record of facts; ``sources`` are by digest."""
    facts = Facts(*record)
    rest: dict[str, Any] = orjson.loads(facts.rest) if facts.rest else {}
    trace_id, span_id = format_ids(facts.started_ns, facts.random_24, facts.random_56, facts.random_63)
    own = rest.get("metadata", {})
    if facts.session_id is not None:
        own[keys.SESSION] = facts.session_id
    if facts.user_id is not None:
        own[keys.USER] = facts.user_id
    duration_us = (facts.ended_ns - facts.started_ns) // 1000
    row = {
        "trace_id": rest.get("trace_id", trace_id),
        "experiment": facts.experiment,
        "request_time": facts.started_ns // 1_000_000,
        "name": facts.name,
        "state": TraceState.OK.value,
        "duration_us": duration_us,
        "duration_bucket": bucket_of(duration_us),
        "client_request_id": facts.client_request_id,
        "request_preview": None,
        "response_preview": None,
        "tags": {},
        **_of_pairs(sources[facts.source], own),
    }
    attributes = {"http.response.status_code": facts.status, "url.path": facts.path}
    if facts.size is not None:
        attributes["http.response.body.size"] = facts.size
    attributes |= rest.get("attributes", {}) | orjson.loads(facts.shared)
    span = [
        span_id, rest.get("parent_id"), facts.name, SpanType.SERVER, "OK", "", facts.started_ns,
        facts.ended_ns, None, None, attributes, None, links_to(facts.link) or None,
    ]  # fmt: skip
    return row, [_span(0, span)]


_CONTENT: Final = tuple(map(SPAN_FIELDS.index, ("name", "span_type", "status_message", "inputs", "outputs")))
_ATTRIBUTES, _EVENTS, _LINKS = map(SPAN_FIELDS.index, ("attributes", "events", "links"))


def _span(place: int, fields: list[Any]) -> list[Any]:
    attributes = fields[_ATTRIBUTES]
    events = _json(fields[_EVENTS])
    texts = (*(fields[at] for at in _CONTENT), _json(attributes), events)
    values = [*fields]
    values[_ATTRIBUTES] = {key: orjson.dumps(value).decode() for key, value in attributes.items()}
    values[_EVENTS], values[_LINKS] = events, _json(fields[_LINKS])
    return [place, *values, "\n".join(text or "" for text in texts)]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _of_pairs(source: Source, own: Mapping[str, str]) -> Row:
    text, columns, others = _of_source(source)
    metadata = {**others}
    values = {**columns}
    for key, value in own.items():
        column = COLUMN_OF_KEY.get(key)
        if column is not None:
            values[column] = value
        if column is None or column in SOURCE_COLUMNS:
            metadata[key] = value
    values |= {"source": text, "metadata": metadata}
    return values


@lru_cache(maxsize=1_000)
def _of_source(source: Source) -> tuple[str, Row, dict[str, str]]:
    pairs: dict[str, str] = orjson.loads(source_text(source))
    columns = {COLUMN_OF_KEY[key]: pairs.pop(key) for key in list(pairs) if key in COLUMN_OF_KEY}
    return source_text(source), {**_NO_KEYS, **columns}, pairs


@lru_cache(maxsize=1_000)
def source_text(source: Source) -> str:
    """The metadata of a source as the text that names it."""
    pairs = {clean_text(key): clean_text(value) for key, value in source.pairs.items()}
    return orjson.dumps(pairs, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=1_000)
def to_source(text: str) -> Source:
    """The source that a text names."""
    return Source(orjson.loads(text))


def pairs_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a row; of one that is read, without what only its source says."""
    columns = {key: value for key, column in COLUMN_OF_KEY.items() if (value := row.get(column)) is not None}
    others: dict[str, str] = row["metadata"]
    return columns | others


def place_of(row: Row) -> tuple[str, int]:
    """Where a trace is in its table: two rows with one place are one."""
    return row["experiment"], row["request_time"]


def merged(old: Row, new: Row) -> Row:
    """One row from two records of a trace.

    Of several services the one that began the trace has all say; without it the earliest does, and the trace
    has an error if any part has one.
    """
    old_part, new_part = (row["metadata"].get(keys.PART) for row in (old, new))
    if old_part == new_part:
        return _written_again(old, new)
    winner = min(old, new, key=lambda row: precedence(row["request_time"], row["metadata"].get(keys.PART)))
    has_error = TraceState.ERROR.value in {old["state"], new["state"]}
    if has_error and None not in {old_part, new_part}:
        return winner | {"state": TraceState.ERROR.value}
    return winner


def _written_again(old: Row, new: Row) -> Row:
    """What the first says of its place and time, else the last.

    An error stays. Tags that the first has stay; the second adds others.
    """
    before = to_source(old["source"]).pairs
    own = {key: value for key, value in pairs_of(old).items() if key not in before}
    after = to_source(new["source"])
    own |= {key: value for key, value in pairs_of(new).items() if key not in after.pairs}
    row = old | {"name": new["name"], "tags": new["tags"] | old["tags"], **_of_pairs(after, own)}
    if old["state"] != TraceState.ERROR.value:
        row["state"] = new["state"]
    if _milliseconds(old) != _milliseconds(new):
        row["duration_us"], row["duration_bucket"] = new["duration_us"], new["duration_bucket"]
    for column in _FILLED:
        row[column] = old[column] if new[column] is None else new[column]
    return row


def _milliseconds(row: Row) -> int | None:
    return None if row["duration_us"] is None else row["duration_us"] // 1000


_FIRST_TIME: Final = -(2**63)
ROLLUP_COLUMNS: Final = (
    "experiment", "name", *ROLLED_COLUMNS, "flags", "hour", "traces", "errors", "first", "last", "succeeded",
    "failed",
)  # fmt: skip


def rollup_of(row: Row, sign: int) -> Row:
    """What a trace adds to the rollups, or takes from them."""
    failed = row["state"] == TraceState.ERROR.value
    bucket = row["duration_bucket"]
    durations = {} if bucket is None else {str(bucket): sign}
    flags = {key: row["metadata"][key] for key in sorted(row["metadata"]) if is_flag(key)}
    time = row["request_time"]
    return row | {
        "flags": orjson.dumps(flags).decode(),
        "hour": max(time - time % HOUR_MS, _FIRST_TIME),
        "traces": sign,
        "errors": sign if failed else 0,
        "first": time,
        "last": time,
        "succeeded": {} if failed else durations,
        "failed": durations if failed else {},
    }


def is_flag(key: str) -> bool:
    """Whether the value of a feature flag is under the key."""
    return key.startswith(keys.FEATURE_FLAG_PREFIX)


def listed(rows: Iterable[Row], columns: Iterable[str]) -> Iterator[list[Any]]:
    """The values of each row in the order of the columns."""
    names = tuple(columns)
    for row in rows:
        yield [row[name] for name in names]
