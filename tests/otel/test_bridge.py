"""OpenTelemetry inside our requests: the current span, the spans that join the trace, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

import wherefrom
from wherefrom import MemorySink, TraceMiddleware, TraceState
from wherefrom.context import enter, leave
from wherefrom.otel import OpenTelemetryBridge, WherefromSpanProcessor

from .telemetry import Telemetry, get, named, ok, tree_of


def ids_of(span: otel.Span) -> tuple[str, str]:
    context = span.get_span_context()
    return f"tr-{context.trace_id:032x}", f"{context.span_id:016x}"


async def within(telemetry: Telemetry, work: Any, **settings: Any) -> Any:
    """Do the work in a request; what it returned."""
    answer = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        result = work()
        answer.append(await result if asyncio.iscoroutine(result) else result)
        await ok(scope, receive, send)

    await get(telemetry.traced(app, **settings))
    return answer[0]


class TestWhatIsCurrent:
    """Inside a request, OpenTelemetry's current span and ours are one."""

    async def test_the_request(self, telemetry: Telemetry) -> None:
        """Its ids are ours; after it nothing is current."""

        def work() -> tuple[str, str]:
            assert wherefrom.current_span() is not None
            assert ids_of(otel.get_current_span())[1] == wherefrom.current_span().span_id  # type: ignore[union-attr]
            return ids_of(otel.get_current_span())

        root = (await within(telemetry, work), telemetry.trace.data.spans[0])
        assert root[0] == (root[1].trace_id, root[1].span_id)
        assert otel.get_current_span() is otel.INVALID_SPAN

    async def test_our_spans_and_theirs_nest(self, telemetry: Telemetry) -> None:
        """Whichever tracer opens a span, the next is below it, and so for ``@trace``."""

        @wherefrom.trace
        def ours() -> None:
            with telemetry.tracer.start_as_current_span("b"):
                with wherefrom.start_span("c"):
                    with telemetry.tracer.start_as_current_span("d"):
                        assert named_now() == "d"
                    assert named_now() == "c"
                assert named_now() == "b"

        def named_now() -> str:
            span = wherefrom.current_span()
            assert span is not None
            assert ids_of(otel.get_current_span()) == (span.trace_id, span.span_id)
            return span.name

        await within(telemetry, ours)
        telemetry.check()
        assert telemetry.tree() == {"GET": None, "ours": "GET", "b": "ours", "c": "b", "d": "c"}

    async def test_generators(self, telemetry: Telemetry) -> None:
        """What a traced generator has open is current in its body and not where it is consumed."""

        @wherefrom.trace
        def items() -> Iterator[int]:
            with telemetry.tracer.start_as_current_span("inside"):
                yield 1
                with telemetry.tracer.start_as_current_span("deeper"):
                    yield 2
            with telemetry.tracer.start_as_current_span("after"):
                yield 3

        def work() -> None:
            for _ in items():
                with telemetry.tracer.start_as_current_span("consumer"):
                    pass

        await within(telemetry, work)
        spans = telemetry.trace.data.spans
        names = {span.span_id: span.name for span in spans}
        pairs = [(span.name, names.get(span.parent_id or "")) for span in spans[1:]]
        assert pairs == [
            ("items", "GET"),
            ("inside", "items"),
            ("consumer", "GET"),
            ("deeper", "inside"),
            ("consumer", "GET"),
            ("after", "items"),
            ("consumer", "GET"),
        ]
        assert wherefrom.stats().errors == {}

    async def test_what_is_set_through_their_api(self, telemetry: Telemetry) -> None:
        """``trace.get_current_span()`` in a handler is a span like any other."""

        def work() -> None:
            span: Any = otel.get_current_span()
            assert span.is_recording()
            assert span.kind is SpanKind.SERVER
            span.set_attribute("a", 1)
            span.set_attributes({"b": [1, 2]})
            assert span.attributes == {"a": 1, "b": [1, 2]}
            span.add_event("cached", {"key": "k"})
            span.add_event("before", timestamp=5)
            span.add_link(SpanContext(1, 2, is_remote=True), {"why": "retry"})
            span.add_link(otel.INVALID_SPAN_CONTEXT)
            span.record_exception(ValueError("no"), {"more": 1}, timestamp=7)
            span.record_exception(ValueError("again"))
            span.update_name("renamed")
            assert span.name == "renamed"
            span.end()
            assert span.is_recording()

        await within(telemetry, work)
        root = telemetry.trace.data.spans[0]
        assert root.name == "renamed"
        assert root.attributes["a"] == 1
        assert root.attributes["b"] == [1, 2]
        assert [(event.name, event.timestamp < 10) for event in root.events] == [
            ("cached", False),
            ("before", True),
            ("exception", True),
            ("exception", False),
        ]
        assert root.events[2].attributes["more"] == 1
        assert root.links == [
            {"trace_id": f"tr-{1:032x}", "span_id": f"{2:016x}", "attributes": {"why": "retry"}}
        ]
        assert telemetry.trace.info.state == TraceState.OK
        (server,) = telemetry.server_spans
        assert [event.name for event in server.events] == ["cached", "before", "exception", "exception"]
        assert (server.links[0].context.trace_id, server.links[0].context.span_id) == (1, 2)

    @pytest.mark.parametrize(
        ("calls", "state"),
        [
            ([(StatusCode.ERROR, "bad")], "ERROR"),
            ([(Status(StatusCode.ERROR, "bad"),)], "ERROR"),
            ([(StatusCode.OK,), (StatusCode.ERROR, "too late")], "OK"),
            ([(StatusCode.ERROR,), (StatusCode.UNSET,)], "ERROR"),
        ],
    )
    async def test_status(self, telemetry: Telemetry, calls: list[Any], state: str) -> None:
        """OpenTelemetry's rules: OK is final, UNSET is ignored."""

        def work() -> None:
            for call in calls:
                otel.get_current_span().set_status(*call)

        await within(telemetry, work)
        assert telemetry.trace.info.state == state
        assert telemetry.server_spans[0].status.status_code.name == state

    async def test_a_trace_without_the_bridge_is_left_alone(self, telemetry: Telemetry) -> None:
        """A middleware that has none, in a process where another has one."""
        telemetry.bridge = None

        def work() -> otel.Span:
            with wherefrom.start_span("ours"), telemetry.tracer.start_as_current_span("theirs") as span:
                return span

        theirs: Any = await within(telemetry, work)
        assert theirs.parent is None
        assert [span.name for span in telemetry.trace.data.spans] == ["GET", "ours"]

    async def test_a_server_span_of_theirs_made_current_by_us(self, telemetry: Telemetry) -> None:
        """The request is their span, wherever it is entered again."""

        def work() -> None:
            trace = wherefrom.current_trace()
            assert trace is not None
            with wherefrom.start_span("ours"):
                tokens = enter(trace, trace.root)
                assert otel.get_current_span() is server
                leave(tokens)
                assert otel.get_current_span() is not server

        with telemetry.tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as server:
            await within(telemetry, work)


