"""What recording costs where users are: whole servers under load from another process, in turn, as ratios.

    python -m benchmarks.serving [--rounds 8] [--seconds 5] [--only NAME ...] [--latency] [--ticker]

Every row is a FastAPI app under uvicorn (uvloop, httptools) in a process of its own. ``wrk`` loads one after
the other, round after round, so that a noisy machine disturbs all alike; the servers that wait are idle. The
ratio of a row is taken within each round. The garbage collector runs as it does in production, the writer
works while requests are served, and requests carry ``traceparent``, ids, a session and a user. After the
load each server is stopped by SIGTERM, and what it stored is counted.

``--latency`` measures the latency at half of the bare app's peak rate instead, from a client that sends at a
fixed rate. ``--profile`` adds what the event loop did meanwhile, line by line; of latency, also what it did
while the slowest hundredth of the requests waited. ``--ticker`` measures how late a task of 1 ms on the event
loop is under load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI

from benchmarks.overhead import Floor, NowhereExporter
from wherefrom import Settings, TraceMiddleware

HEADERS = {
    "X-Request-ID": "req-123",
    "X-Session-ID": "session-7",
    "X-User-ID": "user-42",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
_TICK_S = 0.001
_MOST_LINES = 30
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class PassThrough:
    """The least that an ASGI middleware can do."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class LeanFloor(Floor):
    """See ``benchmarks.overhead.Floor``; passes on what is no request."""

    def __init__(self, app: Any) -> None:
        super().__init__(app, lean=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def fastapi(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/chat")
    async def chat() -> dict[str, int]:
        return {"answer": 42}

    return app


def recorded(**settings: Any) -> FastAPI:
    app = fastapi()
    app.add_middleware(TraceMiddleware, settings=Settings(**settings))
    return app


def with_middleware(kind: Any) -> FastAPI:
    app = fastapi()
    app.add_middleware(kind)
    return app


def nowhere_provider() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NowhereExporter()))
    return provider


def opentelemetry() -> FastAPI:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app = fastapi()
    app.add_middleware(
        OpenTelemetryMiddleware, tracer_provider=nowhere_provider(), exclude_spans=["receive", "send"]
    )
    return app


def native() -> FastAPI:
    from fastapi.telemetry import TelemetryConfig

    return fastapi(telemetry=TelemetryConfig(tracer_provider=nowhere_provider()))


VARIANTS: dict[str, Any] = {
    "bare": lambda store: fastapi(),
    "pass-through": lambda store: with_middleware(PassThrough),
    "lean floor": lambda store: with_middleware(LeanFloor),
    "sampled out": lambda store: recorded(store=store, sample_rate=0, keep_errors=False),
    "store=none": lambda store: recorded(store="none"),
    "sqlite": lambda store: recorded(store=store),
    "opentelemetry": lambda store: opentelemetry(),
    "fastapi telemetry": lambda store: native(),
}


def ticking(app: Any, path: str) -> Any:
    """Wrap an app: a task wakes every millisecond; when the server stops, it writes how late it was."""
    late: list[tuple[float, float]] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            late.append((due, time.perf_counter() - due))

    def save() -> None:
        Path(path).write_text(json.dumps(late), encoding="utf-8")

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            task = asyncio.create_task(tick())
            try:
                await app(scope, receive, send)
            finally:
                task.cancel()
                save()
        else:
            await app(scope, receive, send)

    return wrapped


class Sample(NamedTuple):
    """What the event loop's thread was at: s of the clock and of CPU, and the line of Python it was in.

    ``others`` are the CPU seconds of the other threads, ``ready`` those in which the loop had no CPU.
    """

    time: float
    on_cpu: float
    others: float
    ready: float
    line: str


def sampling(app: Any, path: str) -> Any:
    """Wrap an app: a signal interrupts the event loop every millisecond; samples are written at the end."""
    samples: list[Sample] = []
    status = os.open(f"/proc/self/task/{os.getpid()}/schedstat", os.O_RDONLY)

    def sample(number: int, frame: Any) -> None:
        on_cpu, ready = time.thread_time(), int(os.pread(status, 80, 0).split()[1]) / 1e9
        line = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        samples.append(Sample(time.perf_counter(), on_cpu, time.process_time() - on_cpu, ready, line))

    def save() -> None:
        Path(path).write_text(json.dumps(samples), encoding="utf-8")

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        signal.signal(signal.SIGALRM, sample)
        signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
        try:
            await app(scope, receive, send)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            save()

    return wrapped


