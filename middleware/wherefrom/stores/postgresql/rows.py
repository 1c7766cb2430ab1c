"""Records as rows: what is copied into ``traces`` and ``spans``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from ..._buckets import bucket_of
from ..._ids import format_ids
from ...model.record import FIELDS, SPAN_FIELDS, Facts, FactsTuple, links_to
from .text import StoredJson, to_json, to_stored_json

MAX_INDEXED: Final = 500
"""Characters of a name, session, user or request id: an entry of an index has at most 2,700 bytes.

Of an entry with a name and a process, the process takes up to 512 bytes.
"""
TRACE_COLUMNS: Final = (
    "trace_id", "experiment_id", "source_id", "name", "state", "request_time", "duration_us",
    "client_request_id", "session_id", "user_id", "request_preview", "response_preview", "metadata", "tags",
    "duration_bucket",
)  # fmt: skip
_INDEXED: Final = tuple(FIELDS.index(name) for name in ("name", "client_request_id", "session_id", "user_id"))
_DURATION, _METADATA, _TAGS, _SPANS = map(FIELDS.index, ("duration_us", "metadata", "tags", "spans"))
_SPAN_JSON: Final = tuple(map(SPAN_FIELDS.index, ("attributes", "events", "links")))
_SPAN_TEXT: Final = tuple(map(SPAN_FIELDS.index, ("inputs", "outputs")))
_EMPTY: Final = StoredJson("{}")


class TraceRow(NamedTuple):
    """A trace: its fields, with the ids of experiment and source in place of their names, and its spans.

    ``metadata`` and ``tags`` are its own pairs, which ``fields`` has as JSON.
    """

    fields: list[Any]
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    spans: list[list[Any]]

    @property
    def trace_id(self) -> str:
        """The id of the trace."""
        return self.fields[0]  # type: ignore[no-any-return]

    @property
    def request_time(self) -> int:
        """Its start in ms since the epoch."""
        return self.fields[5]  # type: ignore[no-any-return]


def row_of_record(data: bytes) -> TraceRow:
    """The row of an encoded record; it names experiment and source."""
    fields = orjson.loads(data)
    metadata, tags, spans = fields[_METADATA], fields[_TAGS], fields.pop(_SPANS)
    duration_us = fields[_DURATION]
    fields.append(None if duration_us is None else bucket_of(duration_us))
    fields[_METADATA], fields[_TAGS] = (to_json(pairs) if pairs else _EMPTY for pairs in (metadata, tags))
    for place in _INDEXED:
        fields[place] = bounded(fields[place])
    # Within one statement a row can be written once: the last of the spans with one id.
    by_id = {span[0]: span for span in spans}
    for span in by_id.values():
        for place in _SPAN_JSON:
            span[place] = None if span[place] is None else to_json(span[place])
        for place in _SPAN_TEXT:
            span[place] = None if span[place] is None else StoredJson(to_stored_json(span[place]))
    return TraceRow(fields, metadata, tags, list(by_id.values()))


def bounded(text: str | None) -> str | None:
    """The text as far as an index can hold it."""
    if text is None or len(text) <= MAX_INDEXED:
        return text
    return text[: MAX_INDEXED - 3] + "..."


def row_of_facts(record: FactsTuple) -> TraceRow:
    """The row of a record of facts; it names experiment and source."""
    facts = Facts(*record)
    rest: dict[str, Any] = orjson.loads(facts.rest) if facts.rest else {}
    trace_id, span_id = format_ids(facts.started_ns, facts.random_24, facts.random_56, facts.random_63)
    metadata = rest.get("metadata", {})
    name = bounded(facts.name)
    duration_us = (facts.ended_ns - facts.started_ns) // 1000
    fields = [
        rest.get("trace_id", trace_id), facts.experiment, facts.source, name, "OK",
        facts.started_ns // 1_000_000, duration_us,
        bounded(facts.client_request_id), bounded(facts.session_id), bounded(facts.user_id), None, None,
        to_json(metadata) if metadata else _EMPTY, _EMPTY, bucket_of(duration_us),
    ]  # fmt: skip
    links = links_to(facts.link)
    span = [
        span_id, rest.get("parent_id"), facts.name, "SERVER", "OK", "", facts.started_ns, facts.ended_ns,
        None, None, StoredJson(to_stored_json(_attributes(facts, rest))), None,
        to_json(links) if links else None,
    ]  # fmt: skip
    return TraceRow(fields, metadata, {}, [span])


def _attributes(facts: Facts, rest: Mapping[str, Any]) -> str:
    """The attributes of the request, its own further ones, and the shared ones, as JSON."""
    parts = [f'"http.response.status_code":{facts.status},"url.path":{orjson.dumps(facts.path).decode()}']
    if facts.size is not None:
        parts.append(f'"http.response.body.size":{facts.size}')
    if own := rest.get("attributes"):
        parts.append(orjson.dumps(own).decode()[1:-1])
    if len(facts.shared) > len("{}"):
        parts.append(facts.shared[1:-1])
    return f"{{{','.join(parts)}}}"
