"""A request's trace is decided by its scope: nested middlewares, and servers that leak context."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from fastapi import FastAPI

import wherefrom
from wherefrom import MemorySink, TraceMiddleware, start_span
from wherefrom.context import trace_var
from wherefrom.tracing.api import current_span, current_trace

from .raw import client, http_scope, ok, only, root_of, serve, traced


async def test_the_inner_one_adds_nothing(sink: MemorySink) -> None:
    """Around and inside the same app: one trace, one request id, one pair of hooks."""
    inner_sink, calls = MemorySink(), []
    app = FastAPI()
    app.add_middleware(TraceMiddleware, sink=inner_sink, on_request=lambda *_: calls.append("inner"))

    @app.get("/")
    async def read() -> None:
        with start_span("work"):
            pass

    outer = traced(app, sink, on_request=lambda *_: calls.append("outer"))
    async with client(outer) as http:
        response = await http.get("/")
    assert [span.name for span in only(sink).data.spans] == ["GET /", "work"]
    assert inner_sink.traces == []
    assert calls == ["outer"]
    assert response.headers.get_list("x-request-id") == [only(sink).info.client_request_id]


async def test_a_mounted_app_s_own_adds_nothing(sink: MemorySink) -> None:
    """A mounted app that has the middleware too is part of the request."""
    app, sub = FastAPI(), FastAPI()
    sub.add_middleware(TraceMiddleware, sink=sink)
    app.add_middleware(TraceMiddleware, sink=sink)
    app.mount("/sub", sub)

    @sub.get("/x")
    async def read() -> None: ...

    async with client(app) as http:
        await http.get("/sub/x")
    assert root_of(sink).name == "GET /sub/x"


async def test_the_inner_one_traces_what_the_outer_excludes(sink: MemorySink) -> None:
    """An excluded path has no trace in its scope: a middleware further in may make one."""
    await serve(traced(traced(ok, sink), sink, exclude="/x"), http_scope("/x"))
    assert len(sink.traces) == 1


class TestLeakedContext:
    """Stock uvicorn runs a connection's next request in the context of the last."""

    async def leaked(self) -> contextvars.Context:
        """The context of a request that is going on, as a server takes it for the next."""
        kept: list[contextvars.Context] = []

        async def leaking(scope: Any, receive: Any, send: Any) -> None:
            with start_span("open"):
                kept.append(contextvars.copy_context())
            await ok(scope, receive, send)

        await serve(traced(leaking, MemorySink()))
        assert kept[0][trace_var] is not None
        return kept[0]

    async def test_every_request_is_a_root_of_its_own(self, sink: MemorySink) -> None:
        """The next request takes neither parent nor trace from what a ContextVar holds."""
        context = await self.leaked()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with start_span("work"):
                await ok(scope, receive, send)

        await asyncio.create_task(serve(traced(app, sink)), context=context)
        root, work = only(sink).data.spans
        assert root.parent_id is None
        assert (work.parent_id, work.trace_id) == (root.span_id, root.trace_id)

    async def test_an_excluded_request_has_no_context(self, sink: MemorySink) -> None:
        """A request without a trace does not see, or write to, the last one's."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((current_trace(), current_span(), wherefrom.context.request_id))
            await ok(scope, receive, send)

        for options in ({"exclude": "/"}, {"enabled": False}):
            context = await self.leaked()
            await asyncio.create_task(serve(traced(app, sink, **options)), context=context)
        assert seen == [(None, None, None)] * 2
        assert sink.traces == []

    async def test_two_requests_in_one_context(self, sink: MemorySink) -> None:
        """Interleaved in one shared context, each request still ends its own root."""
        context = contextvars.copy_context()
        both = asyncio.Barrier(2)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await both.wait()
            await ok(scope, receive, send)

        middleware = traced(app, sink)
        await asyncio.gather(
            *(asyncio.create_task(serve(middleware, http_scope(f"/{n}")), context=context) for n in range(2))
        )
        paths = {trace.root.attributes["url.path"] for trace in sink.traces if trace.root}
        assert paths == {"/0", "/1"}
        assert {len(trace.data.spans) for trace in sink.traces} == {1}
