"""What a trace costs, and what each question takes, on each store at several sizes.

    python -m benchmarks.scale [--stores sqlite postgresql clickhouse] [--sizes 10000 100000 1000000]
        [--rounds 20] [--url STORE=URL ... [--filled]] [--folder FOLDER] [--again]

Each store of each size is measured in a process of its own and added to ``benchmarks/scale.json``, one after
the other; what is in that file already is not measured again without ``--again``, so that a run which was
stopped goes on. In the end the figures are drawn (``docs/screenshots/scale.svg``) and the tables of
``docs/scale.md`` are written; ``--sizes`` without a number does only that.

The traces are those of ``benchmarks/search.py``, written 500 at a time. SQLite is a file, and ClickHouse is
its engine in the process (``chdb:///``), in ``--folder``, by default a temporary one. PostgreSQL is a server
of its own (Debian's programs, without fsync, with autovacuum and 2 GB of shared buffers).
``--url postgresql=postgresql://me@host/db?schema=s{traces}`` names another store: ``{traces}`` is the size,
and all traces that are in it are deleted first. With ``--filled`` it is only asked again, and what its traces
cost stays as it was measured.

CPU is that of the process and of the PostgreSQL server that it started, without the making of the traces.
Bytes are those of the store with its indexes, after a vacuum. Questions are asked ``--rounds`` times in turn,
each time for another value, after two rounds to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import cycle, islice
from math import log10
from pathlib import Path

from wherefrom.analysis import deployments, errors, sessions, timeline
from wherefrom.stores import Selection, open_store
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.sqlite.store import SQLiteStore

from .search import BATCH, WARM_UP, Ask, Wherefrom, make_asks, make_traffic

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "scale.json"
PICTURE = ROOT / "docs" / "screenshots" / "scale.svg"
PAGE = ROOT / "docs" / "scale.md"
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "clickhouse": "ClickHouse"}
COLOURS = {"sqlite": "#26c", "postgresql": "#b50", "clickhouse": "#183"}
TICKS = os.sysconf("SC_CLK_TCK")
# As a server of its own would have it: statistics, and a share of the memory.
SERVER = "-c autovacuum=on -c shared_buffers=2GB -c max_wal_size=4GB"


@dataclass
class Measured:
    """The figures of a store with so many traces; times of questions in ms, by the name of each."""

    store: str
    traces: int
    seconds: float = 0.0
    cpu_us: float = 0.0
    server_cpu_us: float | None = None
    bytes: float = 0.0
    rounds: int = 0
    load: float = 0.0
    p50: dict[str, float] = field(default_factory=dict)
    p95: dict[str, float] = field(default_factory=dict)
    day: str = ""
    machine: str = ""

    @property
    def all_cpu_us(self) -> float:
        return self.cpu_us + (self.server_cpu_us or 0)


class Asked(Wherefrom):
    """Answers the questions of the pages too."""

    def ask(self, kind: str, text: str | None) -> tuple[float, list[str]]:
        pages: dict[str, Callable[[], object]] = {
            "timeline": lambda: timeline("app_version", text, store=self._store),
            "deployments": lambda: deployments(filter_string=text, store=self._store),
            "errors": lambda: errors(text, store=self._store),
            "sessions": lambda: sessions(text, store=self._store),
        }
        if kind not in pages:
            return super().ask(kind, text)
        started = time.perf_counter()
        pages[kind]()
        return (time.perf_counter() - started) * 1000, []


def measure(
    name: str, url: str, traces: int, rounds: int, server: int | None, *, is_filled: bool = False
) -> Measured:
    """Fill an empty store and ask it; ``server`` is the process of its PostgreSQL."""
    found = Measured(name, traces)
    if is_filled:
        found = next(each for each in read_data() if (each.store, each.traces) == (name, traces))
    else:
        write(url, found, server)
    found.rounds, found.load = rounds, round(os.getloadavg()[0], 1)
    found.day, found.machine = date.today().isoformat(), machine()
    asked = Asked(url)
    asks = make_asks(asked.samples(rounds + WARM_UP))
    asks += [Ask(kind, [None], kind=kind) for kind in ("timeline", "deployments", "errors", "sessions")]
    wordings = {ask.name: cycle(ask.filters) for ask in asks}
    for number in range(rounds + WARM_UP):
        for ask in asks:
            ms, _ = asked.ask(ask.kind, next(wordings[ask.name]))
            if number >= WARM_UP:
                ask.keep(name, ms)
        progress(f"{name}, {traces:,} traces: round {number + 1} of {rounds + WARM_UP}")
    found.p50 = {ask.name: round(ask.p50(name), 2) for ask in asks}
    found.p95 = {ask.name: round(ask.p95(name), 2) for ask in asks}
    return found


def write(url: str, found: Measured, server: int | None) -> None:
    """Write the traces, and put down what that cost."""
    store = open_store(url)
    if store.missing() is None:
        store.prune(2**62)
    store.upgrade()
    made, seconds, count = 0.0, 0.0, 0
    cpu, of_server = time.process_time(), None if server is None else cpu_seconds(server)
    traffic = make_traffic(found.traces)
    while True:
        begun = time.thread_time()
        batch = list(islice(traffic, BATCH))
        made += time.thread_time() - begun
        if not batch:
            break
        begun = time.perf_counter()
        store.write(batch)
        seconds += time.perf_counter() - begun
        count += len(batch)
        if count % 50_000 < BATCH:
            progress(f"{found.store}, {found.traces:,} traces: {count:,} written")
    found.cpu_us = round((time.process_time() - cpu - made) / count * 1e6, 1)
    if server is not None and of_server is not None:
        found.server_cpu_us = round((cpu_seconds(server) - of_server) / count * 1e6, 1)
    found.seconds = round(seconds, 1)
    if isinstance(store, SQLiteStore | PostgreSQLStore):
        store.roll_up()
    store.vacuum()
    with store.snapshot() as snapshot:
        there = snapshot.count(Selection())
        found.bytes = round(snapshot.state().size / there)
    store.close()
    if there != found.traces:
        sys.exit(f"{url} holds {there:,} traces and not {found.traces:,}")


def cpu_seconds(server: int) -> float:
    """The CPU time of a PostgreSQL server: of its processes, and of those that have ended."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended meanwhile
        pid, rest = int(text.split()[0]), text.rpartition(")")[2].split()
        used, of_ended = sum(map(int, rest[11:13])), sum(map(int, rest[13:15]))
        if pid == server:
            total += used + of_ended
        elif int(rest[1]) == server:
            total += used
    return total / TICKS


