"""The OTLP exporter alone, to MLflow's own server."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from wherefrom import Span, SpanEvent, SpanStatus, SpanType, Trace
from wherefrom.exporters import OTLPExporter
from wherefrom.model import OK, Source, SpanStatusCode, TraceData
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from ..conftest import MakeTrace
from .server import MLflowServer


@pytest.fixture
def experiment(mlflow_server: MLflowServer, request: pytest.FixtureRequest) -> str:
    return mlflow_server.new_experiment(request.node.name)


@pytest.fixture
def queue(mlflow_server: MLflowServer, experiment: str) -> Iterator[BackgroundSink]:
    headers = {"x-mlflow-experiment-id": experiment}
    exporter = OTLPExporter(mlflow_server.url, headers=headers, timeout=30, environ={})
    queue = BackgroundSink(exporter, flush_interval_ms=1)
    yield queue
    queue.close(1)
    exporter.close()


def chat(make_trace: MakeTrace, **info: Any) -> Trace:
    """A trace of a request and the call of a model in it."""
    source = Source({"app_version": "1.4", "environment": "production", "mlflow.source.git.commit": "c0ffee"})
    metadata = {**source.pairs, "mlflow.trace.session": "s-1", "mlflow.trace.user": "u-1"}
    trace = make_trace("POST /chat", source=source, trace_metadata=metadata, **info)
    root = trace.data.spans[0]
    root.inputs, root.outputs = {"question": "é?"}, {"answer": 42}
    model = Span(
        root.trace_id, "00f067aa0ba902b7", root.span_id, "model", SpanType.CHAT_MODEL, root.start_time_ns
    )
    model.end_time_ns, model.status = root.start_time_ns + 3_000_000, OK
    model.inputs = {"messages": [{"role": "user", "content": "é?"}]}
    model.attributes = {"temperature": 0.5, "stream": True, "n": 1, "stop": ["a", "b"], "nothing": None}
    model.events = [SpanEvent("first token", root.start_time_ns + 1_000_000, {"n": 1})]
    trace.data.spans.append(model)
    return trace


def values(span: dict[str, Any]) -> dict[str, Any]:
    """A span's attributes as MLflow keeps them."""
    return {pair.get("key", ""): _value(pair.get("value", {})) for pair in span["attributes"]}


def _value(value: dict[str, Any]) -> Any:
    for kind, held in value.items():
        if kind == "array_value":
            return [_value(item) for item in held.get("values", [])]
        if kind == "kvlist_value":
            return {pair.get("key", ""): _value(pair.get("value", {})) for pair in held.get("values", [])}
        return int(held) if kind == "int_value" else held
    return None


