"""The app that the W3C's trace-context test service talks to.

``POST /test`` with ``[{"url": ..., "arguments": [...]}, ...]``: each ``url`` is called with its
``arguments``, through our httpx transport, before the answer. From the root of the repository:

    uvicorn tests.w3c.app:app --port 5000
    python -m tests.w3c.app --port 5000

then, in the service's own folder, ``SPEC_LEVEL=2 python test.py http://127.0.0.1:5000/test``.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from wherefrom import Settings, TraceMiddleware
from wherefrom.integrations.httpx import AsyncTraceTransport


@asynccontextmanager
async def client_for(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """One client for all requests; it keeps no connection, so the service may close its own at any time."""
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
    async with httpx.AsyncClient(transport=AsyncTraceTransport(transport)) as client:
        yield {"client": client}


async def call_back(request: Request) -> JSONResponse:
    """Do as the service says."""
    for call in await request.json():
        await request.state.client.post(call["url"], json=call["arguments"])
    return JSONResponse(None)


app = TraceMiddleware(
    Starlette(routes=[Route("/test", call_back, methods=["POST"])], lifespan=client_for),
    settings=Settings(upstream="continue", store="none"),
)


def main() -> None:
    """Serve the app."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--http", default="auto", choices=["auto", "h11", "httptools"])
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port, http=options.http, log_level="warning")


if __name__ == "__main__":
    main()
