"""The queue: never waits, never raises, loses nothing that it need not lose, and counts the rest."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import wherefrom
from tests.facts import SOURCE, make_facts
from wherefrom import MemorySink, Settings, Trace, TraceClient, TraceMiddleware
from wherefrom.exceptions import StoreError, StoreUnavailableError
from wherefrom.model import Assessment, Source
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink, Sink
from wherefrom.sinks.queue import Budget
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]


class Scripted(MemorySink):
    """Raises what ``script`` says for each write, then keeps; notes the size of every batch."""

    def __init__(self, *script: Exception | None) -> None:
        super().__init__()
        self.script = list(script)
        self.sizes: list[int] = []

    def write(self, traces: Any) -> None:
        self.sizes.append(len(traces))
        if self.script and (error := self.script.pop(0)):
            raise error
        self.traces.extend(traces)


class Gate(MemorySink):
    """Writes when it is let; ``entered`` says that a write has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let = threading.Event(), threading.Event()

    def write(self, traces: Any) -> None:
        self.entered.set()
        assert self.let.wait(10)
        self.traces.extend(traces)


Start = Callable[..., BackgroundSink]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes queues that are closed at the end of the test."""
    queues: list[BackgroundSink] = []

    def make(sink: Sink, **options: Any) -> BackgroundSink:
        queues.append(BackgroundSink(sink, **{"flush_interval_ms": 1, **options}))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close(0.5)


def test_traces_are_written_in_order_and_in_batches(start: Start, make_trace: MakeTrace) -> None:
    """Everything comes to the sink, in order, at most 1,024 at a time."""
    sink = Scripted()
    queue = start(sink, flush_interval_ms=60_000)
    traces = [make_trace(f"{n}") for n in range(1200)]
    for trace in traces:
        queue.write([trace])
    assert queue.flush()
    assert [id(trace) for trace in sink.traces] == [id(trace) for trace in traces]
    assert sink.sizes == [1024, 176]
    assert (queue.depth, wherefrom.stats().stored) == (0, 1200)


def test_they_are_written_without_a_flush(start: Start, make_trace: MakeTrace) -> None:
    """One interval later at the latest, again and again."""
    sink = Scripted()
    queue = start(sink)
    for _ in range(3):
        queue.write([make_trace()])
        wait_until(lambda: queue.depth == 0)
    assert len(sink.traces) == 3


def test_a_burst_is_spread_over_the_interval(start: Start, make_trace: MakeTrace) -> None:
    """The writer rests after each batch but the last, less than half of the interval in all."""

    class Noting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append((len(sink.traces), timeout))
            return super().wait(timeout)

    sink, waits = Scripted(), list[tuple[int, float]]()
    queue = start(sink, batch_size=2, flush_interval_ms=400)
    queue._hurry = Noting()
    queue.write([make_trace() for _ in range(5)])
    wait_until(lambda: queue.depth == 0)
    assert sink.sizes == [2, 2, 1]
    assert waits[0] == (0, 0.2)
    assert [written for written, _ in waits[1:]] in ([2, 4], [2], [])  # a slow machine is late, and rests not
    assert sum(wait for _, wait in waits[1:]) < 0.2


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_thread_runs_before_the_first_trace() -> None:
    """A process that forks its workers after the import has no thread to lose."""
    before = threading.active_count()
    BackgroundSink(MemorySink())
    assert threading.active_count() == before


def test_a_full_queue_drops_and_counts(start: Start, make_trace: MakeTrace) -> None:
    """``queue_size`` bounds what waits; the writer never does."""
    sink = Gate()
    queue = start(sink, queue_size=3)
    queue.write([make_trace()])
    assert sink.entered.wait(5)
    for _ in range(5):
        queue.write([make_trace()])
    assert wherefrom.stats().dropped == {"queue_full": 2}
    assert queue.depth == 4
    sink.let.set()
    assert queue.flush()
    assert len(sink.traces) == 4


def test_an_unavailable_sink_is_tried_again(start: Start, make_trace: MakeTrace) -> None:
    """A batch that cannot be written now is kept, and written once, when the sink is there again."""
    sink = Scripted(StoreUnavailableError("locked"), StoreUnavailableError("locked"))
    queue = start(sink)
    traces = [make_trace() for _ in range(3)]
    queue.write(traces)
    assert queue.flush()
    assert sink.traces == traces
    assert sink.sizes == [3, 3, 3]
    assert wherefrom.stats().dropped == {}
    assert wherefrom.stats().errors == {"Scripted": 2}


class Choosy(MemorySink):
    """Refuses every batch with a trace named ``bad``; ``unavailable`` is how often a good one must wait."""

    def __init__(self, unavailable: int = 0) -> None:
        super().__init__()
        self.unavailable = unavailable

    def write(self, traces: Any) -> None:
        if any(trace.info.name == "bad" for trace in traces):
            raise StoreError("no")
        if self.unavailable and len(self.traces) == 1:
            self.unavailable -= 1
            raise StoreUnavailableError("locked")
        self.traces.extend(traces)


def test_one_bad_trace_does_not_cost_the_others(start: Start, make_trace: MakeTrace) -> None:
    """What a sink refuses for good is dropped and counted; the rest of its batch is written."""
    sink = Choosy()
    queue = start(sink)
    queue.write([make_trace("a"), make_trace("bad"), make_trace("b"), make_trace("bad")])
    assert queue.flush()
    assert [trace.info.name for trace in sink.traces] == ["a", "b"]
    assert wherefrom.stats().dropped == {"refused_by_sink": 2}
    assert wherefrom.stats().stored == 2


def test_what_is_written_is_not_written_again(start: Start, make_trace: MakeTrace) -> None:
    """A sink that goes away in the middle of a batch with a bad trace gets the rest of it later, once."""
    sink = Choosy(unavailable=1)
    queue = start(sink)
    queue.write([make_trace("a"), make_trace("bad"), make_trace("b"), make_trace("c")])
    assert queue.flush()
    assert [trace.info.name for trace in sink.traces] == ["a", "b", "c"]
    assert wherefrom.stats().stored == 3
    assert wherefrom.stats().dropped == {"refused_by_sink": 1}


class Picky(MemorySink):
    """Takes all but those named ``late``, which it leaves ``times`` times; notes the names of every batch."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.batches: list[list[str | None]] = []

    def write(self, traces: Any) -> None:
        self.batches.append([trace.info.name for trace in traces])
        late = [trace for trace in traces if trace.info.name == "late" and self.times > 0]
        self.times -= bool(late)
        self.traces.extend(trace for trace in traces if trace not in late)
        if late:
            raise StoreUnavailableError("not now", left=late if len(late) < len(traces) else None)


