"""The web application: FastAPI routes for each page, its JSON twin and its downloads, and error responses.

``wherefrom.web.app`` mounts it in another application.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import orjson
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..alerts.alerting import Alerting
from ..exceptions import (
    FilterError,
    QueryCancelledError,
    QueryTimeoutError,
    SettingsError,
    WherefromError,
)
from ..settings import Settings
from ..stores import Snapshot, Store
from ..stores.opening import locate
from .auth import (
    SESSION_COOKIE,
    VISIT,
    Access,
    Gate,
    Rule,
    SecurityHeaders,
    is_for_programs,
    login_routes,
    path_of,
    read_body,
    read_form,
    read_json,
    root_of,
)
from .failures import STATUSES, AccessError, Failure, failure_of, failure_of_status
from .page import Action, Download, Page, Reader
from .pages import ACTIONS, HOME, PAGES
from .pages.feedback import assess
from .parameters import PageQuery, parameter_error, reader_of, time_ranges
from .queries import BusyError, Queries, QueryPool
from .rendering import Links, render, stream

SECONDS_FOR_A_PART: Final = 2.0
"""The deadline of each part of a page."""

_UNSAFE_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 100  # file systems allow 255 bytes
_FILES: Final = (".json", *(f".{one.suffix}" for page in PAGES for one in page.downloads))
_NO_QUERY: Final = PageQuery()
_MEDIA_TYPES: Final = {"csv": "text/csv", "jsonl": "application/jsonl"}
_FAILURES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Failure, "description": text} for status, text in STATUSES.items()
}

_Found = TypeVar("_Found")


def app(store: Store | str | None = None, *, token: str | None = None, allow: Rule | None = None) -> ASGIApp:
    """The page over a store, for ``app.mount("/wherefrom", wherefrom.web.app(...))``.

    ``store`` is a store or its URL, by default that of the settings. Access is granted to users who log in
    with ``token`` (by default the setting ``ui_token``) and to requests for which ``allow(request)`` returns
    true: a function or coroutine function of Starlette's ``Request``, which can read the user that the app's
    own middleware has authenticated.

    Raises:
        SettingsError: there is neither a token nor a rule, or the alerts of the settings cannot be used.
        StoreError: the setting ``store`` is ``none``, or the URL names no store.
    """
    settings = Settings()
    token = token or (settings.ui_token.get_secret_value() if settings.ui_token else None)
    if token is None and allow is None:
        raise SettingsError(
            "the page shows data of your users and needs access control: mount it with"
            " wherefrom.web.app(token=...), set WHEREFROM_UI_TOKEN, or pass wherefrom.web.app(allow=...)"
        )
    used = locate(store)
    alerts = None if settings.alerts is None else Alerting(used, settings.alerts)
    return make_application(used, Access(token, allow), alerts=alerts)


def make_application(
    store: Store, access: Access, pool: QueryPool | None = None, *, alerts: Alerting | None = None
) -> ASGIApp:
    """The pages over a store, for the clients that ``access`` admits; ``pool`` runs their queries.

    ``alerts`` are shown, and evaluated by nobody here.
    """
    application = _Application(
        title="Wherefrom",
        version=version("wherefrom"),
        description="The data of each page as JSON, at the path of the page and `.json`.",
        docs_url=None,
        redoc_url=None,
        routes=[*_fixed_routes(access), *_page_routes(with_token=access.token is not None)],
        middleware=[Middleware(Gate, access=access, refuse=_answer_failure)],
        exception_handlers={
            WherefromError: _answer_failure,
            AccessError: _answer_failure,
            BusyError: _answer_failure,
            RequestValidationError: _answer_failure,
            HTTPException: _answer_status,
            Exception: _answer_failure,
        },
    )
    pool = pool or QueryPool(seconds=SECONDS_FOR_A_PART)
    application.state.answers = _Answers(store, access, pool, alerts)
    return SecurityHeaders(application)


class _Application(FastAPI):
    """FastAPI whose document leaves out status 422: parameters that it refuses are answered with 400."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        for methods in document["paths"].values():
            methods["get"]["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document


def _fixed_routes(access: Access) -> list[BaseRoute]:
    async def redirect_home(request: Request) -> Response:
        return RedirectResponse(root_of(request) + HOME)

    async def take_feedback(request: Request) -> ASGIApp:
        answers: _Answers = request.app.state.answers
        return await answers.assess(request)

    return [
        Route("/", redirect_home),
        Route("/api/traces/{trace_id}/feedback", take_feedback, methods=["POST"]),
        Mount("/static", _Static(packages=[(__package__ or "", "static")])),
        *login_routes(access, lambda request: _context(request, _NO_QUERY)),
    ]


@cache
def _page_routes(*, with_token: bool) -> list[BaseRoute]:
    """The routes of all pages, made once: FastAPI takes long to read what they accept and return."""
    # The gate checks tokens; the schemes describe it in the OpenAPI document.
    schemes = [
        Depends(HTTPBearer(auto_error=False)),
        Depends(APIKeyCookie(name=SESSION_COOKIE, auto_error=False)),
    ]
    described: dict[str, Any] = {"dependencies": schemes if with_token else None, "responses": _FAILURES}
    routes: list[BaseRoute] = []
    # Twins and downloads first: the last part of a page's path matches any text, also with such a suffix.
    for page in PAGES:
        options = {"summary": page.summary, "response_model": page.answer}
        if page.batches is not None:
            routes += _readable(
                page.twin,
                page,
                _Answers.lines,
                described | _file_options(page.summary, _MEDIA_TYPES[page.suffix]),
            )
        else:
            routes += _readable(page.twin, page, _Answers.json, described | options)
        if page.judge is not None:
            routes.append(_route(page.twin, page, _Answers.judge, "POST"))
        for one in page.downloads:
            options = _file_options(one.summary, one.media_type)
            answer = partial(_Answers.download, download=one)
            routes += _readable(f"{page.path}.{one.suffix}", page, answer, described | options)
    for page in PAGES:
        if page.template:
            routes += _readable(page.path, page, _Answers.html)
    routes += [_route(action.path, action, _Answers.act, "POST") for action in ACTIONS]
    return routes


def _file_options(summary: str, media_type: str) -> dict[str, Any]:
    """What the OpenAPI document says of a route that answers with a file."""
    content = {200: {"content": {media_type: {"schema": {"type": "string"}}}}}
    return {"summary": summary, "response_class": Response, "responses": _FAILURES | content}


def _readable(
    path: str, page: Page, answer: Callable[..., Any], described: Mapping[str, Any] | None = None
) -> list[BaseRoute]:
    """The routes for GET, which is in the OpenAPI document if it is ``described``, and for HEAD."""
    return [_route(path, page, answer, "GET", described), _route(path, page, answer, "HEAD")]


def _route(
    path: str,
    page: Page | Action,
    answer: Callable[..., Any],
    method: str,
    described: Mapping[str, Any] | None = None,
) -> BaseRoute:
    read = Depends(reader_of(page.query))

    async def endpoint(request: Request, query: Any = read) -> Response:
        response: Response = await answer(request.app.state.answers, page, request, query)
        return response

    options = {"response_model": None, **(described or {})}
    return APIRoute(path, endpoint, methods=[method], include_in_schema=described is not None, **options)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Makes the responses; each is a coroutine function of the request and its query."""

    store: Store
    access: Access
    pool: QueryPool
    alerts: Alerting | None

    async def json(self, page: Page, _request: Request, query: PageQuery) -> Response:
        async def answer(queries: Queries) -> Response:
            return json_response(await queries.query(partial(self._view, page.view, query), page.seconds))

        return self.pool.answer(answer)

    async def download(
        self, _page: Page, _request: Request, query: PageQuery, download: Download
    ) -> Response:
        async def answer(queries: Queries) -> Response:
            file = await queries.query(partial(self._view, download.make, query))
            name = f"{_UNSAFE_IN_NAMES.sub('-', file.name)[:_LONGEST_NAME].strip('-')}.{download.suffix}"
            headers = {"content-disposition": f'attachment; filename="{name}"'}
            return Response(file.content, media_type=download.media_type, headers=headers)

        return self.pool.answer(answer)

    async def lines(self, page: Page, request: Request, query: PageQuery) -> Response:
        """A file, read a batch at a time while it is sent."""
        assert page.batches is not None
        read = page.batches

        async def answer(queries: Queries) -> Response:
            async def next_batch(place: Any) -> tuple[bytes, Any]:
                view = partial(self._view, lambda reader, query: read(reader, query, place), query)
                return await queries.query(view, page.seconds)

            first = await next_batch(None)  # its errors still have a status

            async def batches() -> AsyncIterator[bytes]:
                lines, place = first
                yield lines
                while place is not None and request.method != "HEAD":
                    lines, place = await next_batch(place)
                    yield lines

            name = page.path.rpartition("/")[2]
            headers = {"content-disposition": f'attachment; filename="{name}.{page.suffix}"'}
            return StreamingResponse(batches(), media_type=_MEDIA_TYPES[page.suffix], headers=headers)

        return self.pool.answer(answer)

    async def judge(self, page: Page, request: Request, query: PageQuery) -> Response:
        """The answer to a webhook: 200, or 409 for a controller to stop at."""
        await read_body(request)  # it names the canary of the caller, which means nothing here

        async def answer(queries: Queries) -> Response:
            found = await queries.query(partial(self._view, page.view, query), page.seconds)
            return json_response(found, 200 if page.judge is None or page.judge(found, query) else 409)

        return self.pool.answer(answer)

    async def act(self, action: Action, request: Request, query: PageQuery) -> Response:
        form = await read_form(request, self.access.secret)

        async def answer(queries: Queries) -> Response:
            path = await queries.query(lambda: action.act(self.store, query, form))
            links = Links(root_of(request), path, query)
            return RedirectResponse(links.to(path, **links.near()), 303)

        return self.pool.answer(answer)

    async def assess(self, request: Request) -> ASGIApp:
        given, trace_id = await read_json(request), request.path_params["trace_id"]

        async def answer(queries: Queries) -> Response:
            return json_response(await queries.query(partial(assess, self.store, trace_id, given)), 201)

        return self.pool.answer(answer)

    async def html(self, page: Page, request: Request, query: PageQuery) -> Response:
        context = {**_context(request, query), **page.context(query), "page": page}

        async def answer(queries: Queries) -> Response:
            pieces = queries.stream(partial(self._render, queries, page, query, context))
            status, _, target = (await anext(pieces)).partition(" ")
            if target:
                return RedirectResponse(target, int(status))
            return StreamingResponse(pieces, int(status), media_type="text/html")

        return self.pool.answer(answer)

    def _render(
        self, queries: Queries, page: Page, query: PageQuery, context: Mapping[str, Any]
    ) -> Iterator[str]:
        """The status, then the page in pieces; early view and parts read the same snapshot.

        If another page is shown instead, its address follows the status.
        """
        with self.store.snapshot() as snapshot:
            reader = Reader(snapshot, query, self.alerts)
            if (other := queries.read(snapshot, partial(page.opens, reader, query))) is not None:
                path, parameters = other
                yield f"303 {context['links'].to(path, **parameters)}"
                return
            view, failure, status = None, None, 200
            try:
                view = queries.read(snapshot, partial(page.early or page.view, reader, query))
            except (FilterError, QueryTimeoutError) as error:
                if not page.shows_failures:
                    raise
                status, failure = failure_of(error)
            parts = {
                name: partial(_part, queries, snapshot, partial(part, reader, query))
                for name, part in {**page.parts, "whole": page.view}.items()
            }
            yield str(status)
            more = {"view": view, "failure": failure, "parts": SimpleNamespace(**parts)}
            yield from stream(page.template or "", {**context, **more})

    def _view(self, view: Callable[[Reader, Any], _Found], query: PageQuery) -> _Found:
        with self.store.snapshot() as snapshot:
            return view(Reader(snapshot, query, self.alerts), query)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a page: its view, or why it failed; the rest of the page does not depend on it."""

    view: Any = None
    failure: Failure | None = None


def _part(queries: Queries, snapshot: Snapshot, view: Callable[[], Any]) -> _Part:
    try:
        return _Part(queries.read(snapshot, view))
    except QueryCancelledError:
        raise  # the client has left: the other parts need not be read
    except WherefromError as error:
        return _Part(failure=failure_of(error)[1])


class _Static(StaticFiles):
    """Static files. Their addresses hold a digest of the content, so caches may store them for ever."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def _context(request: Request, query: PageQuery) -> dict[str, Any]:
    """The variables of every template."""
    return {
        "links": Links(root_of(request), path_of(request), query),
        "query": query,
        "ranges": time_ranges(query),
        "navigation": [page for page in PAGES if page.title is not None],
        "page": None,
        "visit": request.scope.get(VISIT),
    }


def json_response(view: object, status: int = 200) -> Response:
    """A dataclass, or any value that orjson accepts, as JSON."""
    return Response(orjson.dumps(view), status, media_type="application/json")


async def _answer_failure(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = parameter_error(error)
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, BusyError) else {}
    return _respond(request, *failure_of(error), headers)


async def _answer_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    failure = failure_of_status(error.status_code, error.detail)
    return _respond(request, error.status_code, failure, error.headers or {})


def _respond(request: Request, status: int, failure: Failure, headers: Mapping[str, str]) -> Response:
    response: Response
    if is_for_programs(request, _FILES):
        response = json_response(failure, status)
    else:
        context = _context(request, _NO_QUERY) | {"failure": failure, "status": status}
        response = HTMLResponse(render("failure.html", context), status)
    response.headers.update(headers)
    return response
