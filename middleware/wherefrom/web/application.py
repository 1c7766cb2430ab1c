"""The application: a route for each page and its JSON twin, static files, and errors as pages."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..exceptions import (
    FilterError,
    QueryCancelledError,
    QueryTimeoutError,
    SettingsError,
    StoreError,
    WherefromError,
)
from ..settings import Settings
from ..stores import Store, open_store
from .auth import VISIT, Access, Gate, Rule, SecurityHeaders, login_routes, path_of, read_form, root_of
from .failures import AccessError, Failure, failure_of, failure_of_status
from .openapi import make_document
from .page import EXPERIMENT, Action, Download, Page, Reader
from .pages import ACTIONS, HOME, PAGES
from .parameters import Parameters, read_parameters
from .queries import BusyError, Queries, QueryPool
from .rendering import Links, render, stream

_JSON: Final = "application/json"
_UNSAFE_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 100
_FILES: Final = (".json", *(f".{one.suffix}" for page in PAGES for one in page.downloads))
SECONDS_FOR_A_PART: Final = 2.0
"""How long the query of a part of a page may take."""

_NOT_ASKED: Final = Parameters({EXPERIMENT.name: None}, {})


def make_application(store: Store, access: Access, pool: QueryPool | None = None) -> ASGIApp:
    """The pages over a store, for those whom ``access`` lets in; ``pool`` runs their queries."""
    pool = pool or QueryPool(seconds=SECONDS_FOR_A_PART)
    application = Starlette(
        routes=_routes(Reader(store), access, pool),
        middleware=[Middleware(Gate, access=access, refuse=_answer_failure)],
        exception_handlers={
            WherefromError: _answer_failure,
            AccessError: _answer_failure,
            BusyError: _answer_busy,
            HTTPException: _answer_status,
            Exception: _answer_failure,
        },
    )
    return SecurityHeaders(application)


def _routes(reader: Reader, access: Access, pool: QueryPool) -> list[BaseRoute]:
    # The twins first: the last part of a path may hold any name, also one that ends in .json.
    twins = (
        Route(f"{page.path}.json", functools.partial(_answer_json, page, reader, pool)) for page in PAGES
    )
    downloads = (
        Route(f"{page.path}.{one.suffix}", functools.partial(_answer_download, page, one, reader, pool))
        for page in PAGES
        for one in page.downloads
    )
    pages = (
        Route(page.path, functools.partial(_answer_html, page, reader, pool))
        for page in PAGES
        if page.template
    )
    actions = (
        Route(one.path, functools.partial(_do, one, reader, access, pool), methods=["POST"])
        for one in ACTIONS
    )
    return [
        Route("/", _go_home),
        Route("/openapi.json", _describe),
        Mount("/static", _Static(packages=[(__package__ or "", "static")])),
        *login_routes(access, lambda request: _context(request, _NOT_ASKED)),
        *twins,
        *downloads,
        *pages,
        *actions,
    ]


class _Static(StaticFiles):
    """Files whose address holds a digest of their content may be kept for ever."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


async def _go_home(request: Request) -> Response:
    return RedirectResponse(root_of(request) + HOME)


async def _describe(request: Request) -> Response:
    return json_response(make_document(root_of(request)))


async def _answer_json(page: Page, reader: Reader, pool: QueryPool, request: Request) -> ASGIApp:
    query, own = _read(page, reader, request)

    async def answer(queries: Queries) -> Response:
        return json_response(await queries.query(lambda: page.view(own, query)))

    return pool.answer(answer)


async def _do(action: Action, reader: Reader, access: Access, pool: QueryPool, request: Request) -> ASGIApp:
    form = await read_form(request, access.secret)
    query, own = _read(action, reader, request)

    async def answer(queries: Queries) -> Response:
        path = await queries.query(lambda: action.act(own, query, form))
        return RedirectResponse(Links(root_of(request), path, query).to(path), 303)

    return pool.answer(answer)


async def _answer_download(
    page: Page, download: Download, reader: Reader, pool: QueryPool, request: Request
) -> ASGIApp:
    query, own = _read(page, reader, request)

    async def answer(queries: Queries) -> Response:
        file = await queries.query(lambda: download.make(own, query))
        name = f"{_UNSAFE_IN_NAMES.sub('-', file.name)[:_LONGEST_NAME].strip('-')}.{download.suffix}"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(file.content, media_type=download.media_type, headers=headers)

    return pool.answer(answer)


