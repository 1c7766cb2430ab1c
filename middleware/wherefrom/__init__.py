"""An ASGI middleware that records one trace per request, with its user, session, version, commit and region.

    app.add_middleware(TraceMiddleware)

The store, the query language and other heavy modules are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .context import context
from .exceptions import FilterError, WherefromError
from .model import Span, SpanEvent, SpanStatus, SpanType, Trace, TraceInfo, TraceState
from .process import Stats
from .propagation import SpanContext
from .sinks import MemorySink
from .tracing.api import current_span, current_trace, record_feature_flag, start_span, update_current_trace
from .tracing.carriers import extract, inject, start_trace
from .tracing.decorator import trace

if TYPE_CHECKING:
    from .asgi import TraceMiddleware
    from .client import PagedList, TraceClient, get_trace, search_traces
    from .integrations.threads import copy_context_to
    from .settings import Settings
    from .tracing.assembly import flush, set_active_model, stats
    from .tracing.feedback import log_feedback

__all__ = [
    "FilterError",
    "MemorySink",
    "PagedList",
    "Settings",
    "Span",
    "SpanContext",
    "SpanEvent",
    "SpanStatus",
    "SpanType",
    "Stats",
    "Trace",
    "TraceClient",
    "TraceInfo",
    "TraceMiddleware",
    "TraceState",
    "WherefromError",
    "context",
    "copy_context_to",
    "current_span",
    "current_trace",
    "extract",
    "flush",
    "get_trace",
    "inject",
    "log_feedback",
    "record_feature_flag",
    "search_traces",
    "set_active_model",
    "start_span",
    "start_trace",
    "stats",
    "trace",
    "update_current_trace",
]

_LAZY = {
    "PagedList": "client",
    "Settings": "settings",
    "TraceClient": "client",
    "TraceMiddleware": "asgi",
    "copy_context_to": "integrations.threads",
    "flush": "tracing.assembly",
    "get_trace": "client",
    "log_feedback": "tracing.feedback",
    "search_traces": "client",
    "set_active_model": "tracing.assembly",
    "stats": "tracing.assembly",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'wherefrom' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
