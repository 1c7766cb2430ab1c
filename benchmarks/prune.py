"""The cost of deleting old traces: ms for each trace, and the waiting time of a writer in another process.

    python benchmarks/prune.py [--traces 20000 60000 250000] [--delete 10000]

Each store has the given number of traces over a month, with three spans, four metadata pairs and two tags
each; some are shared by many traces and some are not. The oldest ``--delete`` are pruned while another
process writes a trace every 10 ms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from wherefrom.model import Source, Span, Trace, TraceData, TraceInfo
from wherefrom.stores.sqlite.store import SQLiteStore

BATCH = 1000
WRITER = """
import select, sys, time
from wherefrom import Trace, TraceInfo
from wherefrom.stores import open_store
store, waits = open_store("sqlite:///" + sys.argv[1]), []
print("ready", flush=True)
for number in range(1_000_000_000):
    began = time.perf_counter()
    store.write([Trace(TraceInfo(f"tr-new-{number}", request_time=2**60))])
    waits.append(1000 * (time.perf_counter() - began))
    if select.select([sys.stdin], [], [], 0.01)[0]:
        break
waits.sort()
print(len(waits), waits[len(waits) // 2], waits[-1])
"""


def make_traces(count: int) -> Iterator[Trace]:
    source = Source({"app_version": "1.0.0"})
    for number in range(count):
        trace_id, start = f"tr-{number:032x}", number * 1_000_000
        own = {
            "tenant": f"tenant-{number % 200}",
            "region": f"r{number % 3}",
            "flag": str(number % 2),
            "job": f"{number * 7919 % count}",
        }
        spans = [
            Span(trace_id, f"{place:016x}", None if place == 0 else f"{0:016x}", "step", "CHAIN", start)
            for place in range(3)
        ]
        for span in spans:
            span.end_time_ns, span.attributes = start + 5_000_000, {"model": "m", "tokens": number}
        info = TraceInfo(
            trace_id,
            request_time=number,
            trace_metadata={**source, **own},
            tags={"team": "core", "ticket": f"T-{number}"},
            source=source,
        )
        yield Trace(info, TraceData(spans))


def fill(store: SQLiteStore, count: int) -> None:
    batch: list[Trace] = []
    for trace in make_traces(count):
        batch.append(trace)
        if len(batch) == BATCH:
            store.write(batch)
            batch = []
    store.write(batch)


def measure(path: Path, count: int, deleted: int) -> None:
    with closing(SQLiteStore(path)) as store:
        fill(store, count)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        busy, began = time.process_time(), time.perf_counter()
        assert store.prune(deleted) == deleted
        took, busy = time.perf_counter() - began, time.process_time() - busy
        said, _ = writer.communicate("\n")
        written, median, longest = said.split()
    print(
        f"{count:>9,} traces: {1000 * took / deleted:.3f} ms a trace, {1000 * busy / deleted:.3f} of CPU"
        f"; meanwhile {int(written):,} written, median {float(median):.1f} ms, longest {float(longest):.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--traces", type=int, nargs="+", default=[20_000, 60_000, 250_000])
    parser.add_argument("--delete", type=int, default=10_000)
    chosen = parser.parse_args()
    for count in chosen.traces:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder) / "traces.db", count, min(chosen.delete, count))


if __name__ == "__main__":
    main()
