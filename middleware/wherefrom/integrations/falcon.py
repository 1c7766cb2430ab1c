"""Falcon 4.4 or newer: names traces after the URI template, and records exceptions that Falcon handles.

instrument(app)
"""

from __future__ import annotations

from typing import Any

from falcon.asgi import App, Request

from .frameworks import check_app, record_exception, set_route

__all__ = ["instrument", "report_error"]


def instrument(app: App[Any, Any]) -> None:
    """Report the routes and exceptions of an app, by a middleware and Falcon's error reporter.

    Falcon has one error reporter. If the app has its own, set it after this call and call ``report_error`` in
    it, with the same arguments.
    """
    check_app(app, App)
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
