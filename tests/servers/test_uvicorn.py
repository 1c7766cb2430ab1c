"""uvicorn, each loop with each parser: ids, contexts, hostile bytes, streams, websockets."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .processes import PROMPT, Answer, Server, StoredTrace, message, running, start, until

UVLOOP = pytest.param(
    "uvloop", marks=pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="no uvloop")
)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["asyncio", UVLOOP])
def pair(
    request: pytest.FixtureRequest, http: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """The traced app and the bare one, each in a process of its own."""
    folder = tmp_path_factory.mktemp(f"uvicorn-{request.param}-{http}")
    options = f"uvicorn --loop {request.param} --http {http}"
    traced = start(folder / "traced", options, environ=PROMPT)
    bare = start(folder / "bare", options, app="app:bare")
    with running(traced, bare):
        yield traced, bare


@pytest.fixture
def server(pair: tuple[Server, Server]) -> Server:
    return pair[0]


def fresh(count: int) -> list[str]:
    return [uuid4().hex for _ in range(count)]


def is_root_of_its_own(trace: StoredTrace, answer: Answer) -> None:
    """One root without a parent, the handler's span below it, and the handler saw this trace all along."""
    assert len(trace.spans) == 2
    assert trace.children == ["work"]
    (work,) = (span for span in trace.spans if span["name"] == "work")
    assert json.loads(work["attributes"])["item"] == trace.request
    found = answer.json()
    assert found["trace"] == found["after"] == trace.trace_id
    assert found["request"] == trace.request
    assert answer.request_ids == [trace.request]
    assert trace.attributes["url.path"].endswith(trace.request)


async def test_concurrent_requests_each_have_their_own(server: Server) -> None:
    """300 concurrent requests leave 300 traces, each with its own id, session, user and echoed request id."""
    ids = fresh(300)

    async def one(request: str) -> Answer:
        headers = {"X-Request-ID": request, "X-Session-ID": f"s-{request}", "X-User-ID": f"u-{request}"}
        return await server.get(f"/items/{request}?pause=0.1", headers)

    answers = dict(zip(ids, await asyncio.gather(*(one(request) for request in ids)), strict=True))
    traces = await server.traces(ids)
    assert len(traces) == len({trace.trace_id for trace in traces.values()}) == 300
    for request, trace in traces.items():
        assert (trace.session, trace.user) == (f"s-{request}", f"u-{request}")
        found = answers[request].json()
        assert (found["session"], found["user"]) == (trace.session, trace.user)
        assert (trace.state, trace.name) == ("OK", "GET /items/{item}")
        is_root_of_its_own(trace, answers[request])


async def test_a_connection_that_is_kept_alive_keeps_requests_apart(server: Server) -> None:
    """A 300 kB POST, then two GETs on its connection, where uvicorn leaks context: three traces."""
    ids = fresh(3)
    async with server.connection() as connection:
        answers = [
            await connection.request(
                f"/upload/{ids[0]}", {"X-Request-ID": ids[0]}, method="POST", body=b"x" * 300_000
            )
        ]
        answers += [
            await connection.request(f"/items/{request}", {"X-Request-ID": request}) for request in ids[1:]
        ]
    assert answers[0].json()["size"] == 300_000
    traces = await server.traces(ids)
    assert len({trace.trace_id for trace in traces.values()}) == 3
    for request, answer in zip(ids, answers, strict=True):
        is_root_of_its_own(traces[request], answer)


async def test_pipelined_requests_are_kept_apart(server: Server) -> None:
    """Four GETs sent in one go over one connection are four traces, each a root of its own."""
    ids = fresh(4)
    async with server.connection() as connection:
        wire = (message(f"/items/{request}?pause=0.01", {"X-Request-ID": request}) for request in ids)
        connection.writer.write(b"".join(wire))
        answers = [await connection.answer() for _ in ids]
    traces = await server.traces(ids)
    assert len({trace.trace_id for trace in traces.values()}) == 4
    for request, answer in zip(ids, answers, strict=True):
        is_root_of_its_own(traces[request], answer)


