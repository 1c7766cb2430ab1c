"""What is said of a whole trace, in one form for both sides: that is how they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from mlflow.entities import Link, SpanEvent, SpanStatus, SpanStatusCode
from mlflow.entities import LiveSpan as MLflowSpan
from mlflow.entities import TraceInfo as MLflowInfo
from mlflow.entities import TraceState as MLflowState
from opentelemetry.sdk.trace import ReadableSpan

from .. import keys
from .._capture.values import clean_text, snapshot
from ..model import Span, TraceState
from ..model import SpanStatusCode as OurStatusCode
from ..otel.spans import as_attributes, read_events, read_links, read_status
from ..tracing.live import LiveSpan, LiveTrace

Term = tuple[str, str | None]
"""A field of the info, and for ``trace_metadata`` and ``tags`` a key in it."""

Terms = Mapping[Term, Any]

_MAX_SESSION: Final = 250
"""MLflow's stores refuse a trace whose session id is longer, and with it all that is said of the trace."""

_FIELDS: Final = ("client_request_id", "request_preview", "response_preview")
_PAIRS: Final = ("trace_metadata", "tags")


def of_mlflow(info: MLflowInfo) -> dict[Term, Any]:
    """What MLflow has been told."""
    terms = _common(info)
    if info.state in {MLflowState.OK, MLflowState.ERROR}:
        terms["state", None] = info.state.value
    return terms


def of_ours(trace: LiveTrace) -> dict[Term, Any]:
    """What we have been told."""
    terms = _common(trace.info)
    if trace.stated is not None:
        terms["state", None] = trace.stated.value
    return terms


def _common(info: Any) -> dict[Term, Any]:
    terms = {(field, None): value for field in _FIELDS if (value := getattr(info, field)) is not None}
    return terms | {(field, key): value for field in _PAIRS for key, value in getattr(info, field).items()}


def to_ours(trace: LiveTrace, news: Terms) -> None:
    """Take what MLflow has been told since, as if it had been said to us."""
    info, limit = trace.info, trace.recorder.max_length
    for (field, key), value in news.items():
        if value is None:
            continue
        if field == "state":
            trace.stated = TraceState(value)
        elif key is None:
            setattr(info, field, clean_text(value, limit))
        else:
            add = trace.add_tags if field == "tags" else trace.add_metadata
            add({key: value})
            if key == keys.USER:
                info.trace_metadata[keys.USER] = trace.recorder.user(info.trace_metadata[keys.USER])


def to_mlflow(info: MLflowInfo, terms: Terms) -> None:
    """Tell MLflow, in strings that every one of its stores takes."""
    for field in _PAIRS:
        pairs: dict[Any, str] = getattr(info, field)
        for odd in [key for key in pairs if not isinstance(key, str)]:
            del pairs[odd]  # said to us by now, as text
    for (field, key), value in terms.items():
        if field == "state":
            info.state = MLflowState(value)
        elif key is None:
            setattr(info, field, value)
        else:
            getattr(info, field)[key] = value[:_MAX_SESSION] if key == keys.SESSION else value


def read_mlflow_span(span: LiveSpan, theirs: ReadableSpan) -> None:
    """Give our span what theirs has become; what the app said through us stays.

    MLflow keeps every attribute of its own as JSON text, type, inputs and outputs among them.
    """
    attributes = {clean_text(key): _from_json(value) for key, value in (theirs.attributes or {}).items()}
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


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return snapshot(value)
    try:
        return snapshot(orjson.loads(value))
    except orjson.JSONDecodeError:  # NaN, or what a library has set past MLflow
        return clean_text(value)


def write_mlflow_span(theirs: MLflowSpan, span: Span) -> None:
    """Give MLflow's span what ours has become; it is not ended."""
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
    """Give MLflow's span the inputs and outputs of ours."""
    if span.inputs is not None:
        theirs.set_inputs(span.inputs)
    if span.outputs is not None:
        theirs.set_outputs(span.outputs)


def fail(theirs: MLflowSpan, description: str) -> None:
    """Say that an MLflow span went wrong, and how."""
    status: Any = SpanStatus(SpanStatusCode.ERROR, description)  # declared to take the code alone
    theirs.set_status(status)
