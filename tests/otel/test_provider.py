"""The provider of the process, a real server, and what may be missing."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from opentelemetry import trace as otel
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteMiddleware

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware
from wherefrom.otel.provider import OwnProvider

from .telemetry import Telemetry, get, ok, tree_of


@pytest.fixture(autouse=True)
def _no_provider(monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry) -> None:
    """A process that has set up nothing yet."""
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", None)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER_SET_ONCE", Once())


def traced(app: Any, sink: MemorySink, **settings: Any) -> TraceMiddleware:
    return TraceMiddleware(
        app, sink=sink, settings=Settings(store="none", bridges="opentelemetry", **settings)
    )


class TestTheProvider:
    """Looked up with each request, never replaced."""

    async def test_a_minimal_one(self, sink: MemorySink) -> None:
        """Set up with the first request where there is none: libraries that began before record too."""
        library = otel.get_tracer("library")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with library.start_as_current_span("call"):
                await ok(scope, receive, send)

        middleware = traced(app, sink)
        assert isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider)
        await get(middleware)
        provider = otel.get_tracer_provider()
        assert isinstance(provider, OwnProvider)
        assert tree_of(sink.traces[0]) == {"GET": None, "call": "GET"}

        exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        await get(middleware)
        assert {span.name for span in exporter.get_finished_spans()} == {"GET", "call"}
        provider.shutdown()

    async def test_a_minimal_one_records_only_what_is_kept(self, sink: MemorySink) -> None:
        """With nobody else to listen, spans of a trace that sampling leaves out are not made."""
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with otel.get_tracer("library").start_as_current_span("call") as span:
                seen.append(span.is_recording())
            await ok(scope, receive, send)

        await get(traced(app, sink, sample_rate=0, keep_errors=False))
        await get(traced(app, sink))
        assert seen == [False, True]

    async def test_the_apps_own(self, sink: MemorySink) -> None:
        """Set up after our middleware was made, before the first request: it is the one."""
        middleware = traced(ok, sink)
        provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        otel.set_tracer_provider(provider)
        await get(middleware)
        assert otel.get_tracer_provider() is provider
        assert [span.name for span in exporter.get_finished_spans()] == ["GET"]

    async def test_two_middlewares(self, sink: MemorySink) -> None:
        """With a bridge each: one processor, spans come once."""
        provider = TracerProvider(shutdown_on_exit=False)
        otel.set_tracer_provider(provider)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with otel.get_tracer("library").start_as_current_span("call"):
                await ok(scope, receive, send)

        await get(traced(traced(app, sink), sink))
        assert tree_of(sink.traces[0]) == {"GET": None, "call": "GET"}
        assert len(sink.traces[0].data.spans) == 2

    async def test_one_that_takes_no_processors(self, sink: MemorySink, caplog: Any) -> None:
        """Not the SDK's: its spans stay away, the ids are current all the same."""
        otel.set_tracer_provider(otel.NoOpTracerProvider())
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(otel.get_current_span().get_span_context())
            await ok(scope, receive, send)

        with caplog.at_level(logging.WARNING, "wherefrom"):
            await get(traced(app, sink))
        assert "NoOpTracerProvider takes no span processors" in caplog.text
        assert sink.traces[0].info.trace_id == f"tr-{seen[0].trace_id:032x}"
        assert seen[0].trace_flags.sampled
        assert wherefrom.stats().errors == {}

    async def test_one_that_cannot_be_made(self, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counted; the app answers."""
        monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", lambda _provider: 1 / 0)
        assert (await get(traced(ok, sink))).text == "ok"
        assert len(sink.traces) == 1
        assert wherefrom.stats().errors == {"opentelemetry": 1}

    @pytest.mark.filterwarnings("ignore")
    async def test_one_that_cannot_be_loaded(self, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
        """``OTEL_PYTHON_TRACER_PROVIDER`` names one that is not there."""
        monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "nothing")
        assert (await get(traced(ok, sink))).text == "ok"
        assert len(sink.traces) == 1
        assert wherefrom.stats().errors == {"opentelemetry": 1, "OpenTelemetryBridge": 1}

    async def test_the_sdk_switched_off(self, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
        """``OTEL_SDK_DISABLED``: no spans of libraries, and ours as ever."""
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with otel.get_tracer("library").start_as_current_span("call"), wherefrom.start_span("ours"):
                await ok(scope, receive, send)

        await get(traced(app, sink))
        assert tree_of(sink.traces[0]) == {"GET": None, "ours": "GET"}
        assert wherefrom.stats().errors == {}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_after_a_fork(self, sink: MemorySink) -> None:
        """A worker that was forked from a process that has served already."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with otel.get_tracer("library").start_as_current_span("call"):
                await ok(scope, receive, send)

        middleware = traced(app, sink)
        asyncio.run(get(middleware))
        child = os.fork()
        if child == 0:
            asyncio.run(get(middleware))
            good = len(sink.traces) == 2 and tree_of(sink.traces[1]) == {"GET": None, "call": "GET"}
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_missing_sdk() -> None:
    """Is one sentence that names the extra."""
    program = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "import wherefrom\n"
        "try: wherefrom.TraceMiddleware(None, sink=wherefrom.MemorySink(), "
        "settings=wherefrom.Settings(bridges='opentelemetry'))\n"
        "except wherefrom.WherefromError as error: print(error)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert "pip install 'wherefrom[otel]'" in output


def test_a_bad_setting() -> None:
    """Names what it takes."""
    with pytest.raises(wherefrom.WherefromError, match=r"WHEREFROM_BRIDGES=.*opentelemetry"):
        Settings(bridges="opencensus")


@asynccontextmanager
async def served(app: Any, http: Any) -> AsyncIterator[int]:
    """The app under uvicorn, in this loop; its port."""
    config = uvicorn.Config(app, port=0, http=http, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def exchange(port: int, wire: bytes, answers: int) -> None:
    """Send requests in one go over one connection, and read as many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire)
    for _ in range(answers):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()


POST = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
GET = b"GET /items HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("owner", ["fastapi", "starlette", "contrib", "nobody"])
async def test_a_server_that_leaks_context(telemetry: Telemetry, owner: str, http: str) -> None:
    """uvicorn, one connection: a large POST and then GETs, and GETs in one go. Each is a trace of its own."""
    inherited = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        with telemetry.tracer.start_as_current_span("call"):
            await asyncio.sleep(0.002)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
        await asyncio.sleep(0.005)  # a background task, while the next request begins

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        inherited.append(otel.get_current_span().get_span_context().is_valid)
        await app(scope, receive, send)

    app: Any = telemetry.traced(answer)
    if owner == "fastapi":
        config: Any = {"tracer_provider": telemetry.provider, "metrics": False, "logs": False}
        app = FastAPI(telemetry=config)
        app.mount("/", answer)
        app.add_middleware(lambda app: telemetry.traced(app))
    elif owner == "starlette":
        app = StarletteMiddleware(app, tracer_provider=telemetry.provider)
    elif owner == "contrib":
        app = ContribMiddleware(app, tracer_provider=telemetry.provider)
    async with served(noting, http) as port:
        await exchange(port, POST + GET, 2)
        await exchange(port, GET * 4, 4)
    assert any(inherited), "this server leaks no more: the test shows nothing"
    traces = telemetry.sink.traces
    assert len({trace.info.trace_id for trace in traces}) == len(traces) == 6
    for trace in traces:
        assert trace.data.spans[0].parent_id is None
        assert [span.name for span in trace.data.spans].count("call") == 1
    servers = {span.context.trace_id for span in telemetry.server_spans if span.context}
    assert {f"tr-{trace_id:032x}" for trace_id in servers} == {trace.info.trace_id for trace in traces}
    assert len(telemetry.server_spans) == 6
    assert wherefrom.stats().errors == {}


async def test_fastapi_wakes_with_the_minimal_provider(sink: MemorySink) -> None:
    """Its telemetry works where there is a provider: from the second request on, or the first when inside."""
    app = FastAPI()
    app.add_api_route("/", _root)
    middleware = traced(app, sink)
    for _ in range(2):
        await get(middleware)
    for trace in sink.traces:
        assert [span.span_type for span in trace.data.spans].count("SERVER") == 1
        assert "fastapi.endpoint" in tree_of(trace)


async def _root() -> str:
    return "ok"
