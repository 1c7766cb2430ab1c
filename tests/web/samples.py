"""Traces to show."""

from __future__ import annotations

from typing import Any

from wherefrom import keys
from wherefrom.model import OK, Source, Span, Trace, TraceData, TraceInfo, TraceState

START = 1_790_000_000_000
MS = 1_000_000


def make_trace(number: int = 1, *, failed: bool = False, ms: float = 120, **changes: Any) -> Trace:
    """Trace ``number``, a second after the one before; ``changes`` are fields of its info."""
    trace_id = f"tr-{number:032x}"
    name = changes.pop("name", "GET /orders/{order_id}")
    version = changes.pop("version", "1.1.0")
    metadata = changes.pop("metadata", {})
    ended = {"wherefrom.outcome": "failed", "http.response.status_code": 500} if failed else {
        "wherefrom.outcome": "completed", "http.response.status_code": 200
    }  # fmt: skip
    attributes = changes.pop("attributes", ended)
    spans = changes.pop("spans", None)
    tags = changes.pop("tags", {})
    source = Source({keys.APP_VERSION: version, keys.ENVIRONMENT: "production", keys.REGION: "eu-1"})
    info: dict[str, Any] = {
        "trace_id": trace_id,
        "request_time": START + number * 1000,
        "execution_duration": int(ms),
        "state": TraceState.ERROR if failed else TraceState.OK,
        "client_request_id": f"req-{number}",
        "trace_metadata": {**source, keys.USER: "alice", keys.SESSION: "s-1", **metadata},
        "tags": {keys.TRACE_NAME_TAG: name, **tags},
        "source": source,
    } | changes
    if spans is None:
        begun = info["request_time"] * MS
        spans = [Span(trace_id, f"{number:016x}", None, name, "SERVER", begun, begun + round(ms * MS), OK)]
        spans[0].attributes = attributes
    return Trace(TraceInfo(**info), TraceData(spans))


def make_traces(count: int, **changes: Any) -> list[Trace]:
    """So many of them, from number 1 on."""
    return [make_trace(number, **changes) for number in range(1, count + 1)]
