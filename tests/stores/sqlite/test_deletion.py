"""Deletion of old traces: the cost for each does not depend on their number, and writers are not blocked."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event

from wherefrom import Trace, TraceInfo
from wherefrom.client import TraceClient
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink
from wherefrom.stores.sqlite import rollups, writer
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]
Filled = Callable[[int], Path]

STEP: Final = 100
"""Instructions of SQLite's virtual machine between two calls of the progress handler."""

LOOKUPS: Final = re.compile(
    r"SEARCH traces USING INTEGER PRIMARY KEY \(rowid=\?\)"
    r"|SEARCH traces USING (COVERING )?INDEX sqlite_autoindex_traces_1 \(trace_id=\?\)"
    r"|SEARCH traces USING (COVERING )?INDEX ix_traces_request_time \(request_time<\?\)"
    r"|SEARCH traces"  # the largest id
    r"|SEARCH traces USING COVERING INDEX ix_traces_source \(source_id=\?\)"  # the first of a source
    r"|SEARCH traces USING INTEGER PRIMARY KEY \(rowid>\?\)"  # those of the batch
    r"|SEARCH spans USING (COVERING )?INDEX sqlite_autoindex_spans_1 \(trace=\?( AND span_id=\?)?\)"
    r"|SEARCH trace_values USING PRIMARY KEY \(key=\? AND value=\? AND request_time=\? AND trace=\?\)"
)
GROWING: Final = re.compile(r"(SCAN|SEARCH) (traces|spans|trace_values)\b")


def driver(name: str) -> Any:
    """The SQLite at hand, or another one that a package brings."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Files of so many old traces with metadata and tags, some the same for all and some of their own."""
    made: dict[int, Path] = {}

    def fill(count: int) -> Path:
        folder = tmp_path_factory.mktemp("filled")
        if count not in made:
            made[count] = folder / "original.db"
            write_old(made[count], count)
        return Path(shutil.copy(made[count], folder / "traces.db"))

    return fill


def write_old(path: Path, count: int) -> None:
    with closing(SQLiteStore(path)) as store:
        for start in range(0, count, 1000):
            store.write([old_trace(number) for number in range(start, min(start + 1000, count))])


def old_trace(number: int) -> Trace:
    tenant = {"tenant": "acme", "region": f"r{number % 3}", "job": f"job-{number}"}
    tags = {"team": "core", "ticket": f"T-{number}"}
    return Trace(TraceInfo(f"tr-{number:032x}", request_time=number, trace_metadata=tenant, tags=tags))


def count_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM traces").fetchone()[0])


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


class TestCost:
    @pytest.mark.parametrize("name", ["sqlite3", "pysqlite3"])
    def test_a_trace_costs_the_same_at_any_size(self, filled: Filled, name: str) -> None:
        """Counted in instructions of SQLite, of the triggers too, not in time."""
        sqlite = driver(name)
        cost = []
        for count in (2_000, 20_000):
            ticks = [0]

            def tick(ticks: list[int] = ticks) -> None:
                ticks[0] += 1

            with closing(sqlite.connect(filled(count))) as connection:
                connection.set_progress_handler(tick, STEP)
                assert writer.delete_before(connection, 2**60, 50) == 50
            cost.append(ticks[0] * STEP / 50)
        assert cost[1] < cost[0] * 1.2 < 2_000

    @pytest.mark.parametrize("name", ["sqlite3", "pysqlite3"])
    def test_an_edit_costs_the_same_at_any_size(self, filled: Filled, name: str) -> None:
        """A changed tag is taken from the list of its values, and listed anew."""
        sqlite = driver(name)
        cost = []
        for count in (2_000, 20_000):
            ticks = [0]

            def tick(ticks: list[int] = ticks) -> None:
                ticks[0] += 1

            with closing(sqlite.connect(filled(count))) as connection:
                connection.set_progress_handler(tick, STEP)
                connection.execute('UPDATE traces SET tags = \'{"team":"web"}\' WHERE id < 50')
            cost.append(ticks[0])
        assert cost[1] < cost[0] * 1.2


