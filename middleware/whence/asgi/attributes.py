"""OpenTelemetry's HTTP semantic conventions, read from the scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from ..recorder import LiveSpan
from .headers import Found
from .routes import OTHER_METHOD, known_method
from .types import Scope

_MAX_PATH: Final = 2048
_MAX_NAME: Final = 512


def describe(root: LiveSpan, scope: Scope, found: Found, figures: dict[str, Any], route: str | None) -> None:
    """Name the root span after its route and give it its attributes; what the app itself set stays."""
    attributes = figures
    attributes["url.path"] = scope["path"][:_MAX_PATH]
    method = "WS"
    if scope["type"] == "http":
        method = attributes["http.request.method"] = known_method(scope)
        if method == OTHER_METHOD:
            attributes["http.request.method_original"] = str(scope.get("method"))[:_MAX_PATH]
    if route is not None:
        attributes["http.route"] = route
    if version := scope.get("http_version"):
        attributes["network.protocol.version"] = version
    if client := scope.get("client"):
        attributes["client.address"] = client[0]
    if host := found.get(b"host"):
        attributes["server.address"] = _host_name(host)
    elif server := scope.get("server"):
        attributes["server.address"] = server[0]
    if agent := found.get(b"user-agent"):
        attributes["user_agent.original"] = _user_agent(agent)
    if root.name == method:
        shown = "HTTP" if method == OTHER_METHOD else method
        root.name = shown if route is None else f"{shown} {route}"
    attributes.update(root.attributes)
    root.attributes = attributes


def client_address(scope: Scope) -> str | None:
    """The address that the connection comes from; ``None`` on a unix socket."""
    client = scope.get("client")
    return client[0] if client else None


def content_type(headers: Iterable[Sequence[bytes]]) -> str:
    """The media type that the headers announce, or nothing."""
    return next((value.decode("latin-1") for name, value in headers if name.lower() == b"content-type"), "")


# The same few hosts and agents come again and again.
@lru_cache(maxsize=256)
def _host_name(host: bytes) -> str:
    """The host that the client asked for, without its port (RFC 9110, section 7.2)."""
    end = host.find(b"]") if host.startswith(b"[") else host.find(b":")
    return (host if end < 0 else host[:end])[:_MAX_NAME].decode("latin-1").lstrip("[")


@lru_cache(maxsize=256)
def _user_agent(agent: bytes) -> str:
    return agent[:_MAX_NAME].decode("latin-1")