@pytest.mark.parametrize(
    "header",
    [
        {"User-Agent": b"\xff\\"},
        {"traceparent": b"\xff\\"},
        {"X-Request-ID": b"\x1b[31m"},
        {"X-Request-ID": b"\x9b31m"},
        {"X-Request-ID": b"i" * 5000},
        {"baggage": b"%%%=\xff"},
    ],
    ids=["agent", "traceparent", "escape", "c1", "long", "baggage"],
)
async def test_hostile_headers_change_no_answer(
    pair: tuple[Server, Server], header: dict[str, bytes]
) -> None:
    """Whatever bytes a client sends, the status and the body are those of the app without Wherefrom."""
    session = uuid4().hex
    server, bare = pair
    got = await server.get("/headers", header | {"X-Session-ID": session.encode()})
    expected = await bare.get("/headers", header | {"X-Session-ID": session.encode()})
    assert (got.status, got.body) == (expected.status, expected.body)
    if got.status == 200:  # h11 and httptools answer some bytes themselves, with a 400
        (request,) = got.request_ids
        assert request.isascii()
        assert len(request) == 36
        assert (await server.trace(request)).session == session
    ours = {"x-request-id", "date"}
    assert [pair for pair in got.headers if pair[0] not in ours] == [
        pair for pair in expected.headers if pair[0] not in ours
    ]


async def stream_round(server: Server, count: int) -> list[tuple[StoredTrace, Answer]]:
    ids = fresh(count)
    answers = await asyncio.gather(*(server.get("/stream/500", {"X-Request-ID": request}) for request in ids))
    traces = await server.traces(ids)
    return [(traces[request], answer) for request, answer in zip(ids, answers, strict=True)]


async def test_streams(server: Server) -> None:
    """Ten streams of 500 chunks: ten traces of six spans, times right on a busy machine, and flat memory."""
    for _ in range(2):
        await stream_round(server, 10)
    before = server.memory_kb()
    for _ in range(3):
        found = await stream_round(server, 10)
        assert len({trace.trace_id for trace, _ in found}) == 10
        for trace, answer in found:
            assert trace.children == ["model"] * 5
            assert len(trace.spans) == 6
            slept = json.loads(answer.body.splitlines()[-1])
            flow = trace.attributes
            assert flow["wherefrom.response.chunks"] == 500
            assert flow["http.response.body.size"] == len(answer.body)
            assert flow["wherefrom.outcome"] == "completed"
            assert 0 <= flow["wherefrom.time_to_first_byte_ms"] - slept["first_ms"] < 1000
            assert 0 <= flow["wherefrom.response.longest_gap_ms"] - slept["longest_ms"] < 1000
            assert (
                trace.duration_ms
                > flow["wherefrom.time_to_first_byte_ms"] + flow["wherefrom.response.longest_gap_ms"]
            )
    assert server.memory_kb() - before < 4096


async def test_responses_in_flight_together_have_their_own_size(server: Server) -> None:
    """Responses of 10 and 100,000 bytes, in flight together, are recorded as 10 and 100,000."""
    party = uuid4().hex
    sizes = dict(zip(fresh(2), (10, 100_000), strict=True))
    answers = await asyncio.gather(
        *(
            server.get(f"/sized/{size}?party={party}", {"X-Request-ID": request})
            for request, size in sizes.items()
        )
    )
    assert [len(answer.body) for answer in answers] == [10, 100_000]
    traces = await server.traces(sizes)
    for request, size in sizes.items():
        assert traces[request].attributes["http.response.body.size"] == size


async def test_a_client_that_leaves(server: Server) -> None:
    """A client that disconnects in the middle of a stream is no error of the app."""
    (request,) = fresh(1)
    async with server.connection() as connection:
        connection.writer.write(message("/endless", {"X-Request-ID": request}))
        await connection.reader.readuntil(b"\r\n5\n")
    trace = await server.trace(request)
    assert trace.attributes["wherefrom.outcome"] == "client_closed"
    assert trace.state == "OK"
    assert trace.attributes["http.response.status_code"] == 200
    assert 5 <= trace.attributes["wherefrom.response.chunks"] < 3000


async def test_a_failing_handler(server: Server) -> None:
    """The framework's 500 for a failing handler carries the request id, once; the trace says why."""
    (request,) = fresh(1)
    answer = await server.get(f"/fail/{request}", {"X-Request-ID": request})
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert answer.request_ids == [request]
    trace = await server.trace(request)
    assert (trace.state, trace.name) == ("ERROR", "GET /fail/{item}")
    assert trace.attributes["wherefrom.outcome"] == "failed"
    (event,) = json.loads(trace.root["events"])
    assert event["attributes"]["exception.type"] == "RuntimeError"
    assert event["attributes"]["exception.message"] == f"{request} failed"


async def test_background_tasks(server: Server) -> None:
    """A background task's span is in the request's trace, its 300 ms are not in the request's duration."""
    (request,) = fresh(1)
    await server.get("/background", {"X-Request-ID": request})
    trace = await server.trace(request)
    assert trace.children == ["later"]
    (later,) = (span for span in trace.spans if span["name"] == "later")
    assert later["end_ns"] - later["start_ns"] > 290e6
    assert trace.root["end_ns"] <= later["start_ns"]
    assert trace.duration_ms < (later["end_ns"] - trace.root["start_ns"]) / 1e6 - 290


