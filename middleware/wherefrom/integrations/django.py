"""Django: names traces after the matched route, and records unhandled exceptions.

MIDDLEWARE = ["wherefrom.integrations.django.trace_routes", ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.contrib.admindocs.views import simplify_regex  # type: ignore[import-untyped]
from django.core.signals import got_request_exception  # type: ignore[import-untyped]
from django.utils.decorators import sync_and_async_middleware  # type: ignore[import-untyped]

from .frameworks import record_exception, set_route

__all__ = ["trace_routes"]


@sync_and_async_middleware  # type: ignore[untyped-decorator] # Django has no types
def trace_routes(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Report the routes and exceptions of a project. A middleware of Django: put it first in ``MIDDLEWARE``.

    A ``path`` is recorded as written; of a ``re_path``, regular expressions are omitted: ``/items/<id>``.
    """
    got_request_exception.connect(_record_exception, dispatch_uid="wherefrom")
    if iscoroutinefunction(get_response):

        async def middleware(request: Any) -> Any:
            response = await get_response(request)
            _set_route(request)
            return response

        return middleware

    def sync_middleware(request: Any) -> Any:
        response = get_response(request)
        _set_route(request)
        return response

    return sync_middleware


def _set_route(request: Any) -> None:
    match = request.resolver_match
    if match is not None and hasattr(request, "scope"):  # not under WSGI
        set_route(request.scope, _template(match.route))


def _record_exception(request: Any = None, **_: Any) -> None:
    # Django sends the signal while it handles the exception, and does not pass the exception.
    error = sys.exception()
    if error is not None and hasattr(request, "scope"):
        record_exception(request.scope, error)


@lru_cache(maxsize=1024)
def _template(route: str) -> str:
    # ``path`` allows neither in a route.
    return str(simplify_regex(route)) if "^" in route or "(" in route else route
