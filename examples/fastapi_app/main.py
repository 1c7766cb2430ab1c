"""A small chat service with Wherefrom. Run it with ``uvicorn main:app``."""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator

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


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    text: str
    documents: list[str]


@wherefrom.trace(span_type=SpanType.LLM)
async def model(prompt: str) -> str:
    """A substitute for a call to a model. It takes some time and sometimes fails."""
    await asyncio.sleep(random.uniform(0.002, 0.01))
    if random.random() < FAILURE_RATE:
        raise TimeoutError("the model did not respond in time")
    if span := wherefrom.current_span():
        span.set_attribute("gen_ai.usage.input_tokens", len(prompt.split()))
        span.set_attribute("gen_ai.usage.output_tokens", 12)
    return f"You asked: {prompt}"


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
async def chat(question: Question, background: BackgroundTasks) -> Answer:
    search = vector_search if new_retriever_enabled() else keyword_search
    documents = search(question.text)
    text = await model(question.text)
    wherefrom.update_current_trace(
        request_preview=question.text, response_preview=text, tags={"team": "chat"}
    )
    background.add_task(remember, question.text)
    return Answer(text=text, documents=documents)


@app.get("/chat/stream")
async def stream(text: str) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        answer = await model(text)
        for word in answer.split():
            await asyncio.sleep(0.002)
            yield f"data: {json.dumps({'word': word})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/documents/{word}")
def document(word: str) -> dict[str, str]:
    if word not in FACTS:
        raise HTTPException(404, f"there is no document about {word!r}")
    return {"fact": FACTS[word]}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
