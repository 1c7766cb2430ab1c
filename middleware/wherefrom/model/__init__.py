"""The vocabulary: traces and spans as plain data, and MLflow's trace JSON."""

from __future__ import annotations

from .assessment import (
    Assessment,
    AssessmentError,
    AssessmentKind,
    AssessmentSource,
    SourceType,
    new_assessment,
    new_feedback,
)
from .span import OK, UNSET, Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType
from .trace import Source, Trace, TraceData, TraceInfo, TraceState

__all__ = [
    "OK",
    "UNSET",
    "Assessment",
    "AssessmentError",
    "AssessmentKind",
    "AssessmentSource",
    "Source",
    "SourceType",
    "Span",
    "SpanEvent",
    "SpanStatus",
    "SpanStatusCode",
    "SpanType",
    "Trace",
    "TraceData",
    "TraceInfo",
    "TraceState",
    "new_assessment",
    "new_feedback",
]
