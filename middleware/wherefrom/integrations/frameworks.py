"""Reports the route and the exception of a request, which a framework does not put into the ASGI scope.

The integrations of this package call these two functions. Use them for any other ASGI framework::

    set_route(request.scope, "/items/{id}")
    record_exception(request.scope, error)
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from ..asgi.exchange import SCOPE_KEY, Exchange
from ..tracing.live import LiveTrace

__all__ = ["record_exception", "set_route"]


def set_route(scope: MutableMapping[str, Any], template: str) -> None:
    """Name the trace of a request after the template of its route: ``GET /items/{id}``.

    ``template`` is the path as the app writes it, without the prefixes of mounts; a leading slash is added.
    Never pass the path of a request: each one would be another name. Outside of a traced request nothing
    happens.
    """
    if (exchange := _exchange(scope)) is None:
        return
    own = exchange.scope
    template = template if template.startswith("/") else f"/{template}"
    if own is not scope:  # a dispatcher passed a copy to the framework, with its own prefix
        template = scope.get("root_path", "")[len(own.get("root_path", "")) :] + template
    own["path_template"] = template


def record_exception(scope: Mapping[str, Any], error: BaseException) -> None:
    """Record an exception that a framework turns into a response, if the response is a failure.

    A failure is a status of 500 or above, or an incomplete response. The exception is recorded as the event
    ``exception`` of the root span, with status ``ERROR`` and outcome ``failed``. If the status is below 500,
    nothing is recorded. Of several exceptions the last is recorded, unless it was raised while the framework
    handled the one before. Outside of a traced request nothing happens.
    """
    if (exchange := _exchange(scope)) is None:
        return
    if exchange.handled is not None and error.__context__ is exchange.handled:
        return
    exchange.handled = error
    exchange.trace.make(exchange.trace.root)  # it is described from the exchange, not from facts alone


def check_app(app: object, *kinds: type) -> None:
    """Refuse an app that is not the framework's own, such as one that ``TraceMiddleware`` is around already.

    Raises:
        TypeError: it is an instance of none of ``kinds``.
    """
    if not isinstance(app, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        given = type(app).__name__
        raise TypeError(
            f"instrument() takes an instance of {names}, not of {given}:"
            " call it before a middleware wraps the app"
        )


def _exchange(scope: Mapping[str, Any]) -> Exchange | None:
    trace = scope.get(SCOPE_KEY)
    if not isinstance(trace, LiveTrace) or trace.over or not isinstance(trace.request, Exchange):
        return None
    return trace.request
