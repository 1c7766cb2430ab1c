"""Names: the route's template, mount prefix included, whatever the framework."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import litestar
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

import wherefrom
from wherefrom import MemorySink, TraceMiddleware

from .raw import client, http_scope, ok, only, root_of, serve, traced, websocket_scope


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


class Upper(Convertor[str]):
    """A converter whose value reads differently from the path."""

    regex = "[a-z]+"

    def convert(self, value: str) -> str:
        return value.upper()

    def to_string(self, value: str) -> str:
        return value.lower()


register_url_convertor("upper", Upper())


def behind_a_function(app: Any) -> Any:
    """Middleware as a function."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return run


class Other:
    """Middleware that keeps the app under a name of its own."""

    def __init__(self, app: Any) -> None:
        self.count, self.inside = 0, app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inside(scope, receive, send)


class Opaque:
    """Middleware that shows nothing of the app inside."""

    __slots__ = ("_inside",)

    def __init__(self, app: Any) -> None:
        self._inside = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._inside(scope, receive, send)


def members(framework: type) -> Any:
    """An app with one route of two parameters, to be mounted."""
    app = framework()
    if isinstance(app, FastAPI):

        @app.get("/members/{org_id}")
        async def member(org_id: str) -> None: ...

        @app.get("/fail")
        async def fail() -> None:
            raise RuntimeError("no")

    app.router.add_route("/plain/{x:int}", answer)
    app.router.add_route("/twice", answer)
    app.router.add_route("/again/{x}", answer)
    return app


def organizations(framework: type) -> Any:
    """Mounts of every kind: with parameters and converters, nested, and the same app at several places."""
    app, sub = framework(), members(FastAPI)
    deep = Starlette(routes=[Mount("/{org}", sub), Mount("", members(Starlette))])
    for path, inner in (
        ("/orgs/{org}", sub),
        ("/same/{x}/{x2}", sub),
        ("/numbers/{n:int}", sub),
        ("/floats/{f:float}", sub),
        ("/ids/{id:uuid}", sub),
        ("/upper/{name:upper}", sub),
        ("/deep/{a}", deep),
        ("/plain", members(Starlette)),
        ("/around/{y}", GZipMiddleware(sub)),
        ("/traced/{y}", TraceMiddleware(GZipMiddleware(sub), sink=MemorySink())),
        ("/function/{y}", behind_a_function(Router([Mount("/in/{z}", Other(sub))]))),
        ("/hidden/{y}", Opaque(sub)),
        ("/router/{y}", Opaque(Router([Route("/r/{z}", answer)]))),
        ("/twice/{y}", Opaque(Starlette(routes=[Mount("/in/{z}", Opaque(sub))]))),
        ("/static/{y}", StaticFiles(directory="/etc")),
    ):
        app.mount(path, inner)
    return app


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/orgs/acme/members/7", "/orgs/{org}/members/{org_id}"),
        ("/orgs/members/members/members", "/orgs/{org}/members/{org_id}"),
        ("/orgs/orgs/members/orgs", "/orgs/{org}/members/{org_id}"),
        ("/orgs/acme/plain/007", "/orgs/{org}/plain/{x:int}"),
        ("/orgs/acme/again/acme", "/orgs/{org}/again/{x}"),
        ("/orgs/a%20b/members/7", "/orgs/{org}/members/{org_id}"),
        ("/orgs/acme/", "/orgs/{org}"),
        ("/orgs/acme/nowhere/acme", "/orgs/{org}"),
        ("/same/1/1/members/1", "/same/{x}/{x2}/members/{org_id}"),
        ("/numbers/007/members/007", "/numbers/{n:int}/members/{org_id}"),
        ("/floats/1.50/members/1", "/floats/{f:float}/members/{org_id}"),
        ("/ids/0B8F0A06-4C1B-4A6E-9B1F-7C6C9E0D5A11/members/1", "/ids/{id:uuid}/members/{org_id}"),
        ("/upper/acme/members/acme", "/upper/{name:upper}/members/{org_id}"),
        ("/deep/1/1/members/1", "/deep/{a}/{org}/members/{org_id}"),
        ("/deep/1/1/nowhere", "/deep/{a}/{org}"),
        ("/plain/plain/007", "/plain/plain/{x:int}"),
        ("/plain/nowhere", "/plain"),
        ("/around/1/members/1", "/around/{y}/members/{org_id}"),
        ("/traced/1/members/1", "/traced/{y}/members/{org_id}"),
        ("/function/1/in/007/plain/007", "/function/{y}/in/{z}/plain/{x:int}"),
        ("/hidden/1/members/1", "/hidden/{y}/members/{org_id}"),
        ("/hidden/1/plain/007", "/hidden/{y}/plain/{x:int}"),
        ("/hidden/1/nowhere", "/hidden/{y}"),
        ("/router/1/r/1", "/router/{y}/r/{z}"),
        ("/twice/1/in/1/members/1", "/twice/{y}/{z}/members/{org_id}"),
        ("/twice/1/in/1/plain/007", "/twice/{y}/{z}/plain/{x:int}"),
        ("/static/1/hostname", "/static/{y}"),
        ("/static/1/no/such/file", "/static/{y}"),
    ],
)
@pytest.mark.parametrize("outside", [True, False])
async def test_mounts(sink: MemorySink, framework: Any, path: str, template: str, outside: bool) -> None:
    """One name for one route, whatever the values are, and wherever else they stand in the path."""
    app = organizations(framework)
    if outside:
        app = traced(app, sink)
    else:
        app.add_middleware(TraceMiddleware, sink=sink)
    async with client(app) as http:
        for _ in range(2):
            await http.get(path)
    assert [trace.info.name for trace in sink.traces] == [f"GET {template}"] * 2
    assert wherefrom.stats().errors == {}