class TestPlans:
    @pytest.fixture
    def statements(self, tmp_path: Path, make_trace: MakeTrace) -> tuple[Path, list[str]]:
        """Every statement that writing, editing and deleting run, and those of the triggers."""
        path, seen = tmp_path / "traces.db", list[str]()
        with closing(SQLiteStore(path)) as store:
            store._connection().set_trace_callback(seen.append)

            @event.listens_for(store.engine, "connect")
            def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
                connection.set_trace_callback(seen.append)

            traces = [make_trace(request_time=moment, tags={"t": "1"}) for moment in range(9)]
            traces[0].info.trace_metadata["long"] = "x" * 500
            store.write(traces)
            store.write(traces)
            client, id_ = TraceClient(store), traces[0].info.trace_id
            client.set_trace_tag(id_, "t", "2")
            client.delete_trace_tag(id_, "t")
            assert client.delete_traces("default", trace_ids=[id_]) == 1
            assert client.delete_traces("default", max_timestamp_millis=2) == 2
            assert store.prune(5) == 2
        with closing(sqlite3.connect(path)) as connection:
            for (text,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'"):
                body = text.partition(" BEGIN ")[2].removesuffix(" END")
                seen += [
                    re.sub(r"\b(OLD|NEW)\.(\w+)", r"(SELECT \2 FROM changed)", one) for one in body.split(";")
                ]
        return path, [
            one.strip() for one in seen if re.match(r"\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b", one)
        ]

    @pytest.mark.parametrize("name", ["sqlite3", "pysqlite3"])
    def test_nothing_is_scanned_that_grows(self, statements: tuple[Path, list[str]], name: str) -> None:
        """Each row that is changed is found by an index, by all of its key."""
        path, texts = statements
        details: dict[str, str] = {}
        with closing(driver(name).connect(path)) as connection:
            # The row that a trigger is run for.
            connection.execute(
                "CREATE TEMP TABLE changed AS SELECT *, 1 AS key, '' AS value, 1 AS trace FROM traces"
            )
            for table in ("pruned", "rolled"):
                for make in rollups.MAKE:
                    connection.execute(make.format(table=table))
            for text in texts:
                for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {text}"):
                    details[detail.replace(" TABLE ", " ")] = text
        growing = {detail for detail in details if GROWING.match(detail)}
        assert {detail: details[detail] for detail in growing if not LOOKUPS.fullmatch(detail)} == {}
        tables = {match[2] for match in map(GROWING.match, growing) if match}
        assert tables == {"traces", "spans", "trace_values"}


class TestOthers:
    def test_another_process_writes_meanwhile(self, filled: Filled) -> None:
        """It hears of no lock, though it waits for half a second at most, and loses nothing."""
        path = filled(20_000)
        code = """
            import sys
            from wherefrom import Trace, TraceInfo
            from wherefrom.stores import open_store
            from wherefrom.stores.sqlite import file
            file.BUSY_TIMEOUT_S = 0.5
            store = open_store("sqlite:///" + sys.argv[1])
            print("ready", flush=True)
            sys.stdin.readline()
            for n in range(100):
                store.write([Trace(TraceInfo(f"tr-{n}", request_time=2**60))])
            store.close()
        """
        other = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        left_when_written: list[int] = []
        with closing(SQLiteStore(path)) as store:
            pruning = threading.Thread(target=store.prune, args=(2**59,))
            pruning.start()
            _, errors = other.communicate(b"\n", timeout=60)
            left_when_written.append(count_in(path) - 100)
            pruning.join()
        assert (other.returncode, errors) == (0, b"")
        assert left_when_written[0] > 0, "it was over before the other had written"
        assert count_in(path) == 100

    def test_retention_holds_up_no_write(self, filled: Filled, make_trace: MakeTrace) -> None:
        """New traces are stored at once, while the old ones go little by little."""
        path, now = filled(20_000), int(time.time() * 1000)
        store = SQLiteStore(path, retention_days=1)
        queue = BackgroundSink(store, flush_interval_ms=1)
        for written in range(1, 6):
            queue.write([make_trace(request_time=now)])
            assert queue.flush(5)
            assert ledger.read().stored == written
        assert count_in(path) > 5
        until(lambda: count_in(path) == 5)
        queue.close()
        store.close()

    def test_a_store_that_is_closed_deletes_no_more(self, filled: Filled, make_trace: MakeTrace) -> None:
        """It releases the file; used again, it continues."""
        path, now = filled(20_000), int(time.time() * 1000)
        store = SQLiteStore(path, retention_days=1)
        store.write([make_trace(request_time=now)])
        until(lambda: count_in(path) <= 20_000)
        store.close()
        left = count_in(path)
        time.sleep(0.2)
        assert count_in(path) == left > 1
        assert [found.name for found in path.parent.iterdir() if found.name.startswith("traces")] == [
            "traces.db"
        ]
        store.write([make_trace(request_time=now)])
        until(lambda: count_in(path) < left)
        store.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_goes_on(self, filled: Filled, make_trace: MakeTrace) -> None:
        """The parent's thread is not in it: it starts one of its own."""
        path, now = filled(2_000), int(time.time() * 1000)
        store = SQLiteStore(path, retention_days=1)
        store.write([make_trace(request_time=now)])
        store._next_upkeep = float("inf")  # as while it goes on
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.write([make_trace(request_time=now)])
                code = 0 if store._next_upkeep != float("inf") or threading.active_count() > 1 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store.close()

    def test_a_deletion_that_fails_is_told_and_tried_again(
        self, tmp_path: Path, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The traces of the batch are stored; the queue does not write them a second time."""
        monkeypatch.setattr("wherefrom.stores.sqlite.store._UPKEEP_EVERY_S", 0.0)
        path, now = tmp_path / "traces.db", int(time.time() * 1000)
        store = SQLiteStore(path, retention_days=1)
        store._connection().execute(
            "CREATE TRIGGER no BEFORE DELETE ON traces BEGIN SELECT RAISE(ABORT, 'not today'); END"
        )
        store.write([make_trace(request_time=now), make_trace()])
        until(lambda: ledger.read().errors.get("retention") == 1)
        store._connection().execute("DROP TRIGGER no")
        kept = itertools.count(2)

        def is_deleted() -> bool:
            # The thread that failed may be about to end: then it is the next write that starts another.
            store.write([make_trace(request_time=now)])
            return count_in(path) == next(kept)

        until(is_deleted)
        store.close()