def machine() -> str:
    """The processor, its cores and the Python."""
    try:
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        models = []
    return f"{os.cpu_count()} cores{f' ({models[0]})' if models else ''}, Python {platform.python_version()}"


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def read_data() -> list[Measured]:
    if not DATA.exists():
        return []
    return [Measured(**each) for each in json.loads(DATA.read_text())]


def keep(found: Measured) -> None:
    """Put the figures into the file, in the place of older ones."""
    others = [each for each in read_data() if (each.store, each.traces) != (found.store, found.traces)]
    ordered = sorted([*others, found], key=lambda each: ([*NAMES].index(each.store), each.traces))
    new = DATA.with_suffix(".new")
    new.write_text(json.dumps([asdict(each) for each in ordered], indent=1) + "\n")
    new.replace(DATA)


def measure_all(
    stores: Sequence[str],
    sizes: Sequence[int],
    rounds: int,
    urls: dict[str, str],
    folder: Path,
    *,
    is_filled: bool,
) -> None:
    """Measure each, in a process of its own; one that fails does not stop the others."""
    from tests.postgresql_server import MISSING, running_server

    failed = []
    with ExitStack() as stack:
        server = None
        if "postgresql" in stores and "postgresql" not in urls:
            server = stack.enter_context(running_server())
        if server is not None:
            server.stop("fast")
            server.start(SERVER)
        for traces, name in ((traces, name) for traces in sizes for name in stores):
            command = [sys.executable, "-m", "benchmarks.scale", "--measure", name, "--sizes", str(traces)]
            command += ["--rounds", str(rounds), *(["--filled"] if is_filled else []), "--url"]
            place = folder / f"{name}-{traces}"
            if name in urls:
                command.append(f"{name}={urls[name].replace('{traces}', str(traces))}")
            elif name == "postgresql":
                if server is None:
                    progress(f"SKIPPED: {MISSING}")
                    continue
                pid = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
                command += [f"{name}={server.url(schema=f'scale_{traces}')}", "--server", pid]
            else:
                shutil.rmtree(place, ignore_errors=True)  # one that was stopped halfway
                place.mkdir(parents=True)
                scheme = f"sqlite:///{place}/traces.db" if name == "sqlite" else f"chdb:///{place}/engine"
                command.append(f"{name}={scheme}")
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                failed.append(f"{name} with {traces:,} traces")
            shutil.rmtree(place, ignore_errors=True)
    if failed:
        progress(f"FAILED: {', '.join(failed)}; run it again")


def amount(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f}"


