"""One websocket connection is one trace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

import wherefrom
from wherefrom import MemorySink, start_span

from .raw import Wire, only, root_of, serve, traced, websocket_scope

CONNECT = {"type": "websocket.connect"}
ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
CLOSE: dict[str, Any] = {"type": "websocket.close"}


def left(code: int = 1000, **more: Any) -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, **more}


def text(value: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": value}


async def connect(app: Any, sink: MemorySink, *incoming: Any, **options: Any) -> Wire:
    return await serve(traced(app, sink, **options), websocket_scope(), CONNECT, *incoming)


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Accept, echo what comes, return when the client leaves."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send(ACCEPT)
        else:
            await send({**message, "type": "websocket.send"})


async def test_messages_are_counted_both_ways(sink: MemorySink) -> None:
    """Counts, bytes on the wire and the close code are attributes of the one span."""
    binary = {"type": "websocket.receive", "bytes": b"\x00" * 5, "text": None}
    await connect(echo, sink, text("abc"), text("é"), binary, text(""), left(1001, reason="bye"))
    root = root_of(sink)
    assert root.name == "WS"
    assert root.span_type == "SERVER"
    assert root.attributes | {"wherefrom.websocket.bytes_sent": 10} == root.attributes
    assert {key: value for key, value in root.attributes.items() if key.startswith("wherefrom.")} == {
        "wherefrom.outcome": "completed",
        "wherefrom.websocket.accepted": True,
        "wherefrom.websocket.messages_received": 4,
        "wherefrom.websocket.messages_sent": 4,
        "wherefrom.websocket.bytes_received": 10,
        "wherefrom.websocket.bytes_sent": 10,
        "wherefrom.websocket.close_code": 1001,
        "wherefrom.websocket.close_reason": "bye",
    }
    assert root.attributes["http.response.status_code"] == 101
    assert root.attributes["url.path"] == "/ws"
    assert "http.request.method" not in root.attributes
    assert only(sink).info.state == "OK"


async def test_the_route_names_the_connection(sink: MemorySink) -> None:
    """A connection has ids, metadata, context and spans as a request has."""
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def room(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        with start_span("work"):
            await websocket.send_text(str(wherefrom.context.request_id))
        await websocket.close(4001, "enough")

    headers = [(b"x-request-id", b"r-1"), (b"x-user-id", b"u-1")]
    scope = websocket_scope("/rooms/7", headers=headers)
    wire = await serve(traced(app, sink), scope, CONNECT)
    trace = only(sink)
    assert [span.name for span in trace.data.spans] == ["WS /rooms/{room}", "work"]
    assert trace.info.client_request_id == wire.sent[1]["text"] == "r-1"
    assert trace.info.trace_metadata["mlflow.trace.user"] == "u-1"
    assert (b"x-request-id", b"r-1") in wire.headers
    assert trace.root.attributes["wherefrom.websocket.close_code"] == 4001
    assert trace.root.attributes["wherefrom.websocket.close_reason"] == "enough"


async def test_the_app_s_messages_are_not_changed(sink: MemorySink) -> None:
    """The accept message gets the request id in a copy."""
    accept = dict(ACCEPT)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(accept)
        await send(CLOSE)

    wire = await connect(app, sink)
    assert accept == ACCEPT
    assert len(wire.headers) == 1


class TestRefused:
    async def test_by_a_close_before_accept(self, sink: MemorySink) -> None:
        """A refused handshake is a trace too, with the 403 that servers send."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(CLOSE)

        await connect(app, sink)
        attributes = root_of(sink).attributes
        assert attributes["http.response.status_code"] == 403
        assert attributes["wherefrom.websocket.accepted"] is False
        assert attributes["wherefrom.outcome"] == "completed"
        assert "wherefrom.websocket.close_code" not in attributes
        assert only(sink).info.state == "OK"

    @pytest.mark.parametrize(("status", "state"), [(401, "OK"), (503, "ERROR")])
    async def test_by_a_response(self, sink: MemorySink, status: int, state: str) -> None:
        """A handshake may be answered with a response; 5xx is an error there as well."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "websocket.http.response.start", "status": status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
            await send({"type": "websocket.http.response.body"})

        wire = await connect(app, sink)
        assert [name for name, _ in wire.headers] == [b"x-request-id"]
        assert root_of(sink).attributes["http.response.status_code"] == status
        assert root_of(sink).attributes["wherefrom.outcome"] == "completed"
        assert only(sink).info.state == state

    async def test_by_a_framework_s_exception(self, sink: MemorySink) -> None:
        """What the framework turns into a refusal is no failure."""
        app = FastAPI()

        @app.websocket("/ws")
        async def refuse(websocket: WebSocket) -> None:
            raise WebSocketException(1008)

        await connect(app, sink)
        assert only(sink).info.state == "OK"
        assert root_of(sink).attributes["http.response.status_code"] == 403

    async def test_by_an_unknown_path(self, sink: MemorySink) -> None:
        """No route, no name."""
        await connect(FastAPI(), sink)
        assert root_of(sink).name == "WS"


class TestFailing:
    async def test_after_accept(self, sink: MemorySink) -> None:
        """An exception after the handshake is an error under status 101."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(ACCEPT)
            raise RuntimeError("boom")

        with pytest.raises(RuntimeError, match="boom"):
            await connect(app, sink)
        root = root_of(sink)
        assert root.attributes["wherefrom.outcome"] == "failed"
        assert root.attributes["http.response.status_code"] == 101
        assert root.events[0].attributes["exception.type"] == "RuntimeError"
        assert only(sink).info.state == "ERROR"

    async def test_before_accept(self, sink: MemorySink) -> None:
        """An exception before the handshake is a 500, as servers answer it."""

        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await connect(app, sink)
        assert root_of(sink).attributes["http.response.status_code"] == 500

    async def test_without_an_answer(self, sink: MemorySink) -> None:
        """An app that neither accepts nor refuses has failed."""

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            await receive()

        await connect(app, sink)
        assert root_of(sink).attributes["wherefrom.outcome"] == "failed"
        assert root_of(sink).attributes["http.response.status_code"] == 500

    async def test_cancelled(self, sink: MemorySink) -> None:
        """A server that stops cancels its connections."""
        task = asyncio.create_task(connect(echo, sink))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert root_of(sink).attributes["wherefrom.outcome"] == "cancelled"
        assert only(sink).info.state == "ERROR"


