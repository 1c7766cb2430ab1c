"""The spellings of a client's leaving: one decision for the outcome of the request and for its spans."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

import wherefrom
from wherefrom import MemorySink, start_span
from wherefrom.asgi.disconnects import is_cancellation, is_disconnect

from .raw import (
    BODY,
    DISCONNECT,
    REQUEST,
    START,
    Wire,
    client,
    http_scope,
    ok,
    only,
    root_of,
    serve,
    traced,
    websocket_scope,
)

CONNECT = {"type": "websocket.connect"}
ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
SEND: dict[str, Any] = {"type": "websocket.send", "text": "x"}


def left(code: int = 1001, **more: Any) -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, **more}


def close(code: int = 1000) -> dict[str, Any]:
    return {"type": "websocket.close", "code": code}


def ended(sink: MemorySink) -> tuple[str, str, Any]:
    """Outcome, state and close code."""
    attributes = root_of(sink).attributes
    return (
        attributes["wherefrom.outcome"],
        only(sink).info.state.value,
        attributes.get("wherefrom.websocket.close_code"),
    )


class Ended(Exception):
    """An exception of the app's own."""


def raised(error: BaseException, *, cause: BaseException | None = None, context: Any = None) -> BaseException:
    error.__context__ = context
    if cause is not None:
        error.__cause__ = cause
    return error


def suppressed(error: BaseException, context: BaseException) -> BaseException:
    error.__context__, error.__suppress_context__ = context, True
    return error


def endless() -> BaseException:
    """A group whose member has it as its cause."""
    member = ValueError("x")
    group = ExceptionGroup("g", [member])
    member.__cause__ = group
    return group


GONE = WebSocketDisconnect(1001)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GONE, True),
        (WebSocketDisconnect(1011), False),
        (ClientDisconnect(), True),
        (asyncio.CancelledError(), True),
        (GeneratorExit(), True),
        (ValueError("bug"), False),
        (OSError("a file"), False),
        (KeyboardInterrupt(), False),
        (ExceptionGroup("g", [GONE]), True),
        (ExceptionGroup("g", [ExceptionGroup("g", [GONE]), ClientDisconnect()]), True),
        (BaseExceptionGroup("g", [GONE, asyncio.CancelledError()]), True),
        (ExceptionGroup("g", [GONE, ValueError("bug")]), False),
        (BaseExceptionGroup("g", [GONE, KeyboardInterrupt()]), False),
        (raised(Ended(), cause=GONE), True),
        (raised(Ended(), context=GONE), True),
        (raised(ValueError(), cause=GONE), True),
        (raised(RuntimeError("after close"), context=GONE), True),
        (raised(KeyError("bug"), context=GONE), False),
        (raised(Ended(), cause=ValueError("bug"), context=GONE), False),
        (raised(Ended(), cause=BaseExceptionGroup("g", [GONE])), True),
        (raised(Ended(), cause=raised(Ended(), context=GONE)), True),
        (BaseExceptionGroup("g", [raised(Ended(), cause=GONE)]), True),
        (suppressed(Ended(), GONE), False),
        (endless(), False),
    ],
    ids=repr,
)
async def test_what_only_says_that_the_client_left(
    sink: MemorySink, error: BaseException, expected: bool
) -> None:
    """By framework, in groups, by cause and by context; and what is the app's own although it left."""
    assert is_disconnect(error, 1001) is expected

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with start_span("talk"):
            await receive()
            raise error

    traceback = error.__traceback__
    with pytest.raises(type(error)):
        await serve(traced(app, sink), websocket_scope(), CONNECT, left())
    error.__traceback__ = traceback
    assert ended(sink) == (*(("client_closed", "OK") if expected else ("failed", "ERROR")), 1001)
    talk = only(sink).data.spans[1]
    assert talk.status.code.value == ("OK" if expected else "ERROR")
    assert [event.name for event in talk.events] == ["exception"] * (not isinstance(error, GeneratorExit))


def test_cancellations() -> None:
    """A group of nothing else is one; whatever else it holds makes it a failure."""
    cancelled = asyncio.CancelledError()
    assert is_cancellation(BaseExceptionGroup("g", [cancelled, BaseExceptionGroup("g", [GeneratorExit()])]))
    assert not is_cancellation(BaseExceptionGroup("g", [cancelled, ValueError()]))
    assert not is_cancellation(SystemExit())


