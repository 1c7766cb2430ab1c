"""How a request ended: completed, client_closed, cancelled or failed; what was raised goes on unchanged."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from wherefrom import MemorySink, TraceState, start_span
from wherefrom.context import span_var, trace_var

from .raw import BODY, DISCONNECT, REQUEST, START, Wire, http_scope, only, root_of, serve, traced

PART: dict[str, Any] = {"type": "http.response.body", "body": b"x", "more_body": True}


def outcome(sink: MemorySink) -> tuple[str, str, int | None, list[str]]:
    """Outcome, state, status code and the types of recorded exceptions."""
    root = root_of(sink)
    kinds = [event.attributes["exception.type"] for event in root.events]
    attributes = root.attributes
    return (
        attributes["wherefrom.outcome"],
        only(sink).info.state.value,
        attributes.get("http.response.status_code"),
        kinds,
    )


async def test_an_app_that_sends_nothing_has_failed(sink: MemorySink) -> None:
    """Servers answer 500 for an app that returns without a response; so do we."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    await serve(traced(app, sink))
    assert outcome(sink) == ("failed", "ERROR", 500, [])
    assert root_of(sink).status.description == "the app returned without a complete response"


async def test_an_app_that_sends_half_has_failed(sink: MemorySink) -> None:
    """A response without its end is a failure under the status that was sent."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)

    await serve(traced(app, sink))
    assert outcome(sink) == ("failed", "ERROR", 200, [])


class TestClientClosed:
    async def test_a_disconnect_read_before_the_last_byte(self, sink: MemorySink) -> None:
        """A client that left is no error of the app."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(PART)
            while (await receive())["type"] != "http.disconnect":
                pass

        await serve(traced(app, sink), None, REQUEST, DISCONNECT)
        assert outcome(sink) == ("client_closed", "OK", 200, [])

    async def test_a_disconnect_before_the_response(self, sink: MemorySink) -> None:
        """Nothing was sent and nobody waits: there is no status to record."""

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            await receive()

        await serve(traced(app, sink), None, DISCONNECT)
        assert outcome(sink) == ("client_closed", "OK", None, [])

    async def test_a_disconnect_read_after_the_last_byte(self, sink: MemorySink) -> None:
        """Every connection ends; only before the last byte does it say something."""

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(BODY)
            await receive()

        await serve(traced(app, sink), None, DISCONNECT)
        assert outcome(sink) == ("completed", "OK", 200, [])

    async def test_an_oserror_from_send(self, sink: MemorySink) -> None:
        """``send`` raises OSError for a closed connection: the exception is an event, not a failure."""

        class Closed(Wire):
            async def send(self, message: Any) -> None:
                if message["type"] == "http.response.body":
                    raise BrokenPipeError("gone")

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(START)
            await send(PART)

        wire = Closed(REQUEST)
        with pytest.raises(BrokenPipeError, match="gone"):
            await traced(app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("client_closed", "OK", 200, ["BrokenPipeError"])

    async def test_an_oserror_that_the_app_swallows(self, sink: MemorySink) -> None:
        """An app may ignore that the client has gone; the outcome does not."""

        class Closed(Wire):
            async def send(self, message: Any) -> None:
                raise ConnectionResetError

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            with suppress(OSError):
                await send(START)

        wire = Closed(REQUEST)
        await traced(app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("client_closed", "OK", 200, [])

    async def test_an_oserror_of_the_app_s_own(self, sink: MemorySink) -> None:
        """A file that is not there says nothing about the client."""

        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            raise FileNotFoundError("x.txt")

        with pytest.raises(FileNotFoundError):
            await serve(traced(app, sink))
        assert outcome(sink) == ("failed", "ERROR", 500, ["FileNotFoundError"])

    async def test_a_stream_that_the_client_leaves(self, sink: MemorySink) -> None:
        """Starlette stops the generator of a client that has gone; one trace says so."""
        app = FastAPI()

        @app.get("/")
        async def read() -> StreamingResponse:
            async def endless() -> Any:
                while True:
                    yield b"x"
                    await asyncio.sleep(0.001)

            return StreamingResponse(endless())

        class Leaving(Wire):
            async def receive(self) -> Any:
                if self.incoming:
                    return self.incoming.pop(0)
                while len(self.sent) < 5:
                    await asyncio.sleep(0.001)
                return DISCONNECT

        wire = Leaving(REQUEST)
        await traced(app, sink)(http_scope(), wire.receive, wire.send)
        assert outcome(sink) == ("client_closed", "OK", 200, [])

    async def test_a_cancellation_that_follows_is_still_the_client(self, sink: MemorySink) -> None:
        """A server may cancel the app because the client left: the cause is the client."""

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            await receive()
            await asyncio.Event().wait()

        task = asyncio.create_task(serve(traced(app, sink), None, DISCONNECT))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert outcome(sink) == ("client_closed", "OK", None, ["asyncio.exceptions.CancelledError"])


class TestCancelled:
    async def test_a_cancelled_request_is_not_ok(self, sink: MemorySink) -> None:
        """A cancellation from outside is an outcome of its own, and an error; it goes on as it was."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(START)
            await asyncio.Event().wait()

        task = asyncio.create_task(serve(traced(app, sink)))
        await asyncio.sleep(0.01)
        task.cancel("shutdown")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("shutdown",)
        assert outcome(sink) == ("cancelled", "ERROR", 200, ["asyncio.exceptions.CancelledError"])

    def test_a_request_that_is_dropped_half_way(self, sink: MemorySink) -> None:
        """A coroutine closed from another context, as at the end of a loop, still leaves its trace."""

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(START)
            await asyncio.sleep(0)

        wire = Wire()
        running = traced(app, sink)(http_scope(), wire.receive, wire.send)
        assert hasattr(running, "close")
        contextvars.copy_context().run(running.send, None)
        running.close()
        assert outcome(sink) == ("cancelled", "ERROR", 200, ["GeneratorExit"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
async def test_what_stops_the_process_has_failed(sink: MemorySink, kind: type[BaseException]) -> None:
    """``KeyboardInterrupt`` and ``SystemExit`` are recorded like any exception, and never swallowed."""
    error = kind("stop")

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    wire = Wire(REQUEST)
    running = traced(app, sink)(http_scope(), wire.receive, wire.send)
    assert hasattr(running, "send")
    with pytest.raises(kind) as caught:
        running.send(None)
    assert caught.value is error
    assert outcome(sink) == ("failed", "ERROR", 500, [kind.__name__])


@pytest.mark.parametrize("end", ["success", "exception", "cancellation"])
async def test_the_context_is_clean_afterwards(sink: MemorySink, end: str) -> None:
    """However a request ends, the server's context is what it was before."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        assert trace_var.get() is not None
        if end == "exception":
            raise RuntimeError
        if end == "cancellation":
            raise asyncio.CancelledError
        await send(START)
        await send(BODY)

    with suppress(RuntimeError, asyncio.CancelledError):
        await serve(traced(app, sink))
    assert trace_var.get() is None
    assert span_var.get() is None
    assert len(sink.traces) == 1


async def test_a_failing_background_task_comes_after_the_answer(sink: MemorySink) -> None:
    """An exception after the last byte is recorded; the client's status and the duration stand."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        with start_span("background"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await serve(traced(app, sink))
    assert outcome(sink) == ("failed", "ERROR", 200, ["RuntimeError"])
    root, background = only(sink).data.spans
    assert background.start_time_ns > root.end_time_ns


async def test_an_exception_that_cannot_be_shown(sink: MemorySink) -> None:
    """An exception whose ``__str__`` raises is recorded by its type."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise Odd

    with pytest.raises(Odd):
        await serve(traced(app, sink))
    assert outcome(sink)[:3] == ("failed", "ERROR", 500)
    assert "Odd" in root_of(sink).events[0].attributes["exception.type"]


async def test_an_http_exception_is_an_answer(sink: MemorySink) -> None:
    """The framework answers its own HTTP exceptions inside: nothing failed."""
    app = FastAPI()

    @app.get("/")
    async def read(_request: Request) -> None:
        from fastapi import HTTPException

        raise HTTPException(403)

    await serve(traced(app, sink))
    assert outcome(sink) == ("completed", "OK", 403, [])
    assert only(sink).info.state is TraceState.OK
