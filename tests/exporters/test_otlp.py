"""Delivery: through a real queue to a real server that answers well, badly, late or not at all."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from wherefrom import Span, SpanType, Trace
from wherefrom.exceptions import StoreError, StoreUnavailableError
from wherefrom.model import OK, Source, TraceData
from wherefrom.model.parts import mark_part
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from .conftest import MakeExporter, MakeQueue, MakeTrace
from .receiver import Receiver, Reply, attributes_of, partial_success

BUSY = [429, 502, 503, 504, 408]


def ids(spans: Any) -> list[str]:
    """The span ids, sorted, which shows lost and duplicate spans."""
    return sorted(span.span_id if isinstance(span.span_id, str) else span.span_id.hex() for span in spans)


def spans_of(traces: list[Trace]) -> list[Span]:
    return [span for trace in traces for span in trace.data.spans]


def with_child(trace: Trace, *, ended: bool = True) -> Span:
    """Gives a trace a child span."""
    root = trace.data.spans[0]
    number = len(trace.data.spans)
    child = Span(
        trace.info.trace_id, f"{number:016x}", root.span_id, "child", "TOOL", root.start_time_ns + number
    )
    if ended:
        child.end_time_ns, child.status = root.start_time_ns + 2_000_000, OK
    trace.data.spans.append(child)
    return child


def dropped() -> dict[str, int]:
    return ledger.read().dropped


@pytest.fixture
def queue(make_queue: MakeQueue) -> BackgroundSink:
    return make_queue()


class TestSending:
    def test_every_span_arrives_once(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace(f"GET /{number}") for number in range(1200)]
        for trace in traces[::3]:
            with_child(trace)
        queue.write(traces)
        assert queue.flush(10)
        assert ids(receiver.accepted) == ids(spans_of(traces))
        assert ledger.read().stored == 1200
        assert not dropped()

    def test_one_connection_serves_them_all(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        for _ in range(3):
            queue.write([make_trace()])
            assert queue.flush()
        assert len(receiver.requests) == 3
        assert len(receiver.clients) == 1

    def test_what_a_request_is(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        queue = make_queue(headers={"X-Tenant": "acme"})
        queue.write([make_trace()])
        assert queue.flush()
        (request,) = receiver.requests
        assert request.path == "/v1/traces"
        assert request.headers["content-type"] == "application/x-protobuf"
        assert request.headers["content-encoding"] == "gzip"
        assert request.headers["x-tenant"] == "acme"
        assert request.headers["user-agent"].startswith("wherefrom/")

    def test_without_gzip(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        make_exporter(gzip=False).write([make_trace()])
        (request,) = receiver.requests
        assert "content-encoding" not in request.headers

    def test_spans_are_grouped_by_their_process(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        one, other = Source({"app_version": "1"}), Source({"app_version": "2"})
        traces = [
            make_trace(source=source, trace_metadata=source.pairs.copy(), experiment="chat")
            for source in (one, other, one)
        ]
        traces.append(make_trace(trace_metadata={"app_version": "2"}, experiment="chat"))  # from elsewhere
        traces.append(make_trace(experiment="other"))
        make_exporter().write(traces)
        found = [
            (
                attributes.get("service.name"),
                attributes.get("service.version"),
                len(group.scope_spans[0].spans),
            )
            for group in receiver.requests[0].message.resource_spans
            for attributes in [attributes_of(group.resource.attributes)]
        ]
        assert found == [("chat", "1", 2), ("chat", "2", 2), ("other", None, 1)]

    def test_spans_of_several_services_are_under_their_own(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """Of a trace that was read from a store: each part under its service, with a remote parent."""
        sources = [Source({"app_version": number}) for number in ("1", "2")]
        trace, part = (
            make_trace(name, source=source, trace_metadata=source.pairs.copy(), experiment=name)
            for name, source in zip(("shop", "cart"), sources, strict=True)
        )
        (root,) = part.data.spans
        root.trace_id, root.parent_id = trace.info.trace_id, trace.data.spans[0].span_id
        mark_part(part.info, root)
        with_child(part)
        trace.data.spans += part.data.spans
        make_exporter().write([trace])
        told = [
            (attributes["service.name"], attributes["service.version"], hex(span.flags))
            for resource, span in receiver.accepted_with_resources
            for attributes in [attributes_of(resource.attributes)]
        ]
        assert told == [("shop", "1", "0x101"), ("cart", "2", "0x301"), ("cart", "2", "0x101")]

    def test_the_root_says_what_its_trace_knows(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        trace = make_trace(client_request_id="r-1", trace_metadata={"mlflow.trace.session": "s-1"})
        with_child(trace)
        queue.write([trace])
        assert queue.flush()
        root, child = receiver.accepted
        assert attributes_of(root.attributes) == {"wherefrom.request_id": "r-1", "session.id": "s-1"}
        assert attributes_of(child.attributes) == {"mlflow.spanType": "TOOL"}
        assert child.parent_span_id == root.span_id

    def test_a_root_that_joined_a_callers_trace(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """trace.proto: bit 9 of the flags means that the parent is in another process."""
        trace = make_trace(trace_metadata={"mlflow.trace.session": "s-1"})
        trace.data.spans[0].parent_id = "b9c7c989f97918e1"
        make_exporter().write([trace])
        (span,) = receiver.accepted
        assert span.flags == 0x301
        assert attributes_of(span.attributes) == {"session.id": "s-1"}

    def test_large_batches_take_several_requests(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace() for _ in range(12)]
        for trace in traces:
            trace.data.spans[0].outputs = "x" * 500_000
        make_exporter().write(traces)
        assert [len(request.spans) for request in receiver.requests] == [7, 5]
        assert ids(receiver.accepted) == ids(spans_of(traces))

    def test_nothing_to_send_is_no_request(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        trace = make_trace()
        trace.data.spans[0].end_time_ns = None
        exporter = make_exporter()
        exporter.write([])
        exporter.write([trace])
        assert not receiver.requests

    def test_a_span_that_cannot_be_sent_costs_only_itself(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        good, bad = make_trace(), make_trace(trace_id="tr-1")
        queue.write([good, bad])
        assert queue.flush()
        assert ids(receiver.accepted) == ids(spans_of([good]))
        assert dropped() == {"refused_by_sink": 1}
        assert ledger.read().stored == 1


class TestLateSpans:
    def test_a_span_that_ends_later_comes_later(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        trace = make_trace(trace_metadata={"mlflow.trace.session": "s"})
        child = with_child(trace, ended=False)
        queue.write([trace])
        assert queue.flush()
        assert ids(receiver.accepted) == [trace.data.spans[0].span_id]
        child.end_time_ns = child.start_time_ns + 1
        queue.write([Trace(trace.info, TraceData([child]))])
        assert queue.flush()
        assert ids(receiver.accepted) == ids(trace.data.spans)
        late = receiver.accepted[-1]
        assert late.trace_id.hex() == trace.info.trace_id[3:]
        assert "session.id" not in attributes_of(late.attributes)

    @pytest.mark.parametrize("fragment_first", [True, False])
    @pytest.mark.parametrize("together", [True, False])
    def test_one_that_ends_while_its_trace_still_waits_is_sent_once(
        self,
        make_exporter: MakeExporter,
        receiver: Receiver,
        make_trace: MakeTrace,
        together: bool,
        fragment_first: bool,
    ) -> None:
        """It is then in its trace, ended, and in a fragment of its own, in one batch or two."""
        trace = make_trace()
        child = with_child(trace, ended=False)
        child.end_time_ns = child.start_time_ns + 1
        fragment = Trace(trace.info, TraceData([child]))
        exporter = make_exporter()
        both = [fragment, trace] if fragment_first else [trace, fragment]
        for batch in [both] if together else [[both[0]], [both[1]]]:
            exporter.write(batch)
        assert ids(receiver.accepted) == ids(trace.data.spans)

    def test_one_that_ends_between_two_attempts_is_sent_once(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        trace = make_trace()
        child = with_child(trace, ended=False)
        receiver.replies = [Reply(503)]
        exporter = make_exporter()
        with pytest.raises(StoreUnavailableError):
            exporter.write([trace])
        child.end_time_ns = child.start_time_ns + 1
        exporter.write([trace])
        exporter.write([Trace(trace.info, TraceData([child]))])
        assert ids(receiver.accepted) == ids(trace.data.spans)

    def test_what_was_sent_is_forgotten_with_the_spans(
        self, make_exporter: MakeExporter, make_trace: MakeTrace
    ) -> None:
        exporter = make_exporter()
        traces = [make_trace() for _ in range(10)]
        for trace in traces:
            with_child(trace)
        exporter.write(traces)
        assert len(exporter._delivered.marks) == 20
        del traces, trace
        assert not exporter._delivered.marks


class TestTryingAgain:
    @pytest.mark.parametrize("status", BUSY)
    def test_busy_then_well(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace, status: int
    ) -> None:
        """OTLP/HTTP, "Retryable Response Codes"."""
        receiver.replies = [Reply(status), Reply(status)]
        queue, traces = make_queue(), [make_trace() for _ in range(5)]
        queue.write(traces)
        assert queue.flush()
        assert len(receiver.requests) == 3
        assert ids(receiver.accepted) == ids(spans_of(traces))
        assert not dropped()

    @pytest.mark.parametrize("cut", ["all", "status line"])
    def test_dropped_connections(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace, cut: str
    ) -> None:
        """Without a whole status line nothing is acknowledged: the request comes again."""
        receiver.replies = [Reply(cut=cut), Reply(cut=cut), Reply()]
        traces = [make_trace() for _ in range(5)]
        queue.write(traces)
        assert queue.flush()
        assert len(receiver.requests) == 3
        assert len(receiver.clients) == 3
        assert ids(receiver.accepted) == ids(spans_of(traces))
        assert not dropped()

    def test_a_body_that_breaks_off_takes_nothing_back(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """The status was 200: sending again would duplicate the spans."""
        receiver.replies = [Reply(200, b'{"par', {"content-type": "application/json"}, cut="body")]
        first, second = make_trace(), make_trace()
        queue.write([first])
        assert queue.flush()
        queue.write([second])
        assert queue.flush()
        assert len(receiver.requests) == 2
        assert ids(receiver.accepted) == ids(spans_of([first, second]))

    def test_a_connection_that_ended_while_idle(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """Seen before it is used, so that nothing fails."""
        exporter = make_exporter()
        receiver.replies = [Reply(headers={"connection": "close"}), Reply()]
        receiver._server.RequestHandlerClass.timeout = 0.05  # type: ignore[attr-defined]
        try:
            for _ in range(3):
                exporter.write([make_trace()])
                time.sleep(0.2)
        finally:
            receiver._server.RequestHandlerClass.timeout = 10  # type: ignore[attr-defined]
        assert len(receiver.accepted) == 3
        assert len(receiver.clients) == 3

    def test_a_server_that_is_not_there_yet(self, make_queue: MakeQueue, make_trace: MakeTrace) -> None:
        gone = Receiver()
        gone.close()
        queue = make_queue(gone.url)
        queue.write([make_trace()])
        assert not queue.flush(0.3)
        assert queue.depth == 1
        assert not queue.close(0.1)
        assert dropped() == {"shutdown": 1}

    def test_a_slow_server_is_given_up_and_asked_again(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [Reply(503, delay=1.0)]
        queue = make_queue(timeout=0.1)
        queue.write([make_trace()])
        assert queue.flush()
        assert len(receiver.accepted) == 1

    def test_a_slow_server_does_not_hold_up_the_exit(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [Reply(delay=2.0)]
        exporter = make_exporter()
        queue = BackgroundSink(exporter, flush_interval_ms=1)
        queue.write([make_trace()])
        while not receiver.requests:
            time.sleep(0.01)
        started = time.monotonic()
        assert not queue.close(0.2)
        exporter.close()
        assert time.monotonic() - started < 1
        assert queue._thread is not None
        queue._thread.join(10)  # what it hears at last counts here, not in the next test

    def test_a_failing_server_is_not_asked_for_ever(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """500 often passes; but a request that brings it about must not stay (OTLP: no code to retry by)."""
        receiver.replies = [Reply(500)] * 7
        exporter, trace = make_exporter(), make_trace()
        for _ in range(6):
            with pytest.raises(StoreUnavailableError, match="answered 500"):
                exporter.write([trace])
        with pytest.raises(StoreError, match="answered 500") as caught:
            exporter.write([trace])
        assert not isinstance(caught.value, StoreUnavailableError)
        exporter.write([make_trace()])
        assert len(receiver.accepted) == 1

    def test_what_got_through_before_a_failure_is_not_sent_again(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        traces = [make_trace() for _ in range(12)]
        for trace in traces:
            trace.data.spans[0].outputs = "x" * 500_000
        receiver.replies = [Reply(), Reply(503)]
        queue = make_queue()
        queue.write(traces)
        assert queue.flush(10)
        assert [len(request.spans) for request in receiver.requests] == [7, 5, 5]
        assert ids(receiver.accepted) == ids(spans_of(traces))
        assert ledger.read().stored == 12


class TestRetryAfter:
    @pytest.mark.parametrize("wait", ["3", "date"])
    def test_it_is_waited_for(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace, wait: str
    ) -> None:
        """RFC 9110, section 10.2.3: seconds or a date."""
        if wait == "date":
            wait = format_datetime(datetime.now(UTC) + timedelta(seconds=3.5), usegmt=True)
        clock = [100.0]
        receiver.replies = [Reply(429, headers={"retry-after": wait})]
        exporter, trace = make_exporter(clock=lambda: clock[0]), make_trace()
        with pytest.raises(StoreUnavailableError, match="answered 429"):
            exporter.write([trace])
        clock[0] += 1.5
        with pytest.raises(StoreUnavailableError, match="asked to wait"):
            exporter.write([trace])
        assert len(receiver.requests) == 1
        clock[0] += 2.5
        exporter.write([trace])
        assert len(receiver.accepted) == 1

    def test_through_the_queue(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [Reply(429, headers={"retry-after": "1"})]
        queue, trace = make_queue(), make_trace()
        started = time.monotonic()
        queue.write([trace])
        assert queue.flush(10)
        assert time.monotonic() - started >= 0.9
        assert ids(receiver.accepted) == ids(trace.data.spans)

    @pytest.mark.parametrize("wait", ["86400", "Fri, 31 Dec 2100 23:59:59 GMT", "Fri, 31 Dec 2100 23:59:59"])
    def test_but_not_for_ever(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace, wait: str
    ) -> None:
        clock = [100.0]
        receiver.replies = [Reply(503, headers={"retry-after": wait})]
        exporter = make_exporter(clock=lambda: clock[0])
        with pytest.raises(StoreUnavailableError):
            exporter.write([make_trace()])
        clock[0] += 121
        exporter.write([make_trace()])

    @pytest.mark.parametrize("wait", ["soon", "-1", "1e9", "²", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
    def test_what_cannot_be_read_or_is_past_asks_for_nothing(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace, wait: str
    ) -> None:
        exporter = make_exporter()
        receiver.replies = [Reply(429, headers={"retry-after": wait.encode().decode("latin-1")})]
        with pytest.raises(StoreUnavailableError):
            exporter.write([make_trace()])
        exporter.write([make_trace()])
        assert len(receiver.accepted) == 1


class TestRefusals:
    @pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
    def test_a_refusal_is_final_for_the_whole_batch(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace, status: int
    ) -> None:
        receiver.judge = lambda message, size: Reply(status)
        queue = make_queue(interval_ms=60_000)
        queue.write([make_trace() for _ in range(10)])
        assert queue.flush()
        assert len(receiver.requests) == 1
        assert dropped() == {"refused_by_sink": 10}
        assert ledger.read().stored == 0

    def test_one_bad_span_costs_only_its_trace(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """MLflow's server takes a request whole or not at all: the one to blame is looked for."""
        queue = make_queue(interval_ms=60_000)
        traces = [make_trace("bad" if number == 137 else "good") for number in range(300)]
        receiver.judge = _refuses_bad(400)
        queue.write(traces)
        assert queue.flush(10)
        assert ids(receiver.accepted) == ids(spans_of(traces[:137] + traces[138:]))
        assert dropped() == {"refused_by_sink": 1}
        assert ledger.read().stored == 299
        assert len(receiver.requests) < 25

    def test_but_it_is_not_looked_for_without_end(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.judge = lambda message, size: Reply(422)
        queue = make_queue(interval_ms=60_000)
        queue.write([make_trace() for _ in range(500)])
        assert queue.flush(10)
        assert len(receiver.requests) <= 2 * 64 + 1
        assert dropped() == {"refused_by_sink": 500}

    def test_too_large_is_sent_in_parts(
        self, queue: BackgroundSink, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """413: the parts fit, later requests are no larger, and what fits in none is dropped."""
        traces = [make_trace() for _ in range(40)]
        for trace in traces:
            trace.data.spans[0].outputs = "x" * 20_000
        traces[7].data.spans[0].outputs = "x" * 200_000
        receiver.judge = lambda message, size: Reply(413 if size > 150_000 else 200)
        queue.write(traces)
        assert queue.flush(10)
        assert ids(receiver.accepted) == ids(spans_of(traces[:7] + traces[8:]))
        assert dropped() == {"refused_by_sink": 1}
        refused = len([request for request in receiver.requests if request.reply.status == 413])
        queue.write(traces[10:30])
        before = len(receiver.requests)
        queue.write([make_trace() for _ in range(5)])
        assert queue.flush(10)
        assert all(request.reply.status == 200 for request in receiver.requests[before:])
        assert refused < 12

    def test_a_collector_that_does_not_read_protobuf_refuses_for_good(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """415 means the encoding, and there is no other one to try."""
        receiver.judge = lambda message, size: Reply(415)
        queue = make_queue()
        queue.write([make_trace()])
        assert queue.flush()
        assert len(receiver.requests) == 1
        assert dropped() == {"refused_by_sink": 1}

    def test_a_fragment_of_a_refused_span_is_refused_too(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        trace = make_trace()
        child = with_child(trace)
        receiver.replies = [Reply(403)]
        exporter = make_exporter()
        for handed_in in (trace, Trace(trace.info, TraceData([child]))):
            with pytest.raises(StoreError, match="answered 403"):
                exporter.write([handed_in])
        assert len(receiver.requests) == 1

    @pytest.mark.parametrize(
        ("reply", "said"),
        [
            (
                Reply(
                    400, b'{"code": 3, "message": "no such\\ntenant"}', {"content-type": "application/json"}
                ),
                "no such tenant",
            ),
            (Reply(404, b'{"detail": {"error": "x"}}', {"content-type": "application/json"}), "x"),
            (Reply(404, b'{"detail": [1, 2]}', {"content-type": "application/json"}), "[1,2]"),
            (Reply(404, b'{"a": 1}', {"content-type": "application/json"}), '{"a":1}'),
            (Reply(404, b'"text"', {"content-type": "application/json"}), "text"),
            (Reply(404, b"{no json", {"content-type": "application/json"}), "{no json"),
            (Reply(400, b"\x08\x03\x12\x02no", {"content-type": "application/x-protobuf"}), "no"),
            (Reply(400, b"\x12\x09no", {"content-type": "application/x-protobuf"}), "no"),
            (Reply(400, b"<b>" + b"x" * 5000, {"content-type": "text/html"}), "<b>x"),
            (Reply(401), ""),
        ],
    )
    def test_the_log_has_what_the_collector_says(
        self,
        make_queue: MakeQueue,
        receiver: Receiver,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
        reply: Reply,
        said: str,
    ) -> None:
        receiver.replies = [reply]
        queue = make_queue()
        queue.write([make_trace()])
        assert queue.flush()
        (record,) = caplog.records
        message = record.getMessage()
        assert f"{receiver.url}/v1/traces answered {reply.status}: {said}" in message
        assert "\n" not in message
        assert len(message) < 600

    def test_secrets_are_not_told(
        self,
        make_queue: MakeQueue,
        receiver: Receiver,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Not even if a collector returns them."""
        caplog.set_level(logging.DEBUG)
        url = receiver.url.replace("//", "//user:pass%20word@") + "/v1/traces?key=query-secret"
        receiver.replies = [Reply(401, b"bad key header-secret")]
        queue = make_queue(url, headers={"api-key": "header-secret"})
        queue.write([make_trace()])
        assert queue.flush()
        (request,) = receiver.requests
        assert request.headers["authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
        assert request.path == "/v1/traces?key=query-secret"
        text = caplog.text + repr(queue.sink)
        assert "bad key ***" in text
        for secret in ("header-secret", "pass", "dXNlc", "query-secret"):
            assert secret not in text


class TestPartialSuccess:
    @pytest.mark.parametrize("protobuf", [True, False])
    def test_it_is_counted_and_told_and_not_sent_again(
        self,
        make_queue: MakeQueue,
        receiver: Receiver,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
        protobuf: bool,
    ) -> None:
        receiver.replies = [partial_success(2, "over\nquota", protobuf=protobuf)]
        queue = make_queue()
        queue.write([make_trace() for _ in range(3)])
        assert queue.flush()
        assert len(receiver.requests) == 1
        assert dropped() == {"spans_rejected": 2}
        assert "rejected 2 of 3 spans: over quota" in caplog.text

    def test_a_warning_alone_is_told(
        self,
        make_queue: MakeQueue,
        receiver: Receiver,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        receiver.replies = [partial_success(0, "soon over quota")]
        queue = make_queue()
        queue.write([make_trace()])
        assert queue.flush()
        assert not dropped()
        assert "soon over quota" in caplog.text

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(200, b"{}", {"content-type": "application/json"}),
            Reply(202, b""),
            Reply(200, b"ok", {"content-type": "text/plain"}),
            Reply(200, b"[1]", {"content-type": "application/json"}),
            Reply(
                200, b'{"partialSuccess": {"rejectedSpans": "many"}}', {"content-type": "application/json"}
            ),
            Reply(200, b'{"partialSuccess": {"rejectedSpans": "-2"}}', {"content-type": "application/json"}),
            Reply(200, b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01", {"content-type": "application/x-protobuf"}),
            Reply(200, b"\xff", {"content-type": "application/x-protobuf"}),
            Reply(200, b"\x08\x01", {"content-type": "application/x-protobuf"}),
        ],
    )
    def test_other_answers_are_full_success(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace, reply: Reply
    ) -> None:
        receiver.replies = [reply]
        queue = make_queue()
        queue.write([make_trace()])
        assert queue.flush()
        assert not dropped()
        assert not ledger.read().errors
        assert ledger.read().stored == 1

    def test_more_than_were_sent_are_not_counted(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [partial_success(1_000_000, "")]
        make_exporter().write([make_trace()])
        assert dropped() == {"spans_rejected": 1}

    def test_an_answer_without_end_is_not_read_to_its_end(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [Reply(200, b"x" * 1_000_000)]
        exporter = make_exporter()
        exporter.write([make_trace()])
        exporter.write([make_trace()])
        assert len(receiver.accepted) == 2
        assert len(receiver.clients) == 2


class TestChaos:
    def test_no_span_is_lost_or_doubled(
        self, make_queue: MakeQueue, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        """Writers, late spans, and a collector that fails in every way: all is there, once."""
        receiver.replies = [
            Reply(429),
            Reply(cut="all"),
            Reply(),
            Reply(413),
            Reply(cut="status line"),
            Reply(200, b"x", cut="body"),
            Reply(503),
            Reply(413),
        ]
        queue = make_queue()
        written: list[Trace] = []

        def work() -> None:
            for _ in range(40):
                trace = make_trace()
                child = with_child(trace, ended=False)
                written.append(trace)
                queue.write([trace])
                time.sleep(0.002)
                child.end_time_ns = child.start_time_ns + 1
                queue.write([Trace(trace.info, TraceData([child]))])

        writers = [threading.Thread(target=work) for _ in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert queue.flush(20)
        found = sorted((span.trace_id.hex(), span.span_id.hex()) for span in receiver.accepted)
        assert found == sorted((span.trace_id[3:], span.span_id) for span in spans_of(written))
        assert not dropped()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestForks:
    def in_child(self, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_parent_and_child_have_a_connection_each(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        exporter = make_exporter()
        exporter.write([make_trace()])
        self.in_child(lambda: exporter.write([make_trace()]))
        exporter.write([make_trace()])
        assert len(receiver.accepted) == 3
        clients = [request.client for request in receiver.requests]
        assert clients[0] == clients[2] != clients[1]

    def test_it_may_be_forked_in_the_middle_of_a_request(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
    ) -> None:
        receiver.replies = [Reply(delay=0.5)]
        exporter = make_exporter()
        writer = threading.Thread(target=exporter.write, args=([make_trace()],))
        writer.start()
        while not receiver.requests:
            time.sleep(0.01)
        self.in_child(lambda: exporter.write([make_trace()]))
        writer.join()
        assert len(receiver.accepted) == 2


def _refuses_bad(status: int) -> Callable[..., Reply]:
    def judge(message: Any, size: int) -> Reply:
        spans = [
            span
            for resource_spans in message.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        return Reply(status if any(span.name == "bad" for span in spans) else 200)

    return judge


def test_a_request_served_by_the_middleware(make_exporter: MakeExporter, receiver: Receiver) -> None:
    """From the middleware to the wire: a server span with HTTP semantic conventions."""
    import asyncio

    from wherefrom import Settings, TraceMiddleware, start_span

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with start_span("model", span_type=SpanType.LLM) as span:
            span.set_inputs({"q": "?"})
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    middleware = TraceMiddleware(app, settings=Settings(experiment="chat"), sink=make_exporter())
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "headers": [(b"x-request-id", b"r-1"), (b"x-user-id", b"u-1")],
        "http_version": "1.1",
    }
    asyncio.run(middleware(scope, receive, send))
    (resource, root), (_, child) = receiver.accepted_with_resources
    attributes = attributes_of(root.attributes)
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 500
    assert attributes["wherefrom.request_id"] == "r-1"
    assert attributes["user.id"] == "u-1"
    assert (root.kind, root.status.code, root.flags) == (2, 2, 0x101)
    assert attributes_of(child.attributes) == {"mlflow.spanType": "LLM", "mlflow.spanInputs": {"q": "?"}}
    assert child.parent_span_id == root.span_id
    process = attributes_of(resource.attributes)
    assert process["service.name"] == "chat"
    assert process["service.version"] == "development"
    assert "cloud.region" not in process
