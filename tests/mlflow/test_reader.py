"""Reading from a server that answers badly: old, broken, busy or hostile."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from wherefrom import Trace
from wherefrom.exceptions import InvalidTraceError, StoreError, StoreUnavailableError
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.mlflow.reader import MLflowReader
from wherefrom.mlflow.wire import read_span, read_stored_span

from ..exporters.receiver import Reply
from .conftest import MakeTrace
from .stub import EXPERIMENTS, TRACES, Asked, StubServer, as_json, failure

SPAN_ID = b64encode(bytes(range(8))).decode()


@pytest.fixture
def reader(stub: StubServer) -> Iterator[MLflowReader]:
    reader = MLflowReader(stub.url, environ={})
    yield reader
    reader.close()


def info_of(trace: Trace, **changes: Any) -> dict[str, Any]:
    return {**trace.info.to_dict(), "tags": {"mlflow.trace.spansLocation": "TRACKING_STORE"}, **changes}


def answering(stub: StubServer, answers: dict[str, Any]) -> None:
    """Have the stub answer paths with these; what is callable is given the request."""

    def judge(asked: Asked) -> Reply | None:
        answer = answers.get(asked.path)
        found = answer(asked) if callable(answer) else answer
        return found if found is None or isinstance(found, Reply) else as_json(found)

    stub.judge = judge


class TestPages:
    def test_experiments_come_in_pages(self, stub: StubServer, reader: MLflowReader) -> None:
        def search(asked: Asked) -> Any:
            if "page_token" in asked.body:
                return {"experiments": [{"name": "b", "experiment_id": "2"}]}
            return {"experiments": [{"name": "Default", "experiment_id": "0"}], "next_page_token": "x"}

        answering(stub, {f"{EXPERIMENTS}/search": search})
        assert reader.experiments() == {"default": "0", "b": "2"}

    def test_a_server_that_refuses_is_said(self, stub: StubServer, reader: MLflowReader) -> None:
        answering(stub, {f"{EXPERIMENTS}/search": failure(403, "PERMISSION_DENIED", "no")})
        with pytest.raises(StoreError, match="answered 403: no"):
            reader.experiments()

    def test_one_that_is_busy_at_first_is_not_waited_for(
        self, stub: StubServer, reader: MLflowReader
    ) -> None:
        answering(stub, {f"{EXPERIMENTS}/search": failure(503, "BUSY", "later")})
        with pytest.raises(StoreUnavailableError, match="answered 503"):
            reader.experiments()
        assert len(stub.asked) == 1

    def test_later_it_is(self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace) -> None:
        busy = [failure(503, "BUSY", "later")]
        traces = {"traces": [info_of(make_trace())]}
        answering(stub, {f"{TRACES}/search": lambda asked: busy.pop() if busy else traces})
        (page,) = reader.pages("chat", "1")
        assert len(page.listed) == 1

    def test_infos_that_cannot_be_read_cost_no_other(
        self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace
    ) -> None:
        good = make_trace()
        hostile = [
            info_of(make_trace(), request_time="soon"),
            {"trace_id": "tr-1"},
            {"request_time": "2026-01-01T00:00:00Z"},
            info_of(make_trace(), execution_duration_ms=None, execution_duration="long"),
            info_of(make_trace(), trace_metadata=["no", "pairs"]),
            info_of(make_trace(), trace_location="nowhere"),
            info_of(make_trace(), state="MAYBE"),
            "no object",
            None,
        ]
        answering(stub, {f"{TRACES}/search": {"traces": [*hostile, info_of(good)]}})
        (page,) = reader.pages("chat", "1")
        assert [each.info.trace_id for each in page.listed] == [good.info.trace_id]
        assert len(page.refused) == 7
        assert page.done == 1.0

    def test_how_far_it_has_come(self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace) -> None:
        """By time, as the server does not say how many there are."""
        infos = [info_of(make_trace(request_time=1_700_000_000_000 + n * 1000)) for n in range(4)]

        def search(asked: Asked) -> Any:
            if asked.body["order_by"] == ["timestamp_ms DESC"]:
                return {"traces": infos[3:]}
            at = int(asked.body["page_token"] or 0)
            return {"traces": [infos[at]], "next_page_token": str(at + 1) if at < 3 else None}

        answering(stub, {f"{TRACES}/search": search})
        done = [page.done for page in reader.pages("chat", "1")]
        assert done == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]

    def test_an_experiment_without_traces(self, stub: StubServer, reader: MLflowReader) -> None:
        answering(stub, {f"{TRACES}/search": {}})
        (page,) = reader.pages("chat", "1")
        assert (page.listed, page.refused, page.done) == ([], [], 1.0)


class TestSpans:
    def test_one_that_makes_the_server_fail_costs_no_other(
        self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace() for _ in range(12)]
        bad = traces[7].info.trace_id
        infos = {trace.info.trace_id: info_of(trace) for trace in traces}
        span = {"span_id": SPAN_ID, "name": "x", "start_time_unix_nano": 5}

        def get(asked: Asked) -> Any:
            ids = asked.query_lists["trace_ids"]
            if bad in ids:
                return failure(500, "INTERNAL_ERROR", "broken")
            return {"traces": [{"trace_info": infos[each], "spans": [span]} for each in ids]}

        answering(stub, {f"{TRACES}/search": {"traces": [*infos.values()]}, f"{TRACES}/batchGet": get})
        (page,) = reader.pages("chat", "1")
        found, refused = reader.read(page.listed)
        assert len(found) == 11
        assert [each.trace_id for each in refused] == [bad]
        assert "answered 500: broken" in refused[0].reason

    @pytest.mark.parametrize(
        "span",
        [
            {},
            {"span_id": "not base64!", "start_time_unix_nano": 1},
            {"span_id": SPAN_ID, "start_time_unix_nano": "early"},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "status": {"code": "FINE"}},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "attributes": ["no pair"]},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "events": "none"},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "links": [{}]},
            {"span_id": "", "start_time_unix_nano": 1},
            {"span_id": SPAN_ID, "start_time_unix_nano": -1},
            {"span_id": SPAN_ID, "start_time_unix_nano": 2**64},
            {"span_id": SPAN_ID, "start_time_unix_nano": True},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "end_time_unix_nano": 2**63},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "name": 5},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "status": []},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "status": {"code": "OK", "message": 5}},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "attributes": 5},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "attributes": [{"value": {"int_value": "x"}}]},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "events": [5]},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "events": [{"time_unix_nano": -1}]},
            {"span_id": SPAN_ID, "start_time_unix_nano": 1, "events": [{"name": ["x"]}]},
            "no object",
        ],
    )
    def test_a_span_that_is_none(self, span: Any) -> None:
        with pytest.raises(InvalidTraceError, match="not a span of MLflow's REST API"):
            read_span(span, "tr-1")

    @pytest.mark.parametrize("context", [{}, {"trace_id": "0xzz", "span_id": "0x1"}, "none"])
    def test_an_old_span_that_is_none(self, context: Any) -> None:
        with pytest.raises(InvalidTraceError, match="not a span of MLflow 2"):
            read_stored_span({"context": context, "start_time": 1}, "tr-1")

    def test_numbers_may_be_text(self) -> None:
        """64-bit integers are text in protobuf's JSON mapping; numbers that are not finite stay text."""
        attributes = [
            {"key": "n", "value": {"int_value": "5"}},
            {"key": "x", "value": {"double_value": "Infinity"}},
            {"key": "none"},
            {"value": {"array_value": {}}},
        ]
        span = read_span({"span_id": SPAN_ID, "start_time_unix_nano": "7", "attributes": attributes}, "tr-1")
        assert span.attributes == {"n": 5, "x": "Infinity", "none": None, "": []}
        assert (span.start_time_ns, span.end_time_ns) == (7, None)

    @pytest.mark.parametrize("spans", [5, "x", {"a": 1}, [5], ["x"], [None]])
    def test_spans_that_are_no_list_of_spans_cost_no_other_trace(
        self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace, spans: Any
    ) -> None:
        infos = [info_of(make_trace()) for _ in range(2)]
        answers = [{"trace_info": infos[0], "spans": spans}, {"trace_info": infos[1]}]
        answering(stub, {f"{TRACES}/search": {"traces": infos}, f"{TRACES}/batchGet": {"traces": answers}})
        (page,) = reader.pages("chat", "1")
        found, refused = reader.read(page.listed)
        assert [trace.info.trace_id for trace in found] == [infos[1]["trace_id"]]
        assert [each.trace_id for each in refused] == [infos[0]["trace_id"]]

    def test_a_value_of_a_thousand_levels_becomes_text_or_is_refused(self) -> None:
        value: dict[str, Any] = {"string_value": "x"}
        for _ in range(200):
            value = {"array_value": {"values": [value]}}
        span = {
            "span_id": SPAN_ID,
            "start_time_unix_nano": 1,
            "attributes": [{"key": "deep", "value": value}],
        }
        assert isinstance(read_span(span, "tr-1").attributes["deep"], str)
        for _ in range(2000):
            value = {"array_value": {"values": [value]}}
        span["attributes"] = [{"key": "deep", "value": value}]
        with pytest.raises(InvalidTraceError, match="RecursionError"):
            read_span(span, "tr-1")