def test_what_is_left_goes_to_the_end(start: Start, make_trace: MakeTrace) -> None:
    """The others are done: counted, and not written again; a flush waits for the rest too."""
    sink = Picky(times=3)
    queue = start(sink, batch_size=2)
    queue.write([make_trace(name) for name in ("late", "a", "b", "c", "d")])
    assert queue.flush()
    assert sink.batches[:3] == [["late", "a"], ["b", "c"], ["d", "late"]]
    assert [trace.info.name for trace in sink.traces] == ["a", "b", "c", "d", "late"]
    assert ledger.read().stored == 5
    assert queue.depth == 0


def test_a_flush_waits_for_what_was_put_back(start: Start, make_trace: MakeTrace) -> None:
    sink = Picky(times=1000)
    queue = start(sink)
    queue.write([make_trace("late"), make_trace("a")])
    assert not queue.flush(0.3)
    assert queue.depth == 1
    sink.times = 0
    assert queue.flush()
    assert len(sink.traces) == 2


def test_a_trace_refused_alone_is_not_written_twice(start: Start, make_trace: MakeTrace) -> None:
    sink = Scripted(StoreError("no"))
    queue = start(sink)
    queue.write([make_trace()])
    assert queue.flush()
    assert sink.sizes == [1]
    assert ledger.read().dropped == {"refused_by_sink": 1}