class TestWhatJoins:
    """Spans of the provider on their way into our trace."""

    async def test_a_span_that_outlives_its_request(self, telemetry: Telemetry) -> None:
        """Stored late under the same trace; what starts late is a trace of its own, in both tracers."""
        tasks = []

        async def later(late: otel.Span) -> None:
            await asyncio.sleep(0.01)
            with (
                otel.use_span(late, end_on_exit=True),
                wherefrom.start_span("ours"),
                telemetry.tracer.start_as_current_span("later"),
            ):
                pass

        await within(
            telemetry,
            lambda: tasks.append(asyncio.create_task(later(telemetry.tracer.start_span("late")))),
        )
        await tasks[0]
        request, other = telemetry.sink.traces
        assert tree_of(request) == {"GET": None, "late": "GET"}
        assert tree_of(other) == {"ours": None, "later": "ours"}
        assert other.data.spans[0].links[0]["span_id"] == request.data.spans[1].span_id
        assert all(span.end_time_ns for span in request.data.spans + other.data.spans)
        assert {span.name for span in telemetry.exported} == {"GET", "late", "ours", "later"}

    async def test_a_worker_whose_spans_are_all_opentelemetry_s(self, telemetry: Telemetry) -> None:
        """Each piece of its work is a trace of its own, with what it calls; none is dropped."""
        tasks = []
        go = asyncio.Event()

        async def worker() -> None:
            await go.wait()
            for _ in range(3):
                with (
                    telemetry.tracer.start_as_current_span("job"),
                    telemetry.tracer.start_as_current_span("query"),
                ):
                    pass

        await within(telemetry, lambda: tasks.append(asyncio.create_task(worker())))
        go.set()
        await tasks[0]
        request, *jobs = telemetry.sink.traces
        assert tree_of(request) == {"GET": None}
        assert [tree_of(job) for job in jobs] == [{"job": None, "query": "job"}] * 3
        assert len({job.info.trace_id for job in jobs}) == 3
        for job in jobs:
            assert job.data.spans[0].links[0]["trace_id"] == request.info.trace_id
            assert all(span.end_time_ns for span in job.data.spans)

    async def test_a_span_that_starts_when_all_is_over(self, telemetry: Telemetry) -> None:
        """A trace of its own, also below a parent that has ended."""
        tasks = []

        async def later() -> None:
            with telemetry.tracer.start_as_current_span("first") as first:
                pass
            await asyncio.sleep(0.01)
            with telemetry.tracer.start_as_current_span("second"):
                pass
            with otel.use_span(first), telemetry.tracer.start_as_current_span("third"):
                pass

        await within(telemetry, lambda: tasks.append(asyncio.create_task(later())))
        await tasks[0]
        assert [tree_of(trace) for trace in telemetry.sink.traces] == [
            {"GET": None},
            {"first": None},
            {"second": None},
            {"third": None},
        ]
        links = [trace.data.spans[0].links for trace in telemetry.sink.traces]
        assert [len(each) for each in links] == [0, 1, 1, 1]
        assert links[3][0]["span_id"] == telemetry.sink.traces[1].data.spans[0].span_id

    async def test_threads_with_opentelemetrys_context_alone(self, telemetry: Telemetry) -> None:
        """With its threading instrumentation, the parent determines the trace."""

        def work() -> None:
            current = otel_context.get_current()

            def run() -> None:
                otel_context.attach(current)
                with telemetry.tracer.start_as_current_span("there"):
                    pass

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

        await within(telemetry, work)
        telemetry.check()
        assert telemetry.tree() == {"GET": None, "there": "GET"}

    async def test_a_parent_that_we_do_not_know(self, telemetry: Telemetry) -> None:
        """A span below one that is not recorded is below the request."""

        def work() -> None:
            known = otel.get_current_span().get_span_context()
            unknown = SpanContext(known.trace_id, 99, is_remote=False, trace_flags=TraceFlags(1))
            with (
                otel.use_span(otel.NonRecordingSpan(unknown)),
                telemetry.tracer.start_as_current_span("child"),
            ):
                pass

        await within(telemetry, work)
        assert telemetry.tree() == {"GET": None, "child": "GET"}

    async def test_other_traces_are_left_alone(self, telemetry: Telemetry) -> None:
        """Spans outside requests, and spans with a new trace of their own."""
        with telemetry.tracer.start_as_current_span("startup"):
            pass

        def work() -> None:
            with telemetry.tracer.start_as_current_span("new", context=otel_context.Context()):
                pass

        await within(telemetry, work)
        assert [span.name for span in telemetry.trace.data.spans] == ["GET"]

    async def test_too_many(self, telemetry: Telemetry) -> None:
        """``max_spans_per_trace`` counts theirs too."""

        def work() -> None:
            for _ in range(5):
                with telemetry.tracer.start_as_current_span("call"):
                    pass

        await within(telemetry, work, max_spans_per_trace=3)
        assert len(telemetry.trace.data.spans) == 3
        assert telemetry.trace.data.spans[0].attributes["wherefrom.dropped_spans"] == 3

    async def test_two_processors(self, telemetry: Telemetry) -> None:
        """One added by hand besides: nothing comes twice."""
        telemetry.provider.add_span_processor(WherefromSpanProcessor())

        def work() -> None:
            with telemetry.tracer.start_as_current_span("call"):
                pass

        await within(telemetry, work)
        telemetry.check()
        assert telemetry.tree() == {"GET": None, "call": "GET"}

    async def test_what_the_app_says_through_us_of_their_span(self, telemetry: Telemetry) -> None:
        """``current_span()`` inside their span is that span; values set through both APIs are recorded."""

        def work() -> None:
            with telemetry.tracer.start_as_current_span("call", attributes={"a": "theirs", "b": 1}) as theirs:
                span = wherefrom.current_span()
                assert span is not None
                span.set_attribute("a", "ours")
                span.set_span_type("TOOL")
                span.set_inputs({"q": 1})
                span.add_event("ours")
                theirs.add_event("theirs")
                span.set_status("ERROR", "ours")

        await within(telemetry, work)
        call = named(telemetry.trace, "call")
        assert (call.span_type, call.inputs, call.status.description) == ("TOOL", {"q": 1}, "ours")
        assert (call.attributes["a"], call.attributes["b"]) == ("ours", 1)
        assert [event.name for event in call.events] == ["ours", "theirs"]

    async def test_without_sampling_nothing_is_brought(self, telemetry: Telemetry) -> None:
        """Spans of a trace that is not sampled are not copied."""

        def work() -> Any:
            with telemetry.tracer.start_as_current_span("call"):
                return wherefrom.current_trace()

        live = await within(telemetry, work, sample_rate=0, keep_errors=False)
        assert [span.name for span in live.data.spans] == ["GET"]
        assert telemetry.sink.traces == []
        assert {span.name for span in telemetry.exported} == {"GET", "call"}


