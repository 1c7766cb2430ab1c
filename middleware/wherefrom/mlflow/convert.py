"""Conversion of spans and trace infos between MLflow and Wherefrom; infos as comparable fields."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from mlflow.entities import Link, SpanEvent, SpanStatus, SpanStatusCode
from mlflow.entities import LiveSpan as MLflowSpan
from mlflow.entities import TraceInfo as MLflowInfo
from mlflow.entities import TraceState as MLflowState
from opentelemetry.sdk.trace import ReadableSpan

from .. import keys
from .._capture.values import clean_text, hooked_text, snapshot
from ..model import Span, TraceState
from ..model import SpanStatusCode as OurStatusCode
from ..otel.spans import as_attributes, read_events, read_links, read_status
from ..tracing.live import LiveSpan, LiveTrace

Term = tuple[str, str | None]
"""A field of the info, and for ``trace_metadata`` and ``tags`` a key in it."""

Terms = Mapping[Term, Any]

_MAX_SESSION: Final = 250
"""MLflow's stores refuse a trace with a longer session id, and with it all of its metadata."""

_FIELDS: Final = ("client_request_id", "request_preview", "response_preview")
_PREVIEWS: Final = frozenset(_FIELDS[1:])
_PAIRS: Final = ("trace_metadata", "tags")


def of_mlflow(info: MLflowInfo) -> dict[Term, Any]:
    """Return the fields of an MLflow info."""
    terms = _common(info)
    if info.state in {MLflowState.OK, MLflowState.ERROR}:
        terms["state", None] = info.state.value
    return terms


def of_ours(trace: LiveTrace) -> dict[Term, Any]:
    """Return the fields of our info."""
    terms = _common(trace.info)
    if trace.stated is not None:
        terms["state", None] = trace.stated.value
    return terms


def _common(info: Any) -> dict[Term, Any]:
    terms = {(field, None): value for field in _FIELDS if (value := getattr(info, field)) is not None}
    return terms | {(field, key): value for field in _PAIRS for key, value in getattr(info, field).items()}


def to_ours(trace: LiveTrace, news: Terms) -> None:
    """Set changed fields of MLflow's info in ours, as if the app had set them here."""
    info, limit = trace.info, trace.recorder.max_length
    for (field, key), value in news.items():
        if value is None:
            continue
        if field == "state":
            trace.stated = TraceState(value)
        elif field == "client_request_id":
            trace.set_request_id(clean_text(value, limit))
        elif key is None:
            text = hooked_text(field, value, limit) if field in _PREVIEWS else clean_text(value, limit)
            setattr(info, field, text)
        else:
            add = trace.add_tags if field == "tags" else trace.add_metadata
            add({key: value})
            if key == keys.USER:
                info.trace_metadata[keys.USER] = trace.recorder.user(info.trace_metadata[keys.USER])


def to_mlflow(info: MLflowInfo, terms: Terms) -> None:
    """Set fields in MLflow's info, as strings that all of its stores accept."""
    for field in _PAIRS:
        pairs: dict[Any, str] = getattr(info, field)
        for odd in [key for key in pairs if not isinstance(key, str)]:
            del pairs[odd]  # ours has the pair already, with its key as text
    for (field, key), value in terms.items():
        if field == "state":
            info.state = MLflowState(value)
        elif key is None:
            setattr(info, field, value)
        else:
            getattr(info, field)[key] = value[:_MAX_SESSION] if key == keys.SESSION else value


def read_mlflow_span(span: LiveSpan, theirs: ReadableSpan) -> None:
    """Fill our span from MLflow's, which has ended; attributes that the app set on ours are kept.

    MLflow stores each attribute as JSON text, including type, inputs and outputs.
    """
    attributes = {
        (name := clean_text(key)): _from_json(name, value) for key, value in (theirs.attributes or {}).items()
    }
    attributes.pop(keys.SPAN_TRACE_ID, None)
    span.name = clean_text(theirs.name)
    span.span_type = str(attributes.pop(keys.SPAN_TYPE, None) or span.span_type)
    inputs, outputs = attributes.pop(keys.SPAN_INPUTS, None), attributes.pop(keys.SPAN_OUTPUTS, None)
    span.inputs = inputs if span.inputs is None else span.inputs
    span.outputs = outputs if span.outputs is None else span.outputs
    span.attributes = attributes | span.attributes
    span.events = sorted(
        read_events(theirs.events, span.budget) + span.events, key=lambda event: event.timestamp
    )
    span.links = read_links(theirs.links) + span.links
    if span.status.code is not OurStatusCode.ERROR:
        span.status = read_status(theirs.status)


def _from_json(name: str, value: Any) -> Any:
    if isinstance(value, str):
        with suppress(orjson.JSONDecodeError):  # NaN, or a value that was set without MLflow's API
            value = orjson.loads(value)
    return snapshot(value, name=name)


def write_mlflow_span(theirs: MLflowSpan, span: Span) -> None:
    """Fill MLflow's span from ours, without ending it."""
    theirs.set_span_type(str(span.span_type))
    theirs.set_attributes(span.attributes)
    fill_values(theirs, span)
    for event in span.events:
        attributes = as_attributes(event.attributes)
        theirs.add_event(SpanEvent(event.name, event.timestamp, attributes))  # type: ignore[abstract]
    for link in span.links:
        attributes = as_attributes(link.get("attributes") or {})
        theirs.add_link(Link(link["trace_id"], link["span_id"], attributes))  # type: ignore[abstract]
    if span.status.code is OurStatusCode.ERROR:
        fail(theirs, span.status.description)


def fill_values(theirs: MLflowSpan, span: Span) -> None:
    """Set inputs and outputs of MLflow's span from ours."""
    if span.inputs is not None:
        theirs.set_inputs(span.inputs)
    if span.outputs is not None:
        theirs.set_outputs(span.outputs)


def fail(theirs: MLflowSpan, description: str) -> None:
    """Set the status of an MLflow span to ERROR, with a description."""
    status: Any = SpanStatus(SpanStatusCode.ERROR, description)  # its annotation allows only the code
    theirs.set_status(status)
