"""Rollups against the traces, after many random operations by several processes.

    python -m benchmarks.rollups [--operations 100000] [--processes 4]

Each process writes traces, some of them twice or completing late, edits and deletes them, and rolls hours up
while the others write to them. Then the answers from rollups are compared with what the rows of the traces
say: counts must be the same, quantiles within 1 %. They are compared again when half of the traces, and when
all of them, are pruned.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.stores.sqlite.rollup_traffic import HOURS, check, expected

from wherefrom.stores.sql.schema import DAY_MS
from wherefrom.stores.sqlite.store import SQLiteStore

WRITER = "import sys; from tests.stores.sqlite.rollup_traffic import main; main(*sys.argv[1:])"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wherefrom.db")
        started = time.perf_counter()
        each = str(options.operations // options.processes)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number), each])
            for number in range(options.processes)
        ]
        if any(writer.wait() for writer in writers):
            sys.exit("a writer failed")
        seconds = time.perf_counter() - started
        print(f"{options.operations:,} operations by {options.processes} processes in {seconds:.0f} s")
        with closing(SQLiteStore(path)) as store:
            compare(store, path)


def compare(store: SQLiteStore, path: Path) -> None:
    """Compare the answers with the traces, and print what was found equal."""
    truth = expected(path)
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