class TestOutsideRequests:
    """Traced calls in scripts and jobs."""

    def test_their_spans_join(self, telemetry: Telemetry, outside: MemorySink) -> None:
        """A decorated call is a trace that libraries' spans are part of, and their exporters get ours."""

        @wherefrom.trace
        def job() -> None:
            with wherefrom.start_span("step"), telemetry.tracer.start_as_current_span("call"):
                pass

        job()
        (trace,) = outside.traces
        assert tree_of(trace) == {"job": None, "step": "job", "call": "step"}
        assert {span.name for span in telemetry.exported} == {"job", "step", "call"}
        (exported,) = (span for span in telemetry.exported if span.name == "job")
        assert exported.kind is SpanKind.INTERNAL
        assert otel.get_current_span() is otel.INVALID_SPAN

    def test_in_a_trace_of_theirs(self, telemetry: Telemetry, outside: MemorySink) -> None:
        """Their job stays one trace: it is not cut in two by a traced call in the middle."""

        @wherefrom.trace
        def step() -> None:
            with telemetry.tracer.start_as_current_span("call"):
                pass

        with telemetry.tracer.start_as_current_span("job") as job:
            step()
        (trace,) = outside.traces
        assert [span.name for span in trace.data.spans] == ["step"]
        call, _ = telemetry.exported
        assert call.parent is not None
        assert call.parent.span_id == job.get_span_context().span_id

    def test_a_generator_that_is_closed_elsewhere(self, telemetry: Telemetry, outside: MemorySink) -> None:
        """In another thread: nothing is restored there, and nothing is logged."""

        @wherefrom.trace
        def items() -> Iterator[int]:
            yield 1
            yield 2

        def work() -> None:
            iterator: Any = items()
            next(iterator)
            block = wherefrom.start_span("block")
            block.__enter__()
            for ending in (iterator.close, lambda: block.__exit__(None, None, None)):
                thread = threading.Thread(target=ending)
                thread.start()
                thread.join()

        copy_context().run(work)
        assert len(outside.traces) == 2
        assert wherefrom.stats().errors == {}


