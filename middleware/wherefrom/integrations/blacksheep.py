"""BlackSheep: names traces after the matched pattern, and records exceptions that BlackSheep handles.

instrument(app)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

from blacksheep import Application
from blacksheep.server.routing import Route

from .frameworks import check_app, record_exception, set_route

__all__ = ["instrument"]

_MOUNT: Final = "wherefrom.blacksheep.mount"


def instrument(app: Application) -> None:
    """Report the routes and exceptions of an app. Call it before the app starts.

    Call it for each mounted application too; the outer application adds the path of the mount.
    """
    check_app(app, Application)

    async def wrap_handlers(_: Application) -> None:
        for route in app.router:
            # The fallback handles requests that no route matches.
            pattern = None if route is app.router.fallback else route.pattern.decode()
            route.handler = _traced(route, pattern)
        for mount in app.mount_registry.mounted_apps:
            mount.handler = _mounted(mount)

    app.after_start += wrap_handlers


def _traced(route: Route, pattern: str | None) -> Callable[[Any], Awaitable[Any]]:
    handler = route.handler

    @wraps(handler)
    async def traced(request: Any) -> Any:
        scope = request.scope
        if pattern is not None:
            set_route(scope, scope.get(_MOUNT, "") + pattern)
        try:
            return await handler(request)
        except Exception as error:
            record_exception(scope, error)
            raise

    return traced


def _mounted(mount: Route) -> Callable[[Any, Any, Any], Awaitable[None]]:
    app, path = mount.handler, mount.pattern.decode().removesuffix("/*")

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        scope[_MOUNT] = path
        await app(scope, receive, send)

    return mounted
