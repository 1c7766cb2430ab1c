"""The queue while the store is locked: its memory, and which traces survive.

    python benchmarks/queue_memory.py [--requests 3000] [--values 10] [--bytes 100000] [--errors 0.02]

Another connection holds the store's write lock. Each request records ``--values`` attributes of ``--bytes``
each, and some requests fail. Then the lock is released, and the queued traces are stored.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from wherefrom import Settings, TraceMiddleware, current_span, flush, stats

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b""}


def make_app(values: int, size: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        span = current_span()
        assert span is not None
        for n in range(values):
            span.set_attribute(f"value {n}", os.urandom(size // 2).hex())
        if scope["path"] == "/fails":
            raise ValueError(scope["path"])
        await send(START)
        await send(BODY)

    return app


async def nothing(*_: Any) -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def serve(app: Any, requests: int, error_rate: float) -> None:
    owed = 0.0
    for n in range(requests):
        owed += error_rate
        path = "/works"
        if owed >= 1:
            owed, path = owed - 1, "/fails"
        with suppress(ValueError):
            await app({"type": "http", "method": "GET", "path": path, "headers": []}, nothing, nothing)
        if n % 100 == 99:
            await asyncio.sleep(0.01)
        if (n + 1) % max(requests // 5, 1) == 0:
            print(f"{n + 1:8,} requests, {resident():8,.0f} MB, {stats().queue_depth:6,} waiting")


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--values", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--errors", type=float, default=0.02)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wherefrom.db")
        app = TraceMiddleware(
            make_app(options.values, options.bytes), settings=Settings(store=f"sqlite:///{path}")
        )
        asyncio.run(serve(app, 1, 0))
        flush()
        gc.collect()
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        before = resident()
        asyncio.run(serve(app, options.requests, options.errors))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"before {before:,.0f} MB, peak {peak:,.0f} MB: {peak - before:,.0f} MB more; {stats()}")
        lock.execute("ROLLBACK")
        started = time.monotonic()
        done = flush(120)
        print(f"unlocked, all written: {done}, {time.monotonic() - started:.1f} s; {stats()}")
        states = lock.execute("SELECT state, count(*) FROM traces GROUP BY state").fetchall()
        print(f"in the store, by state: {dict(states)}")
        lock.close()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"peak {peak:,.0f} MB until everything was written")
    sys.stdout.flush()
    os._exit(0)  # the store's folder has been deleted: write nothing at exit


if __name__ == "__main__":
    main()