class TestSampling:
    """Two samplers, each for its own side."""

    async def test_theirs_is_asked_once(self) -> None:
        """Their sampler gets the trace id and the attributes once; its decision applies to all children."""
        asked: list[Any] = []

        class Noting(Sampler):
            def should_sample(
                self,
                parent_context: Any,
                trace_id: int,
                name: str,
                kind: Any = None,
                attributes: Any = None,
                links: Any = None,
                trace_state: Any = None,
            ) -> SamplingResult:
                asked.append((trace_id, name, kind, dict(attributes)))
                return ALWAYS_OFF.should_sample(parent_context, trace_id, name)

            def get_description(self) -> str:
                return "noting"

        telemetry = Telemetry(sampler=ParentBased(Noting()))

        def work() -> None:
            for _ in range(2):
                with wherefrom.start_span("ours"), telemetry.tracer.start_as_current_span("call") as span:
                    assert not span.is_recording()

        await within(telemetry, work)
        trace_id = int(telemetry.trace.info.trace_id[3:], 16)
        facts = {"http.request.method": "GET", "url.path": "/"}
        assert asked == [(trace_id, "GET", SpanKind.SERVER, facts)]
        assert telemetry.exported == ()
        assert len(telemetry.trace.data.spans) == 3

    async def test_a_ratio(self) -> None:
        """Their share of our requests, whole traces each."""
        telemetry = Telemetry(sampler=TraceIdRatioBased(0.5))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with telemetry.tracer.start_as_current_span("call"):
                await ok(scope, receive, send)

        traced = telemetry.traced(app)
        for _ in range(100):
            await get(traced)
        assert len(telemetry.sink.traces) == 100
        names = [span.name for span in telemetry.exported]
        assert 20 < names.count("GET") == names.count("call") < 80

    async def test_one_that_fails(self) -> None:
        """Is counted, and drops."""

        class Broken(Sampler):
            def should_sample(self, *_arguments: Any, **_more: Any) -> SamplingResult:
                raise ZeroDivisionError

            def get_description(self) -> str:
                return "broken"

        telemetry = Telemetry(sampler=Broken())
        await within(telemetry, lambda: otel.get_current_span().get_span_context())
        assert telemetry.exported == ()
        assert len(telemetry.sink.traces) == 1
        assert wherefrom.stats().errors == {"opentelemetry": 1}


