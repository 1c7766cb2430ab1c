"""Threads: their work is part of the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread, get_ident

import anyio.to_thread
import pytest

from wherefrom import MemorySink, context, current_trace, start_span
from wherefrom.integrations.threads import copy_context_to

from .apps import within_a_request


def work(name: str = "work") -> str | None:
    """A span in whatever thread this runs; the request id that it sees there."""
    with start_span(name, attributes={"thread": get_ident()}):
        return context.request_id


async def pool_submit() -> None:
    with copy_context_to(ThreadPoolExecutor(1)) as pool:
        assert pool.submit(work, name="work").result() == "r1"


async def pool_map() -> None:
    with copy_context_to(ThreadPoolExecutor(2)) as pool:
        assert list(pool.map(work, ["work"])) == ["r1"]


async def run_in_executor() -> None:
    with copy_context_to(ThreadPoolExecutor(1)) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, work) == "r1"


async def asyncio_to_thread() -> None:
    assert await asyncio.to_thread(work) == "r1"


async def anyio_to_thread() -> None:
    assert await anyio.to_thread.run_sync(work) == "r1"


async def plain_thread() -> None:
    thread = Thread(target=copy_context().run, args=(work,))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "way", [pool_submit, pool_map, run_in_executor, asyncio_to_thread, anyio_to_thread, plain_thread]
)
async def test_spans_made_there_join_the_trace(sink: MemorySink, way: Callable[[], Awaitable[None]]) -> None:
    """Each of these ways is one trace, the thread's span below the one that was current outside."""

    async def handler() -> None:
        with start_span("outer"):
            await way()

    trace = await within_a_request(handler, sink, headers={"X-Request-ID": "r1"})
    root, outer, inner = trace.data.spans
    assert (outer.parent_id, inner.parent_id) == (root.span_id, outer.span_id)
    assert inner.attributes["thread"] != get_ident()
    assert inner.trace_id == root.trace_id


async def test_a_pool_without_it_loses_the_trace(sink: MemorySink, outside: MemorySink) -> None:
    """Why it is there: what a bare pool does is a trace of its own."""

    async def handler() -> None:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() is None

    trace = await within_a_request(handler, sink)
    assert len(trace.data.spans) == 1
    assert [lost.info.tags["mlflow.traceName"] for lost in outside.traces] == ["work"]


async def test_each_piece_of_work_has_its_submitter_s_context(sink: MemorySink) -> None:
    """One pool for all requests keeps them apart, and leaves nothing behind in its threads."""
    pool = copy_context_to(ThreadPoolExecutor(1))
    for number in range(3):

        async def handler(name: str = f"work {number}") -> None:
            pool.submit(work, name).result()

        await within_a_request(handler, sink, headers={"X-Request-ID": f"r{number}"})
    assert [[span.name for span in trace.data.spans[1:]] for trace in sink.traces] == [
        ["work 0"],
        ["work 1"],
        ["work 2"],
    ]
    assert pool.submit(current_trace).result() is None
    pool.shutdown()


async def test_work_that_outlives_the_request(sink: MemorySink) -> None:
    """Spans that end after the response are stored late, in the same trace."""
    pool = copy_context_to(ThreadPoolExecutor(1))

    def slow() -> None:
        with start_span("slow"):
            time.sleep(0.05)

    async def handler() -> None:
        pool.submit(slow)
        time.sleep(0.01)  # the thread has begun

    trace = await within_a_request(handler, sink)
    pool.shutdown()
    assert [span.name for span in trace.data.spans] == ["GET /", "slow"]
    assert trace.data.spans[1].end_time_ns is not None


def test_it_is_an_executor_like_the_one_it_wraps() -> None:
    """What raises there raises here; ``shutdown`` and ``cancel_futures`` reach the pool."""
    inner = ThreadPoolExecutor(1)
    pool = copy_context_to(inner)
    assert isinstance(pool, Executor)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result()
    blocking = pool.submit(time.sleep, 0.05)
    waiting = pool.submit(work)
    pool.shutdown(wait=True, cancel_futures=True)
    assert blocking.done()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        inner.submit(work)


def test_processes_are_refused() -> None:
    """A context cannot be sent to another process, and the wrapper raises an error."""
    with ProcessPoolExecutor(1) as pool, pytest.raises(TypeError, match="another process"):
        copy_context_to(pool)
