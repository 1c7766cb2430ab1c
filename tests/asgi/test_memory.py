"""Finished requests are freed at once: no cycle waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from wherefrom import current_span, current_trace, start_span
from wherefrom.sinks import FanOut
from wherefrom.tracing.bridge import Bridge, BridgeSession
from wherefrom.tracing.live import LiveSpan, LiveTrace

from .raw import DISCONNECT, Wire, ok, serve, traced, websocket_scope

Alive = Callable[[], list[object]]


@pytest.fixture
def alive() -> Iterator[Alive]:
    """What has come to life and is still there, with the collector off."""
    gc.collect()
    gc.disable()
    before = found()
    known = {id(thing) for thing in before}
    try:
        yield lambda: [thing for thing in found() if id(thing) not in known]
    finally:
        gc.enable()


def found() -> list[object]:
    # By type: to isinstance, the lazy objects of other libraries pretend to be something, and wake up.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), (LiveTrace, LiveSpan))]


async def spans(scope: Any, receive: Any, send: Any) -> None:
    with start_span("a"), start_span("b"):
        await ok(scope, receive, send)


async def failing(_scope: Any, _receive: Any, _send: Any) -> None:
    with start_span("a"):
        raise RuntimeError("boom")


async def cancelled(_scope: Any, _receive: Any, _send: Any) -> None:
    raise asyncio.CancelledError


async def failing_later(scope: Any, receive: Any, send: Any) -> None:
    await ok(scope, receive, send)
    raise RuntimeError("boom")


async def holding(scope: Any, receive: Any, send: Any) -> None:
    trace = current_trace()  # a local that the frame of an exception keeps
    assert trace is not None
    await failing(scope, receive, send)


async def recording(scope: Any, receive: Any, send: Any) -> None:
    span = current_span()
    assert span is not None
    span.record_exception(LookupError(scope))  # an exception may refer to the request
    await ok(scope, receive, send)


async def leaving(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()


class NoBridge(Bridge):
    def on_request(self, _trace: Any, _scope: Any) -> BridgeSession:
        class Session(BridgeSession):
            """Takes part and does nothing."""

        return Session()


async def run(app: Any, scope: Any = None, **options: Any) -> None:
    """One request whose trace nobody keeps, and whose exception a server would log and drop."""
    with suppress(RuntimeError, asyncio.CancelledError):
        await serve(traced(app, FanOut(), **options), scope, DISCONNECT)


@pytest.mark.parametrize("app", [ok, spans, failing, cancelled, failing_later, holding, recording, leaving])
@pytest.mark.parametrize(
    "options",
    [{}, {"bridges": [NoBridge()]}, {"sample_rate": 0, "keep_errors": False}, {"capture_bodies": True}],
    ids=["plain", "bridged", "dropped", "captured"],
)
async def test_a_finished_request_is_freed(alive: Alive, app: Any, options: dict[str, Any]) -> None:
    """However a request ends, nothing of its trace is left when the server lets go of it."""
    await run(app, **options)
    assert alive() == []


async def test_a_finished_connection_is_freed(alive: Alive) -> None:
    """The same for websockets."""
    await run(leaving, websocket_scope())
    await run(failing, websocket_scope())
    assert alive() == []


class Breaking(Wire):
    """A server whose connection breaks after accept."""

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ConnectionResetError


async def chatting(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    with start_span("talk"):
        await send({"type": "websocket.send", "text": "x"})


async def accepting(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize("app", [chatting, accepting])
async def test_a_connection_whose_server_is_asked_is_freed(alive: Alive, app: Any) -> None:
    """Neither the server's ``receive`` nor what its ``send`` raised keeps the trace."""
    wire = Breaking({"type": "websocket.connect"})
    wire.scope = websocket_scope()
    with suppress(OSError):
        await traced(app, FanOut())(wire.scope, wire.receive, wire.send)
    del wire
    assert alive() == []


async def test_late_spans_are_freed_with_their_end(alive: Alive) -> None:
    """A span that outlives its request holds the trace until it ends, and no longer."""
    late: list[LiveSpan] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace = current_trace()
        assert trace is not None
        late.append(trace.start_span("late"))
        await ok(scope, receive, send)

    await run(app)
    late.pop().end()
    assert alive() == []
