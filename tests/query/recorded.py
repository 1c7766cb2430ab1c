"""The cases recorded from MLflow, the traces they were recorded on, and how many of them agree here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from wherefrom import keys
from wherefrom.model import Span, SpanStatus, SpanStatusCode, Trace, TraceData, TraceInfo, TraceState

_DATA = Path(__file__).parent.parent / "data"

agreed: Counter[str] = Counter()
"""Cases that agree, by tier; the terminal summary prints them."""


def load(name: str) -> Any:
    return json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))


def load_traces() -> dict[str, Trace]:
    """The recorded traces by their alias: t00, t01 and so on."""
    return {data["id"]: _to_trace(data) for data in load("traces")["traces"]}


def measured_filters() -> list[dict[str, Any]]:
    """Core and ext cases, without assessments, prompts and run links, which are not kept here."""
    return [
        case
        for case in load("filters")["cases"]
        if case["tier"] in {"core", "ext"}
        and not case.get("extension")
        and case["category"] not in {"feedback", "prompt"}
        and "feedback." not in (case["filter"] or "")
        and not _uses_a_run_link(case)
    ]


def _uses_a_run_link(case: dict[str, Any]) -> bool:
    """MLflow answers from its table of run links, where the metadata alone would not."""
    asks_for_run = any(text in (case["filter"] or "") for text in ("run_id = ", "`mlflow.sourceRun` = "))
    return asks_for_run and "t17" in case.get("match", ())


def _to_trace(data: dict[str, Any]) -> Trace:
    spans = [_to_span(data["trace_id"], span) for span in data["spans"]]
    name = {} if data["name"] is None else {keys.TRACE_NAME_TAG: data["name"]}
    info = TraceInfo(
        trace_id=data["trace_id"],
        experiment=data["experiment"],
        request_time=data["request_time_ms"],
        execution_duration=_duration(data["execution_duration_ms"], spans),
        state=TraceState(data["state"]),
        client_request_id=data["client_request_id"],
        request_preview=data["request_preview"],
        response_preview=data["response_preview"],
        trace_metadata=data["metadata"],
        tags=data["tags"] | name,
    )
    return Trace(info, TraceData(spans))


def _duration(recorded: int | None, spans: list[Span]) -> int | None:
    """MLflow takes 0 for no duration at all, and then measures the spans."""
    if recorded == 0 and spans:
        return (max(span.end_time_ns or 0 for span in spans) - spans[0].start_time_ns) // 1_000_000
    return recorded


def _to_span(trace_id: str, data: dict[str, Any]) -> Span:
    attributes = dict(data["attributes"])
    return Span(
        trace_id=trace_id,
        span_id=data["span_id"],
        parent_id=data["parent_id"],
        name=data["name"],
        span_type=data["type"],
        start_time_ns=data["start_ns"],
        end_time_ns=data["end_ns"],
        status=SpanStatus(SpanStatusCode(data["status"])),
        inputs=attributes.pop(keys.SPAN_INPUTS, None),
        outputs=attributes.pop(keys.SPAN_OUTPUTS, None),
        attributes=attributes,
    )
