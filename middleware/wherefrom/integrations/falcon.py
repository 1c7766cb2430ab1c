"""Falcon: the URI template names the trace; a handled exception is recorded. Falcon 4.4 or newer.

instrument(app)
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import App, Request

from .frameworks import record_exception, set_route

__all__ = ["instrument", "report_error"]


def instrument(app: App[Any, Any]) -> None:
    """Report the routes and exceptions of an app, by a middleware and Falcon's error reporter.

    Falcon has one error reporter: an app with one of its own calls ``report_error`` from there, with the same
    arguments.
    """
    app.add_middleware(_RouteMiddleware())
    app.set_error_reporter(report_error)


def report_error(req: Any, error: Exception, params: dict[str, Any], handled: bool) -> None:  # noqa: ARG001 - Falcon's signature
    """Record an exception that Falcon turns into a response."""
    record_exception(req.scope, error)


class _RouteMiddleware:
    async def process_resource(self, req: Request, *_: Any) -> None:
        if req.uri_template is not None:
            set_route(req.scope, req.uri_template)

    process_resource_ws = process_resource
