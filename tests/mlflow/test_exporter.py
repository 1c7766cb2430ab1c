"""Delivery to a server that answers well, badly, late or not at all."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import Counter

import pytest

from wherefrom import Span, Trace
from wherefrom.exceptions import StoreError, StoreUnavailableError
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.model import OK, TraceData
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from ..exporters.receiver import Reply
from .conftest import MakeMLflowQueue, MakeTrace
from .stub import EXPERIMENTS, SPANS, TRACES, Asked, StubServer, failure


def with_child(trace: Trace, span_id: str = "00f067aa0ba902b7") -> Span:
    root = trace.data.spans[0]
    child = Span(trace.info.trace_id, span_id, root.span_id, "child", "TOOL", root.start_time_ns)
    child.end_time_ns, child.status = root.start_time_ns + 1000, OK
    trace.data.spans.append(child)
    return child


def everything_once(stub: StubServer, traces: list[Trace]) -> bool:
    """Whether each trace is there, and each span was taken exactly once."""
    spans = Counter(span.span_id for trace in traces for span in trace.data.spans)
    return stub.infos.keys() == {trace.info.trace_id for trace in traces} and stub.spans == spans


def name_of(asked: Asked) -> str:
    return str(asked.body["trace"]["trace_info"]["tags"].get("mlflow.traceName"))


class TestSending:
    def test_traces_arrive_whole_and_once(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace(f"GET /{number}") for number in range(300)]
        for number, trace in enumerate(traces):
            with_child(trace, f"{number:016x}")
        queue = make_mlflow_queue(experiment="chat")
        queue.write(traces)
        assert queue.flush(20)
        assert everything_once(stub, traces)
        assert len(stub.told(TRACES)) == 300
        assert ledger.read().stored == 300

    def test_spans_come_before_what_is_told_of_their_trace(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """MLflow widens the times of a trace when spans come; what it is told afterwards stays."""
        queue = make_mlflow_queue()
        queue.write([make_trace()])
        assert queue.flush(20)
        assert [asked.path for asked in stub.asked] == [f"{EXPERIMENTS}/get-by-name", SPANS, TRACES]

    def test_connections_are_kept(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        queue = make_mlflow_queue()
        for _ in range(3):
            queue.write([make_trace() for _ in range(40)])
            assert queue.flush(20)
        assert len({asked.client for asked in stub.told(TRACES)}) == 4
        assert len({asked.client for asked in stub.told(SPANS)}) == 1

    def test_a_late_span_has_its_trace_told_again(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """Else the duration that MLflow works out from a late span would stay."""
        trace = make_trace()
        late = with_child(trace)
        late.end_time_ns = None
        queue = make_mlflow_queue()
        queue.write([trace])
        assert queue.flush(20)
        late.end_time_ns = late.start_time_ns + 9_000_000_000
        queue.write([Trace(trace.info, TraceData([late]))])
        assert queue.flush(20)
        assert everything_once(stub, [trace])
        assert [asked.path for asked in stub.asked[1:]] == [SPANS, TRACES, SPANS, TRACES]

    def test_each_trace_goes_to_its_experiment(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """Without one configured it is the trace's own; ``default`` is MLflow's ``Default``."""
        traces = [make_trace(experiment=name) for name in ("default", "chat", "default", "search")]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        assert stub.experiments.keys() == {"Default", "chat", "search"}
        places = [
            stub.infos[trace.info.trace_id]["trace_location"]["mlflow_experiment"]["experiment_id"]
            for trace in traces
        ]
        assert places == ["0", stub.experiments["chat"], "0", stub.experiments["search"]]

    def test_an_experiment_id_is_used_as_it_is(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        stub.experiments["there"] = "17"
        queue = make_mlflow_queue(experiment_id="17")
        queue.write([make_trace(experiment="elsewhere")])
        assert queue.flush(20)
        assert stub.told(SPANS)[0].headers["x-mlflow-experiment-id"] == "17"
        assert not stub.told(f"{EXPERIMENTS}/create")

    def test_another_worker_may_make_the_experiment_first(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        def judge(asked: Asked) -> None:
            if asked.path == f"{EXPERIMENTS}/create":
                stub.experiments.setdefault("chat", "5")

        stub.judge = judge
        queue = make_mlflow_queue(experiment="chat")
        queue.write([make_trace()])
        assert queue.flush(20)
        assert stub.told(SPANS)[0].headers["x-mlflow-experiment-id"] == "5"


class TestSharedTraces:
    """Several services in one trace, with ``WHEREFROM_UPSTREAM=continue``: MLflow keeps one info a trace."""

    def shared(self, make_trace: MakeTrace) -> tuple[Trace, Trace]:
        """What the service that began it recorded, and what the one that it called."""
        first = make_trace("GET /front")
        second = make_trace("GET /back", trace_id=first.info.trace_id)
        second.data.spans[0].parent_id = first.data.spans[0].span_id
        return first, second

    def test_it_is_told_by_whoever_began_it(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """However late the others come."""
        first, second = self.shared(make_trace)
        queue = make_mlflow_queue()
        for trace in (first, second):
            queue.write([trace])
            assert queue.flush(20)
        assert stub.infos[first.info.trace_id]["tags"] == {"mlflow.traceName": "GET /front"}
        assert len(stub.spans) == 2
        assert ledger.read().stored == 2

    def test_until_then_by_one_that_joined(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        first, second = self.shared(make_trace)
        queue = make_mlflow_queue()
        queue.write([second])
        assert queue.flush(20)
        assert stub.infos[first.info.trace_id]["tags"] == {"mlflow.traceName": "GET /back"}
        queue.write([first])
        assert queue.flush(20)
        assert stub.infos[first.info.trace_id]["tags"] == {"mlflow.traceName": "GET /front"}

    def test_a_late_span_of_one_that_joined_changes_nothing(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        first, second = self.shared(make_trace)
        late = with_child(second)
        late.end_time_ns = None
        queue = make_mlflow_queue()
        queue.write([second])
        assert queue.flush(20)
        queue.write([first])
        assert queue.flush(20)
        late.end_time_ns = late.start_time_ns + 1
        queue.write([Trace(second.info, TraceData([late]))])
        assert queue.flush(20)
        assert stub.infos[first.info.trace_id]["tags"] == {"mlflow.traceName": "GET /front"}
        assert len(stub.spans) == 3

    def test_a_server_that_cannot_be_asked_is_told_by_all(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        stub.judge = lambda asked: failure(400, "BAD", "no") if "batchGet" in asked.path else None
        _, second = self.shared(make_trace)
        queue = make_mlflow_queue()
        queue.write([second])
        assert queue.flush(20)
        assert len(stub.infos) == 1


class TestTrouble:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 401, 403, 404, 302])
    @pytest.mark.parametrize("path", [f"{EXPERIMENTS}/get-by-name", SPANS, TRACES])
    def test_what_may_pass_is_waited_for(
        self,
        stub: StubServer,
        make_mlflow_queue: MakeMLflowQueue,
        make_trace: MakeTrace,
        status: int,
        path: str,
    ) -> None:
        """Also a wrong credential or address: people put them right, and nothing is lost meanwhile."""
        refused: list[str] = []

        def judge(asked: Asked) -> Reply | None:
            if asked.path == path and len(refused) < 2:
                refused.append(asked.path)
                return Reply(status, b"<html>no</html>", {"content-type": "text/html"})
            return None

        stub.judge = judge
        traces = [make_trace() for _ in range(10)]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        assert everything_once(stub, traces)
        assert not ledger.read().dropped

    @pytest.mark.parametrize("path", [f"{EXPERIMENTS}/get-by-name", SPANS, TRACES])
    def test_a_connection_that_breaks_is_made_anew(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace, path: str
    ) -> None:
        broken: list[str] = []

        def judge(asked: Asked) -> Reply | None:
            if asked.path == path and len(broken) < 2:
                broken.append(path)
                return Reply(cut="all")
            return None

        stub.judge = judge
        traces = [make_trace() for _ in range(10)]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        assert everything_once(stub, traces)

    def test_what_got_through_is_not_told_again(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        times: Counter[str] = Counter()

        def judge(asked: Asked) -> Reply | None:
            if asked.path != TRACES:
                return None
            times[name_of(asked)] += 1
            return failure(503, "TEMPORARILY_UNAVAILABLE", "busy") if times["GET /20"] == 1 else None

        stub.judge = judge
        traces = [make_trace(f"GET /{number}") for number in range(30)]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        assert everything_once(stub, traces)
        again = [name for name, count in times.items() if count > 1]
        assert "GET /20" in again
        assert len(again) < 15, "only those that were under way with it"

    def test_a_server_that_was_away_gets_everything(
        self, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        traces = [make_trace() for _ in range(200)]
        queue = make_mlflow_queue(f"http://127.0.0.1:{port}")
        queue.write(traces)
        assert not queue.flush(0.3)
        assert ledger.read().errors["MLflowExporter"] >= 1
        assert ledger.read().stored == 0
        stub = StubServer(port)
        try:
            assert queue.flush(20)
            assert everything_once(stub, traces)
        finally:
            stub.close()

    def test_a_silent_server_holds_up_nobody(self, stub: StubServer, make_trace: MakeTrace) -> None:
        """Neither writers nor the end of the process wait for it."""
        stub.judge = lambda asked: Reply(cut="all", delay=3)
        exporter = MLflowExporter(stub.url, environ={})
        queue = BackgroundSink(exporter, flush_interval_ms=1)
        started = time.monotonic()
        queue.write([make_trace()])
        written = time.monotonic()
        while not stub.asked:
            time.sleep(0.01)
        closing = time.monotonic()
        assert not queue.close(0.2)
        closed = time.monotonic()
        assert written - started < 0.5
        assert closed - closing < 1.5
        assert ledger.read().dropped == {"shutdown": 1}
        assert queue._thread is not None
        queue._thread.join(20)  # what it hears at last counts here, not in the next test
        exporter.close()

    def test_the_server_may_ask_to_wait(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        told: list[float] = []

        def judge(asked: Asked) -> Reply | None:
            if asked.path == TRACES:
                told.append(time.monotonic())
                if len(told) == 1:
                    return Reply(429, b"", {"retry-after": "1"})
            return None

        stub.judge = judge
        queue = make_mlflow_queue()
        queue.write([make_trace()])
        assert queue.flush(20)
        assert told[1] - told[0] >= 1

    def test_a_deleted_experiment_is_said_and_waited_for(
        self,
        stub: StubServer,
        make_mlflow_queue: MakeMLflowQueue,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        stub.experiments["chat"] = "3"
        stub.deleted.add("chat")
        queue = make_mlflow_queue(experiment="chat")
        with caplog.at_level(logging.WARNING):
            queue.write([make_trace()])
            assert not queue.flush(0.3)
        assert "has deleted the experiment 'chat': restore it, or name another" in caplog.text
        stub.deleted.clear()
        assert queue.flush(20)
        assert ledger.read().stored == 1

    def test_an_experiment_that_goes_is_made_again(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        queue = make_mlflow_queue(experiment="chat")
        queue.write([make_trace()])
        assert queue.flush(20)
        del stub.experiments["chat"]
        queue.write([make_trace()])
        assert queue.flush(20)
        assert len(stub.told(f"{EXPERIMENTS}/create")) == 2
        assert ledger.read().stored == 2

    def test_something_else_than_mlflow_is_said(self, stub: StubServer, make_trace: MakeTrace) -> None:
        stub.judge = lambda asked: Reply(200, b"<html>Welcome</html>", {"content-type": "text/html"})
        exporter = MLflowExporter(stub.url, environ={})
        with pytest.raises(
            StoreUnavailableError, match="answered text/html where MLflow answers a JSON object"
        ):
            exporter.write([make_trace()])
        exporter.close()


class TestRefusal:
    @pytest.mark.parametrize("path", [SPANS, TRACES])
    def test_one_refused_costs_only_itself(
        self,
        stub: StubServer,
        make_mlflow_queue: MakeMLflowQueue,
        make_trace: MakeTrace,
        path: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        traces = [make_trace(f"GET /{number}") for number in range(40)]
        bad = traces[23]

        def judge(asked: Asked) -> Reply | None:
            if asked.path != path:
                return None
            names = [span.name for span in asked.spans] or [name_of(asked)]
            return failure(400, "INVALID_PARAMETER_VALUE", "odd") if "GET /23" in names else None

        stub.judge = judge
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        good = [trace for trace in traces if trace is not bad]
        assert stub.spans >= Counter(trace.data.spans[0].span_id for trace in good)
        assert stub.infos.keys() >= {trace.info.trace_id for trace in good}
        assert set(stub.spans.values()) == {1}
        assert ledger.read().stored == 39
        assert ledger.read().dropped == {"refused_by_sink": 1}
        assert "answered 400: odd" in caplog.text

    def test_a_trace_that_makes_the_server_fail_is_given_up(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """After five times; the others do not wait for it."""

        def judge(asked: Asked) -> Reply | None:
            is_bad = asked.path == TRACES and name_of(asked) == "GET /3"
            return failure(500, "INTERNAL_ERROR", "oops") if is_bad else None

        stub.judge = judge
        queue = make_mlflow_queue()
        queue.write([make_trace(f"GET /{number}") for number in range(8)])
        assert queue.flush(20)
        assert len(stub.infos) == 7
        assert ledger.read().dropped == {"refused_by_sink": 1}

    def test_what_a_strict_database_refuses_is_narrowed(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """PostgreSQL holds columns to their length and takes no NUL; the whole request id stays readable."""

        def judge(asked: Asked) -> Reply | None:
            if asked.path != TRACES:
                return None
            info = asked.body["trace"]["trace_info"]
            if len(info["client_request_id"]) > 50 or len(info["request_preview"]) > 1000:
                return failure(400, "BAD_REQUEST", "value too long for type character varying")
            return failure(500, "INTERNAL_ERROR", "NUL") if "\\u0000" in json.dumps(info) else None

        stub.judge = judge
        request_id = "r" * 120
        trace = make_trace(
            client_request_id=request_id,
            request_preview="p" * 1500,
            trace_metadata={"odd": "a\0b"},
            tags={"mlflow.traceName": "GET /", "n\0": "v"},
        )
        queue = make_mlflow_queue()
        queue.write([trace])
        assert queue.flush(20)
        info = stub.infos[trace.info.trace_id]
        assert info["client_request_id"] == "r" * 50
        assert info["trace_metadata"] == {
            "wherefrom.request_id": request_id,
            "odd": "a\ufffdb",
            "mlflow.trace.infoFinalized": "true",
        }
        assert info["tags"] == {"mlflow.traceName": "GET /", "n\ufffd": "v"}
        assert len(info["request_preview"]) == 1000
        assert not ledger.read().dropped

    def test_a_trace_that_cannot_be_written_down_costs_only_itself(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace() for _ in range(3)]
        traces[1].info.request_time = 1 << 60
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(20)
        assert len(stub.infos) == 2
        assert ledger.read().dropped == {"refused_by_sink": 1}

    def test_each_refused_trace_raises_when_it_is_asked_about_alone(
        self, stub: StubServer, make_trace: MakeTrace
    ) -> None:
        stub.judge = lambda asked: failure(400, "BAD", "no") if asked.path == TRACES else None
        exporter = MLflowExporter(stub.url, environ={})
        traces = [make_trace() for _ in range(2)]
        with pytest.raises(StoreError, match="answered 400: no"):
            exporter.write(traces)
        before = len(stub.asked)
        for trace in traces:
            with pytest.raises(StoreError, match="answered 400: no"):
                exporter.write([trace])
        assert len(stub.asked) == before
        exporter.close()


class TestProcess:
    def test_a_forked_child_sends_by_connections_of_its_own(
        self, stub: StubServer, make_trace: MakeTrace
    ) -> None:
        exporter = MLflowExporter(stub.url, environ={})
        traces = [make_trace(), make_trace()]
        exporter.write(traces[:1])
        pid = os.fork()
        if not pid:
            try:
                exporter.write(traces[1:])
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        exporter.write([make_trace()])
        assert len(stub.infos) == 3
        clients = [asked.client for asked in stub.told(TRACES)]
        assert clients[1] not in {clients[0], clients[2]}
        exporter.close()

    def test_it_can_be_used_again_when_closed(self, stub: StubServer, make_trace: MakeTrace) -> None:
        exporter = MLflowExporter(stub.url, environ={})
        for _ in range(3):
            exporter.write([make_trace()])
            exporter.close()
        assert len(stub.infos) == 3

    def test_it_says_where_it_sends(self, stub: StubServer) -> None:
        exporter = MLflowExporter(stub.url.replace("//", "//ada:secret@"), experiment="chat", environ={})
        assert repr(exporter) == f"MLflowExporter({stub.url + '/'!r}, experiment='chat')"
