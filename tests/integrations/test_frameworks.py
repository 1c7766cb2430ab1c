"""What frameworks tell of their routes and of the exceptions that they handle, in this process.

What is common to all of them is tested under real servers: see ``tests/servers/test_framework_matrix.py``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import django  # type: ignore[import-untyped]
import falcon
import falcon.asgi
import fastapi
import httpx
import litestar
import pytest
import quart
from blacksheep import Application, Request, Response, TextContent
from blacksheep.server.routing import Router
from django.conf import settings  # type: ignore[import-untyped]
from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import HttpResponse  # type: ignore[import-untyped]
from django.test import RequestFactory  # type: ignore[import-untyped]
from django.urls import include, path, re_path  # type: ignore[import-untyped]
from fastapi.sse import EventSourceResponse
from litestar.exceptions import NotAuthorizedException, WebSocketException
from litestar.middleware import DefineMiddleware
from sanic import Sanic
from sanic.response import HTTPResponse, text
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.asgi.raw import http_scope, websocket_scope
from wherefrom import MemorySink, Settings, Span, Trace, TraceMiddleware, TraceState, start_span
from wherefrom.integrations import blacksheep as for_blacksheep
from wherefrom.integrations import falcon as for_falcon
from wherefrom.integrations import litestar as for_litestar
from wherefrom.integrations import quart as for_quart
from wherefrom.integrations import sanic as for_sanic
from wherefrom.integrations.frameworks import record_exception, set_route


class BrokenError(Exception):
    """What the apps of these tests raise. Unlike a built-in exception it can be referred to weakly."""


@asynccontextmanager
async def started(app: Any) -> Any:
    """The app between the start and the end of its lifespan, and the messages of both."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answered: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, messages.get, answered.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await answered.get())["type"] == "lifespan.startup.complete"
    yield
    await messages.put({"type": "lifespan.shutdown"})
    assert (await answered.get())["type"] == "lifespan.shutdown.complete"
    await task


async def ask(app: Any, path: str, *, lifespan: bool = True, **chosen: Any) -> tuple[httpx.Response, Trace]:
    """One request to the app with the middleware around it."""
    sink = MemorySink()
    traced = TraceMiddleware(app, settings=Settings(**chosen), sink=sink)
    transport = httpx.ASGITransport(traced, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        if lifespan:
            async with started(traced):
                response = await client.get(path)
        else:
            response = await client.get(path)
    (trace,) = sink.traces
    return response, trace


async def connect(app: Any, path: str, *, kind: str = "websocket") -> tuple[list[dict[str, Any]], Trace]:
    """What an app sends to a client that says nothing more, and the trace."""
    sink = MemorySink()
    traced = TraceMiddleware(app, sink=sink)
    scope = {
        "type": kind,
        **({"method": "GET"} if kind == "http" else {}),
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1234),
        "server": ("test", 80),
        "subprotocols": [],
        "state": {},
        "extensions": {},
    }
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[dict[str, Any]] = []
    await waiting.put({"type": "http.request" if kind == "http" else "websocket.connect"})

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            await waiting.put({"type": "websocket.disconnect", "code": message["code"]})

    async with started(traced):
        with suppress(Exception):  # it is in the trace
            await asyncio.wait_for(traced(scope, waiting.get, send), 10)
    (trace,) = sink.traces
    return sent, trace


def root(trace: Trace) -> Span:
    """The root span."""
    assert trace.root is not None
    return trace.root


def raised(trace: Trace) -> list[tuple[str, str]]:
    """Type and message of each exception of the root span."""
    return [
        (event.attributes["exception.type"].rpartition(".")[2], event.attributes["exception.message"])
        for event in root(trace).events
    ]


def is_broken(trace: Trace, name: str) -> None:
    """The trace has the route, and the exception that was handled, once and with its stack."""
    assert (trace.info.name, trace.info.state) == (name, TraceState.ERROR)
    assert raised(trace) == [("BrokenError", "no")]
    assert "raise BrokenError" in root(trace).events[0].attributes["exception.stacktrace"]
    assert root(trace).status.description == "BrokenError: no"
    assert root(trace).attributes["wherefrom.outcome"] == "failed"


