"""The server's side of ASGI, driven by hand: for what no HTTP client would send and no framework answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from wherefrom import MemorySink, Settings, TraceMiddleware

REQUEST: dict[str, Any] = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


def http_scope(path: str = "/", headers: Iterable[Any] = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.7", 41234),
        "server": ("10.0.0.1", 8000),
        **more,
    }


def websocket_scope(path: str = "/ws", **more: Any) -> dict[str, Any]:
    return http_scope(path, **{"type": "websocket", "scheme": "ws", "subprotocols": [], **more})


class Wire:
    """One connection: ``incoming`` is what the app will receive, ``sent`` what it has sent.

    As in a server, the object behind ``receive`` and ``send`` keeps the scope.
    """

    def __init__(self, *incoming: Any) -> None:
        self.scope: dict[str, Any] = {}
        self.incoming = list(incoming)
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if not self.incoming:
            await asyncio.Event().wait()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response."""
        start = next(message for message in self.sent if message["type"].endswith(("start", "accept")))
        return [tuple(pair) for pair in start["headers"]]


async def serve(app: Any, scope: dict[str, Any] | None = None, *incoming: Any) -> Wire:
    """Run an app on one connection to its end."""
    wire = Wire(*(incoming or (REQUEST,)))
    wire.scope = scope or http_scope()
    await app(wire.scope, wire.receive, wire.send)
    return wire


def traced(app: Any, sink: Any, **options: Any) -> TraceMiddleware:
    """The middleware around ``app``; keywords that are not its own are settings."""
    own = {name: options.pop(name) for name in ("bridges", "on_request", "on_response") if name in options}
    return TraceMiddleware(app, sink=sink, settings=Settings(store="none", **options), **own)


def client(app: Any, *, raises: bool = True, **options: Any) -> httpx.AsyncClient:
    """An HTTP client in front of an app in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **options)


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    """The smallest app."""
    await send(START)
    await send(BODY)


def only(sink: MemorySink) -> Any:
    """The one trace that was recorded."""
    (trace,) = sink.traces
    return trace


def root_of(sink: MemorySink) -> Any:
    """The root span of the one trace that was recorded."""
    return only(sink).root
