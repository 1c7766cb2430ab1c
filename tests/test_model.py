"""The model is MLflow's trace JSON, both ways."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import Span, SpanEvent, SpanStatus, SpanType, Trace, TraceInfo, TraceState, WherefromError
from wherefrom.exceptions import InvalidTraceError
from wherefrom.model import OK, UNSET, Source, SpanStatusCode, TraceData

EXAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "trace_example.json").read_text())
RECORDED: dict[str, Any] = EXAMPLE["trace_to_dict"]


def parsed_attributes(data: dict[str, Any]) -> dict[str, Any]:
    """The trace JSON with attributes as values: MLflow's JSON text is spaced as ours is not."""
    data = json.loads(json.dumps(data))
    for span in data["data"]["spans"]:
        span["attributes"] = {key: json.loads(value) for key, value in span["attributes"].items()}
    return data


def test_mlflow_s_own_trace_comes_back_as_it_was() -> None:
    """A ``Trace.to_dict()`` recorded from MLflow is read, and written again, field by field."""
    trace = Trace.from_dict(RECORDED)
    assert parsed_attributes(trace.to_dict()) == parsed_attributes(RECORDED)
    assert Trace.from_json(trace.to_json()) == trace
    assert Trace.from_json(trace.to_json(pretty=True).encode()) == trace


def test_what_was_read() -> None:
    """Every part of MLflow's JSON has its place in the model."""
    trace = Trace.from_dict(RECORDED)
    info = trace.info
    assert (info.trace_id, info.experiment, info.experiment_id) == (RECORDED["info"]["trace_id"], "4", "4")
    assert info.request_time == 1795387673491
    assert (info.execution_duration, info.state) == (186, TraceState.OK)
    assert info.client_request_id == "req-1"
    assert info.request_preview == '{"q": "hello"}'
    assert info.tags["team"] == "core"
    assert info.name == "predict"
    root, child = trace.data.spans
    assert trace.root is root
    assert (root.trace_id, child.trace_id) == (info.trace_id, info.trace_id)
    assert (root.parent_id, child.parent_id) == (None, root.span_id)
    assert root.span_id == "8117ad81d5bcf397"
    assert (root.span_type, child.span_type) == (SpanType.CHAIN, "LLM")
    assert (root.inputs, root.outputs) == ({"q": "hello"}, {"a": "ok"})
    assert root.status == OK
    assert root.attributes == {"mlflow.spanFunctionName": "predict", "mlflow.spanLogLevel": 10}
    assert child.attributes["mlflow.chat.tokenUsage"] == {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
    }
    assert child.events == [SpanEvent("ev", 1795387673677242624, {"k": 1})]


def test_the_names_of_mlflow_2_read_the_same() -> None:
    """Code written for MLflow's older names reads ours unchanged."""
    info = TraceInfo("tr-1", "e", 5, 7, TraceState.ERROR, trace_metadata={"a": "b"})
    assert (info.status, info.timestamp_ms, info.execution_time_ms) == (TraceState.ERROR, 5, 7)
    assert (info.request_metadata, info.request_id) == ({"a": "b"}, "tr-1")
    assert info.status == "ERROR"
    with pytest.raises(AttributeError):
        info.status = TraceState.OK  # type: ignore[misc]


def test_absent_fields_are_left_out() -> None:
    """A trace that is running has no duration, and one without previews has none."""
    data = TraceInfo("tr-1").to_dict()
    assert set(data) == {"trace_id", "trace_location", "request_time", "state", "trace_metadata", "tags"}
    assert Trace.from_dict({"info": data}) == Trace(TraceInfo("tr-1"))


def test_rest_s_duration_is_read_too() -> None:
    """REST writes ``execution_duration: "0.186s"`` where the SDK writes ms."""
    info = {
        "trace_id": "tr-1",
        "request_time": "2026-11-22T22:47:53.491+00:00",
        "execution_duration": "0.186s",
    }
    assert TraceInfo.from_dict(info).execution_duration == 186
    assert TraceInfo.from_dict(info).request_time == 1795387673491
    assert (
        TraceInfo.from_dict({**info, "request_time": "2026-11-22T22:47:53.491"}).request_time == 1795387673491
    )
    assert TraceInfo.from_dict({**info, "request_time": 12}).request_time == 12


