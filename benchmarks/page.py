"""Response times of the web UI: each page over a million traces, served by uvicorn in another process.

    python -m benchmarks.page [--traces 1000000] [--rounds 30] [--store FILE]

Every page is requested once in each round, in turn with a bare Starlette page of the same server, so that
noise affects all alike; each round requests another trace, session or version. One more trace has 10,000
spans with inputs, outputs and errors. *First byte* is the first of the HTML, *whole* the last; *CPU* is
that of the server for the page, which depends less on other load of the machine.
``--store FILE`` keeps the store, and reuses an existing one.
"""

from __future__ import annotations

import argparse
import http.client
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import starmap
from math import ceil
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from benchmarks.search import Wherefrom, fill, make_traffic
from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceInfo, TraceState, keys
from wherefrom.model import SpanStatusCode, TraceData
from wherefrom.stores import open_store

TARGET_MS = 300
WHOLE_TARGET_MS = 500
TARGET_KB = 150
LARGE = f"tr-{1:032x}"
"""The trace of many spans."""
LARGE_SPANS = 10_000
LARGE_TARGET_MS = 500
LARGE_TARGET_KB = 1_000
DAY_MS = 86_400_000
LISTS = ("traces",)
WARM_UP = 2


@dataclass
class Asked:
    """One page: its address for each trace, and its times."""

    name: str
    address: Callable[[Trace], str]
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    size: int = 0

    def ask(self, port: int, sample: Trace, *, keeps: bool) -> None:
        before = fetch_cpu(port)
        first, whole, size = fetch(port, self.address(sample))
        if keeps:
            self.cpu.append(fetch_cpu(port) - before)
            self.first.append(first)
            self.whole.append(whole)
            self.size = max(self.size, size)


def p95(times: Sequence[float]) -> float:
    return sorted(times)[ceil(0.95 * len(times)) - 1]


def ask_large(view: str, path: str) -> Asked:
    return Asked(f"{LARGE_NAME}{view}", lambda _: f"/traces/{LARGE}{path}")


def make_asks() -> list[Asked]:
    def filtered(page: str, make: Callable[[TraceInfo], str]) -> Callable[[Trace], str]:
        return lambda trace: f"{page}?since=0&filter={quote(make(trace.info))}"

    def version(info: TraceInfo) -> str:
        return f"metadata.app_version = '{info.trace_metadata[keys.APP_VERSION]}'"

    def failed(info: TraceInfo) -> str:
        return f"{version(info)} AND status = 'ERROR'"

    def tenant(info: TraceInfo) -> str:
        return f"metadata.tenant = '{info.trace_metadata['tenant']}'"

    def user(info: TraceInfo) -> str:
        return f"user = '{info.trace_metadata[keys.USER]}'"

    def around(trace: Trace) -> str:
        middle = trace.info.request_time
        return f"since={middle - DAY_MS // 2}&until={middle + DAY_MS // 2}"

    return [
        Asked("bare Starlette", lambda _: "/hello"),
        Asked("traces, the last day", lambda _: "/traces"),
        Asked("traces, a busy day", lambda one: f"/traces?{around(one)}"),
        Asked("traces, all time", lambda _: "/traces?since=0"),
        Asked("traces, the slowest of all time", lambda _: "/traces?since=0&order=slowest"),
        Asked("traces of one version, all time", filtered("/traces", version)),
        Asked("its errors, all time", filtered("/traces", failed)),
        Asked("errors of all versions, all time", filtered("/traces", lambda _: "status = 'ERROR'")),
        Asked("traces of one route, all time", filtered("/traces", lambda info: f"name = '{info.name}'")),
        Asked("traces of a tenant, all time", filtered("/traces", tenant)),
        Asked("traces of a rare tenant, all time", filtered("/traces", lambda _: RARE)),
        Asked("traces of a user, all time", filtered("/traces", user)),
        Asked("a trace", lambda one: f"/traces/{one.info.trace_id}"),
        *starmap(ask_large, VIEWS.items()),
        Asked("sessions", lambda _: "/sessions"),
        Asked("sessions, a busy day", lambda one: f"/sessions?{around(one)}"),
        Asked("sessions, all time", lambda _: "/sessions?since=0"),
        Asked("sessions of one version, all time", filtered("/sessions", version)),
        Asked("a session", lambda one: f"/session?id={one.info.trace_metadata[keys.SESSION]}"),
        Asked("error groups, all time", lambda _: "/errors?since=0"),
        Asked("error groups of one version, all time", filtered("/errors", version)),
        Asked("over time by version, all time", lambda _: "/trends?since=0&split=metadata.app_version"),
        Asked("over time of one version", filtered("/trends", version)),
        Asked("compare, the last day", lambda _: "/compare"),
        Asked("compare, all time", lambda _: "/compare?since=0"),
        Asked("deployments, the last day", lambda _: "/deployments"),
        Asked("deployments, all time", lambda _: "/deployments?since=0"),
        Asked("status", lambda _: "/status"),
    ]


LARGE_NAME = f"a trace of {LARGE_SPANS:,} spans"
VIEWS = {
    "": "",
    ", by own time": "?order=own",
    ", a search": "?search=step+77",
    ", one span alone": f"/spans/{LARGE_SPANS // 2:016x}",
}
RARE = "metadata.tenant = 'acme-pilot'"


