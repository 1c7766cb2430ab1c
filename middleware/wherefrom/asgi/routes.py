"""Names of requests: few, whatever clients ask for."""

from __future__ import annotations

from typing import Any, Final

from .types import Scope

_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
OTHER_METHOD: Final = "_OTHER"


def known_method(scope: Scope) -> str:
    """The request's method, or ``_OTHER`` for one that HTTP does not know (OpenTelemetry's convention)."""
    method = scope.get("method", "GET")
    return method if method in _METHODS else OTHER_METHOD


def route_template(scope: Scope, root_path: str) -> str | None:
    """The template of the route that answered, mount prefix included; ``None`` when none matched.

    ``root_path`` is the scope's before the app ran. Starlette and FastAPI leave the route in the scope;
    routers that FastAPI includes with a prefix leave the whole path in ``scope["fastapi"]``; Litestar leaves
    ``scope["path_template"]``.
    """
    prefix = scope.get("root_path", "")[len(root_path) :]
    route = scope.get("route")
    path = _included_path(scope, route) if "fastapi" in scope else None
    path = path or (scope.get("path_template") if route is None else getattr(route, "path", None))
    if not prefix:
        return path if isinstance(path, str) else None
    if not isinstance(path, str) or _is_mount(route):
        path = ""  # nothing inside the mount said more
    return _mount_template(scope, prefix, path) + path


def _included_path(scope: Scope, route: Any) -> Any:
    included = scope["fastapi"]
    found = included.get("effective_route_context") if isinstance(included, dict) else None
    # The context outlives its router when the request went on into a mounted app.
    if found is None or getattr(found, "original_route", None) is not route:
        return None
    return getattr(found, "path", None)


def _is_mount(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _mount_template(scope: Scope, prefix: str, path: str) -> str:
    """The mount's prefix with its own parameters put back: ``/tenants/7`` was ``/tenants/{tenant}``."""
    parameters = scope.get("path_params")
    if not isinstance(parameters, dict):
        return prefix
    names = {str(value): name for name, value in parameters.items() if f"{{{name}" not in path}
    return "/".join(f"{{{names[part]}}}" if part in names else part for part in prefix.split("/"))
