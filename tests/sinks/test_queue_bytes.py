"""The queue's bound in bytes: held, shared by all destinations, errors kept longest, nothing miscounted."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink, Settings, Trace, TraceMiddleware, TraceState
from wherefrom.exceptions import StoreUnavailableError
from wherefrom.sinks import BackgroundSink, Budget
from wherefrom.stores.sqlite.store import SQLiteStore
from wherefrom.tracing import assembly

MakeTrace = Callable[..., Trace]
KB = 1000


class Away(MemorySink):
    """Out of reach until ``here`` is set; notes how many bytes each batch has."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.Event()
        self.sizes: list[int] = []

    def write(self, traces: Any) -> None:
        self.sizes.append(sum(trace.memory() for trace in traces))
        if not self.here.is_set():
            raise StoreUnavailableError("away")
        self.traces.extend(traces)


@pytest.fixture
def make(make_trace: MakeTrace) -> MakeTrace:
    """Makes traces of about ``size`` bytes, OK unless told."""

    def make_large(size: int = 100 * KB, *, error: bool = False, name: str = "x") -> Trace:
        trace = make_trace(name, state=TraceState.ERROR if error else TraceState.OK)
        trace.data.spans[0].outputs = "x" * size
        return trace

    return make_large


@contextmanager
def queue_on(sink: Any, budget: Budget, *, interval_ms: int = 1, **options: Any) -> Iterator[BackgroundSink]:
    queue = BackgroundSink(sink, budget=budget, flush_interval_ms=interval_ms, **options)
    try:
        yield queue
    finally:
        if isinstance(sink, Away):
            sink.here.set()
        queue.close(0.5)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the store's lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def stored_states(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT state, count(*) FROM traces GROUP BY state"))
    connection.close()
    return found


def test_a_locked_store_takes_no_more_than_the_budget(make: MakeTrace, tmp_path: Path) -> None:
    """Batch and queue stay below the bound, errors survive, each drop is counted, the rest is stored."""
    path = tmp_path / "w.db"
    store, budget = SQLiteStore(path), Budget(2_000 * KB)
    store.write([make(1)])
    with queue_on(store, budget) as queue:
        with locked(path):
            for n in range(100):
                queue.write([make(error=n % 10 == 9)])
                assert budget.held <= budget.limit
            kept = queue.depth
            assert 17 <= kept <= 19
            assert budget.held == queue.held > 1_800 * KB
            assert wherefrom.stats().dropped == {"queue_bytes": 100 - kept}
        assert queue.flush(20)
        assert (queue.depth, budget.held) == (0, 0)
    assert stored_states(path) == {"ERROR": 10, "OK": kept - 10 + 1}
    store.close()


def test_both_bounds_hold(make: MakeTrace) -> None:
    """Many small traces are bounded by number, few large ones by bytes, each under its own name."""
    with queue_on(Away(), Budget(1_000 * KB), queue_size=5, batch_size=1) as queue:
        queue.write([make(1) for _ in range(20)])
        assert wherefrom.stats().dropped["queue_full"] in {14, 15}
        queue.write([make(1, error=True), make(1_001 * KB), make(1_001 * KB, error=True)])
        assert wherefrom.stats().dropped["queue_bytes"] == 2
        assert wherefrom.stats().dropped["queue_full"] in {15, 16}


@pytest.mark.parametrize(("queue_size", "limit"), [(10, 64_000 * KB), (10_000, 1_000 * KB)])
def test_errors_are_kept_longest(make: MakeTrace, queue_size: int, limit: int) -> None:
    """By either bound the newest that is no error goes first; the newest error when no other is left."""
    sink = Away()
    with queue_on(sink, Budget(limit), queue_size=queue_size, interval_ms=60_000) as queue:
        queue.write([make(name=f"ok {n}") for n in range(30)])
        queue.write([make(name=f"error {n}", error=True) for n in range(30)])
        sink.here.set()
        assert queue.flush()
    names = [trace.info.name or "" for trace in sink.traces]
    errors = [name for name in names if name.startswith("error")]
    assert len(errors) >= 8
    assert errors == [f"error {n}" for n in range(len(errors))]
    assert errors == names
    assert wherefrom.stats().stored + sum(wherefrom.stats().dropped.values()) == 60


