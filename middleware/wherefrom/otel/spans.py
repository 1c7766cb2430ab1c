"""Conversion of spans from and to OpenTelemetry: type, inputs, outputs, attributes, events and status.

Models, tokens and messages are read from the GenAI semantic conventions
(https://opentelemetry.io/docs/specs/semconv/gen-ai/), from their forms before 1.37, and from the attributes
of OpenInference, OpenLLMetry and MLflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import orjson
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from .. import keys
from .._capture.values import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_KEY_LENGTH,
    Budget,
    clean_text,
    first_pairs,
    hooked_text,
    snapshot,
    to_json,
)
from ..model import OK, UNSET, Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType, TraceInfo
from ..tracing.live import LiveSpan

SCOPE_NAME: Final = "otel.scope.name"
SCOPE_VERSION: Final = "otel.scope.version"
MODEL: Final = "mlflow.llm.model"
PROVIDER: Final = "mlflow.llm.provider"

REQUEST_ID: Final = "client_request_id"
_LEFT_OUT: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS})
_SCALARS: Final = (str, bool, int, float)
_SCALARS_ONLY: Final = frozenset(_SCALARS)
_KINDS_OF_TYPES: Final[Mapping[str, SpanKind]] = {
    SpanType.SERVER: SpanKind.SERVER,
    SpanType.CLIENT: SpanKind.CLIENT,
    "PRODUCER": SpanKind.PRODUCER,
    "CONSUMER": SpanKind.CONSUMER,
}
CODES: Final = {
    SpanStatusCode.UNSET: StatusCode.UNSET,
    SpanStatusCode.OK: StatusCode.OK,
    SpanStatusCode.ERROR: StatusCode.ERROR,
}

_INPUTS: Final = (
    keys.SPAN_INPUTS,
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "input.value",
    "traceloop.entity.input",
    "gen_ai.prompt",
)
_OUTPUTS: Final = (
    keys.SPAN_OUTPUTS,
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
    "output.value",
    "traceloop.entity.output",
    "gen_ai.completion",
)
_ALIASES: Final = {
    keys.GEN_AI_INPUT_TOKENS: ("gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    keys.GEN_AI_OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    MODEL: ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name"),
    PROVIDER: ("gen_ai.provider.name", "gen_ai.system", "llm.provider"),
}
_CONVENTIONS: Final = ("gen_ai.", "input.", "llm.", "mlflow.", "openinference.", "output.", "traceloop.")
# Attributes of a span event: in old versions, and in new ones to keep long texts off the span.
_GEN_AI_EVENTS: Final = frozenset(
    {"gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.client.inference.operation.details"}
)
# OpenLLMetry: gen_ai.prompt.0.role, gen_ai.prompt.0.content, ...
_INDEXED: Final = re.compile(r"gen_ai\.(prompt|completion)\.(\d{1,4})\.(\w+)")

_OPERATIONS: Final = {
    "chat": SpanType.CHAT_MODEL,
    "generate_content": SpanType.LLM,
    "text_completion": SpanType.LLM,
    "embeddings": SpanType.EMBEDDING,
    "retrieval": SpanType.RETRIEVER,
    "execute_tool": SpanType.TOOL,
    "create_agent": SpanType.AGENT,
    "invoke_agent": SpanType.AGENT,
    "invoke_workflow": SpanType.WORKFLOW,
}
# Keyed by value: hashing an enum member calls a Python function.
_KINDS: Final = {
    SpanKind.INTERNAL.value: SpanType.UNKNOWN.value,
    SpanKind.SERVER.value: SpanType.SERVER.value,
    SpanKind.CLIENT.value: SpanType.CLIENT.value,
    SpanKind.PRODUCER.value: "PRODUCER",
    SpanKind.CONSUMER.value: "CONSUMER",
}
_TYPES: Final = frozenset(SpanType)


def fill(span: LiveSpan, theirs: ReadableSpan) -> None:
    """Fill our span from theirs, which has ended; values that the app set on ours are kept."""
    attributes = read_attributes(theirs.attributes, span.budget)
    events = read_events(theirs.events, span.budget)
    named: str | None = None
    if any(key.startswith(_CONVENTIONS) for key in attributes):
        _read_gen_ai(span, attributes, [*events, *span.events])
        named = _named_type(attributes)
    if (scope := theirs.instrumentation_scope) is not None:
        attributes[SCOPE_NAME] = scope.name
        if scope.version:
            attributes[SCOPE_VERSION] = scope.version
    span.name = clean_text(theirs.name)
    if named and span.span_type == kind_name(theirs.kind):
        span.span_type = named
    if span.status is UNSET:
        span.status = read_status(theirs.status)
    span.attributes = attributes | span.attributes
    span.events = sorted(events + span.events, key=lambda event: event.timestamp) if span.events else events
    span.links = read_links(theirs.links) + span.links


def read_attributes(attributes: Mapping[str, Any] | None, budget: Budget | None = None) -> dict[str, Any]:
    """Return their attributes as JSON data, within the limits of one of our spans."""
    budget = budget or Budget()
    pairs, dropped = first_pairs(attributes or {}, MAX_ATTRIBUTES)
    kept = {(name := clean_text(key, MAX_KEY_LENGTH)): snapshot(value, budget, name) for key, value in pairs}
    return kept | {keys.DROPPED_ATTRIBUTES: dropped} if dropped > 0 else kept


def read_events(events: Iterable[Event], budget: Budget) -> list[SpanEvent]:
    """Return their events as ours."""
    return [
        SpanEvent(clean_text(event.name), event.timestamp, read_attributes(event.attributes, budget))
        for event in islice(events, MAX_EVENTS)
    ]


def read_links(links: Iterable[Link]) -> list[dict[str, Any]]:
    """Return their links as ours."""
    return [read_link(link.context, link.attributes) for link in islice(links, MAX_EVENTS)]


def read_link(context: SpanContext, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a link as ours."""
    return {
        "trace_id": f"tr-{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "attributes": read_attributes(attributes),
    }


