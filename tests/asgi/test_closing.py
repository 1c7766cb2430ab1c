"""How connections end where the ends cross, and what becomes of their traces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import wherefrom
from wherefrom import MemorySink, Settings, Trace, TraceClient, TraceMiddleware
from wherefrom.stores import open_store

from .raw import BODY, DISCONNECT, START, http_scope, ok, only, root_of, serve, traced, websocket_scope

CONNECT = {"type": "websocket.connect"}
PART: dict[str, Any] = {"type": "http.response.body", "body": b"x", "more_body": True}


def outcome(sink: MemorySink) -> tuple[str, str, list[str]]:
    """Outcome, state and the types of recorded exceptions."""
    root = root_of(sink)
    kinds = [event.attributes["exception.type"].rpartition(".")[2] for event in root.events]
    return root.attributes["wherefrom.outcome"], only(sink).info.state.value, kinds


class TestWebsocket:
    @pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1012, 4000])
    async def test_a_disconnect_that_the_app_lets_out(self, sink: MemorySink, code: int) -> None:
        """An echo loop ends by ``WebSocketDisconnect``: the client left, unless the server stops (1012)."""
        app = FastAPI()

        @app.websocket("/ws")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                await websocket.send_text(await websocket.receive_text())

        said = {"type": "websocket.receive", "text": "a"}
        left = {"type": "websocket.disconnect", "code": code}
        with pytest.raises(WebSocketDisconnect):
            await serve(traced(app, sink), websocket_scope(), CONNECT, said, left)
        ended = ("cancelled", "ERROR") if code == 1012 else ("client_closed", "OK")
        assert outcome(sink) == (*ended, ["WebSocketDisconnect"])
        root = root_of(sink)
        assert root.attributes["http.response.status_code"] == 101
        assert root.attributes["wherefrom.websocket.close_code"] == code
        assert root.attributes["wherefrom.websocket.messages_sent"] == 1

    @pytest.mark.parametrize("error", [ValueError("bug"), WebSocketDisconnect(1011)], ids=repr)
    async def test_another_error_after_it_is_the_app_s(self, sink: MemorySink, error: Exception) -> None:
        """What an app raises of its own after the client has left is a failure."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            raise error

        left = {"type": "websocket.disconnect", "code": 1000}
        with pytest.raises(type(error)):
            await serve(traced(app, sink), websocket_scope(), CONNECT, left)
        assert outcome(sink) == ("failed", "ERROR", [type(error).__name__])


class Crossing:
    """A connection whose client leaves, as the app reads, while the message ``at`` is being sent."""

    def __init__(self, at: dict[str, Any]) -> None:
        self.at = at
        self.sending, self.read = asyncio.Event(), asyncio.Event()

    async def receive(self) -> Any:
        await self.sending.wait()
        return DISCONNECT

    async def send(self, message: Any) -> None:
        if message["type"] == self.at["type"] and message.get("body") == self.at.get("body"):
            self.sending.set()
            await self.read.wait()

    async def app(self, _scope: Any, receive: Any, send: Any) -> None:
        async def watch() -> None:
            await receive()
            self.read.set()

        watching = asyncio.create_task(watch())
        for message in self.messages:
            await send(message)
        await watching

    messages: tuple[dict[str, Any], ...] = (START, PART, BODY)


