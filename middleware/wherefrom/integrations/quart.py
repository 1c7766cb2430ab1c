"""Quart: names traces after the matched rule, and records unhandled exceptions.

instrument(app)
"""

from __future__ import annotations

from typing import Any

from quart import Quart, has_request_context, request, signals, websocket

from .frameworks import check_app, record_exception, set_route

__all__ = ["instrument"]


def instrument(app: Quart) -> None:
    """Report the routes and exceptions of an app, by Quart's signals."""
    check_app(app, Quart)
    # Quart runs a plain function in a thread.
    signals.request_started.connect(_set_route, app)
    signals.websocket_started.connect(_set_route, app)
    signals.got_request_exception.connect(_record_exception, app)
    signals.got_websocket_exception.connect(_record_exception, app)


async def _set_route(_app: Quart, **_: Any) -> None:
    current = _current()
    if current.url_rule is not None:
        set_route(current.scope, current.url_rule.rule)


async def _record_exception(_app: Quart, exception: Exception, **_: Any) -> None:
    record_exception(_current().scope, exception)


def _current() -> Any:
    return request if has_request_context() else websocket
