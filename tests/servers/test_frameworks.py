"""Other frameworks than FastAPI, in this process: what each tells of its routes, and that its spans join."""

from __future__ import annotations

from typing import Any

import django  # type: ignore[import-untyped]
import httpx
import litestar
import pytest
import quart
from django.conf import settings  # type: ignore[import-untyped]
from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
from django.http import HttpRequest, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from wherefrom import MemorySink, Settings, Trace, TraceMiddleware, TraceState, start_span

HEADERS = {"X-Request-ID": "r-1", "X-Session-ID": "s-1", "X-User-ID": "ada"}


async def ask(app: Any, path: str) -> tuple[httpx.Response, Trace]:
    """One request to the app with the middleware around it."""
    sink = MemorySink()
    transport = httpx.ASGITransport(
        TraceMiddleware(app, settings=Settings(), sink=sink), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get(path, headers=HEADERS)
    (trace,) = sink.traces
    return response, trace


def is_whole(response: httpx.Response, trace: Trace) -> None:
    """An answer with its id once; a trace with who asked and the handler's span."""
    assert (response.status_code, response.json()) == (200, {"item": 7})
    assert response.headers.get_list("x-request-id") == ["r-1"]
    info = trace.info
    assert (info.client_request_id, info.state) == ("r-1", TraceState.OK)
    assert (info.trace_metadata["mlflow.trace.session"], info.trace_metadata["mlflow.trace.user"]) == (
        "s-1",
        "ada",
    )
    root, work = trace.data.spans
    assert (work.name, work.parent_id) == ("work", root.span_id)
    assert root.attributes["url.path"] == "/items/7"
    assert root.attributes["http.response.body.size"] == len(response.content)


@litestar.get("/items/{item:int}")
async def litestar_item(request: litestar.Request[Any, Any, Any]) -> dict[str, int]:
    with start_span("work"):
        return {"item": request.path_params["item"]}


@litestar.get("/fail")
async def litestar_fail() -> None:
    raise RuntimeError("no")


async def test_litestar() -> None:
    """Litestar tells the template of its route."""
    response, trace = await ask(litestar.Litestar([litestar_item], logging_config=None), "/items/7")
    is_whole(response, trace)
    assert trace.info.name == "GET /items/{item}"


async def test_litestar_failing() -> None:
    """Litestar itself answers for a handler that fails: the 500 makes the trace an error."""
    response, trace = await ask(litestar.Litestar([litestar_fail], logging_config=None), "/fail")
    assert (response.status_code, trace.info.state) == (500, TraceState.ERROR)
    assert response.headers["x-request-id"] == "r-1"
    assert trace.info.name == "GET /fail"


async def test_quart() -> None:
    """Quart tells no route: the trace is named after the method, the path is an attribute."""
    app = quart.Quart("app")

    @app.get("/items/<int:item>")
    async def read(item: int) -> dict[str, int]:
        with start_span("work"):
            return {"item": item}

    response, trace = await ask(app, "/items/7")
    is_whole(response, trace)
    assert trace.info.name == "GET"


async def test_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django tells no route either; a ``def`` view in its thread sees the request's context."""

    def read(request: HttpRequest, item: int) -> JsonResponse:
        with start_span("work"):
            return JsonResponse({"item": item})

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="-", ROOT_URLCONF=())
        django.setup()
    monkeypatch.setattr(settings, "ROOT_URLCONF", (path("items/<int:item>", read),))
    response, trace = await ask(ASGIHandler(), "/items/7")
    is_whole(response, trace)
    assert trace.info.name == "GET"