class Refusing(Wire):
    """A server whose ``send`` raises for the messages after accept."""

    def __init__(self, error: Callable[[], Exception], *incoming: Any) -> None:
        super().__init__(CONNECT, *incoming)
        self.error = error

    async def send(self, message: Any) -> None:
        if message["type"] not in {"websocket.accept", "http.response.start"}:
            raise self.error()


class ClientDisconnected(OSError):
    """As uvicorn's."""


def told(*, sent: int | None, received: int | None) -> Exception:
    """As uvicorn raises it for a connection that the package websockets found closed."""
    cause = ConnectionError()
    vars(cause)["sent"] = None if sent is None else Said(sent)
    vars(cause)["rcvd"] = None if received is None else Said(received)
    error = ClientDisconnected()
    error.__cause__ = cause
    return error


class Said:
    def __init__(self, code: int) -> None:
        self.code, self.reason = code, "bye"


class TestSend:
    """A message to a client that has left."""

    @pytest.mark.parametrize("framework", [False, True])
    @pytest.mark.parametrize("tasks", [1, 2])
    async def test_an_oserror(self, sink: MemorySink, framework: bool, tasks: int) -> None:
        """The server says by it that the client is gone: alone, in a group, or as Starlette's exception."""
        if framework:
            served = FastAPI()

            @served.websocket("/ws")
            async def handler(websocket: WebSocket) -> None:
                await websocket.accept()
                async with asyncio.TaskGroup() as group:
                    for _ in range(tasks):
                        group.create_task(websocket.send_text("x"))

            app: Any = served
        else:

            async def app(_scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send(ACCEPT)
                async with asyncio.TaskGroup() as group:
                    for _ in range(tasks):
                        group.create_task(send(SEND))

        wire = Refusing(ConnectionResetError)
        with pytest.raises(ExceptionGroup):
            await traced(app, sink)(websocket_scope(), wire.receive, wire.send)
        assert ended(sink) == ("client_closed", "OK", 1006)

    @pytest.mark.parametrize(
        ("error", "incoming", "expected"),
        [
            # wsproto and websockets-sansio have the client's code ready, for an app that only sends.
            (ClientDisconnected, [left(4321)], ("client_closed", "OK", 4321)),
            (
                ClientDisconnected,
                [{"type": "websocket.receive", "text": "x"}, left(4321)],
                ("client_closed", "OK", 4321),
            ),
            (ClientDisconnected, [left(1012), left(1005)], ("cancelled", "ERROR", 1012)),
            (ClientDisconnected, [{"type": "odd"}, 7], ("client_closed", "OK", 1006)),
            # The package websockets has it in the cause.
            (lambda: told(sent=4321, received=4321), [], ("client_closed", "OK", 4321)),
            (lambda: told(sent=1012, received=None), [], ("cancelled", "ERROR", 1012)),
            (lambda: told(sent=1012, received=1012), [], ("cancelled", "ERROR", 1012)),
            (lambda: told(sent=None, received=None), [], ("client_closed", "OK", 1006)),
            (ClientDisconnected, [], ("client_closed", "OK", 1006)),
        ],
    )
    async def test_the_code(self, sink: MemorySink, error: Any, incoming: list[Any], expected: Any) -> None:
        """Who closed, and by which code, is what the server knows; 1006 where it knows nothing."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await send(SEND)

        wire = Refusing(error, *incoming)
        with pytest.raises(OSError):
            await traced(app, sink)(websocket_scope(), wire.receive, wire.send)
        assert ended(sink) == expected
        assert root_of(sink).attributes["wherefrom.websocket.messages_received"] == 0

    @pytest.mark.parametrize("error", [ClientDisconnected, lambda: RuntimeError("Unexpected ASGI message")])
    @pytest.mark.parametrize("raises", [True, False])
    async def test_a_close_in_a_finally(self, sink: MemorySink, error: Any, raises: bool) -> None:
        """Servers refuse a close after the client's; the code and the time are the client's."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            try:
                await receive()
            finally:
                with start_span("after"):
                    pass
                await send(close(1000))

        wire = Refusing(error, left(4321, reason="bye"))
        with pytest.raises((OSError, RuntimeError)) if raises else suppress(OSError, RuntimeError):
            await traced(app, sink)(websocket_scope(), wire.receive, wire.send)
        root, after = only(sink).data.spans
        assert ended(sink) == ("client_closed", "OK", 4321)
        assert root.attributes["wherefrom.websocket.close_reason"] == "bye"
        assert root.end_time_ns < after.start_time_ns

    async def test_a_close_that_nobody_gets(self, sink: MemorySink) -> None:
        """A server may ignore a close after the client's: it is not who closed."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            with start_span("after"):
                pass
            await send(close(1000))

        await serve(traced(app, sink), websocket_scope(), CONNECT, left(4321, reason="bye"))
        root, after = only(sink).data.spans
        assert ended(sink) == ("completed", "OK", 4321)
        assert root.end_time_ns < after.start_time_ns

    async def test_a_second_close_of_the_app(self, sink: MemorySink) -> None:
        """What the server says to a second close is the app's fault, and the first code stands."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            with suppress(RuntimeError):
                await send(close(4001))
            await send(close(1000))

        await serve(traced(app, sink), websocket_scope(), CONNECT)
        assert ended(sink) == ("completed", "OK", 4001)

    async def test_an_error_of_the_server_while_the_client_is_there(self, sink: MemorySink) -> None:
        """A message that the server does not take is the app's fault."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await send({"type": "websocket.oops"})

        wire = Refusing(lambda: RuntimeError("Unexpected ASGI message"))
        with pytest.raises(RuntimeError):
            await traced(app, sink)(websocket_scope(), wire.receive, wire.send)
        assert ended(sink) == ("failed", "ERROR", None)


@pytest.mark.parametrize("code", [1000, 1005, 1006, 4001])
async def test_an_app_that_closes_while_another_task_reads(sink: MemorySink, code: int) -> None:
    """The app closed; that its reader is told so, by whatever code, is no failure and no client's leaving."""
    app = FastAPI()

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001)
        async with asyncio.TaskGroup() as group:
            group.create_task(websocket.receive())
            group.create_task(asyncio.to_thread(lambda: None))
        raise WebSocketDisconnect(code)

    with pytest.raises(WebSocketDisconnect):
        await serve(traced(app, sink), websocket_scope(), CONNECT, left(code))
    assert ended(sink) == ("completed", "OK", 4001)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("catches", [False, True])
