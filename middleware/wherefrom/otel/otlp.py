"""Traces as OTLP requests in binary protobuf.

Attributes have OpenTelemetry's names where its semantic conventions define one. MLflow's own keys keep their
names, other metadata gets the prefix ``wherefrom.metadata.``, and tags are named as MLflow's OTLP export
names them. Field numbers are those of ``opentelemetry/proto/trace/v1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from struct import pack
from typing import Any, Final

from .. import keys
from ..exceptions import InvalidTraceError
from ..model import OK, Source, Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType, Trace, TraceInfo
from .protobuf import AttributeEncoder, field, repeated, text, varint

CONTENT_TYPE: Final = "application/x-protobuf"
SCOPE_NAME: Final = "wherefrom"
REQUEST_ID: Final = "wherefrom.request_id"
METADATA_PREFIX: Final = "wherefrom.metadata."
TAG_PREFIX: Final = "mlflow.traceTag."

ATTRIBUTE_NAMES: Final = {
    keys.APP_VERSION: "service.version",
    keys.ENVIRONMENT: "deployment.environment.name",
    keys.DEPLOYMENT_ID: "deployment.id",
    keys.REGION: "cloud.region",
    keys.GIT_COMMIT: "vcs.ref.head.revision",
    keys.GIT_BRANCH: "vcs.ref.head.name",
    keys.GIT_REPO_URL: "vcs.repository.url.full",
    keys.OS_USER: "process.owner",
    keys.SESSION: "session.id",
    keys.USER: "user.id",
}
"""Metadata key → attribute of the resource, or of the root span where a trace differs from its process."""

# Metadata that most traces have in addition to their source, and its attribute names.
_PER_TRACE: Final = (
    (keys.SESSION, ATTRIBUTE_NAMES[keys.SESSION]),
    (keys.USER, ATTRIBUTE_NAMES[keys.USER]),
    (keys.TOKEN_USAGE, keys.TOKEN_USAGE),
)
# Not sent: the root span has the same.
_OMITTED: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS})
_NOT_KNOWN: Final = {keys.DEPLOYMENT_ID: "unknown", keys.REGION: "unknown"}
_UNKNOWN: Final = "UNKNOWN"

# trace.proto, enums SpanKind and StatusCode.
_INTERNAL: Final = 1
_KINDS: Final[dict[str, int]] = {SpanType.SERVER: 2, SpanType.CLIENT: 3, "PRODUCER": 4, "CONSUMER": 5}
_STATUS_CODES: Final = {SpanStatusCode.UNSET: 0, SpanStatusCode.OK: 1, SpanStatusCode.ERROR: 2}

# trace.proto, enum SpanFlags: sampled; bits 8 and 9 say whether the parent is in another process.
LOCAL_PARENT: Final = 0x001 | 0x100
REMOTE_PARENT: Final = LOCAL_PARENT | 0x200

# Span.flags and Link.flags are fixed32.
_SPAN_FLAGS: Final = b"\x85\x01"
_LINK_FLAGS: Final = b"\x35"
_STATUS_OK: Final = b"\x7a\x02\x18\x01"

_SPANS_PER_PART: Final = 64
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-fA-F]{16}")


class SpanEncoder(AttributeEncoder):
    """Encodes spans, resources and requests.

    ``for_mlflow``: the request also has what MLflow's server reads and other collectors do not need: the
    trace's name as a tag, and each span's type as an attribute even where its kind implies it.
    """

    def __init__(self, scope_version: str, *, for_mlflow: bool = False) -> None:
        super().__init__()
        self._for_mlflow = for_mlflow
        self._scope = field(0x0A, field(0x0A, text(SCOPE_NAME)) + field(0x12, text(scope_version)))

    def span(self, span: Span, end_time_ns: int, flags: int, attributes: list[bytes]) -> bytes:
        """A ``Span``, as a field of ``ScopeSpans``.

        ``attributes`` are those of its trace if it is the root; the span's own are appended to them.

        Raises:
            InvalidTraceError: its ids are not those of W3C Trace Context.
        """
        trace_id, parent_id = span.trace_id.removeprefix("tr-"), span.parent_id
        if not (
            _TRACE_ID.fullmatch(trace_id)
            and _SPAN_ID.fullmatch(span.span_id)
            and (not parent_id or _SPAN_ID.fullmatch(parent_id))
        ):
            raise InvalidTraceError(f"the ids of span {span.name!r} are not those of W3C Trace Context")
        kind = _KINDS.get(span.span_type, _INTERNAL)
        attributes = self.attributes(span.attributes, attributes) + self._mlflow_attributes(span, kind)
        parts = [
            b"\x0a\x10" + bytes.fromhex(trace_id),
            b"\x12\x08" + bytes.fromhex(span.span_id),
            b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"",
            field(0x2A, self.names[span.name]),
            b"\x30" + varint(kind),
            b"\x39" + pack("<Q", span.start_time_ns),
            b"\x41" + pack("<Q", end_time_ns),
            repeated(b"\x4a", attributes),
            *[field(0x5A, self._event(event)) for event in span.events.copy()],
            self._links(span) if span.links else b"",
            _STATUS_OK if span.status is OK else field(0x7A, _status(span.status)),
            _SPAN_FLAGS + pack("<I", flags),
        ]
        return field(0x12, b"".join(parts))

    def trace_attributes(
        self, info: TraceInfo, source: dict[str, str], own: Mapping[str, Any]
    ) -> list[bytes]:
        """The attributes of a trace that its process does not have, for its root span.

        ``own`` are the root's attributes: a key must not occur twice (common.proto), and they win.
        """
        strings = self.strings
        encoded: list[bytes] = []
        if (request_id := info.client_request_id) is not None and REQUEST_ID not in own:
            encoded.append(strings[REQUEST_ID].encode(request_id))
        # Most traces have only these in addition to their source. Then one comparison of dicts, mostly of the
        # very same objects, replaces a loop.
        metadata = info.trace_metadata.copy()
        for key, name in _PER_TRACE:
            value = metadata.pop(key, None)
            if value is not None and name not in own:
                encoded.append(strings[name][value])
        if metadata != source or self._for_mlflow or len(info.tags) > 1:
            more = _more_attributes(metadata, source, info.tags, for_mlflow=self._for_mlflow)
            self.attributes({key: value for key, value in more.items() if key not in own}, encoded)
        return encoded

    def resource(self, attributes: Mapping[str, Any]) -> bytes:
        """The ``Resource`` of a ``ResourceSpans``."""
        return field(0x0A, repeated(b"\x0a", self.attributes(attributes)))

    def request(self, groups: Iterable[tuple[bytes, Sequence[bytes]]]) -> Iterator[bytes]:
        """An ``ExportTraceServiceRequest`` of resources and their spans, in parts of some 64 spans.

        Parts that are compressed or sent one by one stay in the CPU cache; a megabyte in one piece does not.
        """
        for resource, spans in groups:
            size = len(self._scope) + sum(map(len, spans))
            head = resource + b"\x12" + varint(size)  # ResourceSpans.scope_spans
            yield b"\x0a" + varint(len(head) + size) + head + self._scope
            for start in range(0, len(spans), _SPANS_PER_PART):
                yield b"".join(spans[start : start + _SPANS_PER_PART])

    def _mlflow_attributes(self, span: Span, kind: int) -> list[bytes]:
        """A span's type, inputs and outputs under MLflow's names."""
        encoded: list[bytes] = []
        own, span_type = span.attributes, span.span_type
        is_implied = kind != _INTERNAL and not self._for_mlflow
        if span_type != _UNKNOWN and not is_implied and keys.SPAN_TYPE not in own:
            encoded.append(self.strings[keys.SPAN_TYPE][span_type])
        if span.inputs is not None and keys.SPAN_INPUTS not in own:
            encoded.append(self.attribute(keys.SPAN_INPUTS, span.inputs))
        if span.outputs is not None and keys.SPAN_OUTPUTS not in own:
            encoded.append(self.attribute(keys.SPAN_OUTPUTS, span.outputs))
        return encoded

    def _event(self, event: SpanEvent) -> bytes:
        attributes = repeated(b"\x1a", self.attributes(event.attributes))
        return b"\x09" + pack("<Q", event.timestamp) + field(0x12, self.names[event.name]) + attributes

    def _links(self, span: Span) -> bytes:
        """The links, and the number of those dropped because OTLP has no form for their ids."""
        parts = []
        for link in span.links:
            trace_id = str(link.get("trace_id", "")).removeprefix("tr-")
            span_id = str(link.get("span_id", ""))
            if _TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id):
                ids = b"\x0a\x10" + bytes.fromhex(trace_id) + b"\x12\x08" + bytes.fromhex(span_id)
                attributes = repeated(b"\x22", self.attributes(link.get("attributes") or {}))
                parts.append(field(0x6A, ids + attributes + _LINK_FLAGS + pack("<I", REMOTE_PARENT)))
        if dropped := len(span.links) - len(parts):
            parts.append(b"\x70" + varint(dropped))
        return b"".join(parts)


def _status(status: SpanStatus) -> bytes:
    message = field(0x12, text(status.description)) if status.description else b""
    return message + b"\x18" + varint(_STATUS_CODES[status.code])


def root_of(trace: Trace) -> Span | None:
    """The root span, or ``None`` for a fragment: one span that ended after its trace was written."""
    root = trace.root
    if root is None or root.parent_id is None or type(trace) is not Trace or len(trace.data.spans) > 1:
        return root
    return (
        root if root.span_type == SpanType.SERVER else None
    )  # the parent of the root is in the caller's process


def source_of(info: TraceInfo) -> Source:
    """The process that recorded a trace, read from its metadata where the trace was imported."""
    if info.source is not None:
        return info.source
    return Source({key: value for key, value in info.trace_metadata.items() if key in keys.SOURCE_KEYS})


def resource_attributes(
    source: Mapping[str, str], experiment: str, configured: Mapping[str, str]
) -> dict[str, Any]:
    """The attributes of the process that recorded a trace; those ``configured`` for OpenTelemetry win.

    OpenTelemetry semantic conventions: resource attributes of service, deployment, cloud and vcs.
    """
    attributes = {
        "service.name": experiment,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "wherefrom",
    }
    for key, value in source.items():
        if key not in _OMITTED and _NOT_KNOWN.get(key) != value:
            attributes[_attribute_name(key)] = value
    return attributes | dict(configured)


def _more_attributes(
    metadata: Mapping[str, str], source: Mapping[str, str], tags: Mapping[str, str], *, for_mlflow: bool
) -> dict[str, str]:
    """The metadata of a trace that differs from its source, and its tags, by attribute name.

    MLflow's server reads a trace's name from a tag, others from the root span.
    """
    attributes = {
        _attribute_name(key): value
        for key, value in metadata.items()
        if source.get(key) != value and key not in _OMITTED
    }
    for key, value in tags.items():
        if for_mlflow or key != keys.TRACE_NAME_TAG:
            attributes[TAG_PREFIX + key] = value
    return attributes


@lru_cache(maxsize=1000)
def _attribute_name(key: str) -> str:
    return ATTRIBUTE_NAMES.get(key) or (key if key.startswith("mlflow.") else METADATA_PREFIX + key)