def test_values_that_are_not_strings_become_them() -> None:
    """Metadata and tags are string pairs, whatever the JSON held."""
    info = {"trace_id": "tr-1", "request_time": 1, "trace_metadata": {"a": 1, "b": None}, "tags": {"c": True}}
    read = TraceInfo.from_dict(info)
    assert (read.trace_metadata, read.tags) == ({"a": "1", "b": "None"}, {"c": "True"})


def test_the_root_is_the_span_whose_parent_is_not_here() -> None:
    """A trace that joined a caller's has a root with a parent elsewhere; no spans, no root."""
    child = Span("tr-1", "2" * 16, "1" * 16, "child")
    root = Span("tr-1", "1" * 16, "f" * 16, "root")
    assert Trace(TraceInfo("tr-1"), TraceData([child, root])).root is root
    assert Trace(TraceInfo("tr-1")).root is None


GOOD_SPAN = RECORDED["data"]["spans"][0]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"info": None},
        {"info": {}},
        {"info": {"trace_id": "tr-1"}},
        {"info": {"trace_id": "tr-1", "request_time": "yesterday"}},
        {"info": {"trace_id": "tr-1", "request_time": 1, "state": "FINE"}},
        {"info": {"trace_id": "tr-1", "request_time": 1, "execution_duration_ms": "soon"}},
        {"info": {"trace_id": "tr-1", "request_time": 1, "execution_duration_ms": float("inf")}},
        {"info": {"trace_id": "tr-1", "request_time": 1, "tags": [1]}},
        {"info": {"trace_id": "tr-1", "request_time": 1, "trace_location": 5}},
        {"info": RECORDED["info"], "data": 7},
        {"info": RECORDED["info"], "data": {"spans": 7}},
        {"info": RECORDED["info"], "data": {"spans": [None]}},
        {"info": RECORDED["info"], "data": {"spans": [{**GOOD_SPAN, "span_id": "not base64!"}]}},
        {"info": RECORDED["info"], "data": {"spans": [{**GOOD_SPAN, "status": {"code": "FINE"}}]}},
        {"info": RECORDED["info"], "data": {"spans": [{**GOOD_SPAN, "events": [{}]}]}},
        {"info": RECORDED["info"], "data": {"spans": [{**GOOD_SPAN, "start_time_unix_nano": None}]}},
    ],
)
def test_what_is_not_a_trace_is_one_error(data: Any) -> None:
    """Malformed JSON of any shape is an InvalidTraceError, a ValueError too."""
    with pytest.raises(InvalidTraceError) as caught:
        Trace.from_dict(data)
    assert isinstance(caught.value, (WherefromError, ValueError))


def test_attributes_that_are_no_json_text_are_kept() -> None:
    """What another tool wrote as plain text, or as a value, is read as it is."""
    span = Span.from_dict({**GOOD_SPAN, "attributes": {"a": "plain", "b": 7, "c": '"text"'}})
    assert span.attributes == {"a": "plain", "b": 7, "c": "text"}
    assert span.trace_id == RECORDED["info"]["trace_id"]


def test_ids_that_are_not_hex_are_written() -> None:
    """A span from elsewhere may have ids of any text: they are written, and nothing is raised."""
    span = Span("tr-é", "span 1", "\ud800", "x")
    assert Trace.from_json(Trace(TraceInfo("tr-é"), TraceData([span])).to_json()).data.spans[0].name == "x"


