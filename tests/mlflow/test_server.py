"""The exporter to MLflow's own server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceState
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.model import OK, SpanStatusCode, TraceData
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from ..conftest import MakeTrace
from .server import MLflowServer
from .test_otlp import chat, values

METADATA = {
    "mlflow.source.name": "app:app",
    "mlflow.source.git.commit": "c0ffee",
    "environment": "production",
    "app_version": "1.4",
    "tenant": "acme é",
    "mlflow.trace.session": "s-1",
    "mlflow.trace.user": "u-1",
    "feature_flag_new": "true",
    "empty": "",
}


@pytest.fixture
def queue(mlflow_server: MLflowServer, request: pytest.FixtureRequest) -> Iterator[BackgroundSink]:
    exporter = MLflowExporter(mlflow_server.url, experiment=request.node.name, environ={}, timeout=60)
    queue = BackgroundSink(exporter, flush_interval_ms=1, batch_size=exporter.batch_size)
    yield queue
    queue.close(1)
    exporter.close()


def written(queue: BackgroundSink, server: MLflowServer, name: str, traces: list[Trace]) -> dict[str, Any]:
    """The traces, as the server has them."""
    queue.write(traces)
    assert queue.flush(120)
    assert not ledger.read().dropped
    return server.traces(server.experiment(name))


def without_the_server_s(pairs: dict[str, str]) -> dict[str, str]:
    """Metadata or tags without what the server adds to each trace."""
    own = {"mlflow.artifactLocation", "mlflow.trace.spansLocation", "mlflow.trace.infoFinalized"}
    return {key: value for key, value in pairs.items() if key not in own}


class TestTraces:
    def test_a_trace_is_complete(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        tags = {"mlflow.traceName": "POST /chat", "team": "search"}
        usage = '{"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}'
        trace = chat(
            make_trace,
            tags=tags,
            client_request_id="req-1",
            request_preview='{"q": 1}',
            response_preview="42",
        )
        trace.info.trace_metadata = METADATA | {"mlflow.trace.tokenUsage": usage}
        found = written(queue, mlflow_server, request.node.name, [trace])[trace.info.trace_id]
        assert found["client_request_id"] == "req-1"
        assert found["request_time"] == "2023-11-14T22:13:20Z"
        assert found["execution_duration"] == "0.005s"
        assert (found["state"], found["request_preview"], found["response_preview"]) == (
            "OK",
            '{"q": 1}',
            "42",
        )
        assert without_the_server_s(found["trace_metadata"]) == trace.info.trace_metadata
        assert without_the_server_s(found["tags"]) == tags
        root, model = mlflow_server.spans(trace.info.trace_id)
        assert model["parent_span_id"] == root["span_id"]
        assert values(root)["mlflow.spanInputs"] == {"question": "é?"}
        assert values(root)["mlflow.spanOutputs"] == {"answer": 42}
        assert [event["name"] for event in model["events"]] == ["first token"]
        own = {key for key in values(root) if not key.startswith("mlflow.")}
        assert own == set(trace.data.spans[0].attributes)

    def test_it_is_found_as_mlflow_s_users_search(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        traces = [make_trace(f"GET /{n}", trace_metadata=METADATA | {"n": str(n)}) for n in range(3)]
        written(queue, mlflow_server, request.node.name, traces)
        place = mlflow_server.experiment(request.node.name)
        for filter_string in (
            "metadata.n = '1'",
            "name = 'GET /1'",
            "metadata.n = '1' AND metadata.`mlflow.trace.session` = 's-1' AND status = 'OK'",
        ):
            assert set(mlflow_server.traces(place, filter_string)) == {traces[1].info.trace_id}

    def test_what_failed_says_so(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        trace = make_trace("GET /", state=TraceState.ERROR)
        root = trace.data.spans[0]
        root.status = SpanStatus(SpanStatusCode.ERROR, "ValueError: no")
        root.events = [SpanEvent("exception", root.start_time_ns, {"exception.type": "ValueError"})]
        found = written(queue, mlflow_server, request.node.name, [trace])[trace.info.trace_id]
        assert found["state"] == "ERROR"
        (span,) = mlflow_server.spans(trace.info.trace_id)
        assert span["status"] == {"code": "STATUS_CODE_ERROR", "message": "ValueError: no"}
        assert span["events"][0]["name"] == "exception"

    def test_a_span_that_ends_late_does_not_lengthen_its_trace(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        """A background task is no part of the time that the client waited."""
        trace = make_trace()
        root = trace.data.spans[0]
        late = Span(trace.info.trace_id, "00f067aa0ba902b7", root.span_id, "mail", "TASK", root.start_time_ns)
        trace.data.spans.append(late)
        written(queue, mlflow_server, request.node.name, [trace])
        late.end_time_ns, late.status = root.start_time_ns + 9_000_000_000, OK
        found = written(queue, mlflow_server, request.node.name, [Trace(trace.info, TraceData([late]))])
        assert found[trace.info.trace_id]["execution_duration"] == "0.005s"
        assert len(mlflow_server.spans(trace.info.trace_id)) == 2

    def test_nothing_hostile_costs_more_than_itself(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        """Lone surrogates, NUL, a megabyte, odd keys: all are taken, cut as MLflow cuts."""
        odd = {
            "surrogate \ud800": "\udfff x",
            "nul": "a\0b",
            "": "no key",
            "k" * 400: "long key",
            "long": "v" * 9000,
            "new\nline 🎉": "🎉\r\n\t",
            "mlflow.traceInputs": "i" * 9000,
        }
        trace = make_trace(
            "GET /\ud800",
            trace_metadata=dict(odd),
            tags={
                "mlflow.traceName": "n\ud800" * 3000,
                "long": "t" * 9000,
                "mlflow.artifactLocation": "/etc",
            },
            client_request_id="r" * 200,
            request_preview="p\ud800" * 5000,
        )
        root = trace.data.spans[0]
        root.inputs = {"big": "x" * 1_000_000, "\ud800": ["\0", float("nan"), 2**80, None, {"": []}]}
        root.attributes = {"a\ud800": "\udfff", "": 1, "deep": {"a": [{"b": None}]}, "k" * 5000: "v"}
        root.events = [SpanEvent("e\ud800", root.start_time_ns, {"\0": "\ud800"})]
        others = [make_trace(), make_trace()]
        found = written(queue, mlflow_server, request.node.name, [others[0], trace, others[1]])
        assert len(found) == 3
        told = found[trace.info.trace_id]
        metadata = without_the_server_s(told["trace_metadata"])
        assert metadata == {
            "surrogate ?": "? x",
            "nul": "a\0b",
            "": "no key",
            "k" * 250: "long key",
            "long": "v" * 250,
            "new\nline 🎉": "🎉\r\n\t",
            "mlflow.traceInputs": "i" * 247 + "...",
        }
        assert told["tags"]["long"] == "t" * 4096
        assert told["tags"]["mlflow.artifactLocation"] != "/etc"
        assert told["client_request_id"] == "r" * 200
        (span,) = mlflow_server.spans(trace.info.trace_id)
        assert len(values(span)["mlflow.spanInputs"]["big"]) == 1_000_000

    def test_a_trace_that_two_services_share_says_what_the_first_says(
        self,
        queue: BackgroundSink,
        mlflow_server: MLflowServer,
        make_trace: MakeTrace,
        request: pytest.FixtureRequest,
    ) -> None:
        """Though the one that was called comes later."""
        first = make_trace("GET /front")
        second = make_trace("GET /back", trace_id=first.info.trace_id, execution_duration=3)
        second.data.spans[0].parent_id = first.data.spans[0].span_id
        written(queue, mlflow_server, request.node.name, [first])
        found = written(queue, mlflow_server, request.node.name, [second])[first.info.trace_id]
        assert found["tags"]["mlflow.traceName"] == "GET /front"
        assert found["execution_duration"] == "0.005s"
        assert len(mlflow_server.spans(first.info.trace_id)) == 2
