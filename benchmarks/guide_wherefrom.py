"""The same handler under Wherefrom: to_mlflow.py runs it.

python benchmarks/guide_wherefrom.py URL EXPERIMENT
"""

from __future__ import annotations

import sys
from importlib import import_module

from fastapi import FastAPI, Request
from pydantic import BaseModel

import wherefrom
from wherefrom import Settings, TraceMiddleware
from wherefrom.sinks import FanOut

PATIENCE_S = 3600.0
answer_for_ever = import_module("guide_serving").answer_for_ever


class ChatRequest(BaseModel):
    message: str


def traced() -> FastAPI:
    app = FastAPI()

    @app.post("/chat")
    @wherefrom.trace
    async def handle_chat(request: Request, chat_request: ChatRequest) -> dict[str, str]:
        return {"response": f"You said: {chat_request.message}"}

    return app


def untraced() -> FastAPI:
    app = FastAPI()

    @app.post("/chat")
    async def handle_chat(request: Request, chat_request: ChatRequest) -> dict[str, str]:
        return {"response": f"You said: {chat_request.message}"}

    return app


def flush() -> None:
    assert wherefrom.flush(PATIENCE_S)
    stats = wherefrom.stats()
    assert not stats.dropped, stats


if __name__ == "__main__":
    url, experiment = sys.argv[1:]
    settings = Settings(store="none", export=(f"mlflow+{url}?experiment={experiment}",))
    exporting = TraceMiddleware(traced(), settings=settings)
    off = TraceMiddleware(traced(), settings=settings, sink=FanOut())
    answer_for_ever(untraced(), exporting, flush, {"off": off})