@pytest.mark.parametrize("text", ["", "{", b"\xff"])
def test_text_that_is_not_json(text: str | bytes) -> None:
    """Text that is no JSON is the same error."""
    with pytest.raises(InvalidTraceError, match="not JSON"):
        Trace.from_json(text)


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
moments = st.integers(0, 4_000_000_000_000_000_000)
hex16 = st.integers(1, 2**64 - 1).map("{:016x}".format)
pairs = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4)
attributes = st.dictionaries(st.text(max_size=8), json_values, max_size=3)
events = st.builds(SpanEvent, st.text(max_size=5), moments, attributes)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    trace_id = "tr-" + draw(st.integers(1, 2**128 - 1).map("{:032x}".format))
    spans = st.builds(
        Span,
        trace_id=st.just(trace_id),
        span_id=hex16,
        parent_id=st.none() | hex16,
        name=st.text(max_size=9),
        span_type=st.sampled_from(list(SpanType)) | st.text(min_size=1, max_size=9),
        start_time_ns=moments,
        end_time_ns=st.none() | moments,
        status=st.builds(SpanStatus, st.sampled_from(list(SpanStatusCode)), st.text(max_size=9)),
        inputs=json_values,
        outputs=json_values,
        attributes=attributes,
        events=st.lists(events, max_size=2),
        links=st.lists(
            st.fixed_dictionaries(
                {"trace_id": st.just(trace_id), "span_id": hex16, "attributes": attributes}
            ),
            max_size=1,
        ),
    )
    info = st.builds(
        TraceInfo,
        trace_id=st.just(trace_id),
        experiment=st.text(max_size=9),
        request_time=st.integers(0, 250_000_000_000_000),
        execution_duration=st.none() | st.integers(0, 10**9),
        state=st.sampled_from(list(TraceState)),
        client_request_id=st.none() | st.text(max_size=9),
        request_preview=st.none() | st.text(max_size=9),
        response_preview=st.none() | st.text(max_size=9),
        trace_metadata=pairs,
        tags=pairs,
        source=st.none(),
    )
    return Trace(draw(info), TraceData(draw(st.lists(spans, max_size=3))))


@given(traces())
def test_a_trace_survives_its_json(trace: Trace) -> None:
    """``from_json(to_json(trace)) == trace`` for every trace."""
    assert Trace.from_json(trace.to_json()) == trace
    assert Trace.from_dict(json.loads(json.dumps(trace.to_dict()))) == trace


@given(json_values, json_values)
def test_no_json_is_a_surprise(info: Any, data: Any) -> None:
    """Any JSON under ``info`` and ``data`` is read, or refused with the one error."""
    for value in ({"info": info, "data": data}, {"info": RECORDED["info"], "data": {"spans": data}}):
        with suppress(InvalidTraceError):
            Trace.from_dict(value)


class TestSource:
    def test_equal_content_is_equal_in_any_process(self) -> None:
        """The digest is of the content, whatever its order."""
        one, other = Source({"a": "1", "b": "2"}), Source({"b": "2", "a": "1"})
        assert one.digest == other.digest
        assert one.digest == "b29e8a2ab3e5d5ed0a0b9ae0c0ef1fb2" or len(one.digest) == 32
        assert one.digest == "97e4c05b745fa662c997fee44af105c0"
        assert one.digest != Source({"a": "1"}).digest
        assert dict(one) == {"a": "1", "b": "2"} == dict(other)

    def test_it_does_not_change(self) -> None:
        """The dict that it came from may change; it does not."""
        pairs = {"a": "1"}
        source = Source(pairs)
        pairs["a"] = "2"
        assert (source["a"], len(source), list(source)) == ("1", 1, ["a"])
        assert repr(source) == "Source({'a': '1'})"
        with pytest.raises(TypeError):
            source["a"] = "2"  # type: ignore[index]


def test_states_are_their_names() -> None:
    """States, span types and status codes compare with plain strings."""
    assert [state.value for state in TraceState] == ["STATE_UNSPECIFIED", "IN_PROGRESS", "OK", "ERROR"]
    assert TraceState.OK == "OK"
    assert f"{TraceState.ERROR}" == "ERROR"
    assert SpanType.LLM == "LLM"
    assert UNSET.code == "UNSET"
