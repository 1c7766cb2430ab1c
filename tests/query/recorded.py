"""The cases recorded from MLflow, the traces they were recorded on, and how many of them agree here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherefrom import keys
from wherefrom.model import (
    Assessment,
    AssessmentKind,
    Span,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
    new_assessment,
)

_DATA = Path(__file__).parent.parent / "data"

agreed: Counter[str] = Counter()
"""Cases that agree, by tier; the terminal summary prints them."""


def load(name: str) -> Any:
    return json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))


_MORE: dict[str, list[tuple[str, Any]]] = {
    "t10": [("solved", True), ("rank", 5), ("rank", -0.5), ("note", "5")],
    "t14": [("solved", False), ("note", "nan")],
    "t20": [("rank", 1e20), ("note", ["a", {"b": 1}]), ("note", "a'b"), ("rank", True)],
    "t21": [("rank", "7"), ("note", {"k": None}), ("note", ""), ("solved", "true")],
    "t22": [("note", None), ("rank", 0)],
}


def load_traces() -> dict[str, Trace]:
    """The recorded traces by their alias: t00, t01 and so on.

    Some have further feedback, of names that no recorded case asks for; "solved" is of whole sessions.
    """
    found = {data["id"]: _to_trace(data) for data in load("traces")["traces"]}
    for alias, more in _MORE.items():
        info = found[alias].info
        info.assessments += [
            replace(
                _to_assessment(info.trace_id, place, {"kind": "feedback", "name": name, "value": value}),
                metadata={keys.SESSION: "any"} if name == "solved" else {},
            )
            for place, (name, value) in enumerate(more, len(info.assessments))
        ]
    return found


def measured_filters() -> list[dict[str, Any]]:
    """Core and ext cases, without issues, prompts and run links, which are not kept here."""
    return [
        case
        for case in load("filters")["cases"]
        if case["tier"] in {"core", "ext"}
        and not case.get("extension")
        and case["category"] != "prompt"
        and "issue." not in (case["filter"] or "")
        and not _uses_a_run_link(case)
    ]


def _uses_a_run_link(case: dict[str, Any]) -> bool:
    """MLflow answers from its table of run links, where the metadata alone would not."""
    asks_for_run = any(text in (case["filter"] or "") for text in ("run_id = ", "`mlflow.sourceRun` = "))
    return asks_for_run and "t17" in case.get("match", ())


def _to_trace(data: dict[str, Any]) -> Trace:
    spans = [_to_span(data["trace_id"], span) for span in data["spans"]]
    name = {} if data["name"] is None else {keys.TRACE_NAME_TAG: data["name"]}
    given = enumerate(one for one in data["assessments"] if one["kind"] != "issue")
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
        assessments=[_to_assessment(data["trace_id"], place, one) for place, one in given],
    )
    return Trace(info, TraceData(spans))


def _to_assessment(trace_id: str, place: int, data: dict[str, Any]) -> Assessment:
    kind = AssessmentKind(data["kind"])
    return new_assessment(
        trace_id,
        data["name"],
        data["value"],
        kind=kind,
        create_time_ms=1_700_000_000_000 + place,
        assessment_id=f"a-{trace_id[-4:]}-{place}",
    )


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
