"""Rollups against the traces, after many random operations by several processes.

    python -m benchmarks.rollups [--operations 100000] [--processes 4] [--store-url URL]

Each process writes traces, some of them twice or completing late, edits and deletes them, and rolls hours up
while the others write to them. Then the answers from rollups are compared with what the rows of the traces
say: counts must be the same, quantiles within 1 %. They are compared again when half of the traces, and when
all of them, are pruned. ``--store-url`` is a store without traces, such as
``postgresql://user@host/database?schema=rollups``; by default it is a SQLite file that is deleted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.stores.rollup_traffic import HOURS, RollingStore, check, expected, open_rolling

from wherefrom.stores.sql.schema import DAY_MS

WRITER = "import sys; from tests.stores.rollup_traffic import main; main(*sys.argv[1:])"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--store-url")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.store_url or f"sqlite:///{Path(folder, 'wherefrom.db')}"
        with closing(open_rolling(url)) as store:
            if store.health().traces:
                sys.exit("the store has traces already")
        started = time.perf_counter()
        each = str(options.operations // options.processes)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, url, str(number), each])
            for number in range(options.processes)
        ]
        if any(writer.wait() for writer in writers):
            sys.exit("a writer failed")
        seconds = time.perf_counter() - started
        print(f"{options.operations:,} operations by {options.processes} processes in {seconds:.0f} s")
        with closing(open_rolling(url)) as store:
            compare(store, url)


def compare(store: RollingStore, url: str) -> None:
    """Compare the answers with the traces, and print what was found equal."""
    truth = expected(url)
    count = sum(one.traces for one in truth["version"].values())
    check(store, truth)
    print(f"{count:,} traces, partly rolled up: equal")
    print(f"{store.roll_up()} hours and days rolled up")
    check(store, truth)
    print("all rolled up: equal")
    print(f"{store.prune(HOURS[len(HOURS) // 2] + 1_000_000):,} traces pruned")
    check(store, truth)
    print("half of them pruned: equal")
    store.prune(HOURS[-1] + DAY_MS)
    store.roll_up()
    check(store, truth)
    print("all of them pruned: equal")


if __name__ == "__main__":
    main()
