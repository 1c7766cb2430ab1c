"""A small chat service with Wherefrom. Run it with ``uvicorn main:app``."""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import wherefrom
from wherefrom import SpanType, TraceMiddleware

app = FastAPI(title="Chat")
app.add_middleware(TraceMiddleware)
wherefrom.set_active_model("m-stand-in-1")

FACTS = {
    "wherefrom": "Wherefrom records one trace per request.",
    "asgi": "ASGI is the interface between Python servers and apps.",
    "trace": "A trace is the record of one request.",
}
# A regression for the demo: releases from 1.1 on time out more often than 1.0.
FAILURE_RATE = 0.2 if os.environ.get("APP_VERSION", "1.0.0") >= "1.1" else 0.03


MODEL = "gpt-4o-mini"
SYSTEM = "You answer questions about a chat service. Be brief, and use only the facts that you are given."


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class Chat(BaseModel):
    """A request in the shape of OpenAI's chat completions."""

    messages: list[Message]

    @property
    def question(self) -> str:
        return self.messages[-1].content


def prompt(chat: Chat, documents: list[str]) -> list[Message]:
    facts = "\n".join(f"- {fact}" for fact in documents) or "- none"
    return [Message(role="system", content=f"{SYSTEM}\n\nFacts:\n{facts}"), *chat.messages]


def answer(messages: list[Message]) -> str:
    facts = [line for line in messages[0].content.splitlines() if line.startswith("- ") and line != "- none"]
    if not facts:
        return "I do **not** know that."
    return f"You asked: *{messages[-1].content}*\n\n" + "\n".join(facts)


def usage(messages: list[Message], text: str) -> dict[str, int]:
    sent, received = sum(len(message.content.split()) for message in messages), len(text.split())
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


async def wait_for_model() -> None:
    """Some time, and sometimes a failure, in place of a call to a model."""
    await asyncio.sleep(random.uniform(0.002, 0.01))
    if random.random() < FAILURE_RATE:
        raise TimeoutError("the model did not respond in time")


@wherefrom.trace(span_type=SpanType.CHAT_MODEL)
async def model(messages: list[Message]) -> dict[str, Any]:
    """A substitute for a model, which answers as OpenAI's chat completions do."""
    await wait_for_model()
    text = answer(messages)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {
        "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage(messages, text),
    }  # fmt: skip


@wherefrom.trace(span_type=SpanType.CHAT_MODEL)
async def stream_model(messages: list[Message]) -> AsyncIterator[dict[str, Any]]:
    """The same as a stream of chunks; the last one has the token counts."""
    await wait_for_model()
    chunk = {"object": "chat.completion.chunk", "model": MODEL}
    text = answer(messages)
    for word in re.findall(r"\S+\s*", text):
        await asyncio.sleep(0.002)
        yield {**chunk, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {**chunk, "choices": [], "usage": usage(messages, text)}


@wherefrom.trace(span_type=SpanType.RETRIEVER)
def keyword_search(text: str) -> list[str]:
    return [fact for word, fact in FACTS.items() if word in text.lower()]


@wherefrom.trace(span_type=SpanType.RETRIEVER)
def vector_search(text: str) -> list[str]:
    time.sleep(0.002)
    words = set(text.lower().split())
    return sorted(FACTS.values(), key=lambda fact: -len(words & set(fact.lower().split())))[:2]


def new_retriever_enabled() -> bool:
    enabled = random.random() < 0.5
    wherefrom.record_feature_flag("new_retriever", enabled)
    return enabled


@wherefrom.trace
def remember(question: str) -> int:
    time.sleep(0.003)
    return len(question)


@app.post("/chat")
async def chat(chat: Chat, background: BackgroundTasks) -> dict[str, Any]:
    search = vector_search if new_retriever_enabled() else keyword_search
    documents = search(chat.question)
    wherefrom.update_current_trace(tags={"team": "chat"})
    background.add_task(remember, chat.question)
    return await model(prompt(chat, documents))


@app.post("/chat/stream")
async def stream(chat: Chat) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for chunk in stream_model(prompt(chat, keyword_search(chat.question))):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/documents/{word}")
def document(word: str) -> dict[str, str]:
    if word not in FACTS:
        raise HTTPException(404, f"there is no document about {word!r}")
    return {"fact": FACTS[word]}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
