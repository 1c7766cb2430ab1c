"""BlackSheep: the pattern that matched names the trace; a handled exception is recorded.

instrument(app)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from blacksheep import Application
from blacksheep.server.routing import Route

from .frameworks import record_exception, set_route

__all__ = ["instrument"]


def instrument(app: Application) -> None:
    """Report the routes and exceptions of an app, by its event ``after_start``.

    A mounted application has routes of its own, and is instrumented by a call of its own.
    """

    async def wrap_handlers(_: Application) -> None:
        for route in app.router:
            # The fallback answers what no route matches.
            pattern = None if route is app.router.fallback else route.pattern.decode()
            route.handler = _traced(route, pattern)

    app.after_start += wrap_handlers


def _traced(route: Route, pattern: str | None) -> Callable[[Any], Awaitable[Any]]:
    handler = route.handler

    @wraps(handler)
    async def traced(request: Any) -> Any:
        scope = request.scope
        if pattern is not None:
            set_route(scope, pattern)
        try:
            return await handler(request)
        except Exception as error:
            record_exception(scope, error)
            raise

    return traced