def read_status(status: Status) -> SpanStatus:
    """Return their status as ours: ``UNSET`` is ``OK``."""
    if status.status_code is not StatusCode.ERROR:
        return OK
    return SpanStatus(SpanStatusCode.ERROR, hooked_text(keys.STATUS, status.description or ""))


def kind_name(kind: SpanKind) -> str:
    """Return the span type for a kind."""
    return _KINDS[kind.value]


def _named_type(attributes: Mapping[str, Any]) -> str | None:
    """Return the span type that a convention for model calls specifies, or ``None``."""
    named = _parsed(attributes.get(keys.SPAN_TYPE))
    if isinstance(named, str) and named:
        return named
    operation = _OPERATIONS.get(attributes.get("gen_ai.operation.name", ""))
    if operation is not None:
        return operation.value
    for key in ("openinference.span.kind", "traceloop.span.kind"):
        named = str(attributes.get(key, "")).upper()
        if named in _TYPES:
            return named
    return None


def _read_gen_ai(span: LiveSpan, attributes: dict[str, Any], events: Iterable[SpanEvent]) -> None:
    """Read inputs, outputs, model and tokens from the attributes of each convention."""
    for key, aliases in _ALIASES.items():
        value = next((attributes[alias] for alias in aliases if alias in attributes), None)
        if value is not None:
            attributes.setdefault(key, value)
    if isinstance(attributes.get(keys.CHAT_TOKEN_USAGE), str):
        attributes[keys.CHAT_TOKEN_USAGE] = _parsed(attributes[keys.CHAT_TOKEN_USAGE])
    found: Mapping[str, Any] = attributes
    for event in events:
        if event.name in _GEN_AI_EVENTS:
            found = {**event.attributes, **found}
    if span.inputs is None:
        span.inputs = _first(found, _INPUTS, "prompt")
    if span.outputs is None:
        span.outputs = _first(found, _OUTPUTS, "completion")


def _first(attributes: Mapping[str, Any], names: Iterable[str], indexed: str) -> Any:
    for name in names:
        if name in attributes:
            return _parsed(attributes[name])
    messages: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        if key.startswith("gen_ai.") and (match := _INDEXED.fullmatch(key)) and match[1] == indexed:
            messages.setdefault(int(match[2]), {})[match[3]] = value
    return [messages[index] for index in sorted(messages)] or None


def _parsed(value: Any) -> Any:
    """Parse JSON text; return other text unchanged."""
    if isinstance(value, str) and value[:1] in {"{", "[", '"'}:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            pass
    return value


def trace_attributes(info: TraceInfo) -> dict[str, str]:
    """Return the metadata under its own keys, and session and user also under OpenTelemetry's."""
    metadata = info.trace_metadata
    attributes = {key: value for key, value in metadata.items() if key not in _LEFT_OUT}
    if info.client_request_id is not None:
        attributes[REQUEST_ID] = info.client_request_id
    if keys.SESSION in metadata:
        attributes["session.id"] = metadata[keys.SESSION]
    if keys.USER in metadata:
        attributes["user.id"] = metadata[keys.USER]
    return attributes


def kind_of(span: Span) -> SpanKind:
    """Return the kind for the type of a span."""
    return _KINDS_OF_TYPES.get(span.span_type, SpanKind.INTERNAL)


def as_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as OpenTelemetry attributes: scalars, homogeneous lists, otherwise JSON text."""
    return {key: _attribute(value) for key, value in attributes.items() if value is not None}


def _attribute(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return value
    kinds = {type(item) for item in value} if isinstance(value, list) else {list}
    if len(kinds) <= 1 and kinds <= _SCALARS_ONLY:
        return value
    return to_json(value)


def write_event(event: SpanEvent) -> Event:
    """Return one of our events as theirs."""
    return Event(event.name, as_attributes(event.attributes), event.timestamp)


def write_link(data: Mapping[str, Any]) -> Link | None:
    """Return one of our links as theirs, or ``None`` if it is malformed."""
    try:
        trace_id, span_id = int(data["trace_id"].removeprefix("tr-"), 16), int(data["span_id"], 16)
    except (KeyError, ValueError, AttributeError):
        return None
    return Link(SpanContext(trace_id, span_id, True), as_attributes(data.get("attributes") or {}))