def test_a_batch_is_a_part_of_the_budget(make: MakeTrace) -> None:
    """What is being written cannot be dropped: it is an eighth, or one trace that is larger."""
    sink, budget = Away(), Budget(4_000 * KB)
    sink.here.set()
    with queue_on(sink, budget) as queue:
        queue.write([make() for _ in range(20)])
        queue.write([make(900 * KB)])
        assert queue.flush()
    assert len(sink.traces) == 21
    assert all(size < 500 * KB for size in sink.sizes[:-1])


def test_a_dead_destination_costs_another_nothing(make: MakeTrace) -> None:
    """One budget for both: who holds most makes room, even of its errors."""
    budget, dead, well = Budget(2_000 * KB), Away(), MemorySink()
    with queue_on(dead, budget) as first, queue_on(well, budget) as second:
        first.write([make(error=True) for _ in range(40)])
        assert first.held > 1_800 * KB
        for _ in range(40):
            trace = make()
            first.write([trace])
            second.write([trace])
            assert budget.held <= budget.limit
            assert second.flush()
        assert len(well.traces) == 40


def test_two_dead_destinations_share_the_budget(make: MakeTrace) -> None:
    """Each ends with about half of it, and with the errors."""
    budget, sinks = Budget(4_000 * KB), (Away(), Away())
    with queue_on(sinks[0], budget) as first, queue_on(sinks[1], budget) as second:
        for n in range(100):
            trace = make(error=n % 10 == 9)
            first.write([trace])
            second.write([trace])
        assert budget.held <= budget.limit
        assert abs(first.held - second.held) <= 300 * KB
        for sink, queue in zip(sinks, (first, second), strict=True):
            sink.here.set()
            assert queue.flush()
            assert sum(trace.info.state == "ERROR" for trace in sink.traces) == 10
    assert wherefrom.stats().stored + wherefrom.stats().dropped["queue_bytes"] == 200
    assert budget.held == 0


