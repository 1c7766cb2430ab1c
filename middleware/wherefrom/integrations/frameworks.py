"""Web frameworks: what a framework knows of a request and does not leave in the ASGI scope.

The integrations of this package call these two functions. They are for any other ASGI framework too::

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

    ``template`` is the path as the app spells it, without what was mounted before; it gets a leading slash.
    Never pass a path that a client sent: each one would be a name of its own. Outside of a traced request
    nothing happens.
    """
    if (exchange := _exchange(scope)) is None:
        return
    own = exchange.scope
    template = template if template.startswith("/") else f"/{template}"
    if own is not scope:  # a dispatcher gave the framework a copy, with a prefix of its own
        template = scope.get("root_path", "")[len(own.get("root_path", "")) :] + template
    own["path_template"] = template


def record_exception(scope: Mapping[str, Any], error: BaseException) -> None:
    """Record an exception that a framework turns into a response, if that turns out to be a failure.

    A failure is a status of 500 and above, or a response that stays incomplete. It becomes the event
    ``exception`` of the root span, with status ``ERROR`` and outcome ``failed``. Below 500 the exception is
    an answer, and nothing is recorded. Of several, the last counts, unless it was raised while the framework
    handled the one before. Outside of a traced request nothing happens.
    """
    if (exchange := _exchange(scope)) is None:
        return
    if exchange.handled is not None and error.__context__ is exchange.handled:
        return
    exchange.handled = error
    exchange.trace.make(exchange.trace.root)  # it is described from the exchange, not from facts alone


def _exchange(scope: Mapping[str, Any]) -> Exchange | None:
    trace = scope.get(SCOPE_KEY)
    if not isinstance(trace, LiveTrace) or trace.over or not isinstance(trace.request, Exchange):
        return None
    return trace.request
