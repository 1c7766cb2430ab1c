"""What is recorded of conversations: previews, tokens, cost, models and time to the first token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware, keys
from wherefrom.model import Trace

USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "Is key sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD fine?"},
]


def answered(content: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": USAGE}


def chunk(content: str | None, **more: Any) -> dict[str, Any]:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": choices} | more


CHUNKS = [chunk("Hel"), chunk("lo."), chunk(None, usage=USAGE)]


def service(sink: MemorySink, **settings: Any) -> FastAPI:
    """An app that answers as OpenAI does, and one that asks a model in a span."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        asked = await request.json()
        if not asked.get("stream"):
            return JSONResponse(answered("Hello."))

        async def events() -> AsyncIterator[str]:
            for one in CHUNKS:
                yield f"data: {json.dumps(one)}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/ask")
    async def ask() -> Any:
        return call_model(TURNS)

    app.add_middleware(TraceMiddleware, sink=sink, settings=Settings(**settings))
    return app


@wherefrom.trace(name="model", span_type="LLM")
def call_model(messages: list[dict[str, str]]) -> Any:
    return answered("From the model.")


async def post(app: FastAPI, path: str, **body: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        (await client.post(path, json=body)).raise_for_status()


@pytest.mark.parametrize("stream", [False, True])
async def test_captured_bodies(sink: MemorySink, stream: bool) -> None:
    """Previews are the last question and the answer, also of a stream; secrets in them are masked."""
    app = service(sink, capture_bodies=True)
    await post(app, "/v1/chat/completions", model="gpt-4o", messages=TURNS, stream=stream)
    (trace,) = sink.traces
    info = trace.info
    assert info.request_preview is not None
    assert info.request_preview.startswith("Is key ")
    assert "abcdefghijklmnop" not in info.request_preview
    assert info.response_preview == "Hello."
    assert json.loads(info.trace_metadata[keys.TOKEN_USAGE])["total_tokens"] == 1_100
    assert info.trace_metadata[keys.MODELS] == "gpt-4o"
    cost = json.loads(info.trace_metadata[keys.COST])
    assert cost == {"input_cost": 0.0025, "output_cost": 0.001, "total_cost": 0.0035}
    assert "Be brief." in info.trace_metadata[keys.TRACE_INPUTS], "recorded as it was"


async def test_bodies_that_were_cut(sink: MemorySink) -> None:
    """The answer goes as far as it was recorded; a question that may not be the last is no preview."""
    app = service(sink, capture_bodies=True, max_body_bytes=150)
    await post(app, "/v1/chat/completions", messages=TURNS, stream=True)
    (trace,) = sink.traces
    assert trace.info.response_preview == "Hel"
    assert trace.info.request_preview is not None
    assert trace.info.request_preview.startswith('"{\\"messages\\"')


@pytest.mark.parametrize("place", ["read_conversation", "sum_calls", "spell_call"])
async def test_a_preview_costs_no_trace(
    sink: MemorySink, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """If a conversation cannot be read, that is counted, and the previews are the recorded values."""

    def fail(*_: Any) -> Any:
        raise KeyError("unforeseen")

    module = "wherefrom.messages.content" if place == "spell_call" else "wherefrom.tracing.live"
    monkeypatch.setattr(f"{module}.{place}", fail)
    before = wherefrom.stats().errors.get("conversation", 0)
    app = FastAPI()
    app.add_middleware(TraceMiddleware, sink=sink, settings=Settings(capture_bodies=True))

    @app.post("/")
    async def call_a_tool() -> Any:
        return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}

    await post(app, "/", messages=TURNS)
    (trace,) = sink.traces
    assert trace.info.response_preview is not None
    assert "tool_calls" in trace.info.response_preview
    assert wherefrom.stats().errors["conversation"] == before + 1


async def test_without_bodies_the_model_call_is_shown(sink: MemorySink) -> None:
    """A request that recorded nothing of its own has the previews of its last outermost model call."""
    await post(service(sink), "/ask")
    (trace,) = sink.traces
    assert trace.info.response_preview == "From the model."
    assert trace.info.trace_metadata[keys.MODELS] == "gpt-4o"
    assert keys.TRACE_INPUTS not in trace.info.trace_metadata


async def test_previews_of_the_app_stay(sink: MemorySink) -> None:
    """What the app set is not replaced."""
    app = service(sink, capture_bodies=True)

    @app.post("/own")
    async def own() -> Any:
        wherefrom.update_current_trace(request_preview="asked", metadata={keys.MODELS: "mine"})
        return answered("Hello.")

    await post(app, "/own", messages=TURNS)
    (trace,) = sink.traces
    assert (trace.info.request_preview, trace.info.response_preview) == ("asked", "Hello.")
    assert trace.info.trace_metadata[keys.MODELS] == "mine"


def recorded(sink: MemorySink, function: Any, *given: Any) -> Trace:
    """The trace of a decorated function in an app whose middleware writes to the sink."""
    app = FastAPI()

    @app.get("/")
    def run() -> None:
        function(*given)

    app.add_middleware(TraceMiddleware, sink=sink)
    from fastapi.testclient import TestClient

    TestClient(app).get("/")
    (trace,) = sink.traces
    return trace


def test_a_stream_of_a_model_call(sink: MemorySink) -> None:
    """Chunks that a function yields are one answer; the first one gives the time to the first token."""

    @wherefrom.trace(span_type="CHAT_MODEL")
    def stream(messages: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        yield from CHUNKS

    trace = recorded(sink, lambda: list(stream(TURNS)))
    assert trace.info.response_preview == "Hello."
    assert json.loads(trace.info.trace_metadata[keys.TOKEN_USAGE])["input_tokens"] == 1_000
    assert float(trace.info.trace_metadata[keys.FIRST_TOKEN]) >= 0
