"""What a request costs: Wherefrom, the bare app, a hand-written floor and OpenTelemetry, in one process.

    python benchmarks/overhead.py [--rounds 40] [--requests 500]

Every variant serves the same request in turn, round after round, so that a noisy machine disturbs all alike.
The request side is the CPU time of the thread that serves (``time.thread_time_ns``), less the bare app's; the
median over the rounds counts. The total is the CPU time of the whole process until the trace is in SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from wherefrom import Settings, TraceMiddleware, flush, stats
from wherefrom.otel import OpenTelemetryBridge

App = Callable[[Any, Any, Any], Any]

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
BODY = {"type": "http.response.body", "body": b'{"answer": 42}'}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(START)
    await send(BODY)


class Floor:
    """What one writes by hand: ids, two clock reads, the headers scanned, a dict, a deque, the id echoed.

    ``lean`` formats the ids from ``random.getrandbits``, the cheapest way there is; else they are the
    standard library's ``uuid4`` and ``token_hex``, as most people write it.
    """

    def __init__(self, app: App, *, lean: bool) -> None:
        self.app = app
        self.lean = lean
        self.traces: deque[dict[str, Any]] = deque(maxlen=10_000)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = {}
        for name, value in scope["headers"]:
            if name in {b"x-request-id", b"x-session-id", b"x-user-id"}:
                found[name] = value.decode("latin-1")
        trace = {
            "trace_id": f"{random.getrandbits(128):032x}" if self.lean else uuid.uuid4().hex,
            "span_id": f"{random.getrandbits(64):016x}" if self.lean else secrets.token_hex(8),
            "start": time.time_ns(),
            "path": scope["path"],
            "method": scope["method"],
            "found": found,
        }

        async def traced_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                trace["status"] = message["status"]
                request_id = found[b"x-request-id"].encode("latin-1")
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id)]}
            await send(message)

        try:
            await self.app(scope, receive, traced_send)
        finally:
            trace["end"] = time.time_ns()
            self.traces.append(trace)


class NowhereExporter(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None


def opentelemetry_app() -> tuple[App, TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NowhereExporter()))
    return OpenTelemetryMiddleware(bare, tracer_provider=provider), provider


def make_scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "headers": [
            (b"host", b"example.org"),
            (b"user-agent", b"curl/8.5.0"),
            (b"accept", b"*/*"),
            (b"accept-encoding", b"gzip, deflate"),
            (b"connection", b"keep-alive"),
            (b"x-request-id", b"req-123"),
            (b"x-session-id", b"session-7"),
            (b"x-user-id", b"user-42"),
        ],
    }


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    return None


async def serve(app: App, requests: int) -> float:
    """Microseconds of this thread's CPU a request."""
    scopes = [make_scope() for _ in range(requests)]
    started = time.thread_time_ns()
    while scopes:
        await app(scopes.pop(), receive, send)
    return (time.thread_time_ns() - started) / requests / 1000


async def request_side(variants: dict[str, App], rounds: int, requests: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, app in variants.items():
            gc.collect()

            microseconds = await serve(app, requests)

            flush()
            if number >= 2:
                times[name].append(microseconds)
    return {name: statistics.median(values) for name, values in times.items()}


async def total_cpu(app: App, base: App, traces: int) -> float:
    """Microseconds of this process's CPU a trace, until it is in the store, less the bare app's."""

    async def measure(measured: App) -> float:
        started = time.process_time_ns()
        for _ in range(traces // 500):
            await serve(measured, 500)
            await asyncio.sleep(0.001)
        if not flush(60):
            sys.exit("the store did not keep up")
        return (time.process_time_ns() - started) / traces / 1000

    runs = [await measure(app) - await measure(base) for _ in range(3)]
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder, 'wherefrom.db')}"
        otel, provider = opentelemetry_app()
        wherefrom = TraceMiddleware(bare, settings=Settings(store=store))
        variants: dict[str, App] = {
            "bare app": bare,
            "floor": Floor(bare, lean=False),
            "floor, leanest ids": Floor(bare, lean=True),
            "wherefrom": wherefrom,
            "wherefrom, sampled out, errors kept": TraceMiddleware(
                bare, settings=Settings(store=store, sample_rate=0)
            ),
            "wherefrom, sampled out": TraceMiddleware(
                bare, settings=Settings(store=store, sample_rate=0, keep_errors=False)
            ),
            "wherefrom, bridge to opentelemetry": TraceMiddleware(
                bare, settings=Settings(store=store), bridges=[OpenTelemetryBridge(provider)]
            ),
            "opentelemetry": otel,
        }
        measured = asyncio.run(request_side(variants, options.rounds, options.requests))
        base = measured["bare app"]
        floor = measured["floor"] - base
        print(f"{'request side':36} {'us/request':>10} {'overhead':>9} {'x floor':>8}")
        for name, value in measured.items():
            print(f"{name:36} {value:10.2f} {value - base:9.2f} {(value - base) / floor:8.2f}")
        lean = measured["floor, leanest ids"] - base
        print(f"\nwherefrom / floor: {(measured['wherefrom'] - base) / floor:.1f}")
        print(f"wherefrom / floor with the leanest ids: {(measured['wherefrom'] - base) / lean:.1f}")
        ratio = (measured["opentelemetry"] - base) / (measured["wherefrom"] - base)
        print(f"opentelemetry / wherefrom: {ratio:.1f}")
        total = asyncio.run(total_cpu(wherefrom, bare, 10_000))
        print(f"total CPU until the trace is in SQLite: {total:.1f} us a trace")
        print(stats())
        provider.shutdown()
    sys.stdout.flush()
    os._exit(0)  # the store's folder is gone: nothing is left to write at exit


if __name__ == "__main__":
    main()
