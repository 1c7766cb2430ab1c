"""What the servers serve: ``bare``, and ``app`` with the middleware around it.

Run by path (``PYTHONPATH`` is this folder), so nothing of the tests is imported here. Routes are Starlette's:
to import FastAPI takes each of many processes longer than to serve its requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import wherefrom
from wherefrom import TraceMiddleware, context, start_span

# What a request leaves here, the next one sees when its server leaks context.
_last: ContextVar[str | None] = ContextVar("last", default=None)
_arrived: defaultdict[str, int] = defaultdict(int)
_all_here: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def seen() -> dict[str, Any]:
    """What a handler sees of its own request."""
    return {
        "pid": os.getpid(),
        "trace": context.trace_id,
        "request": context.request_id,
        "session": context.session_id,
        "user": context.user_id,
        "inherited": _last.get(),
    }


async def together(party: str, size: int = 2) -> None:
    """Wait until ``size`` requests of one party are here."""
    _arrived[party] += 1
    if _arrived[party] == size:
        _all_here[party].set()
    await asyncio.wait_for(_all_here[party].wait(), 5)


class Stopwatch:
    """Sleeps, and knows how long the sleeps since the last chunk really were."""

    def __init__(self) -> None:
        self.gaps = [0.0]

    async def sleep(self, seconds: float) -> None:
        """Sleep, measured."""
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        self.gaps[-1] += (time.perf_counter() - started) * 1000

    def chunk(self) -> None:
        """A chunk goes out now."""
        self.gaps.append(0.0)


async def item(request: Request) -> JSONResponse:
    found = seen()
    _last.set(item := request.path_params["item"])
    with start_span("work", attributes={"item": item}):
        await asyncio.sleep(float(request.query_params.get("pause", 0)))
    return JSONResponse(found | {"after": context.trace_id})


async def upload(request: Request) -> JSONResponse:
    found = seen()
    _last.set(item := request.path_params["item"])
    with start_span("work", attributes={"item": item}):
        body = await request.body()
    return JSONResponse(found | {"size": len(body), "after": context.trace_id})


async def headers(request: Request) -> JSONResponse:
    names = ("user-agent", "traceparent", "x-request-id", "baggage", "x-user-id")
    return JSONResponse({name: request.headers.get(name) for name in names})


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(flow(request.path_params["chunks"]), media_type="text/plain")


async def flow(chunks: int) -> AsyncIterator[bytes]:
    watch = Stopwatch()
    await watch.sleep(0.06)
    for number in range(chunks - 1):
        watch.chunk()
        yield b"chunk %d\n" % number
        if number % 100 == 50:
            with start_span("model", span_type="CHAT_MODEL"):
                await watch.sleep(0.12 if number == 250 else 0.02)
        elif number % 10 == 0:
            await watch.sleep(0)
    yield json.dumps({"first_ms": watch.gaps[0], "longest_ms": max(watch.gaps[1:])}).encode()


async def endless(_request: Request) -> StreamingResponse:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers())


async def sized(request: Request) -> StreamingResponse:
    size: int = request.path_params["size"]

    async def halves() -> AsyncIterator[bytes]:
        yield b"x" * (size // 2)
        await together(request.query_params["party"])
        yield b"x" * (size - size // 2)

    return StreamingResponse(halves())


async def fail(request: Request) -> None:
    raise RuntimeError(f"{request.path_params['item']} failed")


async def background(_request: Request) -> JSONResponse:
    async def later() -> None:
        with start_span("later"):
            await asyncio.sleep(0.3)

    return JSONResponse(seen(), background=BackgroundTask(later))


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json(seen())
    async for text in socket.iter_text():
        with start_span("reply"):
            await socket.send_text(text)


async def refuse(socket: WebSocket) -> None:
    await socket.close(4403)


async def close(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close(4001, "enough")


async def fail_open(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("the socket's handler failed")


ROUTES = [
    Route("/items/{item}", item),
    Route("/upload/{item}", upload, methods=["POST"]),
    Route("/headers", headers),
    Route("/stream/{chunks:int}", stream),
    Route("/endless", endless),
    Route("/sized/{size:int}", sized),
    Route("/fail/{item}", fail),
    Route("/background", background),
    WebSocketRoute("/ws/echo/{room}", echo),
    WebSocketRoute("/ws/refuse", refuse),
    WebSocketRoute("/ws/close", close),
    WebSocketRoute("/ws/fail", fail_open),
]


bare = Starlette(routes=ROUTES)
app = TraceMiddleware(Starlette(routes=ROUTES))


async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """An app that does not speak lifespan, as Django's."""
    if scope["type"] != "http":
        raise ValueError(f"only http here, not {scope['type']}")
    await app.app(scope, receive, send)


deaf = TraceMiddleware(without_lifespan)


async def silent_on_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """An app that returns at once when it is asked for its lifespan."""
    if scope["type"] == "http":
        await app.app(scope, receive, send)


silent = TraceMiddleware(silent_on_lifespan)


@cache
def make_django() -> Any:
    """Django's own application."""
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
    from django.http import HttpRequest, JsonResponse  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    async def item(_request: HttpRequest, item: str) -> JsonResponse:
        return JsonResponse({"item": item})

    settings.configure(ROOT_URLCONF=(path("items/<str:item>", item),), ALLOWED_HOSTS=["*"])
    return TraceMiddleware(get_asgi_application())


def __getattr__(name: str) -> Any:
    """Django is imported only when a server asks for it."""
    if name == "django":
        return make_django()
    raise AttributeError(name)


if os.environ.get("TRACE_AT_IMPORT"):
    # A master that traces before it forks: writer thread, open file and all.
    for _ in range(200):
        with start_span("import"):
            pass
    if os.environ["TRACE_AT_IMPORT"] == "flushed":
        wherefrom.flush()
