"""The vocabulary: traces and spans as plain data, and MLflow's trace JSON."""

from __future__ import annotations

from .span import OK, UNSET, Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType
from .trace import Source, Trace, TraceData, TraceInfo, TraceState

__all__ = [
    "OK",
    "UNSET",
    "Source",
    "Span",
    "SpanEvent",
    "SpanStatus",
    "SpanStatusCode",
    "SpanType",
    "Trace",
    "TraceData",
    "TraceInfo",
    "TraceState",
]