class TestIngest:
    def test_a_trace_arrives_whole(
        self, queue: BackgroundSink, mlflow_server: MLflowServer, experiment: str, make_trace: MakeTrace
    ) -> None:
        trace = chat(make_trace, tags={"mlflow.traceName": "POST /chat", "team": "search"})
        queue.write([trace])
        assert queue.flush(30)
        assert ledger.read().stored == 1
        assert not ledger.read().dropped
        found = mlflow_server.traces(experiment)[trace.info.trace_id]
        assert found["state"] == "OK"
        assert found["trace_metadata"]["mlflow.trace.session"] == "s-1"
        assert found["trace_metadata"]["mlflow.trace.user"] == "u-1"
        assert found["tags"]["mlflow.traceName"] == "POST /chat"
        assert found["tags"]["team"] == "search"
        assert found["tags"]["service.version"] == "1.4"
        assert found["tags"]["deployment.environment.name"] == "production"
        assert found["tags"]["vcs.ref.head.revision"] == "c0ffee"
        assert "é?" in found["request_preview"]
        root, model = mlflow_server.spans(trace.info.trace_id)
        assert (root["name"], model["name"]) == ("POST /chat", "model")
        assert model["parent_span_id"] == root["span_id"]
        assert values(root)["mlflow.spanType"] == "SERVER"
        assert values(root)["mlflow.spanInputs"] == {"question": "é?"}
        kept = values(model)
        assert kept["mlflow.spanType"] == "CHAT_MODEL"
        assert kept["mlflow.spanInputs"] == {"messages": [{"role": "user", "content": "é?"}]}
        assert (kept["temperature"], kept["stream"], kept["n"], kept["stop"]) == (0.5, True, 1, ["a", "b"])
        assert [event["name"] for event in model["events"]] == ["first token"]
        assert int(model["end_time_unix_nano"]) == trace.data.spans[1].end_time_ns

    def test_it_can_be_searched_by_what_mlflow_reads(
        self, queue: BackgroundSink, mlflow_server: MLflowServer, experiment: str, make_trace: MakeTrace
    ) -> None:
        traces = [chat(make_trace) for _ in range(3)]
        traces[1].info.trace_metadata["mlflow.trace.session"] = "s-2"
        traces[2].data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, "ValueError: no")
        queue.write(traces)
        assert queue.flush(30)
        names = [trace.info.trace_id for trace in traces]
        assert set(mlflow_server.traces(experiment)) == set(names)
        assert set(mlflow_server.traces(experiment, "metadata.`mlflow.trace.session` = 's-2'")) == {names[1]}
        assert set(mlflow_server.traces(experiment, "status = 'ERROR'")) == {names[2]}
        assert set(mlflow_server.traces(experiment, "name = 'POST /chat'")) == set(names)

    def test_a_late_span_joins_its_trace(
        self, queue: BackgroundSink, mlflow_server: MLflowServer, experiment: str, make_trace: MakeTrace
    ) -> None:
        trace = chat(make_trace)
        late = trace.data.spans[1]
        end, late.end_time_ns = late.end_time_ns, None
        queue.write([trace])
        assert queue.flush(30)
        assert len(mlflow_server.spans(trace.info.trace_id)) == 1
        late.end_time_ns = end
        queue.write([Trace(trace.info, TraceData([late]))])
        assert queue.flush(30)
        assert [span["name"] for span in mlflow_server.spans(trace.info.trace_id)] == ["POST /chat", "model"]
        found = mlflow_server.traces(experiment)[trace.info.trace_id]
        assert found["trace_metadata"]["mlflow.trace.session"] == "s-1"

    def test_links(self, queue: BackgroundSink, mlflow_server: MLflowServer, make_trace: MakeTrace) -> None:
        """A caller's ``traceparent`` is a link. MLflow 3.17 keeps it in protobuf and loses it in JSON."""
        trace = chat(make_trace)
        link = {
            "trace_id": "tr-0af7651916cd43dd8448eb211c80319c",
            "span_id": "b9c7c989f97918e1",
            "attributes": {},
        }
        trace.data.spans[0].links = [link]
        queue.write([trace])
        assert queue.flush(30)
        assert not ledger.read().dropped
        root, _ = mlflow_server.spans(trace.info.trace_id)
        (found,) = root["links"]
        assert b64decode(found["span_id"]).hex() == "b9c7c989f97918e1"

    def test_one_that_it_refuses_costs_only_itself(
        self, queue: BackgroundSink, mlflow_server: MLflowServer, experiment: str, make_trace: MakeTrace
    ) -> None:
        """MLflow refuses the whole request for one session id of more than 250 characters."""
        traces = [make_trace() for _ in range(20)]
        traces[11].info.trace_metadata["mlflow.trace.session"] = "s" * 256
        queue.write(traces)
        assert queue.flush(60)
        expected = {trace.info.trace_id for trace in traces} - {traces[11].info.trace_id}
        assert set(mlflow_server.traces(experiment)) == expected
        assert ledger.read().dropped == {"refused_by_sink": 1}
        assert ledger.read().stored == 19

    def test_an_unknown_experiment_is_said(
        self,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        headers = {"x-mlflow-experiment-id": "987654"}
        exporter = OTLPExporter(mlflow_server.url, headers=headers, environ={})
        queue = BackgroundSink(exporter)
        queue.write([make_trace()])
        assert queue.flush(30)
        queue.close(1)
        exporter.close()
        assert ledger.read().dropped == {"refused_by_sink": 1}
        assert "answered 404" in caplog.text
