"""What one of our spans says, on MLflow's."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Link, SpanEvent, SpanStatus, SpanStatusCode
from mlflow.entities import LiveSpan as MLflowSpan

from ...model import Span
from ...model import SpanStatusCode as OurStatusCode
from ..opentelemetry.current import as_attributes


def fill(theirs: MLflowSpan, span: Span) -> None:
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
