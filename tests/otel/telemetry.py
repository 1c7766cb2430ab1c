"""A provider of its own for each test, and apps whose server span is somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry import trace as otel
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as StarletteMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import wherefrom
from wherefrom import MemorySink, Settings, Span, Trace, TraceMiddleware
from wherefrom.otel import OpenTelemetryBridge


class Telemetry:
    """A provider, its exporter, and the bridge to it."""

    def __init__(self, **options: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("library", "1.2")
        self.sink = MemorySink()
        self.bridge: OpenTelemetryBridge | None = OpenTelemetryBridge(self.provider)
        self.settings: dict[str, Any] = {}

    def traced(self, app: Any, **options: Any) -> TraceMiddleware:
        own = {name: options.pop(name) for name in ("on_request", "on_response") if name in options}
        bridges = [self.bridge] if self.bridge else []
        settings = Settings(store="none", **self.settings, **options)
        return TraceMiddleware(app, sink=self.sink, settings=settings, bridges=bridges, **own)

    @property
    def exported(self) -> tuple[ReadableSpan, ...]:
        """What exporters got."""
        return self.exporter.get_finished_spans()

    @property
    def server_spans(self) -> list[ReadableSpan]:
        """The server spans among it."""
        return [span for span in self.exported if span.kind is SpanKind.SERVER]

    @property
    def trace(self) -> Trace:
        """The one trace that was recorded."""
        (trace,) = self.sink.traces
        return trace

    def check(self) -> None:
        """One server span, one trace id everywhere, no span without its parent, nothing went wrong."""
        (server,) = self.server_spans
        trace, root = self.trace, self.trace.data.spans[0]
        assert server.context is not None
        assert trace.info.trace_id == f"tr-{server.context.trace_id:032x}" == root.trace_id
        assert root.span_id == f"{server.context.span_id:016x}"
        assert root.parent_id == (server.parent and f"{server.parent.span_id:016x}")
        assert [span for span in trace.data.spans if span.span_type == "SERVER"] == [root]
        theirs = {span.context.span_id for span in self.exported if span.context}
        assert {span.context.trace_id for span in self.exported if span.context} == {server.context.trace_id}
        orphans = [span.name for span in self.exported if span.parent and span.parent.span_id not in theirs]
        assert orphans == [server.name] * (server.parent is not None)
        ours = {span.span_id for span in trace.data.spans}
        assert ours == {f"{span_id:016x}" for span_id in theirs}
        assert all(span.parent_id in ours for span in trace.data.spans[1:])
        assert all(span.end_time_ns for span in trace.data.spans)
        assert wherefrom.stats().errors == {}

    def tree(self) -> dict[str, str | None]:
        """Each span of our trace with its parent's name."""
        return tree_of(self.trace)


def tree_of(trace: Trace) -> dict[str, str | None]:
    names = {span.span_id: span.name for span in trace.data.spans}
    return {span.name: names.get(span.parent_id or "") for span in trace.data.spans}


def named(trace: Trace, name: str) -> Span:
    """The span of that name."""
    (span,) = (span for span in trace.data.spans if span.name == name)
    return span


def endpoints(telemetry: Telemetry) -> dict[str, Callable[..., Any]]:
    """Plain, streaming and failing, each with a model call that a library records."""

    def call(name: str) -> Any:
        return telemetry.tracer.start_as_current_span(name, kind=SpanKind.CLIENT)

    async def plain(request: Request) -> Response:
        with wherefrom.start_span("work"), call("model"):
            await asyncio.sleep(0)
        wherefrom.update_current_trace(metadata={"tenant": "acme"})
        otel.get_current_span().set_attribute("app.tier", "gold")
        return JSONResponse({"item": request.path_params["item"]})

    async def stream(request: Request) -> Response:
        @wherefrom.trace(name="answer")
        async def answer() -> AsyncIterator[str]:
            for number in range(3):
                with call(f"model {number}"):
                    await asyncio.sleep(0)
                yield f"{number} "

        return StreamingResponse(answer())

    async def fail(request: Request) -> Response:
        with call("model"):
            pass
        raise RuntimeError("boom")

    return {"/plain/{item}": plain, "/stream": stream, "/fail": fail}


def fastapi_app(telemetry: Telemetry, inner: Any = None) -> Any:
    """FastAPI with its own telemetry; ``inner`` wraps what is inside of it."""
    config: Any = {"tracer_provider": telemetry.provider, "metrics": False, "logs": False}
    app = FastAPI(telemetry=config)
    for path, endpoint in endpoints(telemetry).items():
        app.add_api_route(path, endpoint)
    if inner is not None:
        app.add_middleware(inner)
    return app


def starlette_app(telemetry: Telemetry) -> Any:
    """Starlette without telemetry of its own."""
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in endpoints(telemetry).items()])


def build(telemetry: Telemetry, owner: str, order: str) -> Any:
    """An app whose server span is opened by ``owner``, ``outside`` of ours or ``inside``."""
    wraps: dict[str, Callable[[Any], Any]] = {
        "starlette": lambda app: StarletteMiddleware(app, tracer_provider=telemetry.provider),
        "contrib": lambda app: ContribMiddleware(app, tracer_provider=telemetry.provider),
        "nobody": lambda app: app,
    }
    if owner == "fastapi":
        if order == "inside":
            return telemetry.traced(fastapi_app(telemetry))
        return fastapi_app(telemetry, lambda app: telemetry.traced(app))
    app, wrap = starlette_app(telemetry), wraps[owner]
    return telemetry.traced(wrap(app)) if order == "inside" else wrap(telemetry.traced(app))


async def get(app: Any, path: str = "/", **headers: str) -> httpx.Response:
    """One request; what the app raises is a 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    """The smallest app."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def connect(app: Any, path: str, headers: list[tuple[bytes, bytes]]) -> list[Any]:
    """One websocket connection; what the app sent."""
    sent: list[Any] = []
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        "subprotocols": [],
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent
