"""One clock for each trace, whatever is done to ``time`` while it runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
import time_machine
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from freezegun import freeze_time
from opentelemetry.sdk.trace import TracerProvider

import wherefrom
from wherefrom import MemorySink, Settings, Trace, TraceMiddleware, start_span
from wherefrom._clock import monotonic, perf_counter, ticks_ns, wall_ns
from wherefrom.model import Source
from wherefrom.otel import OpenTelemetryBridge
from wherefrom.process import process
from wherefrom.sinks import BackgroundSink
from wherefrom.stores.sqlite.store import SQLiteStore
from wherefrom.tracing.recorder import Recorder

from .asgi.raw import client, serve, traced

MakeTrace = Callable[..., Trace]
Patch = Callable[[], AbstractContextManager[Any]]
DAY_NS = 86_400_000_000_000

PATCHES: dict[str, Patch] = {
    "freezegun, later": lambda: freeze_time("2070-01-01"),
    "freezegun, earlier": lambda: freeze_time("1975-01-01"),
    "freezegun, ticking": lambda: freeze_time("2070-01-01", tick=True),
    "time-machine, later": lambda: time_machine.travel("2070-01-01", tick=False),
    "time-machine, earlier": lambda: time_machine.travel("1975-01-01"),
}
patched = pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)


@pytest.fixture
def own(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> MemorySink:
    """Where traces outside requests go."""
    recorder = Recorder(Settings(store="none"), Source({}), sink)
    monkeypatch.setattr(process, "default_recorder", recorder)
    return sink


def check(trace: Trace) -> None:
    """Its spans and events lie within seconds of its root, none ends before it begins, and all agree."""
    root = trace.data.spans[0]
    assert trace.info.execution_duration is not None
    assert 0 <= trace.info.execution_duration < 60_000
    assert abs(trace.info.request_time - root.start_time_ns // 1_000_000) < 2
    for span in trace.data.spans:
        assert span.end_time_ns is not None
        assert root.start_time_ns <= span.start_time_ns <= span.end_time_ns < root.start_time_ns + 60 * 10**9
        for event in span.events:
            assert span.start_time_ns <= event.timestamp <= span.end_time_ns
    for value in (value for key, value in root.attributes.items() if key.endswith("_ms")):
        assert 0 <= value < 60_000


@patched
@pytest.mark.parametrize("when", ["inside", "begins inside", "ends inside"])
def test_a_traced_call(own: MemorySink, patch: Patch, when: str) -> None:
    """A patch that begins and ends anywhere in a trace does not split it."""

    @wherefrom.trace
    def step() -> Iterator[int]:
        with start_span("in a step") as span:
            span.add_event("event")
            yield 1

    block, patching = start_span("outer"), patch()
    if when == "ends inside":
        patching.__enter__()
    span = block.__enter__()
    list(step())
    if when != "ends inside":
        patching.__enter__()
    span.add_event("between")
    list(step())
    if when != "begins inside":
        patching.__exit__(None, None, None)
        list(step())
    block.__exit__(None, None, None)
    if when == "begins inside":
        patching.__exit__(None, None, None)
    (trace,) = own.traces
    check(trace)


@patched
async def test_a_request(sink: MemorySink, patch: Patch) -> None:
    """A handler that patches ``time`` for a while; a stream that does so between two chunks."""
    app = FastAPI()

    @app.get("/plain")
    async def plain() -> dict[str, int]:
        with start_span("before"):
            pass
        with patch(), start_span("inside"):
            pass
        return {}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "a"
            with patch():
                yield "b"
            yield "c"

        return StreamingResponse(chunks())

    async with client(traced(app, sink)) as http:
        for path in ("/plain", "/stream"):
            await http.get(path)
    assert len(sink.traces) == 2
    for trace in sink.traces:
        check(trace)


@patched
async def test_spans_of_opentelemetry(sink: MemorySink, patch: Patch) -> None:
    """Another tracer reads the patched ``time``; its spans and events are put where they belong."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("library")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        across = tracer.start_span("across")
        with patch():
            with tracer.start_as_current_span("theirs") as span:
                span.add_event("event")
                with start_span("ours"):
                    pass
            across.end()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    bridge = OpenTelemetryBridge(provider)
    await serve(TraceMiddleware(app, settings=Settings(store="none"), sink=sink, bridges=[bridge]))
    (trace,) = sink.traces
    assert [span.name for span in trace.data.spans] == ["GET", "across", "theirs", "ours"]
    check(trace)


