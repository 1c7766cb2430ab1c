"""What the servers serve for clients that leave: handlers that are told of it in different ways.

Run by path, as ``app.py``.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from wherefrom import TraceMiddleware, start_span, trace

served = FastAPI()
_gone: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@served.get("/gone/{room}")
async def gone(room: str) -> None:
    """The client of a room says that it has left."""
    _gone[room].set()


@served.websocket("/group/{room}")
async def group(socket: WebSocket, room: str) -> None:
    await socket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(socket.receive_text())
        tasks.create_task(asyncio.sleep(3600))


@served.websocket("/send/{room}")
async def send(socket: WebSocket, room: str) -> None:
    await socket.accept()
    await _gone[room].wait()
    with start_span("talk"):
        for _ in range(50):  # hypercorn ignores what is sent to a client that has left
            await socket.send_text("x")
            await asyncio.sleep(0.01)


@served.websocket("/finally/{room}")
async def close_in_finally(socket: WebSocket, room: str) -> None:
    await socket.accept()
    try:
        await socket.receive_text()
    finally:
        await _gone[room].wait()
        await socket.close(1000)


@served.websocket("/listen/{room}")
async def listen(socket: WebSocket, room: str) -> None:
    await socket.accept()
    while True:
        await socket.receive_text()


@served.websocket("/ticker/{room}")
async def ticker(socket: WebSocket, room: str) -> None:
    await socket.accept()
    while True:
        await socket.send_text("x")
        await asyncio.sleep(0.01)


@served.websocket("/first/{room}")
async def first(socket: WebSocket, room: str) -> None:
    await socket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(socket.receive_text())
        await asyncio.sleep(0.05)
        await socket.close(4001, "enough")


@trace
async def numbers() -> AsyncIterator[str]:
    for number in range(3000):
        with start_span("number"):
            await asyncio.sleep(0.01)
        yield f"{number}\n"


@served.get("/stream/{room}")
async def stream(room: str) -> StreamingResponse:
    return StreamingResponse(numbers())


app = TraceMiddleware(served)