async def _answer_html(page: Page, reader: Reader, pool: QueryPool, request: Request) -> ASGIApp:
    query, own = _read(page, reader, request)

    async def answer(queries: Queries) -> Response:
        view, failure, status = None, None, 200
        try:
            view = await queries.query(lambda: (page.early or page.view)(own, query))
        except (FilterError, QueryTimeoutError) as error:
            if not page.shows_failures:
                raise
            status, failure = failure_of(error)
        views = {**page.parts, "whole": page.view}
        parts = {
            name: _forgiving(queries, functools.partial(part, own, query)) for name, part in views.items()
        }
        context = {
            **_context(request, query),
            **page.context(query),
            "page": page,
            "view": view,
            "failure": failure,
            "parts": SimpleNamespace(**parts),
        }
        return StreamingResponse(
            _stream(queries, page.template or "", context), status, media_type="text/html"
        )

    return pool.answer(answer)


async def _stream(queries: Queries, template: str, context: Mapping[str, Any]) -> AsyncIterator[str]:
    """The template piece by piece, made in a thread of the pool: it calls the parts of the page."""
    pieces = stream(template, context)
    while (piece := await queries.run(lambda: next(pieces, None))) is not None:
        yield piece


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part of a page found; where it failed the rest of the page still stands."""

    view: Any = None
    failure: Failure | None = None


def _forgiving(queries: Queries, part: Callable[[], Any]) -> Callable[[], _Part]:
    def answer() -> _Part:
        try:
            return _Part(queries.within_time(part))
        except QueryCancelledError:
            raise  # nobody waits for the rest of the page either
        except WherefromError as error:
            return _Part(failure=failure_of(error)[1])

    return answer


def _read(page: Page | Action, reader: Reader, request: Request) -> tuple[Parameters, Reader]:
    query = read_parameters(page.table, request.query_params.multi_items(), request.path_params)
    return query, replace(reader, experiment=query.text(EXPERIMENT.name))


def _context(request: Request, query: Parameters) -> dict[str, Any]:
    """What every template is given."""
    return {
        "links": Links(root_of(request), path_of(request), query),
        "query": query,
        "navigation": [page for page in PAGES if page.title is not None],
        "page": None,
        "visit": request.scope.get(VISIT),
    }


def json_response(view: object, status: int = 200) -> Response:
    """A dataclass, or what orjson takes, as JSON."""
    return Response(orjson.dumps(view), status, media_type=_JSON)


async def _answer_failure(request: Request, error: Exception) -> Response:
    status, failure = failure_of(error)
    return _respond(request, status, failure)


async def _answer_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, BusyError)
    status, failure = failure_of(error)
    return _respond(request, status, failure, {"retry-after": str(error.retry_after)})


async def _answer_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _respond(
        request, error.status_code, failure_of_status(error.status_code, error.detail), error.headers
    )


def _respond(
    request: Request, status: int, failure: Failure, headers: Mapping[str, str] | None = None
) -> Response:
    response: Response
    if wants_json(request):
        response = json_response(failure, status)
    else:
        context = _context(request, _NOT_ASKED) | {"failure": failure, "status": status}
        response = HTMLResponse(render("failure.html", context), status)
    response.headers.update(headers or {})
    return response


def wants_json(request: Request) -> bool:
    """Whether the request is a program's: for a JSON twin or a download."""
    return str(request.scope["path"]).endswith(_FILES)


def app(store: Store | str | None = None, *, token: str | None = None, allow: Rule | None = None) -> ASGIApp:
    """The page over a store, for ``app.mount("/wherefrom", wherefrom.web.app(...))``.

    ``store`` is a store or its URL, by default that of the settings. Whoever logs in with ``token``, by
    default the setting ``ui_token``, may see everything, and whoever ``allow(request)`` says yes to: a
    function, or a coroutine function, of Starlette's ``Request``, where the app's own middleware has left
    who is asking.

    Raises:
        SettingsError: there is neither a token nor a rule.
        StoreError: there is no such store.
    """
    settings = Settings()
    token = token or (settings.ui_token.get_secret_value() if settings.ui_token else None)
    if token is None and allow is None:
        raise SettingsError(
            "the page shows what users sent: mount it with wherefrom.web.app(token=...), set"
            " WHEREFROM_UI_TOKEN, or say who may see it with wherefrom.web.app(allow=...)"
        )
    return make_application(open_configured(store, settings), Access(token, allow))


def open_configured(store: Store | str | None, settings: Settings) -> Store:
    """The store that is given, or that the settings name; its file is opened when it is first read.

    Raises:
        StoreError: there is none.
    """
    if store is not None and not isinstance(store, str):
        return store
    url = store or settings.store
    if url == "none":
        raise StoreError("there is nothing to show: WHEREFROM_STORE is none")
    return open_store(url)