def fetch(port: int, address: str) -> tuple[float, float, int]:
    """Return milliseconds to the first and to the last byte of the HTML, and its size in bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.connect()
        started = time.perf_counter()
        connection.request("GET", address)
        answer = connection.getresponse()
        beginning = answer.read(1)
        first = time.perf_counter()
        size = len(beginning) + len(answer.read())
        ended = time.perf_counter()
    finally:
        connection.close()
    assert answer.status == 200, (address, answer.status)
    return (first - started) * 1000, (ended - started) * 1000, size


def fetch_cpu(port: int) -> float:
    """Milliseconds of CPU time that the server has used."""
    with urlopen(f"http://127.0.0.1:{port}/cpu", timeout=120) as answer:
        return float(answer.read()) * 1000


def serve(path: str, port: int) -> None:
    """Serve the pages, and a bare page for comparison."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Mount, Route

    from wherefrom.cli.serve import run
    from wherefrom.web.application import make_application
    from wherefrom.web.auth import Access

    def hello(_: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Hello</title><p>Hello")

    def cpu(_: Request) -> PlainTextResponse:
        return PlainTextResponse(str(time.process_time()))

    pages = make_application(open_store(f"sqlite:///{path}"), Access())
    app = Starlette(routes=[Route("/hello", hello), Route("/cpu", cpu), Mount("/", pages)])
    with socket.create_server(("127.0.0.1", port)) as listener:
        run(app, listener)


@contextmanager
def serving(path: Path) -> Iterator[int]:
    """Start a server over the store; return its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.page", "--store", str(path), "--serve", str(port)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def add_large(url: str) -> None:
    """Add the trace of many spans, with 1 kB of inputs and outputs in each."""
    choose = random.Random(5)
    begun = time.time_ns() - DAY_MS * 1_000_000
    failed = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: too late")
    spans = []
    for number in range(LARGE_SPANS):
        parent = choose.randrange(max(0, number - 40), number) if number else None
        span = Span(
            LARGE, f"{number + 1:016x}", None if parent is None else f"{parent + 1:016x}", f"step {number}",
            choose.choice(["LLM", "TOOL", "RETRIEVER", "UNKNOWN"]), begun + number * 1_000_000,
            begun + (number + choose.randrange(1, 500)) * 1_000_000,
        )  # fmt: skip
        span.inputs, span.outputs = {"text": "question " * 60}, ["answer " * 60]
        span.attributes = {"service.name": "chat", "step": number}
        if number % 50 == 0:
            span.status = failed
            span.events = [SpanEvent("exception", begun, {"exception.type": "TimeoutError"})]
        spans.append(span)
    info = TraceInfo(
        LARGE, request_time=begun // 1_000_000, execution_duration=11_000, state=TraceState.ERROR
    )
    store = open_store(url)
    store.write([Trace(info, TraceData(spans))])
    store.close()


def measure(path: Path, rounds: int) -> list[Asked]:
    samples = Wherefrom(f"sqlite:///{path}").samples(rounds + WARM_UP)
    random.Random(3).shuffle(samples)
    add_large(f"sqlite:///{path}")
    asks = make_asks()
    with serving(path) as port:
        for number, sample in enumerate(samples):
            for ask in asks:
                ask.ask(port, sample, keeps=number >= WARM_UP)
    return asks


def show(asks: list[Asked]) -> None:
    bare = statistics.median(asks[0].first)
    print("| ms | first byte: p50 | p95 | x bare | whole: p50 | p95 | CPU: p50 | kB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for ask in asks:
        p50 = statistics.median(ask.first)
        print(
            f"| {ask.name} | {p50:,.1f} | {p95(ask.first):,.1f} | {p50 / bare:,.1f}"
            f" | {statistics.median(ask.whole):,.1f} | {p95(ask.whole):,.1f}"
            f" | {statistics.median(ask.cpu):,.1f} | {ask.size / 1000:,.1f} |"
        )
    late = [ask.name for ask in asks if p95(ask.first) > TARGET_MS]
    never = [ask.name for ask in asks if p95(ask.whole) > WHOLE_TARGET_MS]
    large = [ask.name for ask in asks if ask.name.startswith(LISTS) and ask.size > TARGET_KB * 1000]
    slow = [ask.name for ask in asks if ask.name.startswith(LARGE_NAME) and p95(ask.whole) > LARGE_TARGET_MS]
    heavy = [
        ask.name for ask in asks if ask.name.startswith(LARGE_NAME) and ask.size > LARGE_TARGET_KB * 1000
    ]
    print(f"\n{LARGE_NAME} later than {LARGE_TARGET_MS} ms at p95: {', '.join(slow) or 'none'}")
    print(f"{LARGE_NAME} of more than {LARGE_TARGET_KB} kB: {', '.join(heavy) or 'none'}")
    print(f"first byte later than {TARGET_MS} ms at p95: {', '.join(late) or 'none'}")
    print(f"whole later than {WHOLE_TARGET_MS} ms at p95: {', '.join(never) or 'none'}")
    print(f"a list of more than {TARGET_KB} kB: {', '.join(large) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.store, options.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "wherefrom.db"
        if not path.exists():
            count, seconds = fill(f"sqlite:///{path}", make_traffic(options.traces))
            print(f"{count:,} traces written in {seconds:,.0f} s")
        show(measure(path.absolute(), options.rounds))


if __name__ == "__main__":
    main()