class TestFailures:
    """Whatever goes wrong is counted; the app answers."""

    async def test_spans_that_cannot_be_read(self, telemetry: Telemetry, monkeypatch: Any) -> None:
        """At their start and at their end."""

        def boom(*_arguments: Any) -> None:
            raise ZeroDivisionError

        def work() -> None:
            with telemetry.tracer.start_as_current_span("call"):
                pass

        for place in ("_bring", "fill"):
            monkeypatch.setattr(f"wherefrom.otel.bridge.{place}", boom)
            assert (await get(telemetry.traced(ok))).status_code == 200
            await within(telemetry, work)
            monkeypatch.undo()
        assert wherefrom.stats().errors == {"opentelemetry": 2}
        assert len(telemetry.sink.traces) == 4

    async def test_exporters(self, telemetry: Telemetry, monkeypatch: Any) -> None:
        """A processor of somebody else's that raises on our spans."""
        monkeypatch.setattr(telemetry.exporter, "export", lambda _spans: 1 / 0)
        monkeypatch.setattr("opentelemetry.sdk.trace.export.logger.exception", lambda *_: 1 / 0)
        await get(telemetry.traced(ok))
        assert len(telemetry.sink.traces) == 1
        assert wherefrom.stats().errors == {"OpenTelemetrySession": 1}

    async def test_the_context(self, telemetry: Telemetry, monkeypatch: Any) -> None:
        """A runtime context that cannot attach."""
        monkeypatch.setattr("opentelemetry.context.attach", lambda _context: 1 / 0)

        def work() -> None:
            with wherefrom.start_span("ours"):
                pass

        await within(telemetry, work)
        assert [span.name for span in telemetry.trace.data.spans] == ["GET", "ours"]
        assert wherefrom.stats().errors == {"OpenTelemetryBridge": 1, "opentelemetry": 1}

    async def test_their_server_span(self, telemetry: Telemetry) -> None:
        """One that takes no attributes."""

        class Odd(otel.NonRecordingSpan):
            kind = SpanKind.SERVER

            def is_recording(self) -> bool:
                return True

            def set_attributes(self, attributes: Any) -> None:
                raise ZeroDivisionError

        with otel.use_span(Odd(SpanContext(5, 6, is_remote=False))):
            response = await get(telemetry.traced(ok))
        assert response.text == "ok"
        assert telemetry.trace.info.trace_id == f"tr-{5:032x}"
        assert wherefrom.stats().errors == {"OpenTelemetrySession": 2}

    async def test_shutdown_and_flush(self, telemetry: Telemetry) -> None:
        """Of the provider are no business of ours."""
        assert telemetry.provider.force_flush()
        telemetry.provider.shutdown()

        def work() -> None:
            with telemetry.tracer.start_as_current_span("call"):
                pass

        await within(telemetry, work)
        assert telemetry.tree() == {"GET": None, "call": "GET"}
        assert wherefrom.stats().errors == {}


async def test_finished_requests_are_freed(telemetry: Telemetry) -> None:
    """No cycle leaves a trace to the garbage collector, and no table grows."""
    import gc
    import weakref

    from wherefrom.process import process

    def work() -> Any:
        with wherefrom.start_span("ours"), telemetry.tracer.start_as_current_span("call"):
            return weakref.ref(wherefrom.current_span())

    gc.collect()
    before = len(process.bridged_spans)
    gc.disable()
    try:
        dead = [await within(telemetry, work) for _ in range(3)]
        telemetry.sink.traces.clear()
        assert [ref() for ref in dead] == [None] * 3
        assert len(process.bridged_spans) == before
    finally:
        gc.enable()


def test_the_setting_and_the_argument(telemetry: Telemetry) -> None:
    """``bridges="opentelemetry"`` creates a bridge; one that is given in code replaces it."""
    settings = wherefrom.Settings(store="none", bridges="opentelemetry")
    made = TraceMiddleware(ok, sink=telemetry.sink, settings=settings)
    assert [type(bridge) for bridge in made._bridges] == [OpenTelemetryBridge]
    bridge = OpenTelemetryBridge(telemetry.provider)
    given = TraceMiddleware(ok, sink=telemetry.sink, settings=settings, bridges=[bridge])
    assert given._bridges == (bridge,)
    off = TraceMiddleware(ok, settings=wherefrom.Settings(enabled=False, bridges="opentelemetry"))
    assert off._bridges == ()
