"""The lifespan passes through; at its end the queue is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import wherefrom
from wherefrom import MemorySink
from wherefrom.sinks import BackgroundSink

from .raw import Wire, serve, traced

STARTUP = {"type": "lifespan.startup"}
SHUTDOWN = {"type": "lifespan.shutdown"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["pool"] = 1
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def test_it_passes_through(sink: MemorySink) -> None:
    """The app's start-up and shutdown run as they did, on the same state, without a trace."""
    scope: dict[str, Any] = {"type": "lifespan", "state": {}}
    wire = await serve(traced(app, sink), scope, STARTUP, SHUTDOWN)
    assert [message["type"] for message in wire.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert scope["state"] == {"pool": 1}
    assert sink.traces == []


async def test_a_failed_start_up_passes_through(sink: MemorySink) -> None:
    """What start-up raises is the server's to hear."""

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        await serve(traced(broken, sink), {"type": "lifespan"}, STARTUP)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("Django can only handle ASGI/HTTP connections, not lifespan."),
        NotImplementedError(),
        AssertionError(),
        KeyError("path"),
        TypeError("unknown scope type"),
    ],
    ids=repr,
)
async def test_an_app_without_one_gets_ours(sink: MemorySink, error: Exception | None) -> None:
    """An app that takes the lifespan for a request, or returns at once: the server hears of no failure."""
    queue = BackgroundSink(sink, flush_interval_ms=60_000)

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})
        elif error is not None:
            raise error

    middleware = traced(app, queue)
    await serve(middleware)
    wire = await serve(middleware, {"type": "lifespan"}, STARTUP, SHUTDOWN)
    assert [message["type"] for message in wire.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert len(sink.traces) == 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError("DATABASE_URL"), KeyError(), KeyError({}), RuntimeError("no telescope"),
        RuntimeError("invalid OAuth scope"), OSError("scope of the database"),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_start_up_that_failed_late_passes_through(sink: MemorySink, error: Exception) -> None:
    """An app that has begun its lifespan has one, whatever it raises; so has one that misses another key."""

    async def broken(_scope: Any, receive: Any, _send: Any) -> None:
        if isinstance(error, OSError):
            await receive()
        raise error

    with pytest.raises(type(error)):
        await serve(traced(broken, sink), {"type": "lifespan"}, STARTUP)


async def test_shutdown_writes_the_queue(sink: MemorySink) -> None:
    """Everything that waits is written before the server hears that shutdown is complete."""
    queue = BackgroundSink(sink, flush_interval_ms=60_000)
    middleware = traced(FastAPI(), queue)
    await serve(middleware)
    seen: list[int] = []

    class Counting(Wire):
        async def send(self, message: Any) -> None:
            seen.append(len(sink.traces))

    wire = Counting(STARTUP, SHUTDOWN)
    await middleware({"type": "lifespan", "state": {}}, wire.receive, wire.send)
    assert seen == [0, 1]


async def test_shutdown_waits_no_longer_than_it_may() -> None:
    """A store that hangs holds the server up for ``shutdown_timeout`` and no longer."""
    asked: list[float] = []

    class Slow(MemorySink):
        def flush(self, timeout: float) -> bool:
            asked.append(timeout)
            return False

    await serve(
        traced(app, Slow(), shutdown_timeout=0.25), {"type": "lifespan", "state": {}}, STARTUP, SHUTDOWN
    )
    (timeout,) = asked
    assert 0.2 < timeout <= 0.25


async def test_a_flush_that_fails_reaches_nobody() -> None:
    """A sink's own ``flush`` may raise, or take no timeout; the server still hears of the shutdown."""

    class Odd(MemorySink):
        def flush(self) -> None:
            pass

    wire = await serve(traced(app, Odd()), {"type": "lifespan", "state": {}}, STARTUP, SHUTDOWN)
    assert wire.sent[-1] == {"type": "lifespan.shutdown.complete"}
    assert wherefrom.stats().errors == {"flush": 1}


async def test_without_a_sink_the_process_s_queue_is_written(tmp_path: Path) -> None:
    """The queue that the settings assemble is flushed the same way."""
    target = tmp_path / "traces.jsonl"
    settings = wherefrom.Settings(store="none", export=f"jsonl:///{target}", flush_interval_ms=60_000)
    middleware = wherefrom.TraceMiddleware(FastAPI(), settings=settings)
    await serve(middleware)
    await serve(middleware, {"type": "lifespan", "state": {}}, STARTUP, SHUTDOWN)
    assert len(target.read_text().splitlines()) == 1