@contextmanager
def django_project(monkeypatch: pytest.MonkeyPatch, *routes: Any, **changed: Any) -> Iterator[None]:
    """A project with these routes, and the integration as its first middleware."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="-", ROOT_URLCONF=())
        django.setup()
    middleware = ["wherefrom.integrations.django.trace_routes", *changed.pop("MIDDLEWARE", ())]
    for name, value in {"ROOT_URLCONF": tuple(routes), "MIDDLEWARE": middleware, **changed}.items():
        monkeypatch.setattr(settings, name, value)
    yield
    monkeypatch.undo()


def sync_view(request: Any, *_: Any, **__: Any) -> HttpResponse:
    return HttpResponse("ok")


async def async_view(request: Any, **_: Any) -> HttpResponse:
    return HttpResponse("ok")


def broken_view(request: Any, **_: Any) -> HttpResponse:
    raise BrokenError("no")


async def broken_async_view(request: Any, **_: Any) -> HttpResponse:
    raise BrokenError("no")


def old_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that knows no async: Django runs what is inside of it in a thread."""
    return lambda request: get_response(request)


@pytest.mark.parametrize("outer", [[], ["tests.integrations.test_frameworks.old_middleware"]])
@pytest.mark.parametrize(
    ("route", "url", "name"),
    [
        (path("items/<int:item>/", sync_view), "/items/7/", "/items/<int:item>/"),
        (path("", async_view), "/", "/"),
        (path("shop/", include([path("<slug:name>", async_view)])), "/shop/a-b", "/shop/<slug:name>"),
        (re_path(r"^items/(?P<item>\d+)/$", sync_view), "/items/7/", "/items/<item>/"),
        (path("v1/", include([re_path(r"^x/(\d+)$", sync_view)])), "/v1/x/7", "/v1/x/<var>"),
        (re_path("^$", sync_view), "/", "/"),
        (path("a.b/$/<str:c>", async_view), "/a.b/$/c", "/a.b/$/<str:c>"),
    ],
)
async def test_django_routes(
    monkeypatch: pytest.MonkeyPatch, outer: list[str], route: Any, url: str, name: str
) -> None:
    """``path`` as it is written, ``re_path`` without its regular expressions, both with a leading slash."""
    with django_project(monkeypatch, route, MIDDLEWARE=outer):
        response, trace = await ask(ASGIHandler(), url, lifespan=False)
    assert (response.status_code, trace.info.name) == (200, f"GET {name}")
    assert root(trace).attributes["http.route"] == name


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("outer", [[], ["tests.integrations.test_frameworks.old_middleware"]])
@pytest.mark.parametrize("view", [broken_view, broken_async_view])
async def test_django_exceptions(
    monkeypatch: pytest.MonkeyPatch, view: Any, outer: list[str], debug: bool
) -> None:
    """Of views that are and are not async, which Django answers with 500 in a thread or on the loop."""
    with django_project(monkeypatch, path("fail/<int:item>", view), MIDDLEWARE=outer, DEBUG=debug):
        response, trace = await ask(ASGIHandler(), "/fail/7", lifespan=False)
    assert response.status_code == 500
    is_broken(trace, "GET /fail/<int:item>")


