"""A fleet on one database server that crashes: is every trace stored, and stored once?

    python -m benchmarks.fleet [--store clickhouse] [--processes 20] [--traces 1000000] [--crashes 2]

Starts a server of its own and writer processes, each of which records its share through the queue that apps
use. The server is PostgreSQL (Debian's programs), or ClickHouse's engine behind its HTTP interface. Meanwhile
it is killed and started again ``--crashes`` times, and each time one writer is stopped for a minute and goes
on. In the end every trace is to be there, with its span. Prints traces a second, and a second and core of the
writers, which includes making traces. Of ClickHouse, *rows* are those before the engine has merged doubles.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol

import httpx
from tests.engines import ClickHouseServer, running_clickhouse
from tests.postgresql_server import PostgreSQLServer, running_server

from wherefrom.sinks import BackgroundSink
from wherefrom.stores import open_store

from .search import make_traffic

STOPPED_S = 60.0
TABLES = "traces", "spans"


class Server(Protocol):
    """A database server with the traces of a fleet."""

    url: str

    def crash(self) -> None:
        """End it as if it was killed, and start it again."""

    def count(self, table: str) -> tuple[int, int]:
        """The rows of a table, and the different traces that they are of."""


class OnPostgreSQL:
    def __init__(self, server: PostgreSQLServer) -> None:
        self._server, self.url = server, server.url(schema="fleet")

    def crash(self) -> None:
        self._server.stop()
        time.sleep(2)
        self._server.start()

    def count(self, table: str) -> tuple[int, int]:
        with self._server.connect() as connection:
            if connection.execute("SELECT to_regclass(%s)", (f"fleet.{table}",)).fetchone() == (None,):
                return 0, 0
            of_trace = "trace_id" if table == "traces" else "trace"
            query = f"SELECT count(*), count(DISTINCT {of_trace}) FROM fleet.{table}"
            return connection.execute(query.encode()).fetchone() or (0, 0)


class OnClickHouse:
    def __init__(self, server: ClickHouseServer) -> None:
        self._server, self.url = server, f"clickhouse://127.0.0.1:{server.port}/fleet"

    def crash(self) -> None:
        self._server.stop()
        time.sleep(2)
        self._server.start()

    def count(self, table: str) -> tuple[int, int]:
        query = f"SELECT count(), uniqExact(trace_id) FROM fleet.{table} FORMAT TabSeparated"
        answer = httpx.post(f"http://127.0.0.1:{self._server.port}/", content=query, timeout=60)
        if answer.status_code != 200:
            return 0, 0
        rows, different = map(int, answer.text.split())
        return rows, different


@contextmanager
def running(name: str) -> Iterator[Server]:
    """A server of this name."""
    if name == "clickhouse":
        with tempfile.TemporaryDirectory() as folder, running_clickhouse(Path(folder)) as server:
            yield OnClickHouse(server)
        return
    with running_server() as postgresql:
        if postgresql is None:
            sys.exit("PostgreSQL is not installed")
        yield OnPostgreSQL(postgresql)


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


def run(server: Server, processes: int, traces: int, crashes: int) -> bool:
    """Let the fleet write; return whether every trace is stored once."""
    command = [sys.executable, "-m", "benchmarks.fleet", "--write", server.url, "--traces", str(traces)]
    command += ["--processes", str(processes), "--number"]
    began, cpu = time.monotonic(), _cpu_seconds()
    fleet = [subprocess.Popen([*command, str(number)]) for number in range(processes)]
    for crash in range(crashes):
        while server.count("traces")[1] < (crash + 1) * traces // (crashes + 1):
            time.sleep(1)
        fleet[0].send_signal(signal.SIGSTOP)
        server.crash()
        time.sleep(STOPPED_S)
        fleet[0].send_signal(signal.SIGCONT)
    codes = {process.wait() for process in fleet}
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    with closing(open_store(server.url)) as store, store.snapshot() as snapshot:
        answered = snapshot.state().traces
    counts = {table: server.count(table) for table in TABLES}
    print(f"{traces:,} traces by {processes} processes, {crashes} crashes of the server, one writer stopped")
    print(f"traces in the store: {answered:,}; rows and different traces: {counts}; exit codes {codes}")
    print(f"{seconds:.1f} s: {traces / seconds:,.0f} a second; writers {traces / cpu:,.0f} a second and core")
    different = {of for _, of in counts.values()}
    # ClickHouse merges doubles by and by, and its queries do not see them.
    is_once = isinstance(server, OnClickHouse) or counts["traces"][0] == traces
    return answered == traces and different == {traces} and is_once and codes == {0}


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", choices=("postgresql", "clickhouse"), default="postgresql")
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--crashes", type=int, default=2)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.number, options.processes, options.traces)
        return
    with running(options.store) as server:
        if not run(server, options.processes, options.traces, options.crashes):
            sys.exit("MISSED: a trace was lost or doubled")


if __name__ == "__main__":
    main()
