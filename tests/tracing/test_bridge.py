"""Bridges: blocks around the app's part of a request, and their trouble kept from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink

from ..asgi.raw import BODY, ok, serve, traced


class Noting:
    """Notes when its block begins and ends, and fails where it is told to."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self.name, self.notes, self.fails = name, notes, fails

    def request(self, trace: Any, scope: Any) -> AbstractContextManager[object]:
        if self.fails == "request":
            raise ZeroDivisionError
        return self._block(trace, scope)

    @contextmanager
    def _block(self, trace: Any, scope: Any) -> Iterator[None]:
        assert wherefrom.context.trace is trace
        if self.fails == "enter":
            raise ZeroDivisionError
        self.notes.append(f"{self.name} {scope['path']}")
        try:
            yield
        except BaseException as error:
            self.notes.append(f"{self.name} saw {type(error).__name__}")
            raise
        finally:
            self.notes.append(f"{self.name} ends")
            if self.fails == "exit":
                raise ZeroDivisionError


async def test_they_are_around_the_app(sink: MemorySink) -> None:
    """Each bridge's block is entered in the request's context, in order, and left in the other."""
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        notes.append("app")
        await ok(scope, receive, send)

    await serve(traced(app, sink, bridges=[Noting("a", notes), Noting("b", notes)]))
    assert notes == ["a /", "b /", "app", "b ends", "a ends"]
    assert len(sink.traces) == 1


@pytest.mark.parametrize("fails", ["request", "enter", "exit"])
async def test_one_that_fails_is_counted(sink: MemorySink, fails: str) -> None:
    """Neither the client, the trace nor the other bridges notice another tracer's bug."""
    notes: list[str] = []
    wire = await serve(traced(ok, sink, bridges=[Noting("a", notes, fails), Noting("b", notes)]))
    assert wire.sent[1] == BODY
    assert "b ends" in notes
    assert len(sink.traces) == 1
    assert wherefrom.stats().errors == {"Noting": 1}


async def test_what_the_app_raises_goes_through(sink: MemorySink) -> None:
    """A bridge sees the app's exception and cannot swallow it, nor replace it with its own."""
    error = RuntimeError("boom")
    notes: list[str] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    class Swallowing:
        def request(self, _trace: Any, _scope: Any) -> AbstractContextManager[object]:
            @contextmanager
            def block() -> Iterator[None]:
                with suppress(RuntimeError):
                    yield

            return block()

    bridges = [Noting("a", notes, "exit"), Swallowing(), Noting("b", notes)]
    with pytest.raises(RuntimeError) as caught:
        await serve(traced(app, sink, bridges=bridges))
    assert caught.value is error
    assert notes == ["a /", "b /", "b saw RuntimeError", "b ends", "a saw RuntimeError", "a ends"]
    assert len(sink.traces) == 1
