"""Finds handlers that were registered before ``@trace`` decorated them, so that nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, Final

from ..process import ledger, logger, process
from ..tracing.callables import TracedCallable

# The attributes in which routes of Starlette, FastAPI, Litestar, Sanic and BlackSheep store their handler.
_HANDLERS: Final = ("endpoint", "fn", "handler")
_BELOW: Final = ("routes", "route_handlers", "original_router", "router", "app", "__self__")
_MOST: Final = 20_000  # objects to search: an app may refer to any number


def warn_of_undecorated(app: object) -> None:
    """Log a warning for each handler of ``app`` that was registered without its ``@trace``, once."""
    if not process.traced:
        return
    try:
        for handler in _handlers(app):
            if isinstance(handler, FunctionType) and handler in process.traced:
                process.traced.discard(handler)
                logger.warning(
                    "@trace records nothing of %s.%s: the route was registered without it;"
                    " put @wherefrom.trace below the decorator of the route",
                    handler.__module__,
                    handler.__qualname__,
                )
    except Exception as error:  # noqa: BLE001 - the objects of an unknown framework
        ledger.failed("routes", error)


def _handlers(app: object) -> Iterator[Any]:
    found: list[Any] = [app]
    seen = {id(app)}
    for each in found:  # the loop appends to it
        item = each.__wrapped__ if issubclass(type(each), TracedCallable) else each
        views = _get(item, "view_functions")  # Quart's
        if isinstance(views, Mapping):
            yield from views.values()
        yield from (_get(item, name) for name in _HANDLERS)
        for child in (_get(item, name) for name in _BELOW):
            for below in child if isinstance(child, (list, tuple)) else (child,):
                if below is not None and id(below) not in seen and len(found) < _MOST:
                    seen.add(id(below))
                    found.append(below)


def _get(item: object, name: str) -> Any:
    """Return an attribute that an object really has: some objects create any attribute on access."""
    is_there = name in getattr(item, "__dict__", ()) or hasattr(type(item), name)
    return getattr(item, name, None) if is_there else None
