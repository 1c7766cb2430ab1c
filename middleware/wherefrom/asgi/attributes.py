"""Reads the ASGI scope: attributes by OpenTelemetry's HTTP conventions, and trusted callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from .._capture.values import clean_text, to_json
from .._types import Scope
from ..process import ledger
from ..propagation import TrustedNetworks
from ..settings import Settings
from .headers import HeaderMap

MAX_PATH: Final = 2048
_MAX_NAME: Final = 512
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def request_attributes(
    scope: Scope, path: str, method: str, headers: HeaderMap, figures: dict[str, Any], route: str | None
) -> dict[str, Any]:
    """Return the request's attributes and ``figures``; ``method`` is a ``known_method``."""
    attributes: dict[str, Any] = {"url.path": path[:MAX_PATH]}
    if method == OTHER_METHOD:
        attributes |= other_method(scope)
    attributes |= orjson.loads(shared_attributes(scope, method, headers, route))
    return attributes | figures


def other_method(scope: Scope) -> dict[str, str]:
    """Return the attribute for a method that is not a known one."""
    return {"http.request.method_original": clean_text(scope.get("method"), MAX_PATH)}


def shared_attributes(scope: Scope, method: str, headers: HeaderMap, route: str | None) -> str:
    """Return those attributes of a request that completed which many others have too, as JSON."""
    client, host, server = scope.get("client"), headers.get(b"host"), None
    if host:  # the address that the client used comes before the server's own
        host = host[:_MAX_NAME]
    elif server := scope.get("server"):
        server = tuple(server)
    return _shared(
        method,
        route,
        scope.get("http_version"),
        scope.get("scheme"),
        client[0] if client else None,
        server,
        host,
        headers.get(b"user-agent", b"")[:_MAX_NAME],
    )


def span_name(method: str, route: str | None) -> str:
    """Return the name of a root span."""
    shown = "HTTP" if method == OTHER_METHOD else method
    return shown if route is None else f"{shown} {route}"


def client_address(scope: Scope) -> str | None:
    """Return the address of the client; ``None`` on a unix socket."""
    client = scope.get("client")
    return client[0] if client else None


def header_text(headers: Iterable[Sequence[bytes]], name: bytes) -> str:
    """Return the values of a header, joined by commas, or an empty string."""
    values = [value.decode("latin-1") for found, value, *_ in headers if found.lower() == name]
    return ", ".join(values)


# Most requests come from few clients, hosts and agents.
@lru_cache(maxsize=1024)
def _shared(
    method: str,
    route: str | None,
    version: str | None,
    scheme: str | None,
    client: str | None,
    server: tuple[Any, ...] | None,
    host: bytes | None,
    agent: bytes,
) -> str:
    """Return the attributes of outcome, method, route and the two ends of a connection."""
    scheme = scheme or ("ws" if method == WEBSOCKET else "http")  # the default of ASGI
    name, port = _host_and_port(host) if host else ("", None)
    if name and port is None:  # the default port of the scheme: behind a proxy, the server's own differs
        port = _PORTS.get(scheme)
    elif server:
        name, port = server[0], server[-1]
        port = port if type(port) is int else None  # it is None on a unix socket
    known = {
        "wherefrom.outcome": "completed",
        "http.request.method": None if method == WEBSOCKET else method,
        "http.route": route,
        "url.scheme": scheme,
        "network.protocol.version": version,
        "client.address": client,
        "server.address": name,
        "server.port": port,
        "user_agent.original": agent.decode("latin-1"),
    }
    return to_json({key: value for key, value in known.items() if value})


def _host_and_port(host: bytes) -> tuple[str, int | None]:
    """Return host and port of a ``Host`` header (RFC 9110, section 7.2), without an invalid port."""
    end = host.find(b"]") if host.startswith(b"[") else host.find(b":")
    name = (host if end < 0 else host[:end]).decode("latin-1").lstrip("[")
    _, _, port = host[max(end, 0) :].rpartition(b":") if end >= 0 else (b"", b"", b"")
    is_port = port.isdigit() and len(port) <= 5 and int(port) < 65_536
    return name, int(port) if is_port else None


_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
OTHER_METHOD: Final = "_OTHER"
WEBSOCKET: Final = "WS"


def known_method(scope: Scope) -> str:
    """Return the request's method, or ``_OTHER`` for an unknown one, as OpenTelemetry's conventions ask."""
    method = scope.get("method", "GET")
    return method if method in _METHODS else OTHER_METHOD


def trusted_callers(settings: Settings) -> Callable[[Scope], bool]:
    """Return a function that tells whether ``trust_upstream`` trusts the client of a scope.

    It decides by network, or by the app's predicate; a predicate that raises trusts nobody.
    """
    chosen = settings.trust_upstream
    if callable(chosen):
        predicate = chosen
    else:
        networks = TrustedNetworks(",".join(chosen))
        return lambda scope: networks(client_address(scope))

    def trusts(scope: Scope) -> bool:
        try:
            return bool(predicate(scope))
        except Exception as error:  # noqa: BLE001 - the app's own code
            ledger.failed("trust_upstream", error)
            return False

    return trusts