def test_django_under_wsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that is served by WSGI too works as before: there is no trace to name."""
    with django_project(monkeypatch, path("ok", sync_view), path("fail", broken_view)):
        handler = WSGIHandler()
        statuses = []
        for url in ("/ok", "/fail"):
            environ = RequestFactory().get(url).environ
            handler(environ, lambda status, headers: statuses.append(status))
    assert statuses == ["200 OK", "500 Internal Server Error"]


def quart_app() -> quart.Quart:
    app = quart.Quart("app")
    for_quart.instrument(app)

    @app.get("/fail")
    async def fail() -> str:
        raise BrokenError("no")

    @app.websocket("/ws/<room>")
    async def socket(room: str) -> None:
        await quart.websocket.accept()
        raise BrokenError("no")

    @app.get("/stream")
    async def stream() -> Any:
        async def chunks() -> Any:
            yield b"a"
            raise BrokenError("no")

        return chunks(), 200

    return app


async def test_quart_error_handler() -> None:
    """What an error handler answers below 500 is no error, and of a 500 the exception is recorded."""
    app = quart_app()

    @app.errorhandler(BrokenError)
    async def handle(error: BrokenError) -> Any:
        return "broken", 409

    response, trace = await ask(app, "/fail")
    assert (response.status_code, trace.info.state, raised(trace)) == (409, TraceState.OK, [])
    assert trace.info.name == "GET /fail"


async def test_quart_asgi_app() -> None:
    """Wrapped inside, as the documentation shows, the app stays a Quart app."""
    app: Any = quart_app()
    sink = MemorySink()
    app.asgi_app = TraceMiddleware(app.asgi_app, sink=sink)
    async with app.test_app() as running:
        await running.test_client().get("/nope")
    (trace,) = sink.traces
    assert root(trace).attributes["http.response.status_code"] == 404


async def test_quart_blueprint() -> None:
    """The rule of a blueprint has its prefix."""
    app = quart_app()
    blueprint = quart.Blueprint("shop", "shop", url_prefix="/shop/<tenant>")

    @blueprint.get("/items/<int:item>")
    async def read(tenant: str, item: int) -> str:
        return "ok"

    app.register_blueprint(blueprint)
    _, trace = await ask(app, "/shop/acme/items/7")
    assert trace.info.name == "GET /shop/<tenant>/items/<int:item>"


async def test_quart_websocket() -> None:
    """A connection whose handler fails."""
    _, trace = await connect(quart_app(), "/ws/7")
    is_broken(trace, "WS /ws/<room>")


async def test_quart_stream() -> None:
    """A generator that fails after the first chunk."""
    _, trace = await ask(quart_app(), "/stream")
    is_broken(trace, "GET /stream")


def sanic_app(name: str) -> Any:
    app: Any = Sanic(name)
    app.config.TOUCHUP = False  # it changes the class, for all apps of the process
    for_sanic.instrument(app)

    async def fail(request: Any) -> HTTPResponse:
        raise BrokenError("no")

    async def stream(request: Any) -> None:
        response = await request.respond()
        await response.send("a")
        raise BrokenError("no")

    async def socket(request: Any, ws: Any, room: str) -> None:
        raise BrokenError("no")

    app.add_route(fail, "/fail")
    app.add_route(stream, "/stream")
    app.add_websocket_route(socket, "/ws/<room:str>")
    return app


async def test_sanic_error_handler() -> None:
    """What an exception handler answers below 500 is no error."""
    app = sanic_app("handler")
    app.exception(BrokenError)(lambda request, error: text("broken", 409))
    response, trace = await ask(app, "/fail")
    assert (response.status_code, trace.info.state, raised(trace)) == (409, TraceState.OK, [])


async def test_sanic_stream() -> None:
    """A handler that fails after the first chunk: the status was 200, the response stays incomplete."""
    _, trace = await connect(sanic_app("stream"), "/stream", kind="http")
    is_broken(trace, "GET /stream")
    assert root(trace).attributes["http.response.status_code"] == 200


async def test_sanic_websocket() -> None:
    """A connection whose handler fails: Sanic closes it with 1000."""
    sent, trace = await connect(sanic_app("websocket"), "/ws/7")
    assert sent[0]["type"] == "websocket.accept"
    is_broken(trace, "WS /ws/<room:str>")


class Fail:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def on_get(self, req: Any, resp: Any, **_: Any) -> None:
        if self.error is not None:
            raise self.error
        raise BrokenError("no")

    async def on_websocket(self, req: Any, ws: Any, **_: Any) -> None:
        await ws.accept()
        raise BrokenError("no")


def falcon_app() -> Any:
    app: Any = falcon.asgi.App()
    for_falcon.instrument(app)
    app.add_route("/fail/{item:int}", Fail())
    app.add_route("/busy", Fail(falcon.HTTPServiceUnavailable()))
    app.add_route("/gone", Fail(falcon.HTTPGone()))
    return app


@pytest.mark.parametrize(
    ("answer", "status"), [(falcon.HTTPInternalServerError, 500), (falcon.HTTPBadGateway, 502)]
)
async def test_falcon_derived_errors(answer: type[falcon.HTTPError], status: int) -> None:
    """An error handler that raises an HTTP error: what is recorded is why."""
    app = falcon_app()

    async def handle(req: Any, resp: Any, error: BrokenError, params: Any) -> None:
        raise answer

    app.add_error_handler(BrokenError, handle)
    response, trace = await ask(app, "/fail/7")
    assert response.status_code == status
    is_broken(trace, "GET /fail/{item:int}")


async def test_falcon_http_errors() -> None:
    """One of 503 is an error of the service, one of 410 is an answer."""
    _, trace = await ask(falcon_app(), "/busy")
    assert (trace.info.state, [kind for kind, _ in raised(trace)]) == (
        TraceState.ERROR,
        ["HTTPServiceUnavailable"],
    )
    _, trace = await ask(falcon_app(), "/gone")
    assert (trace.info.state, raised(trace)) == (TraceState.OK, [])


async def test_falcon_own_reporter() -> None:
    """An app with an error reporter of its own calls ours from there."""
    app, seen = falcon_app(), []

    def report(req: Any, error: Exception, params: dict[str, Any], handled: bool) -> None:
        seen.append(error)
        for_falcon.report_error(req, error, params, handled)

    app.set_error_reporter(report)
    _, trace = await ask(app, "/fail/7")
    is_broken(trace, "GET /fail/{item:int}")
    assert len(seen) == 1


async def test_falcon_websocket() -> None:
    """A connection whose responder fails: Falcon closes it with 1011."""
    sent, trace = await connect(falcon_app(), "/fail/7")
    assert sent[-1]["code"] == 1011
    is_broken(trace, "WS /fail/{item:int}")


async def test_falcon_sync_to_async() -> None:
    """Falcon runs a function in a thread without the context; ``copy_context().run`` takes it along."""

    def work() -> None:
        with start_span("work"):
            pass

    class Lost:
        async def on_get(self, req: Any, resp: Any) -> None:
            await falcon.sync_to_async(contextvars.copy_context().run, work)

    app: Any = falcon.asgi.App()
    app.add_route("/", Lost())
    _, trace = await ask(app, "/")
    assert [span.name for span in trace.data.spans[1:]] == ["work"]


def blacksheep_app() -> Any:
    app: Any = Application(router=Router())
    for_blacksheep.instrument(app)

    async def fail() -> None:
        raise BrokenError("no")

    async def read(item: str) -> str:
        return item

    async def socket(websocket: Any) -> None:
        await websocket.accept()
        raise BrokenError("no")

    app.router.add_get("/fail", fail)
    app.router.add_get("/items/:item", read)
    app.router.add_get("/files/*", fail)
    app.router.add_ws("/ws/{room}", socket)
    return app


@pytest.mark.parametrize(
    ("url", "name"), [("/items/7", "GET /items/:item"), ("/FILES/a/b", "GET /files/*"), ("/nope", "GET")]
)
async def test_blacksheep_routes(url: str, name: str) -> None:
    """Each spelling of a parameter; what the fallback answers has no route."""
    _, trace = await ask(blacksheep_app(), url)
    assert trace.info.name == name


async def test_blacksheep_error_handler() -> None:
    """What an exception handler answers below 500 is no error; its own failure is."""
    app = blacksheep_app()

    async def handle(self: Any, request: Request, error: BrokenError) -> Response:
        return Response(409, content=TextContent("broken"))

    app.exceptions_handlers[BrokenError] = handle
    response, trace = await ask(app, "/fail")
    assert (response.status_code, trace.info.state, raised(trace)) == (409, TraceState.OK, [])


async def test_blacksheep_mount() -> None:
    """An application mounted in another: the path of the mount is a part of the route, as it is written."""
    app, child = Application(router=Router()), blacksheep_app()
    for_blacksheep.instrument(app)
    app.mount("/of/:tenant", child)
    _, trace = await ask(app, "/of/acme/items/7")
    assert trace.info.name == "GET /of/:tenant/items/:item"


async def test_blacksheep_websocket() -> None:
    """A connection whose handler fails."""
    sent, trace = await connect(blacksheep_app(), "/ws/7")
    assert sent[-1]["code"] == 1011
    is_broken(trace, "WS /ws/{room}")


@litestar.get("/fail")
async def litestar_fail() -> None:
    raise BrokenError("no")


@litestar.websocket("/ws/{room:int}")
async def litestar_socket(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise BrokenError("no")


@litestar.websocket("/refuse")
async def litestar_refuse(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    raise NotAuthorizedException


@litestar.websocket("/close")
async def litestar_close(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise WebSocketException(detail="enough", code=4409)


def litestar_app(**options: Any) -> litestar.Litestar:
    return litestar.Litestar(
        [litestar_fail, litestar_socket, litestar_refuse, litestar_close],
        after_exception=[for_litestar.record_exception],
        logging_config=None,
        **options,
    )


async def test_litestar_error_handler() -> None:
    """What an exception handler answers below 500 is no error, and above it is, also in debug mode."""

    def handle(status: int) -> Any:
        return lambda request, error: litestar.Response("broken", status_code=status)

    response, trace = await ask(litestar_app(exception_handlers={BrokenError: handle(409)}), "/fail")
    assert (response.status_code, trace.info.state, raised(trace)) == (409, TraceState.OK, [])
    _, trace = await ask(litestar_app(exception_handlers={BrokenError: handle(503)}), "/fail")
    is_broken(trace, "GET /fail")
    _, trace = await ask(litestar_app(debug=True), "/fail")
    is_broken(trace, "GET /fail")


async def test_litestar_websocket() -> None:
    """A handler that fails is an error; a guard that refuses is not, nor a close that the app asks for."""
    _, trace = await connect(litestar_app(), "/ws/7")
    is_broken(trace, "WS /ws/{room}")
    for url in ("/refuse", "/close"):
        _, trace = await connect(litestar_app(), url)
        assert (trace.info.state, raised(trace)) == (TraceState.OK, []), url


async def test_litestar_middleware_is_inside_of_the_router() -> None:
    """Why the documentation wraps the app: as a middleware of Litestar's it sees no 404."""
    sink = MemorySink()
    middleware: Any = TraceMiddleware
    app: Any = litestar_app(middleware=[DefineMiddleware(middleware, sink=sink)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/nope")).status_code == 404
        assert (await client.get("/fail")).status_code == 500
    assert [trace.info.name for trace in sink.traces] == ["GET /fail"]
    _, trace = await ask(litestar_app(), "/nope")
    assert root(trace).attributes["http.response.status_code"] == 404


def litestar_stream() -> Any:
    @litestar.websocket_stream("/stream")
    async def stream() -> AsyncGenerator[str, None]:
        yield "a"
        raise BrokenError("no")

    return litestar.Litestar([stream], after_exception=[for_litestar.record_exception], logging_config=None)


async def fail() -> None:
    raise BrokenError("no")


async def break_in_group(parts: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(parts):
            tasks.create_task(fail())


def fastapi_events(parts: int = 0) -> Any:
    """A stream of events that fails, with ``parts`` in a task group of its own."""
    app = fastapi.FastAPI()

    @app.get("/stream", response_class=EventSourceResponse)
    async def stream() -> AsyncIterator[str]:
        yield "a"
        if parts:
            await break_in_group(parts)
        raise BrokenError("no")

    return app


def behind_own_middleware(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (quart_app(), "http"),
        (litestar_stream(), "websocket"),
        (fastapi_events(), "http"),
        (behind_own_middleware(fastapi_events()), "http"),
    ],
    ids=["quart", "litestar", "fastapi", "middleware"],
)
async def test_a_task_group_of_the_framework(app: Any, kind: str) -> None:
    """A framework runs a stream in a task group, which wraps what the stream raises: that is recorded."""
    _, trace = await connect(app, "/stream", kind=kind)
    is_broken(trace, "GET /stream" if kind == "http" else "WS /stream")


async def group_of_asgi_app(scope: Any, receive: Any, send: Any) -> None:
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(fail)


async def lost() -> Any:
    """A server whose ``receive`` fails while the app ends."""
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        raise OSError("lost") from None


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (group_of_asgi_app, "BrokenError: no"),
        (fastapi_events(1), "BrokenError: no"),
        (fastapi_events(2), "BrokenError: no (2 times)"),
        (litestar_stream(), "BrokenError: no; OSError: lost"),
    ],
    ids=["asgi", "one", "two", "framework"],
)
async def test_a_task_group_that_is_recorded(app: Any, expected: str) -> None:
    """A group that the app has raised, and one of several: none of them is the only reason."""
    sink = MemorySink()
    received = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(received, None) or await lost()

    async def send(message: Any) -> None: ...

    scope = http_scope("/stream", asgi={"spec_version": "2.4"})
    if isinstance(app, litestar.Litestar):
        scope = websocket_scope("/stream")
        del scope["method"]
    with suppress(ExceptionGroup):  # Litestar handles it
        await TraceMiddleware(app, sink=sink)(scope, receive, send)
    (trace,) = sink.traces
    ((kind, message),) = raised(trace)
    assert kind == "ExceptionGroup"
    assert message.endswith(f"): {expected}")


