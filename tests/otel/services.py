"""A server that answers as OpenAI and Anthropic do, whole and as streams of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..messages.clients import events
from ..mlflow.server import free_port

ANSWER = "Lisbon."
_CHAT: dict[str, Any] = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "gpt-4o-2024-08-06"}
_CHAT_USAGE = {
    "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 4},
}  # fmt: skip
_TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "lookup", "arguments": '{"city": "Lisbon", "password": "hunter2"}'},
}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "gpt-4o-2024-08-06",
    "status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
    "output": [{
        "id": "msg_2", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
    }],
    "usage": {
        "input_tokens": 20, "output_tokens": 10, "total_tokens": 30,
        "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 0},
    },
}  # fmt: skip
_MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5",
    "stop_sequence": None,
}  # fmt: skip
_MESSAGE_USAGE: dict[str, Any] = {
    "input_tokens": 16, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0,
}  # fmt: skip


async def _chat(request: Request) -> Response:
    asked = await request.json()
    if not asked.get("stream"):
        message = {"role": "assistant", "content": None, "tool_calls": [_TOOL_CALL]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return JSONResponse({**_CHAT, "object": "chat.completion", "choices": [choice], "usage": _CHAT_USAGE})

    def chunk(delta: Any, reason: str | None = None) -> Any:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {**_CHAT, "object": "chat.completion.chunk", "choices": choices}

    deltas: list[Any] = [{"role": "assistant", "content": ""}, {"content": "Lis"}, {"content": "bon."}]
    counts = {**chunk({}), "choices": [], "usage": _CHAT_USAGE}
    return _stream([*map(chunk, deltas), chunk({}, "stop"), counts, "[DONE]"])


async def _responses(request: Request) -> Response:
    asked = await request.json()
    if not asked.get("stream"):
        return JSONResponse(_RESPONSE)
    started = {**_RESPONSE, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_2", "output_index": 0, "content_index": 0, "logprobs": []}
    sent: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.output_text.delta", **place, "delta": ANSWER},
        {"type": "response.completed", "response": _RESPONSE},
    ]
    return _stream([{**event, "sequence_number": number} for number, event in enumerate(sent)])


async def _messages(request: Request) -> Response:
    asked = await request.json()
    if not asked.get("stream"):
        usage: Any = {**_MESSAGE_USAGE, "output_tokens": 10}
        content = [{"type": "text", "text": ANSWER}]
        return JSONResponse({**_MESSAGE, "content": content, "stop_reason": "end_turn", "usage": usage})
    usage = {**_MESSAGE_USAGE, "output_tokens": 1}
    begun = {**_MESSAGE, "content": [], "stop_reason": None, "usage": usage}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return _stream(
        [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Lis"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "bon."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 10}},
            {"type": "message_stop"},
        ]
    )


def _stream(data: list[Any]) -> Response:
    return Response(events(data), media_type="text/event-stream")


@contextmanager
def model_service() -> Iterator[str]:
    """Run the server; the base of its URLs."""
    routes = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/responses", _responses, methods=["POST"]),
        Route("/v1/messages", _messages, methods=["POST"]),
    ]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
