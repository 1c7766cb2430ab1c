"""The template of the route that answered, from the route and mount objects that matched.

Starlette and FastAPI put the matched route and its endpoint into the scope, but of the outer mounts only the
path that they matched. If there are mounts, the endpoint is looked up in the tree of the app's routes. If it
is there more than once, ``matches`` of the routes decides. Values of the path are never compared with a
parameter.

If no route below a mount is known (static files, an app without routes in the scope, a 404), the name is the
path of the mount, as in OpenTelemetry's instrumentations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from .._types import Scope
from ..process import ledger

_MAX_TREES: Final = 16
_MAX_PLACES: Final = 50_000
_MAX_DEPTH: Final = 8  # an app may be mounted inside itself
_MAX_REBUILDS: Final = 64
_MAX_CACHED: Final = 1024
_MAX_WRAPPERS: Final = 32
_PARAMETER: Final = re.compile(r"{(\w+)")
_FULL: Final = 2  # starlette.routing.Match: NONE, PARTIAL (another method), FULL


def route_template(scope: Scope, path: str, trees: RouteTrees) -> str | None:
    """Return the template of the matched route with those of its mounts; ``None`` if no route matched.

    ``path`` is the path that the server passed. The ``root_path`` of a proxy, of the server or of
    ``FastAPI(root_path=...)`` is not part of a template.
    """
    if "app_root_path" not in scope and "path_template" not in scope:
        route = scope.get("route")
        if route is None:
            if "endpoint" not in scope and "fastapi" not in scope:
                return None
        elif getattr(route, "endpoint", None) is scope.get("endpoint"):
            template = _included_path(scope, route) if "fastapi" in scope else None
            template = template or getattr(route, "path", None)
            return template if isinstance(template, str) else None
    try:
        return trees.template(scope, path) or None
    except Exception as error:  # noqa: BLE001 - the app may define its own classes of routes
        ledger.failed("route template", error)
        return None


def _included_path(scope: Scope, route: Any) -> Any:
    """Return the path, with prefix, of a route in a router that FastAPI included."""
    included = scope["fastapi"]
    found = included.get("effective_route_context") if isinstance(included, dict) else None
    # The context outlives its router when the request continued into a mounted app.
    if found is None or getattr(found, "original_route", None) is not route:
        return None
    return getattr(found, "path", None)


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """A route, or a mount, at one place in the tree, below ``mounts``."""

    mounts: tuple[Any, ...]
    route: Any
    endpoint: Any
    template: str
    is_opaque: bool = False

    def is_route_by_path(self, route: Any) -> bool:
        return self.route is route and all(hasattr(mount, "path") for mount in self.mounts)

    def match(self, probe: Scope) -> tuple[int, str]:
        """Return how it matches (a value of ``Match``), and the ``root_path`` below its mounts."""
        here = {**probe, "path_params": {}}
        level = _FULL
        for route in (*self.mounts, self.route):
            match, child = route.matches(here)
            level = min(level, match.value)
            if not level:
                break
            here.update(child)
        return level, here["root_path"]


@dataclass(eq=False)
class _Tree:
    """The places of the routes of a router, by the ids of route and endpoint. Places keep both alive."""

    root: Any
    places: dict[int, list[_Place]] = field(default_factory=dict)
    opaque: list[_Place] = field(default_factory=list)
    cached: dict[tuple[int, str], str] = field(default_factory=dict)
    missing: dict[int, Any] = field(default_factory=dict)
    rebuilds: int = 0

    def build(self) -> None:
        self.places, self.opaque, self.cached = {}, [], {}
        for place in islice(_walk(_routes_of(self.root), (), "", 0), _MAX_PLACES):
            route = getattr(place.route, "original_route", place.route)
            for known in (place.endpoint, route):
                self.places.setdefault(id(known), []).append(place)
            if place.is_opaque:
                self.opaque.append(place)

    def find(self, matched: Any, probe: Scope, root_path: str) -> str | None:
        """Return the template of a route or endpoint whose mounts matched ``root_path``."""
        key = id(matched), root_path
        if (template := self.cached.get(key)) is not None:
            return template
        place = self._find(matched, probe)
        if place is None and id(matched) not in self.missing and self.rebuilds < _MAX_REBUILDS:
            # Routes may be added while the app runs.
            self.rebuilds += 1
            self.build()
            place = self._find(matched, probe)
            if place is None:
                self.missing[id(matched)] = matched
        if place is None:
            return None
        # The path of the mounts decides between the places of one route, but not between routes or hosts.
        if all(other.is_route_by_path(place.route) for other in self.places[id(matched)]):
            if len(self.cached) >= _MAX_CACHED:
                self.cached.clear()
            self.cached[key] = place.template
        return place.template

    def _find(self, matched: Any, probe: Scope) -> _Place | None:
        # The router takes the first full match, else the first match with another method.
        partial = None
        for place in self.places.get(id(matched), ()):
            level, _ = place.match(probe)
            if level == _FULL:
                return place
            if level and partial is None:
                partial = place
        return partial


class RouteTrees:
    """The trees of the routers behind one middleware, which is usually one."""

    def __init__(self) -> None:
        self._trees: dict[int, _Tree] = {}

    def template(self, scope: Scope, path: str) -> str:
        """Return the template of the route that matched below the outermost router; empty if none did."""
        if "path_template" not in scope:
            return self._starlette(scope, scope["path"], path)
        own = scope["path_template"] if isinstance(scope["path_template"], str) else ""
        is_mount = getattr(scope.get("route_handler"), "is_mount", False)
        if is_mount:
            own = _litestar_mount(scope, path)
        if "router" not in scope:
            return own
        if is_mount and scope.get("litestar_app") not in _wrapped(scope.get("endpoint")):
            # A mounted app of Starlette, which saw the path that Litestar wrote into the scope.
            return own + self._starlette(scope, scope["path"])
        return self._starlette(scope, path) + own

    def _starlette(self, scope: Scope, *paths: str) -> str:
        """Return the template of the route that matched one of ``paths``, as middlewares may rewrite them."""
        root_path = scope.get("root_path", "")
        base = scope.get("app_root_path", root_path)
        endpoint, router = scope.get("endpoint"), scope.get("router")
        if endpoint is None:
            return self._frontend(scope, base) if router is not None else _path_of(scope.get("route"))
        probe = {
            "type": scope["type"],
            "method": scope.get("method"),
            "path": paths[0],
            "headers": scope.get("headers") or (),
            "root_path": base,
        }
        route = scope.get("route")
        # A route is more precise than its endpoint, which may serve several; but it may be that of a mount.
        matched = route if getattr(route, "endpoint", None) is endpoint else endpoint
        outer, middle_from = "", base
        if router is not None:
            tree = self._tree(router)
            for path in dict.fromkeys(paths):
                found = tree.find(matched, {**probe, "path": path}, root_path)
                if found is not None:
                    return found
            for place in tree.opaque:
                level, behind = place.match(probe)
                if level:
                    outer, middle_from = place.template, behind
                    break
        return outer + self._behind(scope, matched, {**probe, "root_path": middle_from}, outer)

    def _behind(self, scope: Scope, matched: Any, probe: Scope, outer: str) -> str:
        """Return the template below a mount whose app has no readable routes."""
        root_path, behind = scope.get("root_path", ""), probe["root_path"]
        app = scope.get("app")
        tree = None if app is None else self._tree(app)
        found = None if tree is None else tree.find(matched, probe, root_path)
        if found is not None:
            return found
        inner, taken = "", False
        if matched is scope.get("route"):
            inner = _path_of(matched)
        elif tree is not None and (place := next(iter(tree.places.get(id(matched), ())), None)) is not None:
            inner, taken = place.template, bool(place.mounts)
        middle = root_path[len(behind) :]
        if not middle or taken:
            return inner
        # Unknown mounts: use their path, unless a client chooses a part of it.
        parameters = scope.get("path_params")
        known = set(_PARAMETER.findall(outer + inner))
        unseen = [name for name in parameters if name not in known] if isinstance(parameters, dict) else []
        return ("".join(f"/{{{name}}}" for name in unseen) or middle) + inner

    def _frontend(self, scope: Scope, base: str) -> str:
        """Return the path of the files that ``app.frontend`` of FastAPI serves, without an endpoint."""
        found = scope.get("fastapi")
        length = found.get("frontend_specificity") if isinstance(found, dict) else None
        return _below(scope["path"], base)[:length] if isinstance(length, int) else ""

    def _tree(self, root: Any) -> _Tree:
        tree = self._trees.get(id(root))
        if tree is None:
            if len(self._trees) >= _MAX_TREES:
                self._trees.clear()
            tree = self._trees[id(root)] = _Tree(root)
            tree.build()
        return tree


def app_path(scope: Scope, root_path: str = "") -> str:
    """Return the path as the outermost app's routes see it: without the ``root_path`` of the deployment.

    ``root_path`` is the one that the app itself will set, such as ``FastAPI(root_path=...)``.
    """
    base = scope.get("app_root_path")
    return _below(scope["path"], (root_path or scope.get("root_path", "")) if base is None else base) or "/"


def rooted_app(app: Any) -> Any:
    """Return the app, below its middlewares, that sets a ``root_path`` itself; ``None`` if there is none."""
    return next((each for each in _wrapped(app) if isinstance(getattr(each, "root_path", None), str)), None)


def _below(path: str, root_path: str) -> str:
    """Return the rest of a path below ``root_path``; the whole path if a proxy has removed the prefix."""
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in {"", "/"}:
        return path[len(root_path) :]
    return path


def _walk(routes: Sequence[Any], mounts: tuple[Any, ...], prefix: str, depth: int) -> Iterator[_Place]:
    """Yield the places of routes, in the order in which they are matched."""
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)  # of a router that FastAPI included
        if included is not None:
            contexts = [getattr(each, "starlette_route", None) or each for each in included()]
            yield from _walk(contexts, mounts, prefix, depth)
            continue
        if not callable(getattr(route, "matches", None)):
            continue
        template = prefix + _path_of(route)
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None:
            yield _Place(mounts, route, endpoint, template)
            continue
        app = getattr(route, "app", None)
        nested = _routes_of(app)
        if app is not None:
            yield _Place(mounts, route, app, template, is_opaque=not nested)
        if nested and depth < _MAX_DEPTH:
            yield from _walk(nested, (*mounts, route), template, depth + 1)


def _routes_of(app: Any) -> Sequence[Any]:
    """Return the routes of an app or router, below its middlewares."""
    innermost = None
    for each in _wrapped(app):
        innermost = each
        if (routes := _own_routes(each)) is not None:
            return routes
    # A function around an app, or an object that stores it under another name.
    held = list(getattr(innermost, "__dict__", {}).values())
    for cell in getattr(innermost, "__closure__", None) or ():
        with suppress(ValueError):  # empty
            held.append(cell.cell_contents)
    return next((routes for each in held if (routes := _own_routes(each)) is not None), ())


def _own_routes(app: Any) -> Sequence[Any] | None:
    routes = getattr(app, "routes", None)
    return routes if isinstance(routes, (list, tuple)) else None


def _wrapped(app: Any) -> Iterator[Any]:
    """Yield an app, and the apps that it wraps as a middleware."""
    for _ in range(_MAX_WRAPPERS):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)


def _path_of(route: Any) -> str:
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else ""


def _litestar_mount(scope: Scope, path: str) -> str:
    """Return the path of a mount of Litestar. It has no parameters, and no template contains it."""
    handler = scope["route_handler"]
    routes = getattr(scope.get("litestar_app"), "routes", ())
    mounts = [_path_of(route) for route in routes if getattr(route, "route_handler", None) is handler]
    here = _below(path, scope.get("root_path", ""))
    return max((mount for mount in mounts if here.startswith(mount)), key=len, default="")