async def test_a_framework_inside_of_another() -> None:
    """A framework in a mount of Starlette, and behind a dispatcher that copies the scope."""
    inner = falcon_app()

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        child = {**scope, "root_path": scope["root_path"] + "/api", "path": scope["path"][4:]}
        await inner(child, receive, send)

    _, trace = await ask(dispatch, "/api/fail/7", lifespan=False)
    is_broken(trace, "GET /api/fail/{item:int}")


class Handling:
    """An ASGI app that answers for what its handler raises, as a framework does."""

    def __init__(self, handler: Callable[[Any], Awaitable[None]], status: int = 500) -> None:
        self.handler = handler
        self.status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        set_route(scope, "things/{thing}")
        try:
            await self.handler(scope)
        except Exception as error:
            record_exception(scope, error)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


async def breaks(_: Any) -> None:
    raise BrokenError("no")


async def works(_: Any) -> None:
    pass


@pytest.mark.parametrize("status", [500, 503, 599])
async def test_a_handled_exception_is_recorded(status: int) -> None:
    """The functions for any other framework: the exception of an answer of 500 and above."""
    _, trace = await ask(Handling(breaks, status), "/things/7", lifespan=False)
    is_broken(trace, "GET /things/{thing}")
    assert root(trace).attributes["http.response.status_code"] == status


