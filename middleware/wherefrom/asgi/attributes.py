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
    client, server = scope.get("client"), scope.get("server")
    attributes |= _ends(
        scope.get("http_version"),
        client[0] if client else None,
        server[0] if server else None,
        found.get(b"host", b"")[:_MAX_NAME],
        found.get(b"user-agent", b"")[:_MAX_NAME],
    )
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


# The same few clients, hosts and agents come again and again.
@lru_cache(maxsize=1024)
def _ends(
    version: str | None, client: str | None, server: str | None, host: bytes, agent: bytes
) -> dict[str, str]:
    """What is known of the two ends of a connection; to be read and never changed."""
    known = {
        "network.protocol.version": version,
        "client.address": client,
        "server.address": _host_name(host) or server,
        "user_agent.original": agent.decode("latin-1"),
    }
    return {key: value for key, value in known.items() if value}


def _host_name(host: bytes) -> str:
    """The host that the client asked for, without its port (RFC 9110, section 7.2)."""
    end = host.find(b"]") if host.startswith(b"[") else host.find(b":")
    return (host if end < 0 else host[:end]).decode("latin-1").lstrip("[")
