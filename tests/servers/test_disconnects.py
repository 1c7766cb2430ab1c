"""Clients that leave, and servers that stop, under each of uvicorn's websocket protocols and hypercorn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .processes import PROMPT, Server, StoredTrace, message, running, start

UVICORN = [f"uvicorn --ws {ws}" for ws in ("websockets", "websockets-sansio", "wsproto")]


@pytest.fixture(scope="module", params=[*UVICORN, "hypercorn"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("leaving"), request.param, app="leaving:app", environ=PROMPT)
    with running(server):
        yield server


@pytest.fixture
def room() -> str:
    return uuid4().hex


def dial(server: Server, path: str, room: str) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}/{path}/{room}", additional_headers={"X-Request-ID": room})


def ended(trace: StoredTrace) -> tuple[str, str, Any]:
    found = trace.attributes
    return found["wherefrom.outcome"], trace.state, found.get("wherefrom.websocket.close_code")


def failing(trace: StoredTrace) -> list[str]:
    """The spans that are errors."""
    return [span["name"] for span in trace.spans if span["status_code"] == "ERROR"]


def is_hypercorn(server: Server) -> bool:
    return "hypercorn" in str(server.process.args)


@pytest.mark.parametrize("path", ["group", "listen", "finally", "send"])
async def test_a_client_that_closes(server: Server, room: str, path: str) -> None:
    """The client left, whatever the app makes of it, and by its code; hypercorn says 1006 for every code."""
    async with dial(server, path, room) as socket:
        await socket.close(4321, "bye")
    await server.get(f"/gone/{room}")
    trace = await server.trace(room)
    assert ended(trace) == ("client_closed", "OK", 1006 if is_hypercorn(server) else 4321)
    assert failing(trace) == []
    assert (trace.attributes.get("wherefrom.websocket.close_reason") == "bye") is not is_hypercorn(server)


@pytest.mark.parametrize("path", ["group", "listen", "finally", "send"])
async def test_a_client_that_vanishes(server: Server, room: str, path: str) -> None:
    """A connection that breaks is the client's leaving too; uvicorn's newer protocols say 1005 for it."""
    async with dial(server, path, room) as socket:
        socket.transport.abort()
    # When a later connection is answered, the server has read the end of the first.
    await server.get(f"/gone/none-{room}")
    await server.get(f"/gone/{room}")
    trace = await server.trace(room)
    assert ended(trace)[:2] == ("client_closed", "OK")
    assert ended(trace)[2] in {1005, 1006}
    assert failing(trace) == []


async def test_an_app_that_closes_first(server: Server, room: str) -> None:
    """Its code stands, and its own reader that is told so is no failure."""
    async with dial(server, "first", room) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4001
    trace = await server.trace(room)
    assert ended(trace) == ("completed", "OK", 4001)
    assert trace.attributes["wherefrom.websocket.close_reason"] == "enough"


@pytest.mark.parametrize("server_command", UVICORN)
async def test_a_server_that_stops(tmp_path: Path, server_command: str) -> None:
    """Its 1012 is no client's leaving: for an app that reads, for one that only sends, and in a group."""
    rooms = {path: f"{path}-{uuid4().hex}" for path in ("listen", "group", "ticker")}
    server = start(tmp_path, server_command, app="leaving:app", environ=PROMPT)
    with running(server):
        async with AsyncExitStack() as stack:
            sockets = {
                path: await stack.enter_async_context(dial(server, path, room))
                for path, room in rooms.items()
            }
            await sockets["ticker"].recv()
            server.process.terminate()
            for socket in sockets.values():
                with suppress(ConnectionClosed):
                    while True:
                        await socket.recv()
                assert socket.close_code == 1012
        traces = await server.traces(rooms.values())
    for path, room in rooms.items():
        assert ended(traces[room]) == ("cancelled", "ERROR", 1012), path


async def test_a_stream_that_the_client_leaves(server: Server, room: str) -> None:
    """The generator's spans are no errors, and no text has an address."""
    async with server.connection() as connection:
        connection.writer.write(message(f"/stream/{room}", {"X-Request-ID": room}))
        await connection.reader.readuntil(b"5\n")
    trace = await server.trace(room)
    assert ended(trace) == ("client_closed", "OK", None)
    assert {"numbers", "number"} <= {span["name"] for span in trace.spans}
    assert failing(trace) == []
    assert {span["status_message"] for span in trace.spans} == {""}