def serve(name: str, store: str, ticks: str | None, samples: str | None) -> None:
    import uvicorn

    app = VARIANTS[name](store)
    if ticks or samples:
        app = ticking(app, ticks) if ticks else sampling(app, str(samples))
    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="info",
        log_config=None,
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    asyncio.Runner(loop_factory=config.get_loop_factory()).run(run())


class LoopTime(NamedTuple):
    """What the event loop's thread did: µs on a CPU, µs ready without one, and how often it lost its CPU."""

    on_cpu: float
    ready: float
    slept: float
    preempted: float


class Server:
    """One row: a server process, and the rates and CPU that rounds of load took."""

    def __init__(self, name: str, folder: Path, *, ticker: bool, profile: bool) -> None:
        self.name = name
        self.path = folder / f"{name.replace('=', ' ').replace(' ', '-')}.db"
        self.ticks = folder / f"{self.path.stem}.json" if ticker else None
        self.samples = folder / f"{self.path.stem}.samples.json" if profile else None
        command = [sys.executable, "-m", "benchmarks.serving", "--serve", name]
        command += ["--store", f"sqlite:///{self.path}"]
        command += ["--ticks", str(self.ticks)] if self.ticks else []
        command += ["--samples", str(self.samples)] if self.samples else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/chat"
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self.loop: list[LoopTime] = []
        self.loads: list[tuple[float, float]] = []
        self.completed = 0

    def cpu_s(self) -> float:
        """CPU seconds of the process so far (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def loop_time(self) -> LoopTime:
        """What the thread of the event loop has done so far (Linux)."""
        thread = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
        on_cpu, ready, _ = map(int, (thread / "schedstat").read_text(encoding="ascii").split())
        status = (thread / "status").read_text(encoding="ascii")
        switches = re.findall(r"voluntary_ctxt_switches:\s+(\d+)", status)
        return LoopTime(on_cpu / 1000, ready / 1000, *map(int, switches))

    def load(self, seconds: float, connections: int, *, counts: bool = True) -> None:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", self.url]
        for header, value in HEADERS.items():
            command += ["-H", f"{header}: {value}"]
        before, loop_before, started = self.cpu_s(), self.loop_time(), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        loop, ended = self.loop_time(), time.perf_counter()
        time.sleep(0.6)  # the writer's last batch
        found = re.search(r"(\d+) requests in", done)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
        assert found is not None, done
        assert rate is not None, done
        assert "Non-2xx" not in done, done
        self.completed += int(found[1])
        if counts:
            self.loads.append((started, ended))
            self.rates.append(float(rate[1]))
            self.cpu.append((self.cpu_s() - before) / int(found[1]) * 1e6)
            self.loop.append(
                LoopTime(*((now - then) / int(found[1]) for now, then in zip(loop, loop_before, strict=True)))
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def stored(self) -> tuple[int, float] | None:
        """Traces in the store and bytes of the file a trace; None where nothing is stored."""
        if not self.path.exists():
            return None
        with closing(sqlite3.connect(self.path)) as connection:
            count = connection.execute("SELECT count(*) FROM traces").fetchone()[0]
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count, self.path.stat().st_size / max(count, 1)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def throughput(servers: list[Server], options: argparse.Namespace) -> None:
    for server in servers:
        server.load(1, options.connections, counts=False)
    for number in range(options.rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            server.load(options.seconds, options.connections)
    bare = servers[0]
    base_cpu = statistics.median(bare.cpu)
    head = f"{'':18} {'requests/s':>10} {'of bare':>8} {'quartiles':>13} {'us more':>8} {'us CPU more':>11}"
    print(head)
    costs = {}
    for server in servers:
        ratios = [rate / base for rate, base in zip(server.rates, bare.rates, strict=True)]
        low, middle, high = quartiles(ratios)
        more = statistics.median(
            1e6 / rate - 1e6 / base for rate, base in zip(server.rates, bare.rates, strict=True)
        )
        costs[server.name] = more
        cpu = statistics.median(server.cpu) - base_cpu
        rate = statistics.median(server.rates)
        print(
            f"{server.name:18} {rate:10.0f} {middle:8.3f} {low:6.3f}-{high:.3f} {more:8.1f} {cpu:11.1f}",
            flush=True,
        )
    heads = f"{'us CPU':>10} {'us ready':>9} {'us asleep':>9} {'slept':>7} {'preempted':>9}"
    print(f"\n{'event loop':18} {heads}")
    for server in servers:
        on_cpu, ready, slept, preempted = map(statistics.median, zip(*server.loop, strict=True))
        asleep = statistics.median(
            1e6 / rate - loop.on_cpu - loop.ready
            for rate, loop in zip(server.rates, server.loop, strict=True)
        )
        print(f"{server.name:18} {on_cpu:10.1f} {ready:9.1f} {asleep:9.1f} {slept:7.3f} {preempted:9.3f}")
    if "opentelemetry" in costs and "sqlite" in costs:
        print(f"opentelemetry / sqlite: {costs['opentelemetry'] / costs['sqlite']:.1f}")
    if "lean floor" in costs and "sqlite" in costs:
        print(f"sqlite / lean floor: {costs['sqlite'] / costs['lean floor']:.1f}")


def check_stored(servers: list[Server], connections: int, rounds: int) -> None:
    for server in servers:
        server.stop()
        found = server.stored()
        if found is not None and server.name == "sqlite":
            count, size = found
            # wrk leaves open requests behind at the end of a round, which the server completed
            most = server.completed + connections * (rounds + 2)
            print(
                f"stored: {count} of {server.completed} completed (at most {most}); {size:.0f} bytes a trace"
            )
            if not server.completed <= count <= most:
                sys.exit("the number of traces is wrong")


class Request(NamedTuple):
    """When it was due, in s of ``time.perf_counter``, and how many ms later its response was read."""

    due: float
    latency: float


async def at_fixed_rate(url: str, rate: float, seconds: float, connections: int) -> list[Request]:
    """Requests sent at ``rate`` a second; latency is measured from when each was due."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"GET /chat HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}\r\n".encode()
    requests: list[Request] = []
    started = time.perf_counter() + 0.1
    interval = connections / rate

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        due = started + number / rate
        while due < started + seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
            await reader.readexactly(size)
            requests.append(Request(due, (time.perf_counter() - due) * 1000))
            due += interval
        writer.close()

    await asyncio.gather(*map(client, range(connections)))
    return requests


