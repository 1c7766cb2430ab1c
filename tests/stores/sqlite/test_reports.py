"""Reports of processes, read by other processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherefrom.client import TraceClient
from wherefrom.process import ProcessReport, Stats
from wherefrom.stores.sqlite.store import SQLiteStore

DAY_MS = 86_400_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "traces.db")
    yield store
    store.close()


def test_the_last_word_of_each_process_is_kept(store: SQLiteStore) -> None:
    """One row a process, the newest first."""
    stats = Stats(recorded=5, stored=3, dropped={"queue_full": 2}, refused_headers={"x-user-id": 1})
    first = ProcessReport("a", 1, 10, 20, Stats(recorded=1))
    second = ProcessReport("a", 2, 11, 21, Stats(), {"SQLiteStore": 4}, retention_days=30)
    last = ProcessReport("a", 1, 10, 22, stats, {"SQLiteStore": 0})
    for report in (first, second, last):
        store.report(report)
    assert TraceClient(store).list_processes() == [last, second]


def test_those_that_fell_silent_are_forgotten(store: SQLiteStore) -> None:
    """After a week."""
    store.report(ProcessReport("a", 1, 0, 0))
    store.report(ProcessReport("a", 2, 0, 8 * DAY_MS))
    assert [report.pid for report in TraceClient(store).list_processes()] == [2]


APP = """
import asyncio, httpx, os, signal, sys, time, wherefrom
from wherefrom import TraceMiddleware
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
async def main():
    transport = httpx.ASGITransport(TraceMiddleware(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for number in range(7):
            await client.get("/", headers={"X-User-ID": "" if number else "ada"})
asyncio.run(main())
print(os.getpid(), flush=True)
if sys.argv[1:] == ["stay"]:
    sys.stdin.read()
if sys.argv[1:] == ["killed"]:
    wherefrom.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["stay", "exit", "killed"])
def test_a_recording_process_reports(tmp_path: Path, end: str) -> None:
    """When it has nothing more to write, when it ends, and when it is flushed before it is killed."""
    url = f"sqlite:///{tmp_path / 'wherefrom.db'}"
    environ = {**os.environ, "WHEREFROM_STORE": url, "WHEREFROM_RETENTION_DAYS": "9"}
    command = [sys.executable, "-c", APP, end]
    with subprocess.Popen(
        command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        if end != "stay":
            process.communicate(timeout=60)
        with TraceClient(url) as client:
            while not (found := client.list_processes()) or found[0].stats.stored < 7:
                assert end == "stay", "an ended process has said its last word"
        process.communicate(timeout=60)
    (report,) = found
    assert (report.host, report.pid, report.retention_days) == (socket.gethostname(), pid, 9)
    assert (report.stats.recorded, report.stats.stored) == (7, 7)
    assert report.stats.refused_headers == {"x-user-id": 6}
    assert report.queues == {"SQLiteStore": 0}
    assert report.started <= report.reported


def test_a_report_that_fails_costs_nothing(tmp_path: Path) -> None:
    """If a report cannot be written, traces still are."""
    import sqlite3

    path = tmp_path / "wherefrom.db"
    store = SQLiteStore(path)
    store.write([])
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE processes")
    connection.close()
    environ = {**os.environ, "WHEREFROM_STORE": f"sqlite:///{path}"}
    done = subprocess.run(
        [sys.executable, "-c", APP], env=environ, text=True, capture_output=True, timeout=60, check=True
    )
    assert "process report failed" in done.stderr
    with TraceClient(f"sqlite:///{path}") as client:
        assert len(client.search_traces()) == 7
