"""The handler of MLflow's production guide with MLflow's SDK; to_mlflow.py runs it.

    python benchmarks/guide_mlflow.py URL EXPERIMENT

The guide has ``@mlflow.trace`` above ``@app.post``: FastAPI then never calls the decorated function, and
nothing is recorded. Here it is below.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel

answer_for_ever = import_module("guide_serving").answer_for_ever
mlflow: Any = import_module("mlflow")  # by name: the type checker's environment may lack it

app, bare = FastAPI(), FastAPI()


class ChatRequest(BaseModel):
    message: str


@app.post("/chat")
@mlflow.trace  # type: ignore[untyped-decorator, unused-ignore]
async def handle_chat(request: Request, chat_request: ChatRequest) -> dict[str, str]:
    client_request_id = request.headers.get("X-Request-ID")
    session_id = request.headers.get("X-Session-ID")
    user_id = request.headers.get("X-User-ID")
    mlflow.update_current_trace(
        client_request_id=client_request_id,
        metadata={
            "mlflow.trace.session": session_id,
            "mlflow.trace.user": user_id,
            "mlflow.source.type": os.getenv("APP_ENVIRONMENT", "development"),
            "environment": os.getenv("APP_ENVIRONMENT", "development"),
            "app_version": os.getenv("APP_VERSION", "1.0.0"),
            "deployment_id": os.getenv("DEPLOYMENT_ID", "unknown"),
            "region": os.getenv("REGION", "us-east-1"),
        },
    )
    return {"response": f"You said: {chat_request.message}"}


@bare.post("/chat")
async def handle_untraced(request: Request, chat_request: ChatRequest) -> dict[str, str]:
    return {"response": f"You said: {chat_request.message}"}


if __name__ == "__main__":
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment(sys.argv[2])
    answer_for_ever(bare, app, mlflow.flush_trace_async_logging, {})
