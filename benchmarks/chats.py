"""Fills a store with traces of a chat service: a week of them, with a release an hour ago that is worse.

    python benchmarks/chats.py sqlite:///chats.db --traces 50000

Prompts of several kB, Markdown, code, Chinese, Arabic, tool calls, streams, chains of 400 spans, errors with
causes, two versions in two deployments, regions, users, sessions and a flag. The same seed gives the same
traces, but for their times: the last one is of now.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from wherefrom import keys
from wherefrom.messages.prices import load_prices
from wherefrom.messages.totals import sum_calls
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
from wherefrom.stores import open_store

CHAT = "POST /v1/chat/completions"
OLD, NEW = "2.3.0", "2.4.0"
FLAG = f"{keys.FEATURE_FLAG_PREFIX}new_prompt"
DEEP = 400
"""Spans of the deepest traces, each inside the one before."""
CAUSE, FAILURE = "ConnectionResetError", "ModelUnavailableError"
_OTHERS = ("GET /v1/conversations", "GET /v1/documents/{document_id}", "POST /v1/embeddings")
_HOUR_MS, _WEEK_MS = 3_600_000, 7 * 86_400_000
_RECENT = 0.1  # of all traces, in the hour of the new version
_MS = 1_000_000
_BATCH = 500
_MODELS = ("gpt-4o-2024-08-06", "gpt-4.1-mini-2025-04-14", "claude-sonnet-5")
_RULES = (
    "Answer from the documents alone, and name them. If they do not say it, say so.",
    "Write Markdown: headings for long answers, a table where you compare, fenced blocks for code.",
    "Answer in the language of the question. Do not translate names of products.",
    "Never repeat what a document says about a customer to another customer.",
)
_SYSTEM = "# Assistant of the help desk\n\n" + "\n".join(f"{n}. {_RULES[n % 4]}" for n in range(1, 41))
_CODE = (
    "```python\nasync def retry(call, times=3):\n    for attempt in range(times):\n        try:\n"
    "            return await call()\n        except TimeoutError:\n"
    "            await asyncio.sleep(2**attempt)\n    raise TimeoutError\n```"
)
_QUESTIONS = (
    (
        "How do I **rotate** the key of order {n}?",
        "## Rotation\n\n1. Make a new key.\n2. Remove the old one.",
    ),
    (f"Why does this fail for order {{n}}?\n\n{_CODE}", f"It hides the last error. Write:\n\n{_CODE}"),
    ("订单 {n} 的退款什么时候到账?请用表格说明。", "| 方式 | 时间 |\n|---|---|\n| 银行卡 | 三到五个工作日 |"),
    ("متى يصل الطلب رقم {n} إلى القاهرة؟", "يصل الطلب خلال **ثلاثة أيام** إلى القاهرة."),
    ("Compare plans for customer {n}:\n\n| plan | seats |\n|---|---:|\n| S | 5 |\n| L | 50 |", "Take **L**."),
)
_STACK = (
    "Traceback (most recent call last):\n"
    '  File "/app/chat/client.py", line 81, in _send\n    return await self._pool.send(request)\n'
    f"{CAUSE}: connection reset by peer\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    "Traceback (most recent call last):\n"
    '  File "/app/chat/routes.py", line 44, in complete\n    answer = await model.complete(messages)\n'
    '  File "/app/chat/client.py", line 92, in complete\n    raise ModelUnavailableError(host) from error\n'
    f"{FAILURE}: model-{{n}} did not answer\n"
)


def make_chats(count: int, end_ms: int | None = None, seed: int = 1) -> Iterator[Trace]:
    """Yield ``count`` traces, the oldest first; ``end_ms`` is the time of the last, by default now."""
    random = Random(seed)
    end = end_ms or time.time_ns() // _MS
    recent = max(1, round(count * _RECENT))
    for number in range(count):
        is_new = number >= count - recent
        if is_new:
            begun = end - round((count - 1 - number) / recent * _HOUR_MS * 0.95)
        else:
            begun = end - _HOUR_MS - round((count - recent - number) / count * _WEEK_MS)
        yield _chat(random, number, begun, is_new)


def _source(version: str, region: str) -> Source:
    return Source(
        {
            keys.APP_VERSION: version,
            keys.DEPLOYMENT_ID: f"deploy-{version}",
            keys.REGION: region,
            keys.ENVIRONMENT: "production",
        }
    )


_SOURCES = {
    (is_new, region): _source(NEW if is_new else OLD, region)
    for is_new in (False, True)
    for region in ("eu-central-1", "us-east-1")
}


def _chat(random: Random, number: int, begun: int, is_new: bool) -> Trace:
    trace_id = f"tr-{random.getrandbits(128):032x}"
    is_chat = random.random() < 0.7
    name = CHAT if is_chat else random.choice(_OTHERS)
    flag = random.random() < 0.5
    is_failed = is_chat and random.random() < (0.2 if is_new else 0.02)
    ms = (
        random.lognormvariate(6.5, 0.5) * (1.4 if is_new else 1)
        if is_chat
        else random.lognormvariate(2.5, 0.4)
    )
    spans = _Spans(trace_id, begun * _MS, round(ms * _MS))
    root = spans.add(name, "SERVER", None, 0, 1)
    if is_chat:
        _model_call(random, number, spans, root, is_failed)
    if number % 1_000 == 500:
        parent = root
        for depth in range(1, DEEP):
            parent = spans.add(f"step {depth}", "TASK", parent, depth / DEEP / 2, 1 - depth / DEEP / 2)
    root.attributes |= {
        "http.response.status_code": 500 if is_failed else 200,
        "http.request.method": name.split()[0],
        "wherefrom.outcome": "failed" if is_failed else "completed",
    }
    session = number // 8 if is_chat else random.randrange(max(number // 8, 1))
    source = _SOURCES[is_new, random.choice(("eu-central-1", "us-east-1"))]
    info = TraceInfo(
        trace_id,
        request_time=begun,
        execution_duration=round(ms),
        state=TraceState.ERROR if is_failed else TraceState.OK,
        client_request_id=f"req-{number}",
        trace_metadata={
            **source, keys.USER: f"user-{session % 997}", keys.SESSION: f"chat-{session}",
            FLAG: str(flag).lower(),
        },
        tags={keys.TRACE_NAME_TAG: name},
        source=source,
    )  # fmt: skip
    if is_chat:
        _describe(info, spans.made)
    return Trace(info, TraceData(spans.made))


class _Spans:
    """The spans of one trace, by shares of its time."""

    def __init__(self, trace_id: str, begun: int, ns: int) -> None:
        self.trace_id, self.begun, self.ns = trace_id, begun, ns
        self.made: list[Span] = []

    def add(self, name: str, kind: str, parent: Span | None, start: float, end: float) -> Span:
        span_id = f"{self.trace_id[3:15]}{len(self.made) + 1:04x}"
        times = self.begun + round(self.ns * start), self.begun + round(self.ns * end)
        above = None if parent is None else parent.span_id
        span = Span(self.trace_id, span_id, above, name, kind, *times, OK)
        self.made.append(span)
        return span


def _model_call(random: Random, number: int, spans: _Spans, root: Span, is_failed: bool) -> None:
    question, text = random.choice(_QUESTIONS)
    messages: list[dict[str, Any]] = [{"role": "system", "content": _SYSTEM}]
    for turn in range(number % 4):
        messages.append({"role": "user", "content": f"Question {turn}: {question.format(n=number - turn)}"})
        messages.append({"role": "assistant", "content": text})
    messages.append({"role": "user", "content": question.format(n=number)})
    search = spans.add("vector_search", "RETRIEVER", root, 0.02, 0.15)
    search.inputs, search.outputs = {"text": question}, [_RULES[0], _RULES[2]]
    if number % 3 == 0:
        call = {"name": "find_order", "arguments": json.dumps({"order": number})}
        calls = [{"id": f"call_{number}", "type": "function", "function": call}]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": '{"state": "sent"}'})
        tool = spans.add("find_order", "TOOL", root, 0.15, 0.2)
        tool.inputs, tool.outputs = {"order": number}, {"state": "sent"}
    model = random.choice(_MODELS)
    span = spans.add(f"chat {model}", "CHAT_MODEL", root, 0.22, 0.97)
    is_stream = number % 2 == 0
    span.inputs = {"model": model, "messages": messages, "stream": is_stream}
    span.attributes["gen_ai.request.model"] = model
    root.inputs = span.inputs
    if is_failed:
        failure = {
            "exception.type": FAILURE,
            "exception.message": f"model-{number % 7} did not answer",
            "exception.stacktrace": _STACK.format(n=number % 7),
        }
        for failed in (span, root):
            failed.status = SpanStatus(SpanStatusCode.ERROR, f"{FAILURE}: model-{number % 7} did not answer")
            failed.attributes["error.type"] = FAILURE
            failed.events.append(SpanEvent("exception", failed.end_time_ns or 0, failure))
        return
    sent = sum(len(message["content"] or "") for message in messages) // 4
    received = len(text) // 3
    usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
    about = {"id": f"chatcmpl-{number}", "model": model}
    if is_stream:
        span.outputs = root.outputs = _stream(text, about, usage)
        span.attributes["gen_ai.response.time_to_first_chunk"] = spans.ns / _MS * 0.0003
        root.attributes["wherefrom.time_to_first_byte_ms"] = spans.ns / _MS * 0.5
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        span.outputs = {"object": "chat.completion", **about, "choices": [choice], "usage": usage}
        root.outputs = span.outputs


def _stream(text: str, about: dict[str, Any], usage: dict[str, int]) -> str:
    """A body of Server-Sent Events, a few characters each."""
    pieces = [text[at : at + 12] for at in range(0, len(text), 12)]
    chunks: list[dict[str, Any]] = [
        {"object": "chat.completion.chunk", **about, "choices": [{"index": 0, "delta": {"content": piece}}]}
        for piece in pieces
    ]
    chunks.append({"object": "chat.completion.chunk", **about, "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def _describe(info: TraceInfo, spans: list[Span]) -> None:
    """Preview, tokens and cost, as the middleware records them."""
    asked: Any = spans[0].inputs
    info.request_preview = next(m["content"] for m in reversed(asked["messages"]) if m["role"] == "user")
    totals = sum_calls(spans[1:], load_prices(None))
    if totals.usage is not None:
        info.trace_metadata[keys.TOKEN_USAGE] = json.dumps(totals.usage.to_dict())
    if totals.cost is not None:
        info.trace_metadata[keys.COST] = json.dumps(totals.cost.to_dict())
    info.trace_metadata[keys.MODELS] = ", ".join(totals.models)


def fill(url: str, count: int, end_ms: int | None = None) -> None:
    """Write ``count`` traces to a store."""
    store = open_store(url)
    chats = make_chats(count, end_ms)
    while batch := list(islice(chats, _BATCH)):
        store.write(batch)
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("store", help="such as sqlite:///chats.db")
    parser.add_argument("--traces", type=int, default=50_000)
    given = parser.parse_args()
    begun = time.monotonic()
    fill(given.store, given.traces)
    print(f"{given.traces:,} traces in {time.monotonic() - begun:.0f} s; wherefrom ui --store {given.store}")


if __name__ == "__main__":
    main()
