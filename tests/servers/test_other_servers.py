"""hypercorn, granian and gunicorn's own ASGI worker: the traces read as under uvicorn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .processes import PROMPT, Server, message, running, start


@pytest.fixture(
    scope="module", params=["hypercorn", "granian", "gunicorn -k asgi --asgi-disconnect-grace-period 1"]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param.split()[0])
    server = start(folder, request.param, environ=PROMPT)
    with running(server):
        yield server


@pytest.fixture
def name(server: Server) -> str:
    return str(server.process.args[2])  # type: ignore[index] # a list: python -m name


@pytest.fixture
def request_id() -> str:
    return uuid4().hex


async def test_a_request(server: Server, request_id: str) -> None:
    """A request is a trace with its session and user, and the id comes back once."""
    headers = {"X-Request-ID": request_id, "X-Session-ID": "s-1", "X-User-ID": "ada"}
    answer = await server.get(f"/items/{request_id}", headers)
    trace = await server.trace(request_id)
    assert (answer.status, answer.request_ids) == (200, [request_id])
    assert answer.json()["trace"] == trace.trace_id
    assert (trace.name, trace.state) == ("GET /items/{item}", "OK")
    assert (trace.session, trace.user) == ("s-1", "ada")
    assert trace.children == ["work"]
    assert trace.attributes["client.address"] == "127.0.0.1"
    assert trace.attributes["server.address"] == "localhost"


async def test_a_stream(server: Server, request_id: str) -> None:
    """A stream is one trace, with the spans of its generator and times that are its own."""
    await server.get("/stream/2", {"X-Request-ID": f"{request_id}-first"})
    await server.trace(f"{request_id}-first")  # what a process imports for its first trace is there now
    answer = await server.get("/stream/200", {"X-Request-ID": request_id})
    trace = await server.trace(request_id)
    assert trace.children == ["model", "model"]
    slept = json.loads(answer.body.splitlines()[-1])
    flow = trace.attributes
    assert (flow["wherefrom.response.chunks"], flow["wherefrom.outcome"]) == (200, "completed")
    assert flow["http.response.body.size"] == len(answer.body)
    # A busy machine adds to them what it likes: they are of this stream, and no sum of its pauses.
    for told, own in (("time_to_first_byte_ms", "first_ms"), ("response.longest_gap_ms", "longest_ms")):
        assert 0 <= flow[f"wherefrom.{told}"] - slept[own] < 1000


async def test_a_failing_request(server: Server, request_id: str) -> None:
    """A handler that raises: the client's 500 carries the id, the trace the exception."""
    answer = await server.get(f"/fail/{request_id}", {"X-Request-ID": request_id})
    assert (answer.status, answer.request_ids) == (500, [request_id])
    trace = await server.trace(request_id)
    assert (trace.name, trace.state) == ("GET /fail/{item}", "ERROR")
    assert trace.attributes["wherefrom.outcome"] == "failed"
    (event,) = json.loads(trace.root["events"])
    assert event["attributes"]["exception.message"] == f"{request_id} failed"


async def test_a_client_that_leaves(server: Server, name: str, request_id: str) -> None:
    """A client that disconnects in the middle of a stream is no error of the app, where the app is told.

    gunicorn's worker tells only an app that asks, lets it go on for a while and then cancels it.
    """
    async with server.connection() as connection:
        connection.writer.write(message("/endless", {"X-Request-ID": request_id}))
        await connection.reader.readuntil(b"\r\n5\n")
    trace = await server.trace(request_id)
    expected = ("cancelled", "ERROR") if name == "gunicorn" else ("client_closed", "OK")
    assert (trace.attributes["wherefrom.outcome"], trace.state) == expected


async def test_a_websocket(server: Server, name: str, request_id: str) -> None:
    """A connection is one trace, with the messages of both ways and the code that the server tells.

    hypercorn says 1006 whatever the client closed with; granian does not send the headers of an accept.
    """
    address = f"ws://127.0.0.1:{server.port}/ws/echo/7"
    async with connect(address, additional_headers={"X-Request-ID": request_id}) as socket:
        assert socket.response is not None
        echoed = [] if name == "granian" else [request_id]
        assert socket.response.headers.get_all("x-request-id") == echoed
        greeting = json.loads(await socket.recv())
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.close(4321, "bye")
    trace = await server.trace(request_id)
    assert greeting["trace"] == trace.trace_id
    assert (trace.name, trace.state) == ("WS /ws/echo/{room}", "OK")
    assert trace.children == ["reply"]
    found = trace.attributes
    assert (found["wherefrom.websocket.messages_received"], found["wherefrom.websocket.messages_sent"]) == (
        1,
        2,
    )
    expected = (1006, "client_closed") if name == "hypercorn" else (4321, "completed")
    assert (found["wherefrom.websocket.close_code"], found["wherefrom.outcome"]) == expected


async def test_a_websocket_that_is_refused(server: Server, request_id: str) -> None:
    """A refused handshake is a trace too, and no error."""
    address = f"ws://127.0.0.1:{server.port}/ws/refuse"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, additional_headers={"X-Request-ID": request_id})
    assert refused.value.response.status_code == 403
    trace = await server.trace(request_id)
    assert (trace.name, trace.state) == ("WS /ws/refuse", "OK")
    assert not trace.attributes["wherefrom.websocket.accepted"]


async def test_a_websocket_that_fails(server: Server, request_id: str) -> None:
    """What a handler raises after accept is recorded."""
    address = f"ws://127.0.0.1:{server.port}/ws/fail"
    async with connect(address, additional_headers={"X-Request-ID": request_id}) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    trace = await server.trace(request_id)
    assert (trace.name, trace.state) == ("WS /ws/fail", "ERROR")
    assert trace.attributes["wherefrom.outcome"] == "failed"
