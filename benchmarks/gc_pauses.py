"""How long the garbage collector pauses the app while traces wait.

    python -m benchmarks.gc_pauses [--traces 10000] [--rounds 20]

The store is out of reach, so the queue fills. A full collection is timed with an empty queue and with a full
one: of requests that record nothing but themselves, of requests that the app adds to, and, for comparison, of
the same traces as objects.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from typing import Any

from benchmarks.overhead import Connection, bare
from wherefrom import Settings, TraceMiddleware, current_span
from wherefrom.exceptions import StoreUnavailableError
from wherefrom.sinks import BackgroundSink


class Unreachable:
    """A store that cannot be reached."""

    def write(self, traces: Any) -> None:
        raise StoreUnavailableError("not now")

    def write_records(self, records: Any, sources: Any) -> None:
        raise StoreUnavailableError("not now")


async def adding(scope: Any, receive: Any, send: Any) -> None:
    span = current_span()
    assert span is not None
    span.set_attributes({"tenant": "acme", "answer": [42, {"of": "everything"}]})
    span.set_inputs({"question": "why?"})
    await bare(scope, receive, send)


def pause_ms(rounds: int) -> float:
    """The median time of a full collection in milliseconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        gc.collect()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


async def fill(app: Any, sink: Any, traces: int) -> None:
    middleware = TraceMiddleware(app, settings=Settings(store="none"), sink=sink)
    for number in range(traces):
        connection = Connection(number)
        await middleware(connection.scope, connection.receive, connection.send)


class Objects:
    """Holds traces as they are."""

    def __init__(self) -> None:
        self.traces: list[Any] = []

    def write(self, traces: Any) -> None:
        self.traces += traces


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    base = pause_ms(options.rounds)
    print(f"{'nothing waits':42} {base:8.2f} ms")
    for name, app, make in (
        ("facts of requests", bare, queue),
        ("records of requests that the app adds to", adding, queue),
        ("traces as objects", bare, lambda _: Objects()),
    ):
        sink: Any = make(options.traces)
        asyncio.run(fill(app, sink, options.traces))
        print(f"{name:42} {pause_ms(options.rounds) - base:+8.2f} ms with {options.traces:,} waiting")
        if isinstance(sink, BackgroundSink):
            sink.close(0)
    sys.stdout.flush()
    os._exit(0)


def queue(size: int) -> BackgroundSink:
    return BackgroundSink(Unreachable(), queue_size=size)


if __name__ == "__main__":
    main()
