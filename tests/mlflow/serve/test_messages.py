"""Traces in protobuf's JSON mapping, with any values."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from wherefrom import Span, SpanEvent, Trace
from wherefrom.mlflow.wire import info_message, trace_message

MakeTrace = Callable[..., Trace]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in span["attributes"]}


def test_a_span(make_trace: MakeTrace) -> None:
    """Ids are base64, an enum is its name, and MLflow's own attributes stand among the rest."""
    trace = make_trace()
    root = trace.data.spans[0]
    root.inputs = {"a": [1, None]}
    (span,) = trace_message(trace, "1")["spans"]
    assert b64decode(span["span_id"]).hex() == root.span_id
    assert "tr-" + b64decode(span["trace_id"]).hex() == root.trace_id
    assert "parent_span_id" not in span
    assert span["status"] == {"code": "STATUS_CODE_OK", "message": ""}
    assert (span["start_time_unix_nano"], span["end_time_unix_nano"]) == (
        root.start_time_ns,
        root.end_time_ns,
    )
    told = attributes(span)
    assert told["mlflow.spanType"] == {"string_value": "SERVER"}
    array = {"array_value": {"values": [{"int_value": 1}, {}]}}
    assert told["mlflow.spanInputs"] == {"kvlist_value": {"values": [{"key": "a", "value": array}]}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("é", {"string_value": "é"}),
        (True, {"bool_value": True}),
        (0, {"int_value": 0}),
        (-(2**63), {"int_value": -(2**63)}),
        (2**63, {"string_value": str(2**63)}),
        (0.5, {"double_value": 0.5}),
        (None, {}),
        ([], {"array_value": {"values": []}}),
        ({}, {"kvlist_value": {"values": []}}),
    ],
)
def test_values(make_trace: MakeTrace, value: Any, expected: Any) -> None:
    """Each kind of JSON value has its own field; an integer beyond 64 bits is text."""
    trace = make_trace()
    trace.data.spans[0].attributes["k"] = value
    assert attributes(trace_message(trace, "1")["spans"][0])["k"] == expected


def test_what_is_deep_ends_as_text(make_trace: MakeTrace) -> None:
    """Python's protobuf reads messages in messages a hundred deep."""
    value: Any = "bottom"
    for _ in range(100):
        value = {"k": [value]}
    trace = make_trace()
    trace.data.spans[0].outputs = value
    found = attributes(trace_message(trace, "1")["spans"][0])["mlflow.spanOutputs"]
    for _ in range(12):
        (pair,) = found["kvlist_value"]["values"]
        (found,) = pair["value"]["array_value"]["values"]
    assert found["string_value"].startswith('{"k":[{"k":[')


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
        (-5, "1970-01-01T00:00:00.000Z"),
        (10**18, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times(make_trace: MakeTrace, ms: int, text: str) -> None:
    """They are RFC 3339, and within what a Timestamp can hold."""
    trace = make_trace()
    trace.info.request_time = ms
    assert info_message(trace.info, "1")["request_time"] == text


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0.000s"), (186, "0.186s"), (61_001, "61.001s"), (-5, "-0.005s")]
)
def test_durations(make_trace: MakeTrace, ms: int, text: str) -> None:
    assert info_message(make_trace(execution_duration=ms).info, "1")["execution_duration"] == text


def test_ids_and_times_of_other_makers(make_trace: MakeTrace) -> None:
    """What is no id of W3C's is sent as a digest, and parents are still those of their children."""
    trace = make_trace(trace_id="tr-imported")
    trace.data.spans = [
        Span("tr-imported", "", None, "root", start_time_ns=-1, end_time_ns=2**70),
        Span("tr-imported", "b" * 40, "", "no parent", start_time_ns=5),
        Span("tr-imported", "parent", "b" * 40, "child"),
        Span("tr-imported", "ab", "parent", "grandchild"),
    ]
    trace.data.spans[0].events = [SpanEvent("e", -5, {"k": "v"})]
    trace.data.spans[0].links = [{"trace_id": "tr-" + "a" * 32, "span_id": "b" * 16}, {}]
    first, second, third, fourth = trace_message(trace, "1")["spans"]
    assert {len(b64decode(span["trace_id"])) for span in (first, second, third, fourth)} == {16}
    assert [len(b64decode(span["span_id"])) for span in (first, second, third, fourth)] == [8, 8, 8, 1]
    assert third["parent_span_id"] == second["span_id"]
    assert fourth["parent_span_id"] == third["span_id"]
    assert "parent_span_id" not in first
    assert "parent_span_id" not in second
    assert (first["start_time_unix_nano"], first["end_time_unix_nano"]) == (0, 2**64 - 1)
    assert first["events"][0]["time_unix_nano"] == 0
    assert b64decode(first["links"][0]["trace_id"]).hex() == "a" * 32
    assert len(b64decode(first["links"][1]["span_id"])) == 8
    assert "end_time_unix_nano" not in second


def test_what_the_store_says_wins(make_trace: MakeTrace) -> None:
    """All but the place of the spans, which is here wherever they were before."""
    trace = make_trace(
        trace_metadata={"mlflow.trace_schema.version": "2"},
        tags={"mlflow.trace.spansLocation": "ARTIFACT_REPO", "mlflow.traceName": "n"},
    )
    info = info_message(trace.info, "7")
    assert info["trace_metadata"] == {"mlflow.trace_schema.version": "2"}
    assert info["tags"] == {"mlflow.trace.spansLocation": "TRACKING_STORE", "mlflow.traceName": "n"}
    assert info["trace_location"]["mlflow_experiment"] == {"experiment_id": "7"}