def tables(data: Sequence[Measured]) -> str:
    """The figures in Markdown: what a trace costs, and p95 of each question."""
    lines = ["| store | traces | bytes a trace | CPU µs a trace | server's part | traces a second and core |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for each in data:
        of_server = "-" if each.server_cpu_us is None else amount(each.server_cpu_us)
        lines.append(
            f"| {NAMES[each.store]} | {each.traces:,} | {each.bytes:,.0f} | {amount(each.all_cpu_us)} |"
            f" {of_server} | {1e6 / each.all_cpu_us:,.0f} |"
        )
    columns = [f"{NAMES[each.store]}, {each.traces:,}" for each in data]
    lines += ["", f"| p95, ms | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for question in data[0].p95:
        cells = [amount(each.p95[question]) if question in each.p95 else "-" for each in data]
        lines.append(f"| {question} | {' | '.join(cells)} |")
    measured = dict.fromkeys(
        f"{NAMES[each.store]} with {each.traces:,} traces: {each.day}, {each.machine}, {each.rounds} rounds,"
        f" load {each.load} before"
        for each in data
    )
    return "\n".join([*lines, "", *(f"- {text}" for text in measured)])


def with_tables(page: str, data: Sequence[Measured]) -> str:
    marked = re.compile(r"(<!-- scale -->\n).*(<!-- /scale -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{tables(data)}\n{match[2]}", page)


WIDTH, HEIGHT, ACROSS = 200, 150, 5
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 40, 28, 140, 90
FONT = 'font-family="sans-serif" font-size="10" fill="#334"'
FROM_MS, TO_MS = 0.1, 10_000.0


def draw(data: Sequence[Measured]) -> str:
    """A small chart for each question: p95 by the number of traces, with a line for each store."""
    questions = list(dict.fromkeys(question for each in data for question in each.p95))
    sizes = sorted({each.traces for each in data})
    rows = -(-len(questions) // ACROSS)
    size = f"0 0 {WIDTH * ACROSS} {HEIGHT * rows + 30}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" {FONT}>',
        f'<rect width="{WIDTH * ACROSS}" height="{HEIGHT * rows + 30}" fill="#fff"/>',
        '<text x="10" y="18" font-size="12">p95 in ms by the number of traces</text>',
    ]
    for place, (name, label) in enumerate(NAMES.items()):
        x = 260 + 110 * place
        parts.append(f'<path d="M{x} 14h18" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="18" font-size="12">{label}</text>')
    for place, question in enumerate(questions):
        left, top = WIDTH * (place % ACROSS) + LEFT, HEIGHT * (place // ACROSS) + 30 + TOP
        parts += _chart(data, question, sizes, left, top)
    parts.append("</svg>\n")
    return "\n".join(parts)


def _chart(
    data: Sequence[Measured], question: str, sizes: Sequence[int], left: int, top: int
) -> Iterator[str]:
    least, most = log10(sizes[0]), log10(sizes[-1])

    def across(traces: int) -> float:
        return left + PLOT_WIDTH * ((log10(traces) - least) / (most - least) if most > least else 0.5)

    def up(ms: float) -> float:
        share = log10(min(max(ms, FROM_MS), TO_MS) / FROM_MS) / log10(TO_MS / FROM_MS)
        return top + PLOT_HEIGHT * (1 - share)

    yield f'<text x="{left - 30}" y="{top - 10}" font-size="11">{question.replace("&", "&amp;")}</text>'
    for ms in (0.1, 1, 10, 100, 1000, 10_000):
        yield f'<path d="M{left} {up(ms):.0f}h{PLOT_WIDTH}" stroke="#dde"/>'
        yield f'<text x="{left - 6}" y="{up(ms) + 3:.0f}" text-anchor="end">{ms:g}</text>'
    for traces in sizes:
        short = f"{traces // 1_000_000} M" if traces >= 1_000_000 else f"{traces // 1000} k"
        place = f'x="{across(traces):.0f}" y="{top + PLOT_HEIGHT + 14}"'
        yield f'<text {place} text-anchor="middle">{short}</text>'
    for name, colour in COLOURS.items():
        points = [
            (across(each.traces), up(each.p95[question]))
            for each in data
            if each.store == name and question in each.p95
        ]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        if len(points) > 1:
            yield f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)


def publish() -> None:
    """Draw the figures, and write them into the documentation."""
    data = read_data()
    if data:
        PICTURE.write_text(draw(data))
        PAGE.write_text(with_tables(PAGE.read_text(), data))
        print(tables(data))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--sizes", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--url", action="append", default=[], metavar="STORE=URL")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure what has been measured, too")
    parser.add_argument("--filled", action="store_true", help="only ask the stores that --url names")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    urls = dict(each.split("=", 1) for each in options.url)
    if options.measure:
        (traces,) = options.sizes
        url = urls[options.measure]
        found = measure(
            options.measure, url, traces, options.rounds, options.server, is_filled=options.filled
        )
        keep(found)
        return
    done = set() if options.again or options.filled else {(each.store, each.traces) for each in read_data()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        for traces in options.sizes:
            stores = [name for name in options.stores if (name, traces) not in done]
            if options.filled:
                stores = [name for name in stores if name in urls]
            if stores:
                measure_all(stores, [traces], options.rounds, urls, folder, is_filled=options.filled)
            publish()
    publish()


if __name__ == "__main__":
    main()
