"""A traced app whose handlers use MLflow as its guide does, and libraries that trace inside of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import mlflow
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

import wherefrom
from wherefrom import TraceMiddleware

if experiment := os.environ.get("SET_EXPERIMENT"):
    mlflow.set_experiment(experiment)
inner = FastAPI()
app = TraceMiddleware(inner)


@mlflow.trace(span_type="RETRIEVER")
def retrieve(item: str) -> list[str]:
    with mlflow.start_span("rank"):
        return [item]


@mlflow.trace(span_type="LLM")
async def model(item: str) -> str:
    await asyncio.sleep(0.01)
    return f"said {item}"


def tell(item: str) -> None:
    mlflow.update_current_trace(tags={"item": item}, metadata={"item": item})


@inner.get("/plain/{item}")
@mlflow.trace
async def plain(item: str) -> dict[str, Any]:
    tell(item)
    with wherefrom.start_span("ours"):
        return {"item": await model(str(retrieve(item))), "trace": mlflow.get_active_trace_id()}


@inner.get("/sync/{item}")
@mlflow.trace
def sync(item: str) -> dict[str, Any]:
    tell(item)
    time.sleep(0.01)
    return {"item": retrieve(item), "trace": mlflow.get_active_trace_id()}


@inner.get("/stream/{item}")
async def stream(item: str) -> StreamingResponse:
    @mlflow.trace
    async def answer() -> AsyncIterator[str]:
        for number in range(3):
            yield await model(f"{item}-{number}")
        tell(item)

    return StreamingResponse(answer())


@inner.get("/numbers/{item}")
def numbers(item: str) -> StreamingResponse:
    @mlflow.trace
    def count() -> Iterator[str]:
        tell(item)
        for number in range(1_000_000):
            yield f"{number:09} " * 100

    return StreamingResponse(count())


@inner.get("/fail/{item}")
@mlflow.trace
async def fail(item: str) -> None:
    tell(item)
    await model(item)
    raise RuntimeError(item)


@inner.post("/items/{item}")
async def large(item: str, request: Request) -> dict[str, Any]:
    size = len(await request.body())
    tell(item)
    with mlflow.start_span("left open in the context of this request"):
        return {"item": await model(item), "trace": mlflow.get_active_trace_id(), "size": size}


@inner.get("/health/{item}")
@mlflow.trace
async def health(item: str) -> dict[str, Any]:
    tell(item)
    return {"trace": mlflow.get_active_trace_id()}
