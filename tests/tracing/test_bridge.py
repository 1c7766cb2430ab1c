"""Bridges: another tracer's part in a trace, and its failures kept from the app."""

from __future__ import annotations

from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink, Span
from wherefrom.tracing.bridge import Bridge, BridgeSession
from wherefrom.tracing.live import LiveSpan, LiveTrace

from ..asgi.raw import BODY, ok, serve, traced


class Noting(Bridge):
    """Notes when its session begins and ends, and fails where it is told to."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self.name, self.notes, self.fails = name, notes, fails

    def on_request(self, trace: LiveTrace, scope: Any) -> BridgeSession:
        if self.fails == "request":
            raise ZeroDivisionError
        assert wherefrom.context.trace is trace
        self.notes.append(f"{self.name} {scope['path']}")
        return NotingSession(self)


class NotingSession(BridgeSession):
    def __init__(self, bridge: Noting) -> None:
        self.bridge = bridge

    def _fail(self, place: str) -> None:
        if self.bridge.fails == place:
            raise ZeroDivisionError

    def on_span_start(self, span: LiveSpan) -> None:
        self.bridge.notes.append(f"{self.bridge.name} starts {span.name}")
        self._fail("start")

    def on_span_end(self, span: Span) -> None:
        self.bridge.notes.append(f"{self.bridge.name} has {span.name}")
        self._fail("end")

    def sync(self, trace: LiveTrace) -> None:
        self.bridge.notes.append(f"{self.bridge.name} syncs {trace.info.tags.get('n')}")
        self._fail("sync")

    def close(self, trace: LiveTrace, error: BaseException | None) -> None:
        assert wherefrom.context.trace is trace
        if error is not None:
            self.bridge.notes.append(f"{self.bridge.name} saw {type(error).__name__}")
        self.bridge.notes.append(f"{self.bridge.name} ends")
        self._fail("close")


async def test_they_are_around_the_app(sink: MemorySink) -> None:
    """Each bridge's session begins and ends in the request's context, in order and in reverse order."""
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        notes.append("app")
        await ok(scope, receive, send)

    await serve(traced(app, sink, bridges=[Noting("a", notes), Noting("b", notes)]))
    around = [note for note in notes if "syncs" not in note and "has" not in note]
    assert around == ["a /", "b /", "app", "b ends", "a ends"]
    assert len(sink.traces) == 1


async def test_a_session_follows_its_trace(sink: MemorySink) -> None:
    """It has each span at its start and its end, the root last, and is synced around what the app sets."""
    notes: list[str] = []
    late: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with wherefrom.start_span("step"):
            wherefrom.update_current_trace(tags={"n": "1"})
        late.append(wherefrom.start_span("late").span)
        await ok(scope, receive, send)

    await serve(traced(app, sink, bridges=[Noting("a", notes)]))
    late[0].end()
    assert notes == [
        "a /",
        "a starts step",
        "a syncs None",
        "a syncs 1",
        "a starts late",
        "a syncs 1",  # before the last byte
        "a ends",
        "a syncs 1",
        "a has step",
        "a has late",
        "a has GET",
        "a has late",
    ]


@pytest.mark.parametrize("fails", ["request", "start", "end", "sync", "close"])
async def test_one_that_fails_is_counted(sink: MemorySink, fails: str) -> None:
    """Neither the client, the trace nor the other bridges notice another tracer's bug."""
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with wherefrom.start_span("step"):
            await ok(scope, receive, send)

    wire = await serve(traced(app, sink, bridges=[Noting("a", notes, fails), Noting("b", notes)]))
    assert wire.sent[1] == BODY
    assert "b ends" in notes
    assert "b has step" in notes
    assert len(sink.traces) == 1
    assert list(wherefrom.stats().errors) == ["Noting" if fails == "request" else "NotingSession"]


async def test_what_the_app_raises_goes_through(sink: MemorySink) -> None:
    """A bridge sees the app's exception and cannot replace it with its own."""
    error = RuntimeError("boom")
    notes: list[str] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    with pytest.raises(RuntimeError) as caught:
        await serve(traced(app, sink, bridges=[Noting("a", notes, "close"), Noting("b", notes)]))
    assert caught.value is error
    assert notes[:6] == ["a /", "b /", "b saw RuntimeError", "b ends", "a saw RuntimeError", "a ends"]
    assert len(sink.traces) == 1


async def test_one_may_take_no_part(sink: MemorySink) -> None:
    """The bare protocol is a bridge that does nothing; a session overrides what its tracer needs."""

    class Silent(Bridge):
        """Nothing."""

    class Empty(Bridge):
        def on_request(self, trace: LiveTrace, scope: Any) -> BridgeSession | None:
            class Session(BridgeSession):
                """Nothing."""

            return Session()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with wherefrom.start_span("step") as step:
            assert wherefrom.current_span() is step
            wherefrom.update_current_trace(tags={"n": "1"})
        await ok(scope, receive, send)

    await serve(traced(app, sink, bridges=[Silent(), Empty()]))
    assert [span.name for span in sink.traces[0].data.spans] == ["GET", "step"]
    assert wherefrom.stats().errors == {}
