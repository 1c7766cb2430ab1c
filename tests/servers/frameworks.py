"""An app of each framework, with the same three routes: the header ``X-Framework`` says whose is asked.

Run by path (``PYTHONPATH`` is this folder), so nothing of the tests is imported here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from wherefrom import TraceMiddleware, start_span


def work(item: int) -> dict[str, int]:
    """What every handler does."""
    with start_span("work"):
        return {"item": item}


def fastapi() -> Any:
    from fastapi import FastAPI, HTTPException

    app = FastAPI()

    @app.get("/items/{item}")
    async def read(item: int) -> dict[str, int]:
        return work(item)

    @app.get("/refuse/{item}")
    async def refuse(item: int) -> None:
        raise HTTPException(404)

    @app.get("/fail/{item}")
    async def fail(item: int) -> None:
        raise LookupError(f"item {item} is broken")

    return app


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def read(request: Request) -> JSONResponse:
        return JSONResponse(work(int(request.path_params["item"])))

    async def refuse(request: Request) -> JSONResponse:
        raise HTTPException(404)

    async def fail(request: Request) -> JSONResponse:
        raise LookupError(f"item {request.path_params['item']} is broken")

    return Starlette(
        routes=[Route("/items/{item}", read), Route("/refuse/{item}", refuse), Route("/fail/{item}", fail)]
    )


def litestar() -> Any:
    from litestar import Litestar, get
    from litestar.exceptions import NotFoundException

    from wherefrom.integrations.litestar import record_exception

    @get("/items/{item:int}", sync_to_thread=False)
    def read(item: int) -> dict[str, int]:
        return work(item)

    @get("/refuse/{item:int}", sync_to_thread=False)
    def refuse(item: int) -> None:
        raise NotFoundException

    @get("/fail/{item:int}", sync_to_thread=False)
    def fail(item: int) -> None:
        raise LookupError(f"item {item} is broken")

    return Litestar([read, refuse, fail], after_exception=[record_exception])


def quart() -> Any:
    from quart import Quart, abort

    from wherefrom.integrations.quart import instrument

    app = Quart("app")
    instrument(app)

    @app.get("/items/<int:item>")
    async def read(item: int) -> dict[str, int]:
        return work(item)

    @app.get("/refuse/<int:item>")
    async def refuse(item: int) -> dict[str, int]:
        abort(404)

    @app.get("/fail/<int:item>")
    async def fail(item: int) -> dict[str, int]:
        raise LookupError(f"item {item} is broken")

    return app


def django() -> Any:
    import django as package  # type: ignore[import-untyped]
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
    from django.http import Http404, JsonResponse  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    def read(request: Any, item: int) -> JsonResponse:
        return JsonResponse(work(item))

    async def refuse(request: Any, item: int) -> JsonResponse:
        raise Http404

    async def fail(request: Any, item: int) -> JsonResponse:
        raise LookupError(f"item {item} is broken")

    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="-",
        MIDDLEWARE=["wherefrom.integrations.django.trace_routes"],
        ROOT_URLCONF=(
            path("items/<int:item>", read),
            path("refuse/<int:item>", refuse),
            path("fail/<int:item>", fail),
        ),
    )
    package.setup()
    return get_asgi_application()


def falcon() -> Any:
    from falcon import HTTPNotFound
    from falcon.asgi import App

    from wherefrom.integrations.falcon import instrument

    class Items:
        async def on_get(self, req: Any, resp: Any, item: int) -> None:
            resp.media = work(item)

    class Refuse:
        async def on_get(self, req: Any, resp: Any, item: int) -> None:
            raise HTTPNotFound

    class Fail:
        async def on_get(self, req: Any, resp: Any, item: int) -> None:
            raise LookupError(f"item {item} is broken")

    app = App()
    instrument(app)
    app.add_route("/items/{item:int}", Items())
    app.add_route("/refuse/{item:int}", Refuse())
    app.add_route("/fail/{item:int}", Fail())
    return app


def blacksheep() -> Any:
    from blacksheep import Application
    from blacksheep.exceptions import NotFound

    from wherefrom.integrations.blacksheep import instrument

    app: Any = Application()
    instrument(app)

    async def read(item: int) -> dict[str, int]:
        return work(item)

    async def refuse(item: int) -> None:
        raise NotFound

    async def fail(item: int) -> None:
        raise LookupError(f"item {item} is broken")

    app.router.add_get("/items/{int:item}", read)
    app.router.add_get("/refuse/{int:item}", refuse)
    app.router.add_get("/fail/{int:item}", fail)
    return app


def sanic() -> Any:
    from sanic import NotFound, Request, Sanic, json

    from wherefrom.integrations.sanic import instrument

    app: Any = Sanic("app")
    instrument(app)

    async def read(request: Request, item: int) -> Any:
        return json(work(item))

    async def refuse(request: Request, item: int) -> Any:
        raise NotFound

    async def fail(request: Request, item: int) -> Any:
        raise LookupError(f"item {item} is broken")

    app.add_route(read, "/items/<item:int>")
    app.add_route(refuse, "/refuse/<item:int>")
    app.add_route(fail, "/fail/<item:int>")
    return app


def tools(server: Any) -> None:
    """What an MCP server offers."""

    def read(item: int) -> dict[str, int]:
        return work(item)

    def fail(item: int) -> dict[str, int]:
        raise LookupError(f"item {item} is broken")

    def note(note: str) -> str:
        return note

    def ask(question: str) -> str:
        return question

    server.tool()(read)
    server.tool()(fail)
    server.resource("notes://{note}")(note)
    server.prompt()(ask)


def mcp() -> Any:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings

    from wherefrom.integrations.mcp import instrument

    server: Any = MCPServer("app")
    instrument(server)
    tools(server)
    # The client of the tests names no port.
    return server.streamable_http_app(
        transport_security=TransportSecuritySettings(allowed_hosts=["localhost"])
    )


def fastmcp() -> Any:
    from fastmcp import FastMCP

    from wherefrom.integrations.fastmcp import instrument

    server: Any = FastMCP("app")
    instrument(server)
    tools(server)
    return server.http_app()


FRAMEWORKS = (fastapi, starlette, litestar, quart, django, falcon, blacksheep, sanic, mcp, fastmcp)


class Apps:
    """All of them in one process of a server: each with its own middleware and lifespan."""

    def __init__(self) -> None:
        self.apps = {make.__name__: TraceMiddleware(make()) for make in FRAMEWORKS}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.run(scope, receive, send)
        else:
            await self.apps[dict(scope["headers"])[b"x-framework"].decode()](scope, receive, send)

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        lifespans = []
        for app in self.apps.values():
            told: asyncio.Queue[Any] = asyncio.Queue()
            answers: asyncio.Queue[Any] = asyncio.Queue()
            lifespans.append((told, answers, asyncio.create_task(app({**scope}, told.get, answers.put))))
        for _ in ("startup", "shutdown"):
            message = await receive()
            for told, _answers, _task in lifespans:
                await told.put(message)
            found = [await answers.get() for _told, answers, _task in lifespans]
            await send(next((each for each in found if each["type"].endswith("failed")), found[0]))
        await asyncio.gather(*(task for *_, task in lifespans))


app = Apps()
