"""The traffic that the pages show: two versions of a chat service, the second of which times out."""

from __future__ import annotations

import json
import time
from typing import Any

from wherefrom import keys
from wherefrom.model import (
    OK,
    Source,
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)

MS = 1_000_000
EACH = 90
"""How many requests each version answered."""
FAILED = "POST /chat"
STEPS = 399
LONG = 101
"""The number of the request that took so many steps."""
CHATTED = 100
"""The number of the request whose model call was recorded with its messages."""
_CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Rome"}'}}
QUESTION = "How is the weather in **Rome**?\n\n- today\n- `tomorrow`\n\n| a | b |\n|---|---|\n| 1 | 2 |"
REQUEST = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "You answer questions about the weather. " * 50},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! What would you like to know?"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sky": "clear", "degrees": [21, 24]}'},
    ],
}
RESPONSE = {
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "# Rome\n\nسماء صافية\n\n```py\nprint('sunny')\n```"},  # noqa: RUF001
        }
    ],
    "usage": {"prompt_tokens": 1_200, "completion_tokens": 80, "total_tokens": 1_280},
}
COMMIT = "3f2a9c1b7d5e8f604a1b2c3d4e5f60718293a4b5"
REPOSITORY = "https://github.com/example/chat"
_MINUTE = 60_000
_STACK = 'Traceback (most recent call last):\n  File "main.py", line 51, in model\nTimeoutError: too late\n'


def source(version: str, deployment: str, region: str, **more: str) -> Source:
    """What all traces of one process tell."""
    return Source(
        {
            keys.APP_VERSION: version,
            keys.DEPLOYMENT_ID: deployment,
            keys.REGION: region,
            keys.ENVIRONMENT: "production",
            keys.GIT_COMMIT: COMMIT,
            keys.GIT_REPO_URL: REPOSITORY,
            **more,
        }
    )


def make_traffic(now: int | None = None) -> list[Trace]:
    """Every trace, the oldest first: one a minute, the last a minute before ``now`` (ms since the epoch)."""
    end = now or time.time_ns() // MS
    old = source("1.0.0", "deploy-41", "eu-central-1")
    new = source("1.1.0", "deploy-42", "us-east-1")
    first = end - 2 * EACH * _MINUTE
    return [
        make_request(number, first + number * _MINUTE, old if number < EACH else new)
        for number in range(2 * EACH)
    ]


def make_request(number: int, begun: int, source: Source) -> Trace:
    """Request ``number``: a chat, a stream or a document; of version 1.1.0 every third chat fails."""
    kind = number % 3
    is_late = kind == 0 and (number % 9 == 0 if source[keys.APP_VERSION] == "1.1.0" else number == 0)
    if kind == 1:
        return _trace(number, begun, source, "GET /chat/stream", 180, _stream_attributes())
    if kind == 2:
        return _trace(number, begun, source, "GET /documents/{word}", 8, {})
    return _trace(number, begun, source, FAILED, 60 + number % 7 * 5, {}, is_late=is_late)


def _stream_attributes() -> dict[str, Any]:
    return {
        "wherefrom.time_to_first_byte_ms": 12.5,
        "wherefrom.response.chunks": 9,
        "wherefrom.response.longest_gap_ms": 31.0,
    }


def _trace(
    number: int,
    begun: int,
    source: Source,
    name: str,
    ms: float,
    attributes: dict[str, Any],
    *,
    is_late: bool = False,
) -> Trace:
    trace_id = f"tr-{number + 1:032x}"
    state = TraceState.ERROR if is_late else TraceState.OK
    metadata = {
        keys.USER: f"user-{number % 5}",
        keys.SESSION: f"session-{number % 12:02}",
        f"{keys.FEATURE_FLAG_PREFIX}new_retriever": "true" if number % 2 else "false",
    }
    if number == CHATTED:
        usage = {"input_tokens": 1_200, "output_tokens": 80, "total_tokens": 1_280}
        metadata |= {keys.TOKEN_USAGE: json.dumps(usage), keys.MODELS: "gpt-4o"}
    info = TraceInfo(
        trace_id,
        request_time=begun,
        execution_duration=int(ms),
        state=state,
        client_request_id=f"req-{number}",
        request_preview=f"what is question {number}",
        response_preview=None if is_late else f"answer {number}",
        trace_metadata={**source, **metadata},
        tags={keys.TRACE_NAME_TAG: name, "team": "chat"},
        source=source,
    )
    spans = _spans(trace_id, number, begun * MS, name, round(ms * MS), is_late=is_late)
    outcome = "failed" if is_late else "completed"
    spans[0].attributes |= {
        "http.response.status_code": 500 if is_late else 200,
        "wherefrom.outcome": outcome,
    }
    spans[0].attributes |= attributes
    return Trace(info, TraceData(spans))


def _spans(trace_id: str, number: int, begun: int, name: str, ns: int, *, is_late: bool) -> list[Span]:
    """A root, a search below it, and a model below it that calls a tool."""

    def span(place: int, parent: int | None, name: str, kind: str, start: float, end: float) -> Span:
        ids = [f"{number + 1:012x}{one:04x}" for one in (place, parent or 0)]
        times = begun + round(ns * start), begun + round(ns * end)
        return Span(trace_id, ids[0], None if parent is None else ids[1], name, kind, *times, OK)

    root = span(1, None, name, "SERVER", 0, 1)
    search = span(2, 1, "vector_search", "RETRIEVER", 0.05, 0.3)
    search.inputs, search.outputs = {"text": f"question {number}"}, ["a fact", "another"]
    model = span(3, 1, "model", "LLM", 0.35, 0.95)
    tool = span(4, 3, "look_up", "TOOL", 0.5, 0.7)
    if number == CHATTED:
        model.inputs, model.outputs = REQUEST, RESPONSE
    if is_late:
        failure = {
            "exception.type": "TimeoutError",
            "exception.message": "the model did not answer in time",
            "exception.stacktrace": _STACK,
        }
        for failed in (model, root):
            failed.status = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: the model did not answer in time")
            failed.events.append(SpanEvent("exception", failed.end_time_ns or 0, failure))
    steps = [span(10 + at, 1, f"step {at}", "TASK", at / STEPS, (at + 1) / STEPS) for at in range(STEPS)]
    for failed in steps[50:350:100] if number == LONG else ():
        failed.status = SpanStatus(SpanStatusCode.ERROR, "this step failed")
    return [root, search, model, tool, *(steps if number == LONG else ())]