class TestFlush:
    def test_an_empty_queue_is_flushed(self, start: Start) -> None:
        """There is nothing to wait for."""
        assert start(MemorySink()).flush(0)

    def test_it_does_not_wait_for_what_comes_later(self, start: Start, make_trace: MakeTrace) -> None:
        """Under steady load a flush waits for what was queued before it, not for a quiet moment."""

        class Slow(MemorySink):
            def write(self, traces: Any) -> None:
                for trace in traces:
                    self.traces.append(trace)
                    queue.write([make_trace()])
                time.sleep(0.001)

        queue = start(Slow())
        queue.write([make_trace()])
        began = time.monotonic()
        assert queue.flush(2)
        assert time.monotonic() - began < 1
        queue.sink = MemorySink()

    def test_it_waits_no_longer_than_told(self, start: Start, make_trace: MakeTrace) -> None:
        """A sink that hangs makes it say no."""
        sink = Gate()
        queue = start(sink)
        queue.write([make_trace()])
        assert sink.entered.wait(5)
        assert not queue.flush(0.01)
        sink.let.set()
        assert queue.flush()

    def test_the_last_word_is_said(self, start: Start, make_trace: MakeTrace) -> None:
        """What is told of the writes is complete when a flush returns: a signal may end the process then."""
        told: list[int] = []
        sink = MemorySink()
        queue = start(sink, on_written=lambda: told.append(len(sink.traces)))
        for count in (1, 2, 3):
            queue.write([make_trace()])
            assert queue.flush()
            assert told[-1] == count
        assert queue.flush()
        assert len(told) <= 6

    def test_several_may_wait(self, start: Start, make_trace: MakeTrace) -> None:
        """Threads that flush at once are all told."""
        queue = start(MemorySink(), flush_interval_ms=60_000)
        answers: list[bool] = []

        def work() -> None:
            queue.write([make_trace()])
            answers.append(queue.flush())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 8
        assert wherefrom.stats().stored >= 8


