"""``mlflow.openai.autolog`` in our requests: the real client of OpenAI, asking a model of the test's own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import wherefrom

from ..integrations.conftest import outside  # noqa: F401 - a fixture
from .server import MLflowServer
from .tracking import Tracking, get, named, tracking, tree_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

WORDS = ("a ", "model's ", "answer")
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
TOKENS = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}


class Model(BaseHTTPRequestHandler):
    """Says the same to everyone, at once or word by word."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        common = {"id": "c-1", "created": 1_700_000_000, "model": asked["model"]}
        self.send_response(200)
        if asked.get("stream"):
            self.send_header("content-type", "text/event-stream")
            body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in _chunks(common))
            body += b"data: [DONE]\n\n"
        else:
            self.send_header("content-type", "application/json")
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps(
                common | {"object": "chat.completion", "choices": [choice], "usage": USAGE}
            ).encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def _chunks(common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    common = common | {"object": "chat.completion.chunk"}
    for word in WORDS:
        delta = {"role": "assistant", "content": word}
        yield common | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield common | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield common | {"choices": [], "usage": USAGE}


@pytest.fixture
def mlflow_(mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    import mlflow.openai

    mlflow.openai.autolog()
    with tracking(mlflow_server, monkeypatch) as found:
        yield found
    mlflow.openai.autolog(disable=True)


@pytest.fixture
async def client() -> AsyncIterator[AsyncOpenAI]:
    from openai import AsyncOpenAI

    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def ask(client: AsyncOpenAI, question: str, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="small", messages=messages, **options)


async def test_each_request_has_its_completion(mlflow_: Tracking, client: AsyncOpenAI) -> None:
    """Many at once: one trace each on either side, the completion below its request, with its tokens."""
    app = FastAPI()

    @app.get("/chat/{question}")
    async def chat(question: str) -> str:
        answer = await ask(client, question)
        return str(answer.choices[0].message.content)

    traced = mlflow_.traced(app)
    questions = [f"question-{number}" for number in range(10)]
    answers = await asyncio.gather(*(get(traced, f"/chat/{question}") for question in questions))
    assert {answer.json() for answer in answers} == {"a model's answer"}
    ours = {trace.info.trace_id: trace for trace in mlflow_.sink.traces}
    theirs = {trace.info.trace_id: trace for trace in mlflow_.all_of_theirs()}
    assert ours.keys() == theirs.keys()
    assert len(ours) == 10
    for trace_id, trace in ours.items():
        other = theirs[trace_id]
        assert (
            tree_of(trace)
            == tree_of(other)
            == {"GET /chat/{question}": None, "AsyncCompletions": "GET /chat/{question}"}
        )
        asked = trace.data.spans[0].attributes["url.path"].removeprefix("/chat/")
        for found in (named(trace, "AsyncCompletions"), named(other, "AsyncCompletions")):
            assert found.span_type == "CHAT_MODEL"
            assert found.inputs["messages"] == [{"role": "user", "content": asked}]
            assert found.outputs["choices"][0]["message"]["content"] == "a model's answer"
        for info in (trace.info, other.info):
            assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"]) == TOKENS
    assert wherefrom.stats().errors == {}


async def test_a_streamed_completion(mlflow_: Tracking, client: AsyncOpenAI) -> None:
    """Its span ends when the client has read it, and is whole."""
    app = FastAPI()

    @app.get("/chat")
    async def chat() -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            async for chunk in await ask(client, "q", stream=True, stream_options={"include_usage": True}):
                if chunk.choices:
                    yield chunk.choices[0].delta.content or ""

        return StreamingResponse(words())

    response = await get(mlflow_.traced(app), "/chat")
    assert response.text == "a model's answer"
    assert (
        tree_of(mlflow_.ours)
        == tree_of(mlflow_.theirs)
        == {"GET /chat": None, "AsyncCompletions": "GET /chat"}
    )
    for trace in (mlflow_.ours, mlflow_.theirs):
        span = named(trace, "AsyncCompletions")
        assert span.end_time_ns is not None
        assert "a model's answer" in json.dumps(span.outputs)
        assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"]) == TOKENS
    assert wherefrom.stats().errors == {}
