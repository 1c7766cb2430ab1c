"""A file with a cap: the oldest traces go when it is larger, little by little, whoever writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wherefrom import Trace
from wherefrom.client import TraceClient
from wherefrom.sinks import BackgroundSink
from wherefrom.stores import Selection
from wherefrom.stores.opening import examine
from wherefrom.stores.sqlite import store as module
from wherefrom.stores.sqlite.health import used_bytes
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]

CAP_MB = 1.0
MB = 1_000_000
START = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIM_EVERY_S", 0.0)


@pytest.fixture
def make(make_trace: MakeTrace) -> Callable[[int, int], list[Trace]]:
    """Makes traces of about so many bytes, one a second."""

    def make(count: int, size: int) -> list[Trace]:
        previews = ("x" * size for _ in range(count))
        return [
            make_trace(request_time=START + number * 1000, request_preview=preview)
            for number, preview in enumerate(previews)
        ]

    return make


def used(store: SQLiteStore) -> int:
    with store._lock:
        return used_bytes(store._connection())


def times(store: SQLiteStore) -> list[int]:
    """The numbers of the traces, which are the seconds of their start."""
    with store.snapshot() as snapshot:
        rows = snapshot.rows(snapshot.changes(None, Selection(), 100_000).keys)
    return sorted((row.request_time - START) // 1000 for row in rows)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def in_batches(traces: list[Trace]) -> Iterator[list[Trace]]:
    return (traces[start : start + 100] for start in range(0, len(traces), 100))


def test_the_oldest_go_while_the_app_writes(tmp_path: Path, make: Callable[[int, int], list[Trace]]) -> None:
    """No write fails; those that stay are the newest, and comparisons still count the others."""
    with closing(SQLiteStore(tmp_path / "traces.db", max_store_mb=CAP_MB)) as store:
        queue = BackgroundSink(store, flush_interval_ms=1)
        for batch in in_batches(make(1_500, 1_000)):
            queue.write(batch)
            assert queue.flush(60)
        until(lambda: used(store) <= CAP_MB * MB and store._next_upkeep != float("inf"))
        assert used(store) > 0.6 * CAP_MB * MB
        left = times(store)
        assert left == list(range(1_500 - len(left), 1_500))
        with store.snapshot() as snapshot:
            assert snapshot.bounds(Selection(), with_pruned=True) == (START, START + 1_499_000)
        queue.close()


def test_below_the_cap_nothing_goes(tmp_path: Path, make: Callable[[int, int], list[Trace]]) -> None:
    """Free pages do not count: a file of 2 MB whose traces were deleted is not full."""
    traces = make(1_000, 1_500)
    path = tmp_path / "traces.db"
    with closing(SQLiteStore(path)) as store:
        store.write(traces)
        TraceClient(store).delete_traces("default", trace_ids=[t.info.trace_id for t in traces[:-100]])
    assert path.stat().st_size > 1.5 * MB
    with closing(SQLiteStore(path, max_store_mb=CAP_MB)) as store:
        store._trim(store._cap or 0, store._stop)
        assert times(store) == list(range(900, 1_000))


def test_a_few_large_traces_do_not_all_go(tmp_path: Path, make: Callable[[int, int], list[Trace]]) -> None:
    """A step deletes as many as are needed; the last one too, if it alone is larger than the cap."""
    with closing(SQLiteStore(tmp_path / "traces.db", max_store_mb=CAP_MB)) as store:
        (enormous,) = make(1, 2 * MB)
        store.write([enormous])
        until(lambda: times(store) == [] and store._next_upkeep != float("inf"))  # and the upkeep has ended
        store._next_upkeep = float("inf")
        store.write(make(10, 150_000))
        store._trim(store._cap or 0, store._stop)
        assert times(store) == list(range(10 - len(times(store)), 10))
        assert len(times(store)) >= 3


def test_several_processes_delete_no_more_than_one_would(
    tmp_path: Path, make: Callable[[int, int], list[Trace]]
) -> None:
    """Each step looks at the size within its transaction."""
    path = tmp_path / "traces.db"
    with closing(SQLiteStore(path)) as store:
        for batch in in_batches(make(4_000, 1_000)):
            store.write(batch)
    code = """
import sys, time
from wherefrom.stores.sqlite.store import SQLiteStore
store = SQLiteStore(sys.argv[1], max_store_mb=2)
print("ready", flush=True)
sys.stdin.readline()
store._trim(store._cap, store._stop)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.communicate(b"\n", timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    with closing(SQLiteStore(path)) as store:
        assert 1.5 * MB < used(store) <= 1.8 * MB


def test_health_and_doctor_tell_the_cap(
    tmp_path: Path, make: Callable[[int, int], list[Trace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/traces.db"
    with closing(SQLiteStore(tmp_path / "traces.db")) as store:
        store.write(make(1_000, 2_000))
        assert store.health().cap is None
    health = examine(url, max_store_mb=CAP_MB)
    assert health.cap == MB
    assert any("more than its cap of 1.00 MB" in warning for warning in health.warnings)
    assert examine(url, max_store_mb=1_000).warnings == []
    command = [sys.executable, "-m", "wherefrom", "doctor", "--json"]
    monkeypatch.setenv("WHEREFROM_STORE", url)
    monkeypatch.setenv("WHEREFROM_MAX_STORE_MB", "50")
    told = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert told["store"]["cap"] == 50 * MB
