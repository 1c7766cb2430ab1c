"""Three services that call each other: ``shop`` asks ``cart``, and ``cart`` asks ``bank``, each at ``NEXT``.

Run by path (``PYTHONPATH`` is this folder), so nothing of the tests is imported here.
"""

from __future__ import annotations

import os

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from wherefrom import TraceMiddleware, update_current_trace
from wherefrom.integrations.httpx import AsyncTraceTransport


async def buy(_request: Request) -> PlainTextResponse:
    return await ask("items")


async def items(_request: Request) -> PlainTextResponse:
    update_current_trace(metadata={"cart": "yes"}, tags={"of": "cart"})
    return await ask("pay")


async def pay(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("no money", 500)


async def ask(path: str) -> PlainTextResponse:
    """Succeeds whatever the next service says."""
    async with httpx.AsyncClient(transport=AsyncTraceTransport(), timeout=30) as client:
        answer = await client.get(f"{os.environ['NEXT']}/{path}")
    return PlainTextResponse(answer.text)


shop = TraceMiddleware(Starlette(routes=[Route("/buy", buy)]))
cart = TraceMiddleware(Starlette(routes=[Route("/items", items)]))
bank = TraceMiddleware(Starlette(routes=[Route("/pay", pay)]))