def dial(server: Server, path: str, request: str) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers={"X-Request-ID": request})


async def test_a_websocket(server: Server) -> None:
    """A connection is one trace, with the messages and bytes of both ways and the code that closed it."""
    (request,) = fresh(1)
    async with dial(server, "/ws/echo/7", request) as socket:
        assert socket.response is not None
        assert socket.response.headers.get_all("x-request-id") == [request]
        greeting = await socket.recv()
        for text in ("one", "zwölf"):
            await socket.send(text)
            assert await socket.recv() == text
        await socket.close(4321, "bye")
    trace = await server.trace(request)
    assert json.loads(greeting)["trace"] == trace.trace_id
    assert (trace.name, trace.state) == ("WS /ws/echo/{room}", "OK")
    assert trace.children == ["reply", "reply"]
    assert figures(trace) == {
        "accepted": True,
        "messages_received": 2,
        "messages_sent": 3,
        "bytes_received": 9,
        "bytes_sent": 9 + len(greeting),
        "close_code": 4321,
        "close_reason": "bye",
        "outcome": "completed",
        "status": 101,
    }


async def test_a_websocket_that_is_refused(server: Server) -> None:
    """A refused handshake is a trace too: 403, not accepted, no error."""
    (request,) = fresh(1)
    with pytest.raises(InvalidStatus) as refused:
        await dial(server, "/ws/refuse", request)
    assert refused.value.response.status_code == 403
    trace = await server.trace(request)
    assert (trace.name, trace.state) == ("WS /ws/refuse", "OK")
    found = figures(trace)
    assert (found["accepted"], found["status"], found["outcome"]) == (False, 403, "completed")


async def test_a_websocket_that_the_app_closes(server: Server) -> None:
    """The code and the reason with which the app closes are recorded."""
    (request,) = fresh(1)
    async with dial(server, "/ws/close", request) as socket:
        assert await closing_code(socket) == 4001
    trace = await server.trace(request)
    found = figures(trace)
    assert (found["close_code"], found["close_reason"], found["outcome"]) == (4001, "enough", "completed")
    assert trace.state == "OK"


async def test_a_websocket_that_fails(pair: tuple[Server, Server]) -> None:
    """What a handler raises after accept is recorded; the client sees the code of the bare app."""
    (request,) = fresh(1)
    server, bare = pair
    async with dial(server, "/ws/fail", request) as socket, dial(bare, "/ws/fail", request) as other:
        assert await closing_code(socket) == await closing_code(other)
    trace = await server.trace(request)
    assert (trace.name, trace.state) == ("WS /ws/fail", "ERROR")
    assert figures(trace)["outcome"] == "failed"
    (event,) = json.loads(trace.root["events"])
    assert event["attributes"]["exception.message"] == "the socket's handler failed"


async def closing_code(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    return socket.close_code


def figures(trace: StoredTrace) -> dict[str, Any]:
    """What the root span says of a websocket."""
    attributes = trace.attributes
    found = {
        key.removeprefix("wherefrom.websocket."): value
        for key, value in attributes.items()
        if key.startswith("wherefrom.websocket.")
    }
    return found | {
        "outcome": attributes["wherefrom.outcome"],
        "status": attributes.get("http.response.status_code"),
    }


@pytest.mark.parametrize(("form", "carries"), [("fastapi_app:outside", True), ("fastapi_app:inside", False)])
async def test_which_form_sees_the_frameworks_500(tmp_path: Path, form: str, carries: bool) -> None:
    """Wrapped from outside the 500 carries the request id, as FastAPI's middleware not. Both are traced."""
    (request,) = fresh(1)
    server = start(tmp_path, "uvicorn", app=form)
    with running(server):
        answer = await server.get(f"/fail/{request}", {"X-Request-ID": request})
        assert answer.status == 500
        assert answer.request_ids == [request] * carries
        trace = await server.trace(request)
        assert (trace.state, trace.name) == ("ERROR", "GET /fail/{item}")
        assert trace.attributes["http.response.status_code"] == 500
        await until(lambda: f"{request} failed" in server.output(), "the traceback is logged", server)


async def test_a_websocket_whose_client_vanishes(tmp_path: Path) -> None:
    """A connection lost without a closing handshake is ``client_closed``, where the server says 1006.

    uvicorn's default protocol says 1005 for it, as for a client that closed without a code.
    """
    (request,) = fresh(1)
    server = start(tmp_path, "uvicorn --ws websockets")
    with running(server):
        async with dial(server, "/ws/echo/7", request) as socket:
            await socket.recv()
            socket.transport.abort()
        found = figures(await server.trace(request))
        assert (found["outcome"], found["close_code"]) == ("client_closed", 1006)
