"""Shared by both sides of to_mlflow.py: serving requests and measuring their cost."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

BODY = json.dumps({"message": "What of the brown fox?"}).encode()


async def _serve(app: Any, count: int) -> int:
    """Call an ASGI app ``count`` times; return the CPU time of this thread in ns."""

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200, message

    started = time.thread_time_ns()
    for number in range(count):
        headers = [
            (b"host", b"api.example.com"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(BODY)).encode()),
            (b"x-request-id", f"request-{number:08}".encode()),
            (b"x-session-id", f"session-{number % 50}".encode()),
            (b"x-user-id", f"user-{number % 20}".encode()),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/chat",
            "raw_path": b"/chat",
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "client": ("10.0.0.7", 51234),
            "server": ("127.0.0.1", 8000),
        }
        await app(scope, receive, send)
    return time.thread_time_ns() - started


def answer_for_ever(bare: Any, traced: Any, flush: Callable[[], object], others: dict[str, Any]) -> None:
    """For each number on standard input, serve that many requests and print their cost in µs as JSON."""
    loop = asyncio.new_event_loop()

    def serve(app: Any, count: int) -> float:
        return loop.run_until_complete(_serve(app, count)) / count / 1000

    for line in sys.stdin:
        count = int(line)
        gc.collect()
        base = serve(bare, count)
        found = {name: serve(app, count) - base for name, app in others.items()}
        before, started = time.process_time_ns(), time.monotonic()
        found["request"] = serve(traced, count) - base
        found["sent_s"] = time.monotonic() - started
        flush()
        found["there_s"] = time.monotonic() - started
        found["total"] = (time.process_time_ns() - before) / count / 1000 - base
        print(json.dumps(found), flush=True)
