"""The cost of a search: Wherefrom with a million traces, and beside MLflow's own SQLite store with 20,000.

    python benchmarks/search.py [--traces 1000000] [--rounds 20] [--store FILE] [--mlflow-python PATH]

Traces are written by ``open_store(url).write``, 500 at a time as the writer thread does. Each query runs
``--rounds`` times, each time for another version, session, user and so on, after two rounds to warm up.

The 20,000 traces are written to both stores, which run the queries in turn, so that noise affects both alike.
Both use their public clients, ``TraceClient.search_traces`` and ``MlflowClient.search_traces``, with the same
filter, for the newest 100 traces and their spans, and the results are checked to be equal. MLflow runs and
measures itself in another process; ``--mlflow-python`` is a Python that has it, by default this one. MLflow
has no comparison: the method of its guide is measured instead, which fetches the info of every trace and
counts in Python.

``--store FILE`` keeps the stores (FILE, and two beside it), and reuses existing ones. ``--store-url URL`` is
the store of the ``--traces``, such as ``postgresql://user@host/database?schema=benchmark``. It is filled if
it is empty. A search is to take at most 50 ms (p95), in ClickHouse 100 ms. ``--paired-url`` and
``--mlflow-url`` are the stores of the 20,000, such as another schema and another database of the same
PostgreSQL, where MLflow is to take ten times as long: a round trip to a server takes both the same time.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any, Self

from wherefrom import keys
from wherefrom.analysis import compare
from wherefrom.client import TraceClient
from wherefrom.model import Source, Span, SpanStatus, SpanStatusCode, Trace, TraceData, TraceInfo, TraceState
from wherefrom.stores import Selection, open_store
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.sqlite.store import SQLiteStore

PAIRED = 20_000
BATCH = 500
WARM_UP = 2
TARGET_RATIO = 20
TARGET_RATIO_OF_SERVER = 10
TARGETS_MS = {"search": 1000, "compare": 100, "compare rollups": 100, "compare traces": 300}
TARGETS_OF_MLFLOW = {"search", "compare"}  # the kinds of queries that it has
TARGET_P95_MS = 50
TARGET_P95_MS_OF_CLICKHOUSE = 100  # which scans

EXPERIMENT = "chat"
VERSIONS = [f"1.{minor}.0" for minor in range(12)]
REGRESSED = "1.9.0"
REGIONS = ("eu-central-1", "us-east-1", "ap-south-1")
SPAN_OF_MS = 30 * 86_400_000
RARE_EVERY = 10_007
OPEN_SESSIONS = 500
PROCESSES = 4  # of each release in each region


def make_traffic(count: int) -> Iterator[Trace]:
    """A month of a chat service: releases one after the other, each with a canary, in three regions."""
    chance = random.Random(7)
    sources = {(version, region): make_source(version, region) for version in VERSIONS for region in REGIONS}
    users = max(50, count // 40)
    sessions: deque[tuple[str, str]] = deque(maxlen=OPEN_SESSIONS)
    started = 1_790_000_000_000
    for number in range(count):
        if len(sessions) < OPEN_SESSIONS or chance.random() < 0.15:
            sessions.append((f"session-{chance.getrandbits(64):016x}", f"user-{chance.randrange(users)}"))
        place = number * len(VERSIONS) / count
        is_canary = place % 1 > 0.8 and chance.random() < 0.1
        version = VERSIONS[min(int(place) + is_canary, len(VERSIONS) - 1)]
        source = sources[version, chance.choice(REGIONS)]
        own = dict(zip((keys.SESSION, keys.USER), chance.choice(sessions), strict=True))
        own["feature_flag_new_retriever"] = chance.choice(("true", "false"))
        own["feature_flag_dark_mode"] = "true" if chance.random() < 0.1 else "false"
        own["tenant"] = f"tenant-{chance.randrange(200)}"
        own[keys.INSTANCE_ID] = (
            f"{zlib.crc32(f'{version} {source[keys.REGION]} {chance.randrange(PROCESSES)}'.encode()):016x}"
        )
        if number % RARE_EVERY == RARE_EVERY // 2:
            own["tenant"] = "acme-pilot"
        start = started + number * SPAN_OF_MS // count
        yield make_trace(chance, source, own, start)


def make_source(version: str, region: str) -> Source:
    return Source(
        {
            keys.SOURCE_NAME: "chat.api:app",
            keys.SOURCE_TYPE: "production",
            keys.GIT_COMMIT: random.Random(version).randbytes(20).hex(),
            keys.GIT_BRANCH: "main",
            keys.GIT_REPO_URL: "https://example.com/org/chat.git",
            keys.OS_USER: "app",
            keys.SCHEMA_VERSION: "3",
            keys.ENVIRONMENT: "production",
            keys.APP_VERSION: version,
            keys.DEPLOYMENT_ID: f"chat-{version.replace('.', '-')}-{region}",
            keys.REGION: region,
        }
    )


def make_trace(chance: random.Random, source: Source, own: dict[str, str], start: int) -> Trace:
    is_regressed = source[keys.APP_VERSION] == REGRESSED
    has_failed = chance.random() < (0.05 if is_regressed else 0.03)
    duration_us = int(chance.lognormvariate(11.2 if is_regressed else 11, 0.8))
    bits = (start << 144 | chance.getrandbits(144)).to_bytes(24, "big").hex()
    trace_id, span_id = "tr-" + bits[:32], bits[32:]
    name = chance.choice(("POST /chat", "POST /chat", "GET /history/{id}", "POST /search"))
    method, route = name.split()
    info = TraceInfo(
        trace_id=trace_id,
        experiment=EXPERIMENT,
        request_time=start,
        execution_duration=duration_us // 1000,
        state=TraceState.ERROR if has_failed else TraceState.OK,
        client_request_id=f"{chance.getrandbits(128):032x}",
        trace_metadata={**source, **own},
        tags={keys.TRACE_NAME_TAG: name},
        source=source,
    )
    root = Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=None,
        name=name,
        span_type="SERVER",
        start_time_ns=start * 1_000_000,
        end_time_ns=start * 1_000_000 + duration_us * 1000,
        status=SpanStatus(SpanStatusCode.ERROR, "TimeoutError: the model did not answer")
        if has_failed
        else SpanStatus(SpanStatusCode.OK),
        attributes={
            "wherefrom.outcome": "failed" if has_failed else "completed",
            "http.request.method": method,
            "http.route": route,
            "url.path": route.replace("{id}", span_id),
            "http.response.status_code": 500 if has_failed else 200,
            "http.response.body.size": chance.randrange(200, 5000),
            "network.protocol.version": "1.1",
            "client.address": f"10.0.{chance.randrange(256)}.{chance.randrange(256)}",
            "server.address": "chat.example.com",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        },
    )
    return Trace(info, TraceData([root]))


def fill(url: str, traces: Iterator[Trace]) -> tuple[int, float]:
    """Write traces; return their number, and the seconds that it took."""
    count, seconds = 0, 0.0
    store = open_store(url)
    while batch := list(islice(traces, BATCH)):
        started = time.perf_counter()
        store.write(batch)
        seconds += time.perf_counter() - started
        count += len(batch)
    if isinstance(store, SQLiteStore | PostgreSQLStore):
        started = time.perf_counter()
        periods = store.roll_up()
        print(f"{periods:,} hours and days rolled up in {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    store.close()
    return count, seconds + time.perf_counter() - started


@dataclass
class Ask:
    """One kind of query, with as many variants as there are values to search for."""

    name: str
    filters: Sequence[str | None]
    paired: Sequence[str | None] = ()
    kind: str = "search"
    times: dict[str, list[float]] = field(default_factory=dict)

    def keep(self, who: str, ms: float) -> None:
        self.times.setdefault(who, []).append(ms)

    def p50(self, who: str) -> float:
        return statistics.median(self.times[who])

    def p95(self, who: str) -> float:
        return sorted(self.times[who])[ceil(0.95 * len(self.times[who])) - 1]


def make_asks(samples: Sequence[Trace]) -> list[Ask]:
    """The queries; their values come from traces spread over the whole time."""

    def each(text: str, get: Callable[[TraceInfo], Any] = lambda _: "") -> list[str | None]:
        return list(dict.fromkeys(text.format(get(trace.info)) for trace in samples))

    version = f"metadata.{keys.APP_VERSION} = '{{}}'"
    return [
        Ask("newest 100", [None]),
        Ask("by version", each(version, lambda info: info.trace_metadata[keys.APP_VERSION])),
        Ask(
            "by version and status",
            each(version + " AND status = 'ERROR'", lambda info: info.trace_metadata[keys.APP_VERSION]),
        ),
        Ask(
            "by session",
            each(f"metadata.`{keys.SESSION}` = '{{}}'", lambda info: info.trace_metadata[keys.SESSION]),
        ),
        Ask("by user", each(f"metadata.`{keys.USER}` = '{{}}'", lambda info: info.trace_metadata[keys.USER])),
        Ask("by request id", each("client_request_id = '{}'", lambda info: info.client_request_id)),
        Ask("by a rare metadata value", ["metadata.tenant = 'acme-pilot'"]),
        Ask(
            "LIKE on metadata, common",
            each("metadata.tenant LIKE '{}%'", lambda info: info.trace_metadata["tenant"][:8]),
        ),
        Ask("LIKE on metadata, rare", ["metadata.tenant LIKE '%pilot'"]),
        Ask("LIKE on span text, common", ["span.content LIKE '%chat.example%'"]),
        Ask(
            "LIKE on span text, rare",
            each("span.content LIKE '%/history/{}%'", lambda info: info.trace_id[-12:]),
        ),
        Ask("by span attribute, rare", ["span.attributes.`url.path` = '/history/x'"]),
        Ask("a key that does not exist", ["metadata.no_such_key = 'x'"]),
        Ask("compare by version over all", [None], kind="compare"),
        Ask("compare versions on one route", ["name = 'POST /search'"], kind="compare rollups"),
        Ask("compare versions of what succeeded", ["status = 'OK'"], kind="compare rollups"),
        Ask("compare versions by status", ["execution_time > 20"], kind="compare traces"),
    ]


class Wherefrom:
    def __init__(self, url: str) -> None:
        self._store = open_store(url)
        self._client = TraceClient(self._store)

    def count(self) -> int:
        with self._store.snapshot() as snapshot:
            return snapshot.count(Selection())

    def samples(self, count: int) -> list[Trace]:
        newest, oldest = (
            self._client.search_traces(max_results=1, order_by=[order])[0].info.request_time
            for order in ("timestamp DESC", "timestamp ASC")
        )
        step = (newest - oldest) // count
        times = [oldest + step * number + step // 2 for number in range(count)]
        return [self._client.search_traces(None, f"timestamp <= {time}", 1)[0] for time in times]

    def ask(self, kind: str, text: str | None) -> tuple[float, list[str]]:
        started = time.perf_counter()
        if kind.startswith("compare"):
            found = [row.value for row in compare(keys.APP_VERSION, text, store=self._store).rows]
        else:
            found = [trace.info.trace_id for trace in self._client.search_traces([EXPERIMENT], text)]
        return (time.perf_counter() - started) * 1000, found


class MLflow:
    def __init__(self, python: str, url: str, lines: Path) -> None:
        worker = Path(__file__).with_name("search_mlflow.py")
        python = str(
            Path(shutil.which(python) or python).absolute()
        )  # the other process starts in another folder
        self._process = subprocess.Popen(
            [python, str(worker), url, str(lines)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=lines.parent,
        )
        self.told = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, kind: str, text: str | None) -> tuple[float, list[str]]:
        assert self._process.stdin
        print(json.dumps([kind, text]), file=self._process.stdin, flush=True)
        answer = self._answer()
        return answer["ms"], answer["found"]

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline() or sys.exit("MLflow's process has ended"))


def run(asks: Sequence[Ask], rounds: int, large: Wherefrom, small: Wherefrom, mlflow: MLflow | None) -> None:
    """Run all queries on all stores in turn, round after round."""
    wordings = {ask.name: (cycle(ask.filters), cycle(ask.paired)) for ask in asks}
    for number in range(rounds + WARM_UP):
        gc.collect()
        for ask in asks:
            text, paired = map(next, wordings[ask.name])
            answers = {"large": large.ask(ask.kind, text), "small": small.ask(ask.kind, paired)}
            if mlflow and ask.kind in TARGETS_OF_MLFLOW:
                answers["mlflow"] = mlflow.ask(ask.kind, paired)
                if ask.kind == "search":
                    answers["infos"] = mlflow.ask("infos", paired)
                    if set(answers["small"][1]) != set(answers["mlflow"][1]):
                        sys.exit(f"not the same answer: {paired}")
            if number >= WARM_UP:
                for who, (ms, _) in answers.items():
                    ask.keep(who, ms)


def report(
    asks: Sequence[Ask], traces: int, *, has_mlflow: bool, target_p95_ms: float, target_ratio: float
) -> None:
    columns = [f"{traces:,}: p50", "p95", "slowest"]
    if has_mlflow:
        columns += [f"{PAIRED:,}: p50", "p95", "MLflow p50", "p95", "infos alone", "ratio"]
    print(f"\n| ms | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    misses = []
    for ask in asks:
        slowest = max(ask.times["large"])
        cells = [ms(ask.p50("large")), ms(ask.p95("large")), ms(slowest)]
        if slowest > (limit := TARGETS_MS[ask.kind]):
            misses.append(f"{ask.name}: {slowest:,.0f} ms, over {limit:,} ms")
        if ask.kind == "search" and ask.p95("large") > target_p95_ms:
            misses.append(f"{ask.name}: p95 {ms(ask.p95('large'))} ms, over {target_p95_ms} ms")
        if has_mlflow and ask.kind in TARGETS_OF_MLFLOW:
            ratio = ask.p50("mlflow") / ask.p50("small")
            cells += [ms(at(who)) for who in ("small", "mlflow") for at in (ask.p50, ask.p95)]
            cells += [ms(ask.p50("infos")) if "infos" in ask.times else "", f"{ratio:,.0f}"]
            if ratio < target_ratio:
                misses.append(f"{ask.name}: {ratio:.1f} times faster than MLflow, not {target_ratio}")
        print(f"| {ask.name} | {' | '.join(cells)} |")
    met = "every target met" if has_mlflow else "every target of time met; the ratios were not measured"
    print("\n" + ("\n".join(f"MISSED {miss}" for miss in misses) or met))


def ms(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f}"


def write_lines(traces: Iterator[Trace], path: Path) -> Path:
    path.write_text("\n".join(trace.to_json() for trace in traces), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--store-url")
    parser.add_argument("--mlflow-python", default=sys.executable)
    parser.add_argument("--mlflow-url", help="MLflow's store, without an experiment 'chat' at first")
    parser.add_argument("--paired-url", help="the store that is compared with MLflow's")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        large = (options.store or Path(folder, "wherefrom.db")).absolute()
        url = options.store_url or f"sqlite:///{large}"
        small, theirs = large.with_suffix(".small.db"), large.with_suffix(".mlflow.db")
        fill_once(url, options.traces)
        paired = options.paired_url or f"sqlite:///{small}"
        fill_once(paired, PAIRED)
        lines = write_lines(make_traffic(PAIRED), large.with_suffix(".jsonl"))
        command = options.mlflow_python, options.mlflow_url or f"sqlite:///{theirs}", lines
        measure(url, paired, options.rounds, *command)


def fill_once(url: str, traces: int) -> None:
    """Fill a store that is empty, and print what that took."""
    store = open_store(url)
    if store.missing() is None:
        with store.snapshot() as snapshot:
            if snapshot.bounds(Selection()) is not None:
                print(f"{store.url}: as it is there, nothing written")
                return
    count, seconds = fill(url, make_traffic(traces))
    store.vacuum()
    with store.snapshot() as snapshot:
        size = snapshot.state().size
    store.close()
    print(f"{count:,} traces written in {seconds:.1f} s: {count / seconds:,.0f} a second")
    print(f"{size / 1e6:,.0f} MB, {size / count:,.0f} bytes a trace")


def measure(url: str, paired_url: str, rounds: int, python: str, mlflow_url: str, lines: Path) -> None:
    is_clickhouse = url.startswith(("clickhouse", "chdb"))
    target_p95_ms = TARGET_P95_MS_OF_CLICKHOUSE if is_clickhouse else TARGET_P95_MS
    target_ratio = TARGET_RATIO if paired_url.startswith("sqlite") else TARGET_RATIO_OF_SERVER
    targets = {"target_p95_ms": target_p95_ms, "target_ratio": target_ratio}
    large, paired_store = Wherefrom(url), Wherefrom(paired_url)
    traces = large.count()
    asks = make_asks(large.samples(rounds + WARM_UP))
    for ask, paired in zip(asks, make_asks(paired_store.samples(rounds + WARM_UP)), strict=True):
        ask.paired = paired.filters
    if not has_mlflow(python):
        print(f"SKIPPED: MLflow, which {python} does not have; name one that does by --mlflow-python")
        run(asks, rounds, large, paired_store, None)
        report(asks, traces, has_mlflow=False, **targets)
        return
    with MLflow(python, mlflow_url, lines) as mlflow:
        if seconds := mlflow.told["seconds"]:
            print(f"MLflow: {PAIRED:,} traces written in {seconds:.1f} s: {PAIRED / seconds:,.0f} a second")
        if (file := Path(mlflow_url.removeprefix("sqlite:///"))).exists():
            print(f"{file.stat().st_size / PAIRED:,.0f} bytes a trace")
        print(f"MLflow {mlflow.told['version']}")
        run(asks, rounds, large, paired_store, mlflow)
    report(asks, traces, has_mlflow=True, **targets)


def has_mlflow(python: str) -> bool:
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mlflow') is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


if __name__ == "__main__":
    main()
