"""A fleet on one PostgreSQL whose server crashes: is every trace stored, and stored once?

    python -m benchmarks.fleet [--processes 20] [--traces 1000000] [--crashes 2]

Starts a PostgreSQL of its own (Debian's programs) and writer processes, each of which records its share
through the queue that apps use. Meanwhile the server is stopped at once and started again ``--crashes``
times, and each time one writer is stopped for a minute and goes on. In the end every trace is to be there,
with its span. Prints traces a second, and a second and core of the writers, which includes making traces.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from itertools import islice

from tests.postgresql_server import PostgreSQLServer, running_server

from wherefrom.sinks import BackgroundSink
from wherefrom.stores import open_store

from .search import make_traffic

STOPPED_S = 60.0


def write(url: str, number: int, processes: int, traces: int) -> None:
    """Record every ``processes``-th trace, as fast as the queue takes them."""
    sink = BackgroundSink(open_store(url), queue_size=5_000)
    own = islice(make_traffic(traces), number, None, processes)
    while batch := list(islice(own, 500)):
        sink.write(batch)
        while sink.depth > 2_000:
            time.sleep(0.05)
    while not sink.flush(60):
        pass
    sink.close()


def run(server: PostgreSQLServer, processes: int, traces: int, crashes: int) -> bool:
    """Let the fleet write; return whether every trace is stored once."""
    url = server.url(schema="fleet")
    command = [sys.executable, "-m", "benchmarks.fleet", "--write", url, "--traces", str(traces)]
    command += ["--processes", str(processes), "--number"]
    began, cpu = time.monotonic(), _cpu_seconds()
    fleet = [subprocess.Popen([*command, str(number)]) for number in range(processes)]
    for crash in range(crashes):
        _wait_for(server, (crash + 1) * traces // (crashes + 1))
        fleet[0].send_signal(signal.SIGSTOP)
        server.stop()
        time.sleep(2)
        server.start()
        time.sleep(STOPPED_S)
        fleet[0].send_signal(signal.SIGCONT)
    codes = [process.wait() for process in fleet]
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    with server.connect() as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM fleet.traces), (SELECT count(DISTINCT trace_id) FROM fleet.traces),"
            " (SELECT count(*) FROM fleet.spans), (SELECT count(*) FROM fleet.sources)"
        ).fetchone()
    print(f"{traces:,} traces by {processes} processes, {crashes} crashes of the server, one writer stopped")
    print(f"traces, different ones, spans, sources: {counts}; exit codes {set(codes)}")
    print(f"{seconds:.1f} s: {traces / seconds:,.0f} a second; writers {traces / cpu:,.0f} a second and core")
    return counts is not None and counts[:3] == (traces, traces, traces) and set(codes) == {0}


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _wait_for(server: PostgreSQLServer, count: int) -> None:
    """Until so many traces are stored."""
    while True:
        with server.connect() as connection:
            if connection.execute("SELECT to_regclass('fleet.trace_ids')").fetchone() != (None,):
                row = connection.execute("SELECT count(*) FROM fleet.trace_ids").fetchone()
                if row is not None and row[0] >= count:
                    return
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--crashes", type=int, default=2)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.number, options.processes, options.traces)
        return
    with running_server() as server:
        if server is None:
            sys.exit("PostgreSQL is not installed")
        if not run(server, options.processes, options.traces, options.crashes):
            sys.exit("MISSED: a trace was lost or doubled")


if __name__ == "__main__":
    main()