async def test_a_server_that_stops(sink: MemorySink, group: bool, catches: bool) -> None:
    """1012 is the server's own end: ``cancelled``, however the app is told and takes it."""
    app = FastAPI()

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        if group:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(websocket.receive_text())
        await websocket.receive_text()

    async def served(scope: Any, receive: Any, send: Any) -> None:
        with suppress(*((WebSocketDisconnect, ExceptionGroup) if catches else ())):
            await app(scope, receive, send)

    with suppress(WebSocketDisconnect, ExceptionGroup):
        await serve(traced(served, sink), websocket_scope(), CONNECT, left(1012))
    assert ended(sink) == ("cancelled", "ERROR", 1012)


async def test_a_bug_while_the_server_stops(sink: MemorySink) -> None:
    """What is no disconnect is a failure then too."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        await serve(traced(app, sink), websocket_scope(), CONNECT, left(1012))
    assert ended(sink) == ("failed", "ERROR", 1012)


class Leaving(Wire):
    """A client that leaves in the middle of a stream."""

    async def receive(self) -> Any:
        if self.incoming:
            return self.incoming.pop(0)
        while len(self.sent) < 3:
            await asyncio.sleep(0.001)
        return DISCONNECT


@wherefrom.trace
async def decorated() -> AsyncIterator[str]:
    while True:
        yield "x"
        await inner()


@wherefrom.trace
async def inner() -> None:
    await asyncio.sleep(0.001)


async def block() -> AsyncIterator[str]:
    with start_span("block"):
        while True:
            yield "x"
            await inner()


class TestStreams:
    """HTTP: the generator of a client that left."""

    @pytest.mark.parametrize("generator", [decorated, block])
    async def test_no_span_is_an_error(self, sink: MemorySink, generator: Any) -> None:
        """Starlette cancels it, with an exception that has an address in its text."""
        app = FastAPI()

        @app.get("/")
        async def read() -> StreamingResponse:
            return StreamingResponse(generator())

        wire = Leaving(REQUEST)
        await traced(app, sink)(http_scope(), wire.receive, wire.send)
        spans = only(sink).data.spans
        assert root_of(sink).attributes["wherefrom.outcome"] == "client_closed"
        assert {generator.__name__, "inner"} <= {span.name for span in spans}
        assert {span.status.code.value for span in spans} == {"OK"}
        assert only(sink).info.state == "OK"

    async def test_a_body_that_the_client_does_not_finish(self, sink: MemorySink) -> None:
        """Starlette's ``ClientDisconnect``, through a span and wrapped by the app."""
        app = FastAPI()

        @app.post("/")
        async def read(request: Request) -> None:
            try:
                with start_span("read"):
                    await request.body()
            except ClientDisconnect as error:
                raise Ended from error

        wire = Wire({"type": "http.request", "body": b"x", "more_body": True}, DISCONNECT)
        scope = http_scope(method="POST")
        with pytest.raises(Ended):
            await traced(app, sink)(scope, wire.receive, wire.send)
        assert ended(sink) == ("client_closed", "OK", None)
        assert {span.status.code.value for span in only(sink).data.spans} == {"OK"}

    async def test_a_bug_in_a_span_after_it(self, sink: MemorySink) -> None:
        """A span that fails of its own is an error, although the client has left."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await receive()
            with suppress(ValueError), start_span("clean up"):
                raise ValueError("bug")

        await serve(traced(app, sink), None, DISCONNECT)
        root, work = only(sink).data.spans
        assert (root.attributes["wherefrom.outcome"], work.status.code.value) == ("client_closed", "ERROR")

    async def test_a_cancellation_while_the_client_is_there(self, sink: MemorySink) -> None:
        """A cancelled span is an error, and its text has no address."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with suppress(asyncio.CancelledError), start_span("work"):
                raise asyncio.CancelledError("Cancelled via cancel scope 7f3a5c0d1e90; reason: timeout")
            await ok(scope, receive, send)

        await serve(traced(app, sink))
        status = only(sink).data.spans[1].status
        assert status.code.value == "ERROR"
        assert status.description == "CancelledError: Cancelled via cancel scope; reason: timeout"

    async def test_a_disconnect_after_the_last_byte(self, sink: MemorySink) -> None:
        """A background task that still reads is told that the client has left: the response was complete."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(BODY)
            await receive()
            raise ClientDisconnect

        with pytest.raises(ClientDisconnect):
            await serve(traced(app, sink), None, DISCONNECT)
        assert ended(sink) == ("completed", "OK", None)


class Odd:
    """An object whose text is its address."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(f"no {object()!r} here"), "ValueError: no <object object> here"),
        (KeyError(Odd()), "KeyError: <tests.asgi.test_disconnects.Odd object>"),
        (ValueError("opcode 0xdeadbeef at 12"), "ValueError: opcode 0xdeadbeef at 12"),
        (ValueError("Cancelled by cancel scope 7f3a5c0d1e90"), "ValueError: Cancelled by cancel scope"),
    ],
    ids=["object", "repr", "number", "scope"],
)
async def test_no_status_has_an_address(sink: MemorySink, error: Exception, text: str) -> None:
    """Failures of one kind have one text; the event has the message as it was."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        await serve(traced(app, sink))
    root = root_of(sink)
    assert root.status.description == text
    assert root.events[0].attributes["exception.message"] == str(error)


async def test_an_app_that_leaves_its_own_stream_alone(sink: MemorySink) -> None:
    """A client that reads to the end is no disconnect: nothing is excused."""
    app = FastAPI()

    @app.get("/")
    async def read() -> StreamingResponse:
        async def part() -> AsyncIterator[str]:
            yield "x"
            with start_span("work"):
                raise ValueError("bug")

        return StreamingResponse(part())

    async with client(traced(app, sink), raises=False) as http:
        with suppress(Exception):
            await http.get("/")
    assert ended(sink)[:2] == ("failed", "ERROR")
    assert only(sink).data.spans[1].status.code.value == "ERROR"


def test_a_cause_of_many_is_examined_once() -> None:
    """Groups in groups that share a cause: their number doubles with each level."""
    error: BaseException = ClientDisconnect()
    for _ in range(15):
        members = [RuntimeError("a"), RuntimeError("b")]
        for member in members:
            member.__cause__ = error
        error = ExceptionGroup("both", members)
    counted = Counter[str]()

    def count(frame: Any, event: str, _argument: object) -> None:
        if event == "call":
            counted[frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        assert is_disconnect(error)
    finally:
        sys.setprofile(None)
    assert counted.total() < 1000


def test_chains_with_a_cycle_end() -> None:
    """What refers to itself says nothing."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_disconnect(first)


async def test_a_server_that_is_asked_and_cancels(sink: MemorySink) -> None:
    """What its ``receive`` raises after the end is nothing to the host, and the connection is recorded."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

    class Cancelling(Wire):
        async def receive(self) -> Any:
            if not self.incoming:
                raise asyncio.CancelledError
            return await super().receive()

    wire = Cancelling(CONNECT)
    await traced(app, sink)(websocket_scope(), wire.receive, wire.send)
    assert ended(sink) == ("completed", "OK", None)