class TestAnswersOfAnotherShape:
    @pytest.mark.parametrize("content", [[], "text", 5, None, True])
    def test_json_that_is_no_object_is_refused(
        self, stub: StubServer, reader: MLflowReader, content: Any
    ) -> None:
        stub.judge = lambda asked: as_json(content)
        with pytest.raises(StoreError, match="answered application/json where MLflow answers a JSON object"):
            reader.experiments()

    @pytest.mark.parametrize("found", [5, "x", {"a": 1}, [5, None]])
    def test_lists_of_something_else_hold_nothing(
        self, stub: StubServer, reader: MLflowReader, found: Any
    ) -> None:
        answering(
            stub, {f"{TRACES}/search": {"traces": found}, f"{EXPERIMENTS}/search": {"experiments": found}}
        )
        (page,) = reader.pages("chat", "1")
        assert (page.listed, page.refused) == ([], [])
        assert reader.experiments() == {}

    @pytest.mark.parametrize("answer", [{}, {"experiment": 5}, {"experiment": {"name": "chat"}}])
    def test_an_experiment_without_an_id_is_waited_for(
        self, stub: StubServer, make_trace: MakeTrace, answer: Any
    ) -> None:
        answering(stub, {f"{EXPERIMENTS}/get-by-name": answer, f"{EXPERIMENTS}/create": {}})
        exporter = MLflowExporter(stub.url, environ={})
        with pytest.raises(StoreUnavailableError, match="without the id of an experiment"):
            exporter.write([make_trace()])
        exporter.close()


class TestPresence:
    def test_what_the_server_fails_over_is_sent(self, stub: StubServer, make_trace: MakeTrace) -> None:
        traces = [make_trace() for _ in range(3)]
        exporter = MLflowExporter(stub.url, environ={})
        answering(stub, {f"{TRACES}/batchGet": failure(500, "INTERNAL_ERROR", "broken")})
        assert exporter.missing(traces) == traces
        assert len(stub.told(f"{TRACES}/batchGet")) == 4
        exporter.close()

    def test_a_request_id_that_was_narrowed_comes_back_whole(
        self, stub: StubServer, reader: MLflowReader, make_trace: MakeTrace
    ) -> None:
        info = info_of(make_trace(), client_request_id="r" * 50)
        info["trace_metadata"] = {"wherefrom.request_id": "r" * 70, "k": "v"}
        answering(stub, {f"{TRACES}/search": {"traces": [info]}})
        (page,) = reader.pages("chat", "1")
        assert page.listed[0].info.client_request_id == "r" * 70
        assert page.listed[0].info.trace_metadata == {"k": "v"}
