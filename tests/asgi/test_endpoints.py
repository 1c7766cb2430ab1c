"""``@trace`` above the decorator of a route: nothing is recorded, and a warning at start says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar
from litestar import get as litestar_get
from quart import Quart
from starlette.applications import Starlette
from starlette.routing import Mount, Route, Router

from wherefrom import MemorySink, Settings, TraceMiddleware, trace
from wherefrom.process import process

from .raw import serve


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    """The functions of other tests are not looked for."""
    before = process.traced
    process.traced = type(before)()
    yield
    process.traced = before


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger="wherefrom")

    def names() -> list[str]:
        found = [record.getMessage() for record in caplog.records if "@trace records nothing" in record.msg]
        assert all(f"nothing of {__name__}." in message for message in found)
        return sorted(message.partition(":")[0].rpartition(".")[2] for message in found)

    return names


async def start(app: Any) -> None:
    """The lifespan, as a server runs it."""
    await serve(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})


def plain_app() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/in")

    @trace
    @app.get("/above")
    def above() -> None: ...

    @trace(name="other")
    @router.post("/above")
    async def router_above() -> None: ...

    @app.get("/below")
    @trace
    def below() -> None: ...

    @trace
    @app.websocket("/ws")
    async def socket_above(websocket: Any) -> None: ...

    app.include_router(router)
    return app


ABOVE = ["above", "router_above", "socket_above"]


@pytest.mark.parametrize("wrap", [True, False])
async def test_each_handler_that_is_not_traced_is_named_once(
    wrap: bool, warned: Callable[[], list[str]]
) -> None:
    """Inside the framework and around it; those below the route are not."""
    app: Any = plain_app()
    if wrap:
        app = TraceMiddleware(app, sink=MemorySink())
    else:
        app.add_middleware(TraceMiddleware, sink=MemorySink())
    for _ in range(2):
        await start(app)
    assert warned() == ABOVE


async def test_without_a_lifespan_it_is_said_when_the_middleware_is_made(
    warned: Callable[[], list[str]],
) -> None:
    """Some servers and test clients run none."""
    TraceMiddleware(plain_app(), sink=MemorySink())
    assert warned() == ABOVE


async def test_routes_that_come_after_the_middleware(warned: Callable[[], list[str]]) -> None:
    """They are there when the server starts."""
    app = FastAPI()
    traced = TraceMiddleware(app, sink=MemorySink())

    @trace
    @app.get("/late")
    def late() -> None: ...

    assert warned() == []
    await start(traced)
    assert warned() == ["late"]


def handler() -> None: ...


APPS: list[Callable[[Any], Any]] = [
    lambda func: Starlette(routes=[Route("/", func)]),
    lambda func: Starlette(routes=[Mount("/a", routes=[Mount("/b", app=Router([Route("/", func)]))])]),
    lambda func: Router([Route("/", func)]),
    lambda func: quart_app(func).asgi_app,
    lambda func: Litestar([litestar_get("/", sync_to_thread=False)(func)], logging_config=None),
    lambda func: mounted(FastAPI(), func),
]


def quart_app(func: Any) -> Quart:
    app = Quart("tests")
    app.route("/")(func)
    return app


def mounted(app: FastAPI, func: Any) -> FastAPI:
    inner = FastAPI()
    inner.get("/", response_model=None)(func)
    app.mount("/inner", inner)
    return app


@pytest.mark.parametrize("make", APPS)
def test_routes_of_other_frameworks_and_of_mounted_apps(
    make: Callable[[Any], Any], warned: Callable[[], list[str]]
) -> None:
    """Whichever holds the undecorated function; none where it holds the decorated one."""

    def above() -> None: ...

    TraceMiddleware(make(trace(above)), sink=MemorySink())
    assert warned() == []
    app = make(above)
    trace(above)
    TraceMiddleware(app, sink=MemorySink())
    assert warned() == ["above"]


def test_nothing_is_said_where_nothing_is_recorded(warned: Callable[[], list[str]]) -> None:
    """Wherefrom is off, and it is not looked for."""
    TraceMiddleware(plain_app(), settings=Settings(enabled=False))
    assert warned() == []


def test_a_route_that_is_an_object(warned: Callable[[], list[str]]) -> None:
    """Litestar's decorator makes a route of the function: traced, that is still a route."""

    @trace
    @litestar_get("/")
    async def route() -> None: ...

    app: Any = Litestar([route], logging_config=None)
    TraceMiddleware(app, sink=MemorySink())
    assert warned() == ["route"]


class Hostile:
    @property
    def routes(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("make", [MagicMock, Hostile, object, lambda: None])
async def test_an_app_may_be_anything(make: Callable[[], Any], warned: Callable[[], list[str]]) -> None:
    """Nothing is raised, and it does not take long."""
    trace(handler)
    TraceMiddleware(make(), sink=MemorySink())
    assert warned() == []


def test_routes_that_refer_to_each_other(warned: Callable[[], list[str]]) -> None:
    """Each is looked at once."""
    router = Router([Route("/", handler)])
    router.routes.append(Mount("/again", app=router))
    trace(handler)
    TraceMiddleware(router, sink=MemorySink())
    assert warned() == ["handler"]
