"""Records: finished traces as they wait in queues and as stores read them.

A record refers to no container, so the garbage collector has nothing to walk however many wait, and a store
can parse a batch of them without the GIL. There are two kinds:

* The facts of a request that recorded nothing but itself: a flat tuple of the fields of ``Facts``, with texts
  that many requests share.
* Any other trace: the JSON array of ``FIELDS``, the last of which is an array of spans, each an array of
  ``SPAN_FIELDS``. ``inputs`` and ``outputs`` are JSON inside of a JSON string, which SQLite's
  ``json_extract`` reads back as it was, whatever its type.

While they wait, the facts of successive requests are one ``Pack``.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from .. import keys
from .._capture.values import clean_text, dump, safe_repr, to_json
from .._ids import format_ids
from ..exceptions import InvalidTraceError
from ..propagation import parse_traceparent
from .span import OK, Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType
from .trace import Source, Trace, TraceData, TraceInfo, TraceState

FIELDS: Final = (
    "trace_id",
    "experiment",
    "source",
    "name",
    "state",
    "request_time",
    "duration_us",
    "client_request_id",
    "session_id",
    "user_id",
    "request_preview",
    "response_preview",
    "metadata",
    "tags",
    "spans",
)
SPAN_FIELDS: Final = (
    "span_id",
    "parent_id",
    "name",
    "span_type",
    "status_code",
    "status_message",
    "start_ns",
    "end_ns",
    "inputs",
    "outputs",
    "attributes",
    "events",
    "links",
)
_MAX_SHAPES: Final = 1_000
_MAX_NAMES: Final = 1_000
_LIMIT: Final = 1 << 63


class Facts(NamedTuple):
    """A request that completed, whose trace nobody has used. Each field is a number, a text or ``None``.

    ``random_24`` and ``random_56`` are the random bits of the trace id, ``random_63`` those of the span id.
    ``link`` is what a caller whose trace was not joined sent as ``traceparent``, perhaps invalid. ``shared``
    is a JSON object of attributes that many requests have in common, ``rest`` one of what few requests have:
    further ``metadata`` and ``attributes``, and ``trace_id`` and ``parent_id`` of a caller whose trace was
    joined.
    """

    random_24: int
    random_56: int
    random_63: int
    started_ns: int
    ended_ns: int
    client_request_id: str
    session_id: str | None
    user_id: str | None
    name: str
    status: int
    size: int | None
    path: str
    link: str | None
    shared: str
    rest: str | None
    experiment: str
    source: str


class Shape(NamedTuple):
    """What a store must know before it reads a record. Records that are alike share one.

    ``metadata``, ``tags`` and ``attributes`` are keys: of the trace's own metadata, its tags and its spans.
    """

    experiment: str
    source: Source
    metadata: frozenset[str]
    tags: frozenset[str]
    attributes: frozenset[str]


FactsTuple = tuple[Any, ...]
"""``Facts`` as a plain tuple: the garbage collector stops tracking one of numbers and texts."""
Encoded = tuple[bytes, Shape]
Record = FactsTuple | Encoded
Kind = tuple[Any, ...]

_SESSION, _USER, _SIZE, _SHARED, _REST, _EXPERIMENT, _SOURCE = map(
    Facts._fields.index, ("session_id", "user_id", "size", "shared", "rest", "experiment", "source")
)


class Pack(NamedTuple):
    """The facts of several requests as one piece of bytes.

    As objects they would wait in memory that each new request then has to do without: in a process that
    serves requests, 2,000 of them leave the processor's cache.
    """

    data: bytes  # in marshal's format: only this process reads it
    traces: int

    @classmethod
    def of(cls, facts: list[FactsTuple]) -> Pack:
        """Join facts."""
        try:
            data = marshal.dumps(facts)
        except ValueError:  # marshal takes no subclass of int or str, such as ``http.HTTPStatus``
            data = marshal.dumps([tuple(map(_plain, each)) for each in facts])
        return cls(data, len(facts))

    def facts(self) -> list[FactsTuple]:
        """Return the facts one by one."""
        return marshal.loads(self.data)  # type: ignore[no-any-return]  # noqa: S302


def _plain(value: Any) -> int | str | None:
    if isinstance(value, int):
        return int(value)
    return None if value is None else f"{value}"


def is_facts(record: Record) -> bool:
    """Whether a record is of the first kind."""
    return len(record) > 2


def links_to(traceparent: str | None) -> list[dict[str, Any]]:
    """Return the link to the span of a ``traceparent``; none if it is invalid."""
    caller = None if traceparent is None else parse_traceparent(traceparent.encode("latin-1"))
    if caller is None:
        return []
    return [{"trace_id": f"tr-{caller.trace_id}", "span_id": caller.span_id, "attributes": {}}]


def kind_of(record: FactsTuple) -> Kind:
    """Return a key that is the same for records of facts that have the same shape.

    Its first two items are the experiment and the digest of the source.
    """
    rest = record[_REST]
    return (
        record[_EXPERIMENT],
        record[_SOURCE],
        record[_SESSION] is None,
        record[_USER] is None,
        record[_SIZE] is None,
        _names(record[_SHARED]),
        rest and _names_within(rest),
    )


# As one text: unlike a tuple, it knows its hash.
@lru_cache(maxsize=_MAX_NAMES)
def _names(shared: str) -> str:
    return "\n".join(orjson.loads(shared))


@lru_cache(maxsize=_MAX_NAMES)
def _names_within(rest: str) -> str:
    return orjson.dumps([[*own] for own in orjson.loads(rest).values() if isinstance(own, dict)]).decode()


def shape_of_facts(record: FactsTuple, sources: Mapping[str, Source]) -> Shape:
    """Return the shape of a record of facts; ``sources`` are by digest."""
    trace = decode_facts(record, sources)
    source = sources[record[_SOURCE]]
    metadata = trace.info.trace_metadata.keys() - source.pairs.keys()
    (root,) = trace.data.spans
    return shape_of(
        record[_EXPERIMENT],
        source,
        frozenset(metadata),
        frozenset(trace.info.tags),
        frozenset(root.attributes),
    )


def decode_facts(record: FactsTuple, sources: Mapping[str, Source]) -> Trace:
    """Return the trace of a record of facts; ``sources`` are by digest."""
    facts = Facts(*record)
    source = sources[facts.source]
    rest: dict[str, Any] = orjson.loads(facts.rest or "{}")
    trace_id, span_id = format_ids(facts.started_ns, facts.random_24, facts.random_56, facts.random_63)
    trace_id = rest.get("trace_id", trace_id)
    metadata = source.pairs | rest.get("metadata", {})
    for key, value in ((keys.SESSION, facts.session_id), (keys.USER, facts.user_id)):
        if value is not None:
            metadata[key] = value
    info = TraceInfo(
        trace_id,
        facts.experiment,
        facts.started_ns // 1_000_000,
        (facts.ended_ns - facts.started_ns) // 1_000_000,
        TraceState.OK,
        facts.client_request_id,
        trace_metadata=metadata,
        tags={keys.TRACE_NAME_TAG: facts.name},
        source=source,
    )
    attributes: dict[str, Any] = {"http.response.status_code": facts.status, "url.path": facts.path}
    if facts.size is not None:
        attributes["http.response.body.size"] = facts.size
    root = Span(
        trace_id,
        span_id,
        rest.get("parent_id"),
        facts.name,
        SpanType.SERVER,
        facts.started_ns,
        facts.ended_ns,
        OK,
        attributes=attributes | rest.get("attributes", {}) | orjson.loads(facts.shared),
        links=links_to(facts.link),
    )
    return Trace(info, TraceData([root]))


@lru_cache(maxsize=_MAX_SHAPES)
def shape_of(
    experiment: str,
    source: Source,
    metadata: frozenset[str],
    tags: frozenset[str],
    attributes: frozenset[str],
) -> Shape:
    """Return the shape with these parts."""
    return Shape(experiment, source, metadata, tags, attributes)


def encode(trace: Trace) -> Encoded:
    """Return a trace as a record. Text that JSON cannot hold is replaced.

    Raises:
        InvalidTraceError: a time is no integer of 64 bits.
    """
    info, spans = trace.info, trace.data.spans
    source, pairs = split(info)
    own = {clean_text(key): clean_text(value) for key, value in pairs.items()}
    tags = {clean_text(key): clean_text(value) for key, value in info.tags.copy().items()}
    attributes = [clean_text(key) for span in spans for key in [*span.attributes]]
    shape = shape_of(
        clean_text(info.experiment), source, frozenset(own), frozenset(tags), frozenset(attributes)
    )
    own.pop(keys.SESSION, None)
    own.pop(keys.USER, None)
    fields = [
        clean_text(info.trace_id),
        shape.experiment,
        source.digest,
        tags.pop(keys.TRACE_NAME_TAG, None),
        info.state.value,
        _integer(info.request_time),
        _integer(_duration_us(trace)),
        _text(info.client_request_id),
        _text(info.trace_metadata.get(keys.SESSION)),
        _text(info.trace_metadata.get(keys.USER)),
        _text(info.request_preview),
        _text(info.response_preview),
        own,
        tags,
        [_span_fields(span) for span in spans],
    ]
    return orjson.dumps(fields), shape


def decode(record: Encoded) -> Trace:
    """Return the trace of a record; it shares nothing with any other."""
    data, shape = record
    fields = dict(zip(FIELDS, orjson.loads(data), strict=True))
    metadata = shape.source.pairs | fields["metadata"]
    for key, value in ((keys.SESSION, fields["session_id"]), (keys.USER, fields["user_id"])):
        if value is not None:
            metadata[key] = value
    tags = fields["tags"]
    if fields["name"] is not None:
        tags[keys.TRACE_NAME_TAG] = fields["name"]
    duration_us = fields["duration_us"]
    info = TraceInfo(
        fields["trace_id"],
        fields["experiment"],
        fields["request_time"],
        None if duration_us is None else duration_us // 1000,
        TraceState(fields["state"]),
        fields["client_request_id"],
        fields["request_preview"],
        fields["response_preview"],
        metadata,
        tags,
        shape.source,
    )
    return Trace(info, TraceData([_span(info.trace_id, given) for given in fields["spans"]]))


def split(info: TraceInfo) -> tuple[Source, dict[str, str]]:
    """Return the source of a trace's metadata, and the trace's own pairs.

    A trace that overrides a key of its source has another source.
    """
    pairs = info.trace_metadata.copy()  # at once: a task that outlives the request may still add to it
    source = info.source
    if source is not None:
        shared = source.pairs  # the dict itself: a Mapping's items are read three times as slowly
        if all(pairs.get(key) is value for key, value in shared.items()):
            return source, {key: value for key, value in pairs.items() if key not in shared}
    names = keys.SOURCE_KEYS if source is None else keys.SOURCE_KEYS.union(source)
    shared = {clean_text(key): clean_text(value) for key, value in pairs.items() if key in names}
    return Source(shared), {key: value for key, value in pairs.items() if key not in names}


def _span_fields(span: Span) -> list[Any]:
    return [
        clean_text(span.span_id),
        _text(span.parent_id),
        clean_text(span.name),
        clean_text(span.span_type),
        span.status.code.value,
        clean_text(span.status.description),
        _integer(span.start_time_ns),
        _integer(span.end_time_ns),
        None if span.inputs is None else to_json(span.inputs),
        None if span.outputs is None else to_json(span.outputs),
        orjson.Fragment(dump(span.attributes)),
        orjson.Fragment(dump([event.to_dict() for event in span.events])) if span.events else None,
        orjson.Fragment(dump(span.links)) if span.links else None,
    ]


def _span(trace_id: str, fields: Sequence[Any]) -> Span:
    given = dict(zip(SPAN_FIELDS, fields, strict=True))
    return Span(
        trace_id,
        given["span_id"],
        given["parent_id"],
        given["name"],
        given["span_type"],
        given["start_ns"],
        given["end_ns"],
        SpanStatus(SpanStatusCode(given["status_code"]), given["status_message"]),
        None if given["inputs"] is None else orjson.loads(given["inputs"]),
        None if given["outputs"] is None else orjson.loads(given["outputs"]),
        given["attributes"],
        [SpanEvent(e["name"], e["time_unix_nano"], e["attributes"]) for e in given["events"] or ()],
        given["links"] or [],
    )


def _duration_us(trace: Trace) -> int | None:
    """Return the duration in µs: the root span's where the info's is missing or the same in milliseconds.

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


def _integer(value: int | None) -> int | None:
    # mypy believes the annotation; a trace that the app has changed may hold anything.
    if value is None or (isinstance(value, int) and -_LIMIT <= value < _LIMIT):  # type: ignore[redundant-expr]
        return value
    raise InvalidTraceError(f"a time or duration is an integer of 64 bits, not {safe_repr(value)}")


def _text(value: Any) -> str | None:
    return None if value is None else clean_text(value)