class TestClose:
    def test_it_writes_what_waits_and_stops_the_thread(self, make_trace: MakeTrace) -> None:
        """Nothing is left running, nothing is lost."""
        before = threading.active_count()
        sink = Scripted()
        queue = BackgroundSink(sink, flush_interval_ms=60_000)
        queue.write([make_trace()])
        assert queue.close()
        assert threading.active_count() == before
        assert len(sink.traces) == 1
        assert queue.close()

    def test_what_cannot_be_written_in_time_is_counted(self, make_trace: MakeTrace) -> None:
        """Traces that are left at the end are dropped, and the counters say so."""
        queue = BackgroundSink(Scripted(*[StoreUnavailableError("locked")] * 99), flush_interval_ms=1)
        queue.write([make_trace(), make_trace()])
        assert not queue.close(0.01)
        assert wherefrom.stats().dropped == {"shutdown": 2}

    def test_it_can_be_used_again(self, start: Start, make_trace: MakeTrace) -> None:
        """A trace that comes after the end, from another exit handler, starts the thread again."""
        sink = Scripted()
        queue = start(sink)
        queue.write([make_trace()])
        queue.close()
        queue.write([make_trace()])
        wait_until(lambda: len(sink.traces) == 2)

    def test_it_is_freed(self, make_trace: MakeTrace) -> None:
        """A queue that nobody holds any more is gone: the thread that it had does not keep it."""
        queue = BackgroundSink(Scripted(), flush_interval_ms=1)
        queue.write([make_trace()])
        queue.close()
        gone = weakref.ref(queue)
        del queue
        gc.collect()
        assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    def test_a_child_starts_empty_and_works(self, start: Start, make_trace: MakeTrace) -> None:
        """The parent writes what it had queued, the child what it queues itself: nothing twice."""
        sink = Gate()
        queue = start(sink)
        queue.write([make_trace("parent"), make_trace("parent")])
        assert sink.entered.wait(5)
        queue.write([make_trace("parent")])
        pid = os.fork()
        if pid == 0:
            sink.let.set()
            before = queue.depth
            queue.write([make_trace("child")])
            done = queue.flush()
            names = [trace.info.name for trace in sink.traces]
            os._exit(0 if done and before == 0 and names == ["child"] else 1)
        sink.let.set()
        assert queue.flush()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert [trace.info.name for trace in sink.traces] == ["parent"] * 3

    def test_it_may_be_forked_while_a_flush_waits(self, start: Start, make_trace: MakeTrace) -> None:
        """A lock that another thread held at the fork is not the child's."""
        sink = Gate()
        queue = start(sink)
        queue.write([make_trace()])
        assert sink.entered.wait(5)
        waiting = threading.Thread(target=queue.flush)
        waiting.start()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if queue.flush(1) else 1)
        sink.let.set()
        waiting.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_out_of_threads(start: Start, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the write still raises nothing, and a later one tries again."""
    sink = Scripted()
    queue = start(sink)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_threads)
        queue.write([make_trace()])
        assert wherefrom.stats().errors == {"writer thread": 1}
    queue.write([make_trace()])
    assert queue.flush()
    assert len(sink.traces) == 2


def _no_threads(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_sources_of_facts_that_are_written_are_forgotten(tmp_path: Path) -> None:
    """An app that changes its model again and again does not fill the memory."""
    store = SQLiteStore(tmp_path / "traces.db")
    queue = BackgroundSink(store, flush_interval_ms=1)
    for number in range(250):
        source = Source({"app_version": str(number)})
        queue.put_facts(make_facts(number, source=source.digest), source)
        if number % 50 == 0:
            assert queue.flush()
    assert queue.close()
    assert len(queue._sources) <= 150
    found = TraceClient(store).search_traces(max_results=1000)
    assert {trace.info.trace_metadata["app_version"] for trace in found} == {str(n) for n in range(250)}
    store.close()


def put_facts(queue: BackgroundSink, first: int, count: int, **changes: Any) -> None:
    for number in range(first, first + count):
        queue.put_facts(make_facts(number, source=SOURCE.digest, **changes), SOURCE)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 10), (64, 64), (65, 7), (200, 1024), (130, 1)])
def test_facts_are_written_once_and_in_order(start: Start, count: int, batch_size: int) -> None:
    """However many of them are joined while they wait."""
    sink = Scripted()
    queue = start(sink, batch_size=batch_size)
    put_facts(queue, 0, count)
    assert queue.flush()
    assert [trace.info.trace_id[-8:] for trace in sink.traces] == [f"{n:08x}" for n in range(count)]
    assert max(sink.sizes) <= batch_size
    assert (queue.depth, queue.held) == (0, 0)


@pytest.mark.parametrize("size", [1, 10, 64, 100, 150])
def test_a_full_queue_drops_single_facts(start: Start, make_trace: MakeTrace, size: int) -> None:
    """The newest go, however many are joined; a trace with an error displaces one of them."""
    sink = Gate()
    queue = start(sink, queue_size=size, batch_size=1)
    queue.write([make_trace()])
    assert sink.entered.wait(10)
    put_facts(queue, 0, 200)
    queue.write([make_trace(state="ERROR")])
    assert queue.depth == size + 1  # and the one that is being written
    assert wherefrom.stats().dropped == {"queue_full": 201 - size}
    sink.let.set()
    assert queue.flush()
    kept = [trace for trace in sink.traces[1:] if trace.info.state != "ERROR"]
    assert [trace.info.trace_id[-8:] for trace in kept] == [f"{n:08x}" for n in range(size - 1)]
    assert queue.held == 0


def test_facts_that_are_too_many_bytes(start: Start) -> None:
    sink, budget = Gate(), Budget(20_000)
    queue = start(sink, budget=budget)
    put_facts(queue, 0, 640, path="/" + "x" * 100)
    assert budget.held <= budget.limit
    sink.let.set()
    assert queue.flush()
    # Counted at the end: the last of them wait outside of the budget until the queue settles.
    written = len(sink.traces)
    assert (written + wherefrom.stats().dropped["queue_bytes"], written > 10) == (640, True)
    assert budget.held == queue.held == 0


@pytest.mark.parametrize("path", ["/\0", "/\ud800", "/\U0001f600", "/" + "x" * 10_000])
def test_facts_keep_any_text(start: Start, path: str) -> None:
    sink = MemorySink()
    queue = start(sink)
    put_facts(queue, 0, 3, path=path)
    assert queue.flush()
    assert [trace.data.spans[0].attributes["url.path"] for trace in sink.traces] == [path] * 3


class OwnText(str):
    """Text of a class of its own, as a framework may put it into the scope."""

    __slots__ = ()


@pytest.mark.parametrize(
    "changes", [{"status": HTTPStatus.OK}, {"path": OwnText("/")}, {"user_id": OwnText("ada")}]
)
def test_facts_of_other_classes(start: Start, changes: dict[str, Any]) -> None:
    """Subclasses of int and str are recorded as what they are, and cost no other trace."""
    sink = MemorySink()
    queue = start(sink)
    put_facts(queue, 0, 1)
    put_facts(queue, 1, 1, **changes)
    put_facts(queue, 2, 70)
    assert queue.flush()
    assert len(sink.traces) == 72
    span, info = sink.traces[1].data.spans[0], sink.traces[1].info
    assert (span.attributes["http.response.status_code"], span.attributes["url.path"]) == (200, "/")
    assert info.trace_metadata.get("mlflow.trace.user") == changes.get("user_id")


async def test_a_status_that_is_an_enumeration(tmp_path: Path) -> None:
    """As Starlette passes it on; the requests around it are stored as well."""
    app = Starlette(routes=[Route("/", lambda _: JSONResponse({}, status_code=HTTPStatus.CREATED))])
    settings = Settings(store=f"sqlite:///{tmp_path / 'w.db'}")
    transport = httpx.ASGITransport(TraceMiddleware(app, settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for _ in range(70):
            assert (await http.get("/")).status_code == 201
    assert wherefrom.flush()
    store = SQLiteStore(tmp_path / "w.db")
    found = TraceClient(store).search_traces()
    store.close()
    assert [t.data.spans[0].attributes["http.response.status_code"] for t in found] == [201] * 70


def test_facts_count_towards_the_size_of_the_queue(start: Start, make_trace: MakeTrace) -> None:
    sink = Gate()
    queue = start(sink, queue_size=10, batch_size=1)
    for number in range(20):
        put_facts(queue, number, 1)
        queue.write([make_trace()])
        assert queue.depth <= 11  # with the one that is being written
    sink.let.set()


def test_feedback_comes_after_its_trace(start: Start) -> None:
    class Ordered(MemorySink):
        order: ClassVar[list[str]] = []

        def write(self, traces: Any) -> None:
            self.order.extend(["trace"] * len(traces))

        def write_assessments(self, assessments: Any) -> None:
            self.order.extend(["feedback"] * len(assessments))

    sink = Ordered()
    queue = start(sink, batch_size=1, flush_interval_ms=60_000)
    put_facts(queue, 0, 2)
    assert queue.put_assessment(Assessment(trace_id="tr-1", name="thumb", value=True))
    assert queue.flush()
    assert sink.order == ["trace", "trace", "feedback"]


def test_facts_of_several_threads(start: Start) -> None:
    """Threads that record, and one that flushes meanwhile: each trace is written once."""
    sink = MemorySink()
    queue = start(sink)
    threads = [threading.Thread(target=put_facts, args=(queue, n * 1_000, 500)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        queue.flush(60)
    assert queue.flush(60)
    assert len(sink.traces) == len({trace.info.trace_id for trace in sink.traces}) == 2_000


class Switched(MemorySink):
    """Out of reach until it is let."""

    reachable = False
    attempts = 0

    def write(self, traces: Any) -> None:
        self.attempts += 1
        if not self.reachable:
            raise StoreUnavailableError("not now")
        self.traces.extend(traces)


def test_a_sink_long_out_of_reach_is_not_waited_for(start: Start, make_trace: MakeTrace) -> None:
    """It gets one more attempt; what waits stays, and is written when the sink is back."""
    sink = Switched()
    queue = start(sink)
    queue.write([make_trace()])
    assert not queue.flush(0.3)  # the sink may be back within that time
    time.sleep(0.3)
    attempts, started = sink.attempts, time.monotonic()
    assert not queue.flush(0.5)
    assert not queue.flush(0.2)
    assert sink.attempts > attempts
    assert queue.depth == 1
    sink.reachable = True
    assert queue.flush(10)
    assert (len(sink.traces), queue.depth) == (1, 0)
    sink.reachable = False
    queue.write([make_trace()])
    threading.Timer(0.2, lambda: setattr(sink, "reachable", True)).start()
    assert queue.flush(10)  # it has failed only now
    assert time.monotonic() - started < 20