class TestLost:
    async def test_a_connection_that_breaks(self, sink: MemorySink) -> None:
        """1006 is no closing handshake: the client is gone, and the app is not to blame."""
        await connect(echo, sink, left(1006))
        assert root_of(sink).attributes["wherefrom.outcome"] == "client_closed"
        assert root_of(sink).attributes["wherefrom.websocket.close_code"] == 1006
        assert only(sink).info.state == "OK"

    async def test_an_oserror_from_send(self, sink: MemorySink) -> None:
        """So is one that a send finds broken."""

        class Closed(Wire):
            async def send(self, message: Any) -> None:
                if message["type"] == "websocket.send":
                    raise ConnectionResetError

        wire = Closed(CONNECT, text("x"))
        with pytest.raises(ConnectionResetError):
            await traced(echo, sink)(websocket_scope(), wire.receive, wire.send)
        assert root_of(sink).attributes["wherefrom.outcome"] == "client_closed"
        assert root_of(sink).attributes["wherefrom.websocket.messages_sent"] == 0
        assert only(sink).info.state == "OK"

    async def test_the_end_is_when_the_client_left(self, sink: MemorySink) -> None:
        """Time that the app takes after the close is not the connection's."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await echo(scope, receive, send)
            with start_span("after"):
                pass

        await connect(app, sink, left())
        root, after = only(sink).data.spans
        assert after.start_time_ns > root.end_time_ns

    async def test_a_framework_s_disconnect(self, sink: MemorySink) -> None:
        """Starlette's WebSocketDisconnect, caught or not, is the client leaving."""
        app = FastAPI()

        @app.websocket("/ws")
        async def listen(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                await websocket.receive_text()
            except WebSocketDisconnect:
                return

        await connect(app, sink, left(1001))
        assert root_of(sink).attributes["wherefrom.outcome"] == "completed"


@pytest.mark.parametrize("headers", [7, [b"x"], [("a", "b")]])
async def test_headers_that_no_server_takes(sink: MemorySink, headers: Any) -> None:
    """What is wrong with an app's headers the server will say: we hand them on."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({**ACCEPT, "headers": headers})
        await send(CLOSE)

    wire = await connect(app, sink)
    assert wire.sent[0]["headers"][:1] == headers[:1] if isinstance(headers, list) else headers
    assert len(sink.traces) == 1


async def test_headers_are_captured(sink: MemorySink) -> None:
    """``capture_headers`` holds for handshakes; ``capture_bodies`` records no messages."""
    middleware = traced(echo, sink, capture_headers="origin", capture_bodies=True)
    scope = websocket_scope(headers=[(b"origin", b"https://a")])
    await serve(middleware, scope, CONNECT, text("x"), left())
    assert root_of(sink).attributes["http.request.header.origin"] == ["https://a"]
    assert only(sink).info.request_preview is None