@pytest.mark.parametrize("status", [200, 404, 499])
async def test_an_answer_is_no_error(status: int) -> None:
    """Below 500 nothing is recorded of it."""
    _, trace = await ask(Handling(breaks, status), "/things/7", lifespan=False)
    assert (trace.info.state, raised(trace)) == (TraceState.OK, [])
    assert (trace.info.name, root(trace).attributes["wherefrom.outcome"]) == (
        "GET /things/{thing}",
        "completed",
    )


async def test_an_exception_that_is_raised_on_is_one_event() -> None:
    """A framework that reports an exception and raises it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await breaks(scope)
        except BrokenError as error:
            record_exception(scope, error)
            raise

    _, trace = await ask(app, "/", lifespan=False)
    is_broken(trace, "GET")


@pytest.mark.parametrize("status", [200, 500])
async def test_a_handled_exception_is_let_go(status: int) -> None:
    """With the request, without the garbage collector: its traceback has the frames of the app."""
    kept: list[weakref.ref[BrokenError]] = []

    async def handler(scope: Any) -> None:
        error = BrokenError("no")
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        await ask(Handling(handler, status), "/things/7", lifespan=False)
        assert kept[0]() is None
    finally:
        gc.enable()


async def test_sampling_knows_the_route() -> None:
    """``sample_routes`` is matched against the template that a framework reports."""
    sink = MemorySink()
    chosen = Settings(sample_routes={"/things/{thing}": 0})
    transport = httpx.ASGITransport(TraceMiddleware(Handling(works, 200), settings=chosen, sink=sink))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/things/7")
    assert sink.traces == []


async def test_an_untraced_request() -> None:
    """Without the middleware, or where a path is excluded, nothing happens."""
    transport = httpx.ASGITransport(Handling(breaks))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).status_code == 500
    sink = MemorySink()
    excluded = TraceMiddleware(Handling(breaks), settings=Settings(exclude=("/*",)), sink=sink)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(excluded), base_url="http://test") as client:
        assert (await client.get("/")).status_code == 500
    assert sink.traces == []


async def test_a_request_that_is_over() -> None:
    """What a task reports after the response changes nothing, and raises nothing."""
    scopes: list[Any] = []

    async def keep(scope: Any) -> None:
        scopes.append(scope)

    _, trace = await ask(Handling(keep, 200), "/things/7", lifespan=False)
    set_route(scopes[0], "/other")
    record_exception(scopes[0], BrokenError("late"))
    assert (trace.info.name, trace.info.state) == ("GET /things/{thing}", TraceState.OK)


async def test_mounted_in_starlette() -> None:
    """The prefix of the mount, and the template of the framework inside."""
    inner: Any = quart_app()
    app = Starlette(routes=[Mount("/api", inner)])
    _, trace = await ask(app, "/api/fail", lifespan=False)
    is_broken(trace, "GET /api/fail")


@pytest.mark.parametrize("module", [for_quart, for_falcon, for_blacksheep, for_sanic])
def test_a_wrapped_app_is_refused(module: Any, sink: MemorySink) -> None:
    """Signals of the wrapper would never come: one sentence says what to give."""
    app: Any = quart.Quart("app")
    wrapped = TraceMiddleware(app, sink=sink, settings=Settings(store="none"))
    with pytest.raises(TypeError, match="not of TraceMiddleware: call it before a middleware wraps the app"):
        module.instrument(wrapped)