async def test_one_endpoint_at_several_paths(sink: MemorySink) -> None:
    """A function that serves several routes is named by the one that matched."""
    inner = Starlette(
        routes=[
            Route("/first/{x:int}", answer, methods=["POST"]),
            Route("/first/{y}", answer),
            Mount("/deep/{z}", routes=[Route("/first/{y}", answer)]),
        ]
    )
    app = Starlette(routes=[Mount("/m", inner), Mount("/{other}", inner)])
    async with client(traced(app, sink)) as http:
        await http.get("/m/first/1")
        await http.post("/m/first/1")
        await http.put("/m/first/1")
        await http.get("/m/deep/m/first/first")
        await http.get("/n/first/m")
        await http.get("/m/first/m")
    assert [trace.info.name for trace in sink.traces] == [
        "GET /m/first/{y}",
        "POST /m/first/{x:int}",
        "PUT /m/first/{x:int}",
        "GET /m/deep/{z}/first/{y}",
        "GET /{other}/first/{y}",
        "GET /m/first/{y}",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/plain/007", "GET /plain/{x:int}"),
        ("/docs", "GET /docs"),
        ("/openapi.json", "GET /openapi.json"),
        ("/all/included/1", "GET /all/included/{x}"),
        ("/all/mounted/1/again/1", "GET /all/mounted/{y}/again/{x}"),
        ("/all/mounted/1/members/1", "GET /all/mounted/{y}/members/{org_id}"),
        ("/all/mounted/1/docs", "GET /all/mounted/{y}/docs"),
        ("/all/nowhere", "GET"),
        ("/site/page", "GET /site"),
    ],
)
async def test_starlette_s_routes_in_fastapi(sink: MemorySink, tmp_path: Path, path: str, name: str) -> None:
    """FastAPI tells no route for them: ``add_route``, its own pages, mounts of an included router."""
    app, router = FastAPI(), APIRouter()
    router.add_route("/included/{x}", answer)
    router.mount("/mounted/{y}", members(FastAPI))
    app.add_route("/plain/{x:int}", answer)
    app.include_router(router, prefix="/all")
    (tmp_path / "index.html").write_text("x")
    app.frontend("/site", directory=tmp_path)
    async with client(traced(app, sink)) as http:
        await http.get(path)
    assert only(sink).info.name == name


async def test_methods_redirects_and_failures_in_a_mount(sink: MemorySink) -> None:
    """405 and 500 are the route's; a redirect to a path with or without a slash matched no route."""
    async with client(traced(organizations(FastAPI), sink), raises=False) as http:
        assert (await http.post("/orgs/acme/members/1")).status_code == 405
        assert (await http.post("/orgs/acme/plain/1")).status_code == 405
        assert (await http.get("/orgs/acme/fail")).status_code == 500
        assert (await http.get("/orgs/acme/members/1/")).status_code == 307
    async with client(traced(fastapi_app(), sink), raises=False) as http:
        assert (await http.get("/items/1/")).status_code == 307
    assert [trace.info.name for trace in sink.traces] == [
        "POST /orgs/{org}/members/{org_id}",
        "POST /orgs/{org}/plain/{x:int}",
        "GET /orgs/{org}/fail",
        "GET /orgs/{org}",
        "GET",
    ]