def latency(servers: list[Server], options: argparse.Namespace) -> None:
    import uvloop

    bare = servers[0]
    bare.load(3, options.connections)
    bare.loads.clear()
    rate = bare.rates[0] / 2
    print(f"half of bare's peak: {rate:.0f} requests/s")
    found: dict[str, list[list[float]]] = {server.name: [] for server in servers}
    requests: dict[str, list[Request]] = {server.name: [] for server in servers}
    for _ in range(options.rounds):
        for server in servers:
            started = time.perf_counter()
            every = uvloop.run(at_fixed_rate(server.url, rate, options.seconds, options.connections))
            server.loads.append((started, time.perf_counter()))
            requests[server.name] += every
            values = [one.latency for one in every]
            found[server.name].append(
                [statistics.quantiles(values, n=1000)[at] for at in (499, 949, 989, 998)]
            )
    base = found[bare.name]
    for name, rounds in found.items():
        figures = [statistics.median(values[at] for values in rounds) for at in range(4)]
        ratio = statistics.median(mine[2] / its[2] for mine, its in zip(rounds, base, strict=True))
        p50, p95, p99, p999 = figures
        print(
            f"{name:18} p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f}  p99.9 {p999:.2f} ms; p99 x {ratio:.2f}"
        )

    for server in servers:
        every = requests[server.name]
        limit = statistics.quantiles([one.latency for one in every], n=100)[98]
        slow = sorted((one.due, one.due + one.latency / 1000) for one in every if one.latency > limit)
        print_profile(server, {"all": server.loads, f"over {limit:.1f} ms": joined(slow)})


