"""Responses in pieces: when the root span ends, and how the pieces flowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import wherefrom
from wherefrom import MemorySink, current_trace, start_span

from .raw import START, client, http_scope, only, root_of, serve, traced

CHUNK: dict[str, Any] = {"type": "http.response.body", "body": b"12345", "more_body": True}
END: dict[str, Any] = {"type": "http.response.body", "body": b"", "more_body": False}

TOLERANCE_MS = 10


async def test_the_flow_is_on_the_root_span(sink: MemorySink) -> None:
    """Time to first byte, chunks and the longest gap are attributes: no span and no event a chunk."""

    moments: list[float] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        moments.append(time.perf_counter() * 1000)
        await send(START)
        for pause in (0.03, 0.06, 0.01):
            await asyncio.sleep(pause)
            moments.append(time.perf_counter() * 1000)
            await send(CHUNK)
        await send(END)

    await serve(traced(app, sink))
    began, first, *others = moments
    longest = max(after - before for before, after in pairwise([first, *others]))
    root = root_of(sink)
    figures = root.attributes
    assert figures["http.response.body.size"] == 15
    assert figures["wherefrom.response.chunks"] == 3
    assert figures["wherefrom.time_to_first_byte_ms"] == pytest.approx(first - began, abs=TOLERANCE_MS)
    assert figures["wherefrom.response.longest_gap_ms"] == pytest.approx(longest, abs=TOLERANCE_MS)
    assert only(sink).data.spans == [root]
    assert root.events == []


async def test_the_gap_before_the_end_counts(sink: MemorySink) -> None:
    """A stream that hangs before it closes has hung."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(CHUNK)
        await asyncio.sleep(0.03)
        await send(END)

    await serve(traced(app, sink))
    assert root_of(sink).attributes["wherefrom.response.longest_gap_ms"] >= 29


async def test_empty_chunks_are_no_bytes(sink: MemorySink) -> None:
    """An empty message is no first byte and no chunk."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send({**CHUNK, "body": b""})
        await asyncio.sleep(0.02)
        await send(CHUNK)
        await send(END)

    await serve(traced(app, sink))
    assert root_of(sink).attributes["wherefrom.response.chunks"] == 1
    assert root_of(sink).attributes["wherefrom.time_to_first_byte_ms"] >= 19


async def test_a_response_in_one_piece_is_no_stream(sink: MemorySink) -> None:
    """A plain response has a size and no figures of a stream."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send({**END, "body": b"123"})

    await serve(traced(app, sink))
    assert root_of(sink).attributes["http.response.body.size"] == 3
    assert not [key for key in root_of(sink).attributes if key.startswith("wherefrom.response")]


async def ends_with_the_app(app: Any, sink: MemorySink) -> bool:
    """Whether the root ended when ``app`` was done: what goes on after its last byte does not count."""
    done: list[int] = []

    async def lingering(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        trace = current_trace()
        assert trace is not None
        done.append(trace.now())

    await serve(traced(lingering, sink))
    root = root_of(sink)
    assert root.attributes["wherefrom.outcome"] == "completed"
    return bool(root.end_time_ns < done[0])


ENDINGS = {
    "body": [END],
    "body without more_body": [{"type": "http.response.body"}],
    "pathsend": [{"type": "http.response.pathsend", "path": "/etc/hostname"}],
    "zerocopysend": [
        {"type": "http.response.zerocopysend", "file": 3, "count": 10, "more_body": True},
        {"type": "http.response.zerocopysend", "file": 3, "count": 10},
    ],
    "debug message": [{"type": "http.response.debug", "info": {}}, END],
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
async def test_the_root_ends_with_the_last_byte(sink: MemorySink, ending: list[Any]) -> None:
    """The last byte ends the root span, however it is sent; not the return of the app."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        for message in ending:
            await send(message)

    assert await ends_with_the_app(app, sink)


async def test_the_size_of_a_file_sent_by_the_server_is_not_known(sink: MemorySink) -> None:
    """``http.response.pathsend`` names a file: we did not see its bytes, so no size is claimed."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})

    await serve(traced(app, sink))
    assert "http.response.body.size" not in root_of(sink).attributes


async def test_the_root_ends_with_the_last_trailer(sink: MemorySink) -> None:
    """Where trailers were announced, the last of them is the end."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send(END)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        await asyncio.sleep(0.02)
        await send({"type": "http.response.trailers", "headers": []})

    assert await ends_with_the_app(app, sink)
    assert only(sink).info.execution_duration >= 19


async def test_announced_trailers_that_never_come_leave_the_response_open(sink: MemorySink) -> None:
    """An app that announces trailers and returns without has not sent all of its response."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send(END)

    await serve(traced(app, sink))
    assert root_of(sink).attributes["wherefrom.outcome"] == "failed"


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_spans_inside_a_generator_belong_to_the_request(sink: MemorySink, kind: str) -> None:
    """One request is one trace, whatever its generator calls and wherever it runs."""
    app = FastAPI()

    async def words() -> AsyncIterator[str]:
        for n in range(3):
            with start_span(f"call {n}"):
                await asyncio.sleep(0)
            yield f"{wherefrom.context.trace_id} "

    def threaded_words() -> Iterator[str]:
        for n in range(3):
            with start_span(f"call {n}"):
                time.sleep(0.001)
            yield f"{wherefrom.context.trace_id} "

    @app.get("/")
    async def read() -> StreamingResponse:
        return StreamingResponse(words() if kind == "async" else threaded_words())

    async with client(traced(app, sink)) as http:
        response = await http.get("/")
    trace = only(sink)
    assert response.text.split() == [trace.info.trace_id] * 3
    assert [span.name for span in trace.data.spans] == ["GET /", "call 0", "call 1", "call 2"]
    assert {span.parent_id for span in trace.data.spans[1:]} == {trace.root.span_id}
    assert trace.root.attributes["wherefrom.response.chunks"] == 3


async def test_long_streams_leave_few_spans(sink: MemorySink) -> None:
    """Ten streams of 500 chunks at once: ten traces of one span."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(500):
            await send(CHUNK)
            await asyncio.sleep(0)
        await send(END)

    middleware = traced(app, sink)
    await asyncio.gather(*(serve(middleware, http_scope()) for _ in range(10)))
    assert [len(trace.data.spans) for trace in sink.traces] == [1] * 10
    assert {trace.root.attributes["wherefrom.response.chunks"] for trace in sink.traces if trace.root} == {
        500
    }