async def test_hosts_with_mounts(sink: MemorySink) -> None:
    """Which host answered decides between mounts, and is not in the name."""
    inner = Router([Route("/a/{x}", answer)])
    app = Starlette(
        routes=[
            Host("{tenant}.one", Router([Mount("/{m1}", inner)])),
            Host("{tenant}.two", Router([Mount("/{m2}", inner)])),
        ]
    )
    async with client(traced(app, sink)) as http:
        for host in ("t.one", "t.two", "t.two", "t.one", "t.three"):
            await http.get(f"http://{host}/t/a/t")
        await http.get("http://t.one/")
    assert [trace.info.name for trace in sink.traces] == [
        "GET /{m1}/a/{x}",
        "GET /{m2}/a/{x}",
        "GET /{m2}/a/{x}",
        "GET /{m1}/a/{x}",
        "GET",
        "GET",
    ]


async def test_websockets_in_mounts(sink: MemorySink) -> None:
    """A connection is named as a request is."""
    sub = FastAPI()

    @sub.websocket("/rooms/{room}")
    async def room(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    sub.router.routes.append(WebSocketRoute("/plain/{n:int}", room))
    app = FastAPI()
    app.mount("/orgs/{org}", sub)
    for path in ("/orgs/7/rooms/7", "/orgs/7/plain/007", "/orgs/7/none"):
        await serve(traced(app, sink), websocket_scope(path), {"type": "websocket.connect"})
    names = [trace.info.name for trace in sink.traces]
    assert names == ["WS /orgs/{org}/rooms/{room}", "WS /orgs/{org}/plain/{n:int}", "WS /orgs/{org}"]


async def test_routes_that_come_later(sink: MemorySink) -> None:
    """A mount, or a route below one, that is added while the app runs is found."""
    sub = members(Starlette)
    app = Starlette(routes=[Mount("/a/{x}", sub)])
    http = client(traced(app, sink))
    await http.get("/a/1/twice")
    app.mount("/b/{y}", sub)
    await http.get("/b/1/twice")
    sub.router.add_route("/late/{z}", lambda request: PlainTextResponse("x"))
    await http.get("/b/1/late/1")
    assert [trace.info.name for trace in sink.traces] == [
        "GET /a/{x}/twice",
        "GET /b/{y}/twice",
        "GET /b/{y}/late/{z}",
    ]


async def test_an_app_in_itself_and_one_behind_nothing(sink: MemorySink) -> None:
    """A tree without an end has names; mounts at the root add nothing."""
    app = Starlette(routes=[Route("/x/{n}", answer)])
    app.mount("/again", app)
    app.mount("/", Router([Mount("/", Router([Route("/y/{n}", answer)]))]))
    async with client(traced(app, sink)) as http:
        for path in ("/x/1", "/again/x/1", "/again/again/again/x/1", "/y/1", "/none"):
            await http.get(path)
    names = [trace.info.name for trace in sink.traces]
    assert names == ["GET /x/{n}", "GET /again/x/{n}", "GET /again/again/again/x/{n}", "GET /y/{n}", "GET"]


async def test_a_mount_s_own_middleware(sink: MemorySink) -> None:
    """The name is the whole template, wherever in the app the middleware stands."""
    inside = Middleware(TraceMiddleware, sink=sink)
    app = Starlette(routes=[Mount("/m/{a}", routes=[Route("/x/{b}", answer, middleware=[inside])])])
    async with client(app) as http:
        await http.get("/m/1/x/1")
    assert root_of(sink).name == "GET /m/{a}/x/{b}"


class Rewriting:
    """Middleware that changes the path in the scope, before the app runs or afterwards."""

    def __init__(self, app: Any, before: str = "", after: str = "") -> None:
        self.app, self.before, self.after = app, before, after

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["path"] = self.before or scope["path"]
        await self.app(scope, receive, send)
        scope["path"] = self.after or scope["path"]


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_a_path_that_is_rewritten(sink: MemorySink, framework: Any) -> None:
    """The path that the routes saw names the request; the one of the client is recorded."""
    for before, after, path in (("", "/after", "/m/7/plain/007"), ("/m/7/plain/7", "", "/client")):
        app = framework()
        app.mount("/m/{a}", Rewriting(members(framework), after=after))
        sink.traces.clear()
        await serve(traced(Rewriting(app, before=before), sink), http_scope(path))
        assert root_of(sink).name == "GET /m/{a}/plain/{x:int}"
        assert root_of(sink).attributes["url.path"] == path


async def test_many_tenants_and_apps(sink: MemorySink) -> None:
    """Values of clients and apps that come and go do not fill the memory, and have the right names."""
    tenants = Starlette(routes=[Mount("/{tenant}", routes=[Route("/x", answer)])])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fresh = Starlette(routes=[Mount("/new/{n}", routes=[Route("/y", answer)])])
        await (fresh if scope["path"].startswith("/new/") else tenants)(scope, receive, send)

    served = traced(app, sink)
    for number in range(1100):
        await serve(served, http_scope(f"/{number}/x"))
        if number % 40 == 0:
            await serve(served, http_scope(f"/new/{number}/y"))
    assert {trace.info.name for trace in sink.traces} == {"GET /{tenant}/x", "GET /new/{n}/y"}
    trees = served._options.trees._trees
    assert len(trees) <= 16
    assert all(len(tree.cached) <= 1024 for tree in trees.values())


class Broken(Mount):
    """A route of the app's own that cannot match twice."""

    seen = False

    def matches(self, scope: Any) -> Any:
        if self.seen:
            raise RuntimeError("only once")
        self.seen = True
        return super().matches(scope)


async def test_a_route_that_raises(sink: MemorySink) -> None:
    """What a route class of the app raises for us costs the template, and is counted."""
    app = Starlette(routes=[Broken("/m", routes=[Route("/x", answer)])])
    async with client(traced(app, sink)) as http:
        assert (await http.get("/m/x")).status_code == 200
    assert root_of(sink).name == "GET"
    assert set(wherefrom.stats().errors) == {"route template"}


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize(
    ("own", "server", "path"),
    [
        ("", "", "{}"),
        ("/api", "", "{}"),  # a proxy strips the prefix
        ("/api", "", "/api{}"),  # a proxy does not
        ("", "/api", "/api{}"),  # uvicorn --root-path
        ("", "/api", "{}"),  # hypercorn --root-path
        ("/api", "/api", "/api{}"),
        ("/api", "/a/longer/prefix/of/the/server", "/api{}"),
        ("/orgs", "", "/orgs{}"),
        ("", "/orgs", "/orgs{}"),
    ],
)
async def test_root_paths(sink: MemorySink, own: str, server: str, path: str, outside: bool) -> None:
    """The same names, excluded paths and rates, whatever stands before the app's own paths."""
    app = FastAPI(root_path=own)
    app.mount("/orgs/{org}", members(FastAPI))
    options = {"exclude": "/orgs/*/fail,/docs", "sample_routes": {"/orgs/{org}/plain/{x:int}": 0}}

    @app.get("/items/{item}")
    async def item(item: str) -> None: ...

    if outside:
        traced_app: Any = traced(app, sink, **options)
    else:
        app.add_middleware(TraceMiddleware, sink=sink, settings=wherefrom.Settings(store="none", **options))
        traced_app = app
    own_paths = ["/items/api", "/docs", "/openapi.json"]
    expected = ["GET /items/{item}", "GET /openapi.json"]
    if path != "{}" or not (own or server):  # a mount of Starlette's answers 404 where the prefix is stripped
        own_paths += ["/orgs/api/members/orgs", "/orgs/1/twice", "/orgs/1/plain/7"]
        expected += ["GET /orgs/{org}/members/{org_id}", "GET /orgs/{org}/twice"]
    for own_path in own_paths:
        wire = await serve(traced_app, http_scope(path.format(own_path), root_path=server))
        assert wire.sent[0]["status"] == 200
    assert [trace.info.name for trace in sink.traces] == expected
    assert sink.traces[0].data.spans[0].attributes["url.path"] == path.format("/items/api")


@pytest.mark.parametrize("outside", [True, False])
async def test_an_excluded_path_of_a_mount(sink: MemorySink, outside: bool) -> None:
    """Globs mean the path of the outermost app, also for a middleware inside of a mount."""
    sub = members(FastAPI)
    app = FastAPI()
    app.mount("/sub", sub)
    options = {"exclude": "/sub/again/*"}
    if outside:
        served: Any = traced(app, sink, **options)
    else:
        sub.add_middleware(TraceMiddleware, sink=sink, settings=wherefrom.Settings(store="none", **options))
        served = app
    for path in ("/api/sub/again/1", "/api/sub/twice"):
        await serve(served, http_scope(path, root_path="/api"))
    assert [trace.info.name for trace in sink.traces] == ["GET /sub/twice"]


@litestar.asgi("/mounted", is_mount=True, copy_scope=False)
async def litestar_mount(scope: Any, receive: Any, send: Any) -> None:
    await Starlette(routes=[Mount("/m/{a}", routes=[Route("/x/{b}/", answer)])])(scope, receive, send)


@litestar.asgi(["/opaque", "/opaque-too"], is_mount=True, copy_scope=True)
async def litestar_opaque(scope: Any, receive: Any, send: Any) -> None:
    await ok(scope, receive, send)


@litestar.get(["/", "/items/{item:int}"])
async def litestar_item() -> str:
    return "x"


LITESTAR = [
    ("/", "/"),
    ("/items/007", "/items/{item}"),
    ("/v1/mounted/m/1/x/1", "/v1/mounted/m/{a}/x/{b}/"),
    ("/v1/opaque/1", "/v1/opaque"),
    ("/v1/opaque-too/opaque/1", "/v1/opaque-too"),
    ("/nowhere", ""),
]


@pytest.mark.parametrize(
    ("mount", "path", "template"),
    # Litestar mounted in Starlette tells a mount of its own a root_path that is not on its path.
    [("", *case) for case in LITESTAR]
    + [("/in/{n:int}", *case) for case in LITESTAR if "mounted" not in case[0]],
)
async def test_litestar_mounts(sink: MemorySink, mount: str, path: str, template: str) -> None:
    """Litestar's templates, its mounts, and Litestar itself mounted; the path is the client's."""
    versioned = litestar.Router("/v1", route_handlers=[litestar_mount, litestar_opaque])
    app: Any = litestar.Litestar([litestar_item, versioned], logging_config=None)
    if mount:
        app = Starlette(routes=[Mount(mount, app)])
        path = mount.replace("{n:int}", "007") + path
    async with client(traced(app, sink)) as http:
        await http.get(path)
    assert root_of(sink).name == f"GET {mount}{template}".strip()
    assert root_of(sink).attributes["url.path"] == path


class Grown:
    """A random app, and the template of each of its endpoints; values are such that they stand everywhere."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.count = 0
        self.answered: list[int] = []

    def path(self) -> tuple[str, str]:
        """A template of one or two segments, and a path that it matches."""
        template = path = ""
        for _ in range(self.random.randint(1, 2)):
            self.count += 1
            segment, value = self.random.choice(
                [
                    (f"/s{self.count}", f"/s{self.count}"),
                    (f"/{{p{self.count}}}", "/" + self.random.choice(["7", "007", "s1", "s2"])),
                    (f"/{{p{self.count}:int}}", "/" + self.random.choice(["7", "007"])),
                ]
            )
            template, path = template + segment, path + value
        return template, path

    def route(self) -> tuple[int, Any, Any]:
        """A number, and two endpoints that say that it was they: of FastAPI and of Starlette."""
        self.count += 1
        number = self.count

        async def fastapi() -> None:
            self.answered.append(number)

        async def starlette(_request: Any) -> PlainTextResponse:
            self.answered.append(number)
            return PlainTextResponse("x")

        return number, fastapi, starlette

    def grow(self, depth: int) -> tuple[Any, list[tuple[int, str, str]]]:
        """An app, and number, template and path of each endpoint."""
        app: Any = self.random.choice([FastAPI, Starlette, Router])() if depth < 2 else FastAPI()
        found, included = [], APIRouter()
        number, fastapi, starlette = self.route()
        template, path = self.path()
        if isinstance(app, FastAPI) and self.random.random() < 0.5:
            app.get(template)(fastapi)
        else:
            app.routes.append(Route(template, starlette))
        found.append((number, template, path))
        for _ in range(self.random.randint(0, 3) if depth else 0):
            inner, inner_found = self.grow(depth - 1)
            template, path = self.path()
            around = self.random.choice([lambda app: app, GZipMiddleware, behind_a_function, Other])
            if isinstance(app, FastAPI) and self.random.random() < 0.5:
                included.mount(template, around(inner))
                prefix = "/all"
            else:
                app.routes.append(Mount(template, around(inner)))
                prefix = ""
            found += [
                (number, prefix + template + below, prefix + path + rest)
                for number, below, rest in inner_found
            ]
        if isinstance(app, FastAPI):
            app.include_router(included, prefix="/all")
        return app, found


@pytest.mark.parametrize("seed", range(60))
async def test_any_tree(sink: MemorySink, seed: int) -> None:
    """Whatever endpoint answers, the name is made of the templates on the way to it."""
    grown = Grown(seed)
    app, found = grown.grow(2)
    templates = {number: template for number, template, _ in found}
    served = traced(app, sink)
    for _, _, path in found:
        grown.answered.clear()
        sink.traces.clear()
        await serve(served, http_scope(path))
        if grown.answered:  # another route may come first, or be in the way
            assert only(sink).info.name == f"GET {templates[grown.answered[0]]}"
