"""Names: the route's template, mount prefix included, whatever the framework."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from wherefrom import MemorySink, TraceMiddleware

from .raw import client, http_scope, ok, root_of, serve, traced


def fastapi_app() -> FastAPI:
    app, api, deep, sub = FastAPI(), APIRouter(prefix="/api"), APIRouter(prefix="/deep"), FastAPI()

    @app.get("/")
    async def index() -> None: ...

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> None: ...

    @app.get("/files/{path:path}")
    async def file(path: str) -> None: ...

    @api.get("/things/{thing}")
    async def thing(thing: str) -> None: ...

    @deep.get("/{a}/{b}")
    async def bottom(a: str, b: str) -> None: ...

    @sub.get("/inner/{x}")
    async def inner(x: str) -> None: ...

    api.include_router(deep, prefix="/v1")
    app.include_router(api, prefix="/all")
    app.mount("/sub", sub)
    app.mount("/tenants/{tenant}", sub)
    app.mount("/static", StaticFiles(directory="/etc"))
    return app


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "GET /"),
        ("/items/7", "GET /items/{item_id}"),
        ("/files/a/b/c", "GET /files/{path:path}"),
        ("/all/api/things/1", "GET /all/api/things/{thing}"),
        ("/all/api/v1/deep/1/2", "GET /all/api/v1/deep/{a}/{b}"),
        ("/sub/inner/1", "GET /sub/inner/{x}"),
        ("/tenants/7/inner/1", "GET /tenants/{tenant}/inner/{x}"),
        ("/static/hostname", "GET /static"),
        ("/static/no/such/file", "GET /static"),
        ("/sub/nowhere", "GET /sub"),
        ("/nowhere", "GET"),
        ("/all/api/nowhere", "GET"),
    ],
)
async def test_fastapi(sink: MemorySink, path: str, name: str, outside: bool) -> None:
    """Routers, prefixes, mounts and mounts with parameters: one name for one route."""
    app: Any = fastapi_app()
    if outside:
        app = traced(app, sink)
    else:
        app.add_middleware(TraceMiddleware, sink=sink)
    async with client(app) as http:
        await http.get(path)
    root = root_of(sink)
    assert root.name == name
    assert root.attributes.get("http.route") == (name.removeprefix("GET").strip() or None)
    assert root.attributes["url.path"] == path


async def test_a_method_that_the_route_does_not_take(sink: MemorySink) -> None:
    """405 is the route's answer."""
    async with client(traced(fastapi_app(), sink)) as http:
        assert (await http.post("/items/7")).status_code == 405
    assert root_of(sink).name == "POST /items/{item_id}"


async def answer(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("x")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/1", "GET /a/{n:int}"),
        ("/m/a/b", "GET /m/a/{x}"),
        ("/m/n/c", "GET /m/n/c"),
        ("/raw/anything", "GET /raw"),
    ],
)
async def test_starlette(sink: MemorySink, path: str, name: str) -> None:
    """Starlette's own routes, nested mounts, and plain ASGI apps inside a mount."""
    inner = Router([Route("/a/{x}", answer), Mount("/n", routes=[Route("/c", answer)])])
    app = Starlette(routes=[Route("/a/{n:int}", answer), Mount("/m", inner), Mount("/raw", ok)])
    async with client(traced(app, sink)) as http:
        assert (await http.get(path)).status_code == 200
    assert root_of(sink).name == name


async def test_hosts(sink: MemorySink) -> None:
    """A route below a host is named by its path."""
    app = Starlette(routes=[Host("{tenant}.test", Router([Route("/a/{x}", answer)]))])
    async with client(traced(app, sink)) as http:
        assert (await http.get("http://t1.test/a/1")).status_code == 200
    assert root_of(sink).name == "GET /a/{x}"


async def test_a_root_path_is_not_the_route(sink: MemorySink) -> None:
    """What a proxy strips (``root_path``) is the deployment's, not the route's."""
    async with client(traced(FastAPI(), sink)) as http:
        await http.get("/")
    app = fastapi_app()
    scope = http_scope("/proxy/sub/inner/1", root_path="/proxy")
    sink.traces.clear()
    await serve(traced(app, sink), scope)
    assert root_of(sink).name == "GET /sub/inner/{x}"


async def test_litestar_s_template(sink: MemorySink) -> None:
    """Litestar leaves its template in ``scope["path_template"]``."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/orders/{order}"
        await ok(scope, receive, send)

    await serve(traced(app, sink), http_scope("/orders/1"))
    assert root_of(sink).name == "GET /orders/{order}"


@pytest.mark.parametrize(
    "left",
    [
        {"route": object()},
        {"route": 7},
        {"path_template": b"/x"},
        {"fastapi": None},
        {"fastapi": {"effective_route_context": object()}, "route": object()},
        {"root_path": "/x", "path_params": None},
        {"root_path": "/x", "path_params": {"a": object()}},
    ],
)
async def test_what_another_framework_leaves(sink: MemorySink, left: dict[str, Any]) -> None:
    """Under these keys another framework may keep anything: it names nothing and breaks nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope.update(left)
        await ok(scope, receive, send)

    await serve(traced(app, sink))
    assert root_of(sink).name in {"GET", "GET /x"}
