"""Who is answered: whoever sends the token as MLflow's client does, or, without one, this machine alone."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from ...client import TraceClient
from ...exceptions import WherefromError
from ...stores import Store
from ...web.auth import Access
from ...web.failures import AccessError
from ...web.queries import BusyError, Queries, QueryPool
from .calls import CALLS, MAX_BODY_BYTES, Arguments, Call
from .errors import FORBIDDEN, INVALID, UNAUTHENTICATED, RestError, refusal, rest_error


def check_access(request: Request, access: Access) -> None:
    """Nothing, if the request may be answered.

    The token is a bearer token or the password of basic authentication: what MLflow's client sends where
    ``MLFLOW_TRACKING_TOKEN``, or ``_USERNAME`` and ``_PASSWORD``, are set.

    Raises:
        RestError: it may not.
    """
    try:
        access.check_host(request)
    except AccessError as error:
        raise RestError(
            FORBIDDEN, "without WHEREFROM_UI_TOKEN only what is asked of 127.0.0.1 or localhost is answered"
        ) from error
    if access.token is not None and not access.is_token(_sent_token(request)):
        raise RestError(
            UNAUTHENTICATED,
            "a token is needed here: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_PASSWORD with any"
            " MLFLOW_TRACKING_USERNAME, holds what WHEREFROM_UI_TOKEN does on the server",
        )


def check_media_type(request: Request) -> None:
    """Nothing, if the body is said to be JSON: a page from elsewhere cannot send that without asking first.

    Raises:
        RestError: it is something else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RestError(INVALID, "the body takes Content-Type: application/json")


def _sent_token(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


MLFLOW_VERSION: Final = "3.17.2"
"""The version of MLflow whose calls are answered, for its client that asks."""

SECONDS_FOR_A_CALL: Final = 30.0
"""How long the query of a call may take."""

# MLflow's client sends 32 requests at once: two of them are served.
_MOST_WAITING: Final = 64

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


def make_application(store: Store, access: Access, pool: QueryPool | None = None) -> Starlette:
    """What MLflow's client needs to read the traces of ``store``, for those whom ``access`` lets in.

    ``pool`` runs the queries.
    """
    client = TraceClient(store)
    queries_of = pool or QueryPool(seconds=SECONDS_FOR_A_CALL, waiting=_MOST_WAITING)

    def answering(call: Call) -> Endpoint:
        async def endpoint(request: Request) -> ASGIApp:
            check_access(request, access)
            asked = await _read(request)

            async def answer(queries: Queries) -> Response:
                return _json(await queries.query(lambda: call.answer(client, asked)))

            return queries_of.answer(answer)

        return endpoint

    async def version(request: Request) -> Response:
        check_access(request, access)
        return PlainTextResponse(MLFLOW_VERSION)

    async def refuse(request: Request) -> Response:
        check_access(request, access)
        raise refusal(request.method, request.url.path)

    routes: list[BaseRoute] = [Route("/health", _health), Route("/version", version)]
    routes += [Route(call.path, answering(call), methods=[call.method]) for call in CALLS]
    routes.append(Route("/{path:path}", refuse, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return Starlette(routes=routes, exception_handlers=_HANDLERS)


async def _health(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _read(request: Request) -> Arguments:
    if request.method in {"GET", "HEAD"}:
        return Arguments.of_query(request.query_params, request.path_params)
    check_media_type(request)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RestError(INVALID, f"the body takes at most {MAX_BODY_BYTES:,} bytes")
    return Arguments.of_body(bytes(body), request.path_params)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _answer_error(_request: Request, error: Exception) -> Response:
    told = rest_error(error)
    response = _json(told.to_dict(), told.status)
    if isinstance(error, BusyError):
        response.headers["retry-after"] = str(error.retry_after)
    if told.status == 401:
        response.headers["www-authenticate"] = 'Basic realm="Wherefrom"'
    return response


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)


_HANDLERS: Final[dict[Any, Any]] = {
    RestError: _answer_error,
    WherefromError: _answer_error,
    BusyError: _answer_error,
    HTTPException: _answer_error,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_error,
}
