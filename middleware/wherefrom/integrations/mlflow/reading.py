"""What an MLflow span says, as one of ours."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan

from ... import keys
from ...model import SpanStatusCode
from ...recorder import LiveSpan
from ...values import clean_text, snapshot
from ..opentelemetry.reading import read_events, read_links, read_status


def fill(span: LiveSpan, theirs: ReadableSpan) -> None:
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
    if span.status.code is not SpanStatusCode.ERROR:
        span.status = read_status(theirs.status)


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return snapshot(value)
    try:
        return snapshot(orjson.loads(value))
    except orjson.JSONDecodeError:  # NaN, or what a library has set past MLflow
        return clean_text(value)
