"""How often verdicts on real servers are wrong: ``python -m benchmarks.restarts [--restarts 40]``.

One app under uvicorn is restarted 40 times under load, two processes at a time, and records into one SQLite
store. Among these restarts, in random order, are eight of a build that sleeps 40 % longer, and eight of one
that fails 5 points more often. Then processes of the first build are called A and B at random, again and
again: any verdict on them is wrong. ``--store FILE`` keeps the store and, if there is one, asks it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.stores.blocks import each_block

from wherefrom import Settings, TraceMiddleware, keys
from wherefrom.analysis import compare, sentence
from wherefrom.analysis.blocks import Count, Traffic
from wherefrom.query.fields import METADATA, find_field, with_key
from wherefrom.query.parser import parse_filter
from wherefrom.stores import Selection, open_store

ROUTES = {"/quick": 0.005, "/usual": 0.020, "/slow": 0.060}
SHARES = (5, 3, 2)
BUILDS = {"1.0": (1.0, 0.02), "slower": (1.4, 0.02), "failing": (1.0, 0.07)}
"""How many times as long each build sleeps, and the share of its requests that fail."""
EACH = 8  # processes of the builds that differ
SLOTS = 2
REQUESTS = 300
AT_ONCE = 6
STEP_MS = 250

Sides = dict[str, list[Count]]
"""The counts of each process."""


def make_app() -> TraceMiddleware:
    """The app of the build that the environment names."""
    times, failing = BUILDS[os.environ["APP_VERSION"]]
    random = Random()

    async def answer(request: Request) -> PlainTextResponse:
        await asyncio.sleep(ROUTES[request.url.path] * times * random.lognormvariate(0, 0.3))
        return PlainTextResponse("", 500 if random.random() < failing else 200)

    return TraceMiddleware(Starlette(routes=[Route(path, answer) for path in ROUTES]), settings=Settings())


async def serve_once(build: str, store: str, random: Random) -> None:
    """Start a process, send it requests and stop it; raise if it does not record them."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(128)  # what comes before the process is there waits
        command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.restarts:make_app"]
        command += ["--fd", str(server.fileno()), "--log-level", "critical"]
        environment = os.environ | {"APP_VERSION": build, "WHEREFROM_STORE": store}
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[server.fileno()], env=environment)
        try:
            paths = iter(random.choices(list(ROUTES), SHARES, k=REQUESTS))
            base = f"http://127.0.0.1:{server.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:

                async def ask() -> None:
                    for path in paths:
                        await client.get(path)

                await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 60)


async def serve_all(restarts: int, store: str) -> None:
    random = Random(1)
    builds = ["1.0"] * restarts + ["slower"] * EACH + ["failing"] * EACH
    random.shuffle(builds)
    remaining = iter(builds)

    async def slot() -> None:
        for build in remaining:
            await serve_once(build, store, random)

    await asyncio.gather(*(slot() for _ in range(SLOTS)))


def read_processes(store: str, build: str) -> Sides:
    """The counts of each process of a build."""
    found: defaultdict[str, list[Count]] = defaultdict(list)
    chosen = Selection(parse_filter(f"metadata.app_version = '{build}'"))
    by, route = with_key(METADATA, keys.INSTANCE_ID), find_field(None, "name")
    with open_store(store).snapshot() as snapshot:
        for one in each_block(snapshot.block_columns(chosen, by, route, STEP_MS)):
            errors = one.errors
            for bucket, traces in one.durations.items():
                failed = min(errors, traces)  # no test looks at errors and durations together
                found[one.value or ""].append(Count(*one[1:4], bucket, traces, failed))
                errors -= failed
    return dict(found)


def draw(first: Sides, second: Sides, each: int, random: Random) -> tuple[list[Count], list[Count]]:
    """The traffic of ``each`` processes of both; of the same processes, no process is on both sides."""
    own = random.sample(sorted(first), each)
    others = random.sample(sorted(second.keys() - {*own}), each)
    return [c for name in own for c in first[name]], [c for name in others for c in second[name]]


def one_by_one(first: Sequence[Count], second: Sequence[Count], again: bool) -> int:
    """The verdict of tests that take traces to be independent."""
    from .verdicts import independent

    first, second = (
        [one._replace(traces=1, errors=int(n < one.errors)) for one in side for n in range(one.traces)]
        for side in (first, second)
    )
    return independent(Traffic.of(first), Traffic.of(second), again)


def shares(
    sides: Sequence[tuple[list[Count], list[Count]]], judges: Sequence[Callable[..., int]], *, found: bool
) -> Iterator[float]:
    """For each judge, the share of the draws that it calls worse; without ``found``, worse or better."""
    for judge in judges:
        verdicts = [judge(*pair, False) for pair in sides]
        yield sum(one > 0 if found else one != 0 for one in verdicts) / len(verdicts)


def report(store: str, draws: int) -> None:
    """Print the shares of verdicts, and what ``wherefrom compare`` says."""
    from .verdicts import direction  # imports scipy, which the servers need not wait for

    random = Random(2)
    processes = {build: read_processes(store, build) for build in BUILDS}
    same = processes["1.0"]
    print(f"{'draws':<46} {'verdicts':>8}  {'aim':>6} {'independent':>11}")
    for build, each, aim in (
        ("1.0", len(same) // 2, "≤ 5%"),
        ("1.0", 4, "≤ 5%"),
        ("slower", 4, "≥ 80%"),
        ("failing", 4, "≥ 80%"),
    ):
        sides = [draw(processes[build], same, each, random) for _ in range(draws)]
        figures = shares(sides, (direction, one_by_one), found=build != "1.0")
        name = f"{each} processes of {build} against {each} of 1.0"
        ours, others = figures
        print(f"{name:<46} {ours:>8.1%}  {aim:>6} {others:>11.1%}", flush=True)
    for row in compare(baseline="1.0", store=open_store(store)).rows:
        print(sentence(row) or f"Baseline: {row.traces:,} traces of {len(same)} processes.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=40)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--store", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        file = (chosen.store or Path(directory, "restarts.db")).absolute()
        if not file.exists():
            began = time.monotonic()
            asyncio.run(serve_all(chosen.restarts, f"sqlite:///{file}"))
            print(f"{chosen.restarts + 2 * EACH} processes in {time.monotonic() - began:.0f} s")
        report(f"sqlite:///{file}", chosen.draws)


if __name__ == "__main__":
    main()