def test_an_explicit_time_of_opentelemetry_is_kept(sink: MemorySink) -> None:
    """A span that is said to have begun earlier has begun earlier."""
    provider = TracerProvider(shutdown_on_exit=False)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        began = time.time_ns() - DAY_NS
        provider.get_tracer("library").start_span("queued", start_time=began).end()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    bridge = OpenTelemetryBridge(provider)
    asyncio.run(serve(TraceMiddleware(app, settings=Settings(store="none"), sink=sink, bridges=[bridge])))
    queued = sink.traces[0].data.spans[1]
    assert queued.end_time_ns is not None
    assert queued.end_time_ns - queued.start_time_ns >= DAY_NS


@pytest.mark.parametrize("step", [-50 * 365 * DAY_NS, -1_000_000, 0, 50 * 365 * DAY_NS])
def test_a_clock_that_is_set(sink: MemorySink, step: int) -> None:
    """The clock of the system is read once a trace: what it is set to meanwhile counts for the next trace."""
    now = 1_700_000_000_000_000_000
    recorder = Recorder(Settings(store="none"), Source({}), sink, clock=lambda: now)
    trace = recorder.start("root")
    first = trace.start_span("first")
    now += step
    first.add_event("event")
    first.end()
    trace.start_span("second").end()
    recorder.finish(trace)
    other = recorder.start("root")
    recorder.finish(other)
    for found in sink.traces:
        check(found)
    assert sink.traces[1].info.request_time - sink.traces[0].info.request_time == step // 1_000_000


def test_the_clocks_are_those_of_time() -> None:
    """Without a patch they agree with ``time``, and they are functions that nobody else holds."""
    pairs = [
        (wall_ns, time.time_ns, 1e9),
        (ticks_ns, time.perf_counter_ns, 1e9),
        (perf_counter, time.perf_counter, 1),
        (monotonic, time.monotonic, 1),
    ]
    for ours, theirs, second in pairs:
        assert ours is not theirs
        assert abs(ours() - theirs()) < 5 * second


def test_imported_under_a_patch(tmp_path: Path) -> None:
    """A test module that imports an app under ``freeze_time`` gets the real clocks too."""
    script = """
import time
real = [time.time_ns]  # in a list, where freezegun does not look
from freezegun import freeze_time
with freeze_time("2070-01-01"):
    import wherefrom
    from wherefrom._clock import wall_ns
    from wherefrom.tracing.live import ticks_ns
    assert abs(wall_ns() - real[0]()) < 60_000_000_000
    first = ticks_ns()
    assert ticks_ns() > first
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize("retention_days", [1, 365])
def test_retention_deletes_nothing_in_a_frozen_future(
    tmp_path: Path, make_trace: MakeTrace, retention_days: int
) -> None:
    """What a test believes of the date does not delete the traces of the day."""
    trace = make_trace(request_time=time.time_ns() // 1_000_000)
    with closing(SQLiteStore(tmp_path / "wherefrom.db", retention_days=retention_days)) as store:
        with freeze_time("2070-01-01"):
            store.write([trace])
            started = store._next_upkeep
            while store._next_upkeep == started:
                time.sleep(0.01)
        with store.snapshot() as snapshot:
            assert snapshot.state().traces == 1


def test_a_wait_ends_while_time_stands_still(make_trace: MakeTrace) -> None:
    """A deadline passes, though ``time.monotonic`` does not."""

    class Never:
        def write(self, _traces: Any) -> None:
            raise wherefrom.exceptions.StoreUnavailableError("never")

    with freeze_time("2030-01-01"):
        queue = BackgroundSink(Never(), flush_interval_ms=1)
        queue.write([make_trace()])
        assert not queue.flush(0.3)
        queue.close(0)


async def test_a_shutdown_ends_while_time_stands_still(sink: MemorySink) -> None:
    """The middleware waits for open requests no longer than it may."""
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await go.wait()
        else:
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})

    middleware = traced(app, sink, shutdown_timeout=0.2)
    task = asyncio.create_task(serve(middleware))
    await asyncio.sleep(0)
    with freeze_time("2030-01-01", real_asyncio=True):
        lifespan = {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
        await asyncio.wait_for(serve(middleware, *lifespan), 20)
    (trace,) = sink.traces
    assert trace.data.spans[0].attributes["wherefrom.outcome"] == "cancelled"
    go.set()
    await task
