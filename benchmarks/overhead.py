"""The cost of a request: Wherefrom, the bare app, a hand-written floor and OpenTelemetry, in one process.

    python benchmarks/overhead.py [--rounds 200] [--requests 50] [--steps]

Every variant serves the same requests in turn, round after round, so that a noisy machine disturbs all alike.
The garbage collector runs, the writer writes while requests are served, and requests carry ``traceparent``
and ids: each has a request id of its own, and they come from 1,000 sessions. OpenTelemetry makes one span a
request and discards it. What counts is the CPU time of the thread that serves, less the bare app's: its
median, and its tenth percentile, which other load on the machine disturbs less. ``--steps`` shows where the
time goes, by the profiler, which doubles it.

A loop in one process keeps every cache warm: ``benchmarks/serving.py`` says what it costs in a server.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import os
import pstats
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
    """What a hand-written middleware does: ids, two clock reads, a scan of the headers, a dict, a deque.

    ``lean`` formats the ids from ``random.getrandbits``, the cheapest way; else they are the standard
    library's ``uuid4`` and ``token_hex``, the usual way.
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
    app = OpenTelemetryMiddleware(bare, tracer_provider=provider, exclude_spans=["receive", "send"])
    return app, provider


def make_scope(number: int = 0) -> dict[str, Any]:
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
            (b"x-request-id", b"req-%d" % number),
            (b"x-session-id", b"session-%d" % (number % 1000)),
            (b"x-user-id", b"user-%d" % (number % 1000)),
            (b"traceparent", b"00-%032x-00f067aa0ba902b7-01" % (number + 1)),
        ],
    }


class Connection:
    """The server's side of a request: as in uvicorn, what is behind its methods keeps the scope."""

    def __init__(self, number: int) -> None:
        self.scope = make_scope(number)

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        return None


_numbers = itertools.count()


async def serve(app: App, requests: int) -> float:
    """Microseconds of this thread's CPU a request."""
    connections = [Connection(next(_numbers)) for _ in range(requests)]
    started = time.thread_time_ns()
    while connections:
        connection = connections.pop()
        await app(connection.scope, connection.receive, connection.send)
    return (time.thread_time_ns() - started) / requests / 1000


async def request_side(variants: dict[str, App], rounds: int, requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 5):
        for name, app in variants.items():
            microseconds = await serve(app, requests)
            if number >= 5:
                times[name].append(microseconds)
    return times


def show(times: dict[str, list[float]]) -> None:
    """Print the overhead of each variant, by median and tenth percentile, and as multiples of the floor."""
    at: dict[str, Callable[[list[float]], float]] = {
        "median": statistics.median,
        "p10": lambda values: statistics.quantiles(values, n=10)[0],
    }
    print(f"{'us a request more than bare':38} {'median':>8} {'x floor':>8} {'p10':>8} {'x floor':>8}")
    over = {
        name: {kind: of(values) - of(times["bare app"]) for kind, of in at.items()}
        for name, values in times.items()
    }
    floor = over["floor, leanest ids"]
    for name, found in over.items():
        row = "".join(f" {found[kind]:8.2f} {found[kind] / floor[kind]:8.2f}" for kind in at)
        print(f"{name:38}{row}")
    for kind in at:
        ratio = over["opentelemetry, one span"][kind] / over["wherefrom"][kind]
        print(f"opentelemetry / wherefrom ({kind}): {ratio:.1f}")


async def show_steps(app: App) -> None:
    """Print which functions take the time of a request, by the profiler."""
    await serve(app, 2000)
    connections = [Connection(next(_numbers)) for _ in range(5000)]
    profile = cProfile.Profile()
    profile.enable()
    while connections:
        connection = connections.pop()
        await app(connection.scope, connection.receive, connection.send)
    profile.disable()
    rows = [
        (own, calls, Path(file).name if "/" in file else "", name)
        for (file, _, name), (_, calls, own, _, _) in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    ]
    whole = sum(own for own, *_ in rows)
    print(f"{'share':>6} {'calls':>6}  function")
    for own, calls, file, name in sorted(rows, reverse=True)[:24]:
        print(f"{own / whole:6.1%} {calls / 5000:6.1f}  {file} {name}")
    print(f"{sum(calls for _, calls, _, _ in rows) / 5000:.0f} calls a request, C functions included")


async def total_cpu(app: App, base: App, traces: int) -> float:
    """The microseconds of this process's CPU for each trace until it is stored, minus the bare app's."""

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
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--steps", action="store_true")
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
            "opentelemetry, one span": otel,
        }
        if options.steps:
            asyncio.run(show_steps(wherefrom))
            sys.stdout.flush()
            os._exit(0)
        show(asyncio.run(request_side(variants, options.rounds, options.requests)))
        if not flush(60):
            sys.exit("the store did not keep up")
        total = asyncio.run(total_cpu(wherefrom, bare, 10_000))
        other = asyncio.run(total_cpu(otel, bare, 10_000))
        print(f"total CPU until the trace is in SQLite: {total:.1f} us a trace")
        print(f"total CPU of opentelemetry, discarded: {other:.1f} us")
        print(stats())
        provider.shutdown()
    sys.stdout.flush()
    os._exit(0)  # the store's folder has been deleted: write nothing at exit


if __name__ == "__main__":
    main()