def joined(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches of time in order, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for begin, end in stretches:
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def within(
    samples: list[Sample], stretches: list[tuple[float, float]]
) -> Iterator[tuple[Sample, list[float]]]:
    """The samples in these stretches, each with its first four less those of the sample before."""
    place = 0
    for before, sample in pairwise(samples):
        while place < len(stretches) and stretches[place][1] < sample.time:
            place += 1
        if place < len(stretches) and stretches[place][0] <= before.time:
            yield sample, [now - then for now, then in zip(sample[:4], before[:4], strict=True)]


def print_profile(server: Server, columns: dict[str, list[tuple[float, float]]]) -> None:
    """What the event loop did in some stretches of time, as a share of them, and in which lines."""
    if server.samples is None:
        return
    server.stop()
    samples = [Sample(*one) for one in json.loads(server.samples.read_text(encoding="utf-8"))]
    lines: list[Counter[str]] = []
    sums: list[list[float]] = []
    for stretches in columns.values():
        lines.append(Counter())
        sums.append([0.0] * 4)
        for sample, spent in within(samples, stretches):
            lines[-1][sample.line] += 1
            sums[-1] = [one + more for one, more in zip(sums[-1], spent, strict=True)]

    def print_row(title: str, *shares: float) -> None:
        print(f"{title:64}", *(f"{share:12.1%}" for share in shares))

    print(f"\n{server.name:64}", *(f"{title:>12}" for title in columns))
    print(f"{'s of the clock':64}", *(f"{of[0]:12.2f}" for of in sums))
    print_row("the loop on a CPU", *(of[1] / of[0] for of in sums))
    print_row("the loop ready, without a CPU", *(of[3] / of[0] for of in sums))
    print_row("the loop asleep: idle, or waiting for the GIL", *(1 - (of[1] + of[3]) / of[0] for of in sums))
    print_row("other threads on a CPU", *(of[2] / of[0] for of in sums))
    for package in ("wherefrom", "uvicorn", "starlette", "fastapi", "pydantic"):
        shares = (sum(number for line, number in of.items() if f"/{package}/" in line) for of in lines)
        print_row(
            f"in lines of {package}", *(share / of.total() for share, of in zip(shares, lines, strict=True))
        )
    for line in [line for line, _ in lines[0].most_common() if "/wherefrom/" in line][:_MOST_LINES]:
        print_row(f"  {line.rpartition('/wherefrom/')[2]}", *(of[line] / of.total() for of in lines))


def ticker(servers: list[Server], options: argparse.Namespace) -> None:
    for server in servers:
        server.load(options.seconds, options.connections)
        server.stop()
        assert server.ticks is not None
        begin, end = server.loads[0]
        ticks = json.loads(server.ticks.read_text(encoding="utf-8"))
        late = [more for due, more in ticks if begin <= due <= end]
        points = statistics.quantiles(late, n=1000)
        figures = "  ".join(
            f"p{share} {points[at] * 1000:6.2f}" for share, at in (("50", 499), ("99", 989), ("99.9", 998))
        )
        print(f"{server.name:18} {len(late)} ticks late by {figures} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--ticker", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--ticks", help=argparse.SUPPRESS)
    parser.add_argument("--samples", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.store, options.ticks, options.samples)
        return
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (Debian: apt-get install wrk)")
    names = ["bare", *(name for name in options.only if name != "bare")]
    with tempfile.TemporaryDirectory() as folder:
        servers = []
        try:
            servers += [
                Server(name, Path(folder), ticker=options.ticker, profile=options.profile) for name in names
            ]
            if options.ticker:
                ticker(servers, options)
            elif options.latency:
                latency(servers, options)
            else:
                throughput(servers, options)
                for server in servers:
                    print_profile(server, {"all": server.loads})
                check_stored(servers, options.connections, options.rounds)
        finally:
            for server in servers:
                with suppress(ProcessLookupError):
                    server.process.kill()
                server.process.wait()


if __name__ == "__main__":
    main()
