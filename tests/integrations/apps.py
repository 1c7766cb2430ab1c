"""Apps in front of which a client stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from wherefrom import MemorySink, Settings, Span, Trace, TraceMiddleware


def traced(app: Any, sink: MemorySink, **settings: Any) -> TraceMiddleware:
    """The middleware around ``app``; keywords are settings."""
    return TraceMiddleware(app, sink=sink, settings=Settings(store="none", **settings))


def client(app: Any, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client at ``peer`` in front of an app in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def within_a_request(
    work: Callable[[], Awaitable[Any]],
    sink: MemorySink,
    *,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    peer: str = "127.0.0.1",
    **settings: Any,
) -> Trace:
    """Do the work in a handler of a traced app; the trace that it left."""

    async def handler(_request: Request) -> JSONResponse:
        return JSONResponse(await work())

    app = traced(Starlette(routes=[Route("/", handler)]), sink, **settings)
    async with client(app, peer) as http:
        response = await http.get("/", headers=headers)
    assert response.status_code == 200, response.text
    return sink.traces[-1]


def child(trace: Trace, number: int = 1) -> Span:
    """A span of the trace, the root being number 0."""
    return trace.data.spans[number]