def test_threads_that_write_at_once_are_counted_exactly(make: MakeTrace) -> None:
    """No byte and no trace is lost between threads."""
    sink, budget = Away(), Budget(1_000 * KB)
    with queue_on(sink, budget) as queue:
        threads = [
            threading.Thread(target=queue.write, args=([make(10 * KB) for _ in range(100)],))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert budget.held <= budget.limit
        sink.here.set()
        assert queue.flush()
        assert budget.held == 0
    assert len(sink.traces) + wherefrom.stats().dropped["queue_bytes"] == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_starts_with_the_whole_budget(make: MakeTrace) -> None:
    """What the parent holds, its lock too, is not the child's."""
    sink, budget = Away(), Budget(1_000 * KB)
    with queue_on(sink, budget) as queue:
        queue.write([make() for _ in range(20)])
        with budget.lock:
            pid = os.fork()
            if pid == 0:
                sink.here.set()
                before = budget.held
                queue.write([make() for _ in range(5)])
                done = queue.flush()
                os._exit(0 if done and before == budget.held == 0 and len(sink.traces) == 5 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert queue.depth == 9


def test_a_close_gives_the_bytes_back(make: MakeTrace) -> None:
    """What waits when a queue is closed no longer counts for the others."""
    budget = Budget(1_000 * KB)
    queue = BackgroundSink(Away(), budget=budget, flush_interval_ms=60_000)
    queue.write([make() for _ in range(5)])
    assert not queue.close(0.01)
    assert budget.held <= 200 * KB


@pytest.mark.usefixtures("fresh_process")
class TestInTheProcess:
    def settings(self, path: Path, **options: Any) -> Settings:
        return Settings(store=f"sqlite:///{path}", flush_interval_ms=1, shutdown_timeout=1, **options)

    async def test_requests_with_large_values(self, tmp_path: Path) -> None:
        """The bound of the setting holds for a locked store and an exporter that is away."""
        path = tmp_path / "w.db"

        async def app(scope: Any, _receive: Any, send: Any) -> None:
            root = wherefrom.current_span()
            assert root is not None
            for n in range(10):
                root.set_attribute(f"n{n}", os.urandom(5 * KB).hex())
            with wherefrom.start_span("child") as child:
                child.set_inputs({"text": os.urandom(5 * KB).hex()})
            await send({"type": "http.response.start", "status": 500 if scope["path"] == "/e" else 200})
            await send({"type": "http.response.body", "body": b""})

        settings = self.settings(path, queue_bytes=3_000 * KB, export="jsonl:////nowhere/at/all")
        traced = TraceMiddleware(app, settings=settings)

        async def nothing(*_: Any) -> Any:
            return {"type": "http.request"}

        async def ask(path: str) -> None:
            await traced({"type": "http", "method": "GET", "path": path, "headers": []}, nothing, nothing)

        await ask("/")
        (store, _) = assembly._all_queues()
        assert store.flush(20)
        assert stored_states(path) == {"OK": 1}
        with locked(path):
            for n in range(100):
                await ask("/e" if n % 20 == 19 else "/")
                assert wherefrom.stats().queue_bytes <= 3_000 * KB
            assert wherefrom.stats().queue_bytes > 2_500 * KB
        assert store.flush(20)
        assert stored_states(path)["ERROR"] == 5

    def test_late_spans_count(self, tmp_path: Path) -> None:
        """A span that ends after its trace brings its bytes with it."""
        settings = self.settings(tmp_path / "w.db", queue_bytes=1_000 * KB)
        recorder = assembly.make_recorder(settings)
        SQLiteStore(tmp_path / "w.db").write([])
        with locked(tmp_path / "w.db"):
            trace = recorder.start("x")
            spans = [trace.start_span(f"late {n}") for n in range(20)]
            trace.recorder.finish(trace)
            before = wherefrom.stats().queue_bytes
            for span in spans:
                span.set_outputs("x" * 100 * KB)
                span.end()
            assert before + 800 * KB < wherefrom.stats().queue_bytes <= 1_000 * KB
            assert wherefrom.stats().dropped["queue_bytes"] >= 11

    async def test_a_request_that_records_nothing_is_weighed_as_it_is(self, tmp_path: Path) -> None:
        """10,000 of them fit into the default; whatever the app adds, and however, counts."""
        long = "x" * 100 * KB
        sink = MemorySink()
        adds: dict[str, Callable[[Any], Any]] = {
            "nothing": lambda trace: None,
            "attribute": lambda trace: trace.root.set_attribute("k", long),
            "key": lambda trace: trace.root.attributes.update({long: 1}),
            "attributes": lambda trace: trace.root.attributes.update(k=long),
            "inputs": lambda trace: setattr(trace.root, "inputs", [{"k": long}]),
            "outputs": lambda trace: trace.root.set_outputs(long),
            "event": lambda trace: trace.root.add_event("e", {"k": long}),
            "status": lambda trace: trace.root.set_status("ERROR", long),
            "metadata": lambda trace: trace.info.trace_metadata.update(k=long),
            "tag": lambda trace: trace.info.tags.update(k=long),
            "preview": lambda trace: setattr(trace.info, "request_preview", long),
            "name": lambda trace: setattr(trace.root, "name", long),
        }

        async def app(scope: Any, _receive: Any, send: Any) -> None:
            adds[scope["path"].strip("/")](wherefrom.current_trace())
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b""})

        async def nothing(*_: Any) -> Any:
            return {"type": "http.request"}

        traced = TraceMiddleware(app, settings=Settings(), sink=sink)
        for name in adds:
            await traced(
                {"type": "http", "method": "GET", "path": "/" + name, "headers": []}, nothing, nothing
            )
        plain, *others = [trace.memory() for trace in sink.traces]
        assert 2_000 < plain < 6_400
        assert all(100 * KB < size < 120 * KB or size > 200 * KB for size in others), others


def test_values_of_many_parts_are_weighed_in_a_bounded_time(make_trace: MakeTrace) -> None:
    """A million small values count for what they take; a cycle has an end."""
    trace = make_trace()
    trace.data.spans[0].inputs = [{} for _ in range(300_000)]
    assert 15_000 * KB < trace.memory() < 30_000 * KB
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    trace.data.spans[0].inputs = cycle
    assert trace.memory() > 0
