"""A store in which some filters take long, an app with the page mounted, and a server of its own thread."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from wherefrom.stores import Store

from .samples import make_trace

TRACES = 500
_SIZE = 45_000
_SOUGHT = "a" * 46 + "b"  # a longer one would not be compared by SQLite, but by us in linear time


def _costly(comparison: str) -> str:
    """True of what contains the searched text; for all else SQLite compares ten patterns.

    It compares each of the 45,000 letters with 46 of each pattern: some 3 ms a pattern and trace.
    """
    ends = ["%", *(f"{digit}%" for digit in range(9))]
    return "(" + " OR ".join(f"{comparison} '%{_SOUGHT}{end}'" for end in ends) + ")"


COSTLY = _costly("span.content LIKE")
COSTLY_ALIKE = (
    COSTLY,
    _costly("span.content ILIKE"),
    _costly("span.attributes.text LIKE"),
    # As many states as RE2 has no memory for: it goes through all of them for each letter.
    "span.attributes.mixed RLIKE '(a|b)*a(a|b){60}c'",
    f"NOT span.attributes.text LIKE '%{_SOUGHT}' AND {COSTLY}",
)


def fill(store: Store) -> None:
    """Write traces with large values; the newest three contain the searched value, the others nearly."""
    now = time.time_ns() // 1_000_000
    mixed = "".join(random.Random(5).choices("ab", k=_SIZE))
    for start in range(0, TRACES, 100):
        store.write(
            [
                make_trace(
                    number,
                    request_time=now - number * 1000,
                    attributes={"text": "a" * _SIZE, "mixed": mixed} if number > 3 else {"text": _SOUGHT},
                )
                for number in range(start + 1, start + 101)
            ]
        )


def mounting(page: ASGIApp) -> FastAPI:
    """An app with a route in the threads of its server, a middleware, and the page at ``/wherefrom``."""
    app = FastAPI()

    @app.get("/sync")
    def sync() -> dict[str, bool]:
        return {"ok": True}

    @app.middleware("http")
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    app.mount("/wherefrom", page)
    return app


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """uvicorn in a thread; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


@asynccontextmanager
async def asked(port: int, path: str, **query: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client that sends a request, and disconnects after the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        address = f"{path}?{urlencode(query)}"
        writer.write(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await writer.drain()
        yield reader
    finally:
        writer.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait for it; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - started