class TestCrossing:
    async def test_while_the_last_byte_is_sent(self, sink: MemorySink) -> None:
        """A disconnect that comes while the last send is awaited ends a complete response."""
        wire = Crossing(BODY)
        await traced(wire.app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("completed", "OK", [])

    async def test_while_a_file_is_sent(self, sink: MemorySink) -> None:
        """The same of a response whose bytes the server reads by itself."""
        path = {"type": "http.response.pathsend", "path": "/dev/null"}
        wire = Crossing(path)
        wire.messages = (START, path)
        await traced(wire.app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("completed", "OK", [])

    @pytest.mark.parametrize("at", [START, PART], ids=["start", "part"])
    async def test_while_more_is_to_come(self, sink: MemorySink, at: dict[str, Any]) -> None:
        """Earlier than that the client has left in the middle of the response."""
        wire = Crossing(at)
        await traced(wire.app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("client_closed", "OK", [])

    async def test_a_last_send_that_fails(self, sink: MemorySink) -> None:
        """A last byte that could not be sent was not received."""

        async def send(message: Any) -> None:
            if message is BODY:
                raise BrokenPipeError

        wire = Crossing(BODY)
        with pytest.raises(BrokenPipeError):
            await traced(ok, sink)(http_scope(), wire.receive, send)
        assert outcome(sink) == ("client_closed", "OK", ["BrokenPipeError"])


class ListSink(list[Trace]):
    """A sink that is false as long as it is empty."""

    def write(self, traces: Any) -> None:
        self.extend(traces)


async def test_a_sink_that_is_false_is_a_sink(tmp_path: Path) -> None:
    """A sink counts when it is given, not when it is true: the store of the settings is left alone."""
    sink, store = ListSink(), tmp_path / "wherefrom.db"
    assert not sink
    middleware = TraceMiddleware(ok, sink=sink, settings=Settings(store=f"sqlite:///{store}"))
    await serve(middleware)
    assert wherefrom.flush()
    assert [trace.info.name for trace in sink] == ["GET"]
    assert not store.exists()


class DiskFull(logging.Handler):
    """Raises where the standard handlers would call ``handleError``."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log's disk is full")


@pytest.fixture
def _disk_full() -> Iterator[None]:
    handler = DiskFull()
    logging.getLogger("wherefrom").addHandler(handler)
    yield
    logging.getLogger("wherefrom").removeHandler(handler)


class Refusing:
    def write(self, traces: Any) -> None:
        raise RuntimeError("no")


@pytest.mark.usefixtures("_disk_full")
async def test_a_log_handler_that_raises() -> None:
    """What the app's log handlers raise for our complaints reaches neither app nor client."""

    def hook(_trace: Any, _scope: Any) -> None:
        raise RuntimeError("a hook's bug")

    wire = await serve(traced(ok, Refusing(), on_request=hook, on_response=hook))
    assert [message["type"] for message in wire.sent] == [START["type"], BODY["type"]]
    errors = wherefrom.stats().errors
    assert (errors["on_request"], errors["on_response"]) == (1, 1)
    assert len(errors) == 3


@pytest.fixture
def _own_folder(fresh_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The state of a process that has just started, in a folder of its own; put back at the end."""
    monkeypatch.delenv("WHEREFROM_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


@wherefrom.trace
def work() -> int:
    """A decorated call."""
    with wherefrom.start_span("step"):
        return 1


async def working(scope: Any, receive: Any, send: Any) -> None:
    assert work() == 1
    await ok(scope, receive, send)


@pytest.mark.usefixtures("_own_folder")
class TestDisabled:
    async def test_nothing_is_recorded(self, tmp_path: Path) -> None:
        """``enabled=False`` is off for decorated calls too, in requests and outside: no file, no count."""
        await serve(TraceMiddleware(working, settings=Settings(enabled=False)))
        assert work() == 1
        assert wherefrom.flush()
        assert wherefrom.stats() == wherefrom.Stats()
        assert list(tmp_path.iterdir()) == []

    async def test_another_middleware_records(self, tmp_path: Path) -> None:
        """An app that is switched off switches nothing off for one that is not, whichever is made first."""
        off = TraceMiddleware(working, settings=Settings(enabled=False))
        on = Settings(store=f"sqlite:///{tmp_path / 'on.db'}", flush_interval_ms=1)
        await serve(TraceMiddleware(working, settings=on))
        TraceMiddleware(working, settings=Settings(enabled=False))
        await serve(off)
        assert wherefrom.flush()
        with closing(open_store(on.store)) as store:
            found = sorted(str(trace.info.name) for trace in TraceClient(store).search_traces())
        assert found == ["GET", "work"]


@pytest.mark.parametrize("paths", [("/bad", "/ok"), ("/ok", "/bad")], ids=lambda paths: paths[0][1:])
async def test_a_trace_that_is_joined_twice_keeps_its_error(tmp_path: Path, paths: tuple[str, str]) -> None:
    """With ``upstream=continue`` two requests are one stored trace, in error when either of them is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise ValueError("no")
        await ok(scope, receive, send)

    with closing(open_store(f"sqlite:///{tmp_path / 'wherefrom.db'}")) as store:
        middleware = traced(app, store, upstream="continue")
        for path in paths:
            headers = [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]
            try:
                await serve(middleware, http_scope(path, headers))
            except ValueError:
                assert path == "/bad"
        client = TraceClient(store)
        (trace,) = client.search_traces(filter_string="status = 'ERROR'")
        assert trace.info.trace_id == f"tr-{'a' * 32}"
        assert trace.info.state.value == "ERROR"
        assert sorted(span.status.code.value for span in trace.data.spans) == ["ERROR", "OK"]
        assert client.search_traces(filter_string="status = 'OK'") == []
