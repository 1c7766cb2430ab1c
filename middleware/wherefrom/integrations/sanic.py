"""Sanic in ASGI mode: names traces after the matched route, and records exceptions that Sanic handles.

instrument(app)
"""

from __future__ import annotations

from typing import Any

from sanic import Request, Sanic
from sanic.signals import Event

from .frameworks import check_app, record_exception, set_route

__all__ = ["instrument"]


def instrument(app: Sanic[Any, Any]) -> None:
    """Report the routes and exceptions of an app, by Sanic's signals. Call it before the app starts."""
    check_app(app, Sanic)
    app.add_signal(_set_route, Event.HTTP_ROUTING_AFTER)
    app.add_signal(_record_exception, Event.HTTP_LIFECYCLE_EXCEPTION)
    app.add_signal(_record_exception, Event.WEBSOCKET_HANDLER_EXCEPTION)


async def _set_route(request: Request, **_: Any) -> None:
    # Under Sanic's own server there is no scope, and no middleware of ours.
    if request.app.asgi and request.uri_template is not None:
        set_route(request.scope, request.uri_template)


async def _record_exception(request: Request, exception: BaseException, **_: Any) -> None:
    if request.app.asgi:
        record_exception(request.scope, exception)
