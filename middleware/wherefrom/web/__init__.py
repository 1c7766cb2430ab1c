"""The web page: ``wherefrom ui``, or ``app.mount("/wherefrom", wherefrom.web.app(token=...))`` in an app."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..exceptions import MissingExtraError

if TYPE_CHECKING:
    from .application import app

__all__ = ["app"]

_PACKAGES = frozenset({"fastapi", "jinja2", "markupsafe", "starlette"})


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'wherefrom.web' has no attribute {name!r}")
    try:
        return import_module(".application", __name__).app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise MissingExtraError("the page", "ui") from error
