"""Blocks in generators that are not decorated: spans nest by what runs, whoever iterates and wherever."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from wherefrom import MemorySink, TraceMiddleware, current_span, current_trace, start_span, start_trace, trace
from wherefrom.context import span_var, trace_var
from wherefrom.process import process

from .test_decorator import parents, sink

__all__ = ["sink"]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not process.generators
    assert (trace_var.get(), span_var.get()) == (None, None)


def here() -> str | None:
    span = current_span()
    return None if span is None else span.name


@trace
def helper(name: str) -> None:
    with start_span(f"{name}'s"):
        pass


def steps(name: str = "outer") -> Iterator[str | None]:
    """Every kind of block around and between its yields."""
    with start_span(name), ExitStack() as stack:
        for i in range(3):
            with start_span(f"{name}{i}"):
                pass
            yield here()
        stack.enter_context(start_span(f"{name}-stack"))
        yield here()
        helper(name)
        yield here()


INSIDE = {
    "outer": "caller",
    "outer0": "outer",
    "outer1": "outer",
    "outer2": "outer",
    "outer-stack": "outer",
    "helper": "outer-stack",
    "outer's": "helper",
}


def plainly(items: Iterator[Any]) -> list[Any]:
    return list(items)


def each_in_a_context(items: Iterator[Any]) -> list[Any]:
    return [item for _ in range(20) if (item := contextvars.copy_context().run(next, items, "end")) != "end"]


def each_in_a_thread(items: Iterator[Any]) -> list[Any]:
    def step() -> Any:
        return next(items, "end")

    with ThreadPoolExecutor(1) as pool:
        found = [pool.submit(contextvars.copy_context().run, step).result() for _ in range(20)]
    return found[: found.index("end")]


def each_in_no_context(items: Iterator[Any]) -> list[Any]:
    """From the second step on, as a thread of its own."""
    first = next(items)
    return [first, *contextvars.Context().run(each_in_a_context, items)]


@pytest.mark.parametrize("run", [plainly, each_in_a_context, each_in_a_thread, each_in_no_context])
def test_spans_of_a_generator_nest_in_its_own_blocks(
    run: Callable[[Iterator[Any]], list[Any]], sink: MemorySink
) -> None:
    """At every step, in whatever context it runs."""
    with start_span("caller") as caller:
        assert run(steps()) == ["outer"] * 3 + ["outer-stack"] * 2
        assert current_span() is caller
    (kept,) = sink.traces
    assert parents(kept) == {"caller": None, **INSIDE}


@pytest.mark.parametrize("in_context", [True, False])
def test_the_callers_spans_between_the_steps_are_the_callers(in_context: bool, sink: MemorySink) -> None:
    """Its blocks are not those of the generator, and the generator's not those."""
    with start_span("caller") as caller:
        items = steps()
        for i in range(5):
            with start_span(f"turn{i}") as turn:
                contextvars.copy_context().run(next, items) if in_context else next(items)
                assert current_span() is turn
                helper(f"turn{i}")
            assert current_span() is caller
        assert next(items, "end") == "end"
    found = parents(sink.traces[0])
    assert {name: found[name] for name in INSIDE if name != "helper"} == {
        name: parent for name, parent in (INSIDE | {"outer": "turn0"}).items() if name != "helper"
    }
    assert all(found[f"turn{i}"] == "caller" for i in range(5))
    assert found["turn4's"] == "helper"


def test_generators_that_take_turns_do_not_nest_in_each_other(sink: MemorySink) -> None:
    """As ``zip`` iterates them."""
    with start_span("caller"):
        assert ("a", "b") in list(zip(steps("a"), steps("b"), strict=True))
    found = parents(sink.traces[0])
    for name in "ab":
        assert {found[f"{name}{i}"] for i in range(3)} == {name}
        assert found[name] == "caller"


def test_one_block_for_each_item(sink: MemorySink) -> None:
    """The block is that of the step in which it begins."""

    def each() -> Iterator[int]:
        for i in range(3):
            with start_span(f"item{i}"):
                yield i

    items = each()
    with start_span("caller"):
        for i in range(3):
            with start_span(f"turn{i}"):
                next(items)
                helper(f"work{i}")
        list(items)
    found = parents(sink.traces[0])
    assert [found[f"item{i}"] for i in range(3)] == ["turn0", "turn1", "turn2"]
    assert [found[f"turn{i}"] for i in range(3)] == ["caller"] * 3
    assert {span.span_id for span in sink.traces[0].data.spans if span.name == "helper"}.isdisjoint(
        span.parent_id for span in sink.traces[0].data.spans if span.name.startswith("item")
    )


def test_a_generator_in_a_generator(sink: MemorySink) -> None:
    """By ``yield from`` and by iteration."""

    def outer() -> Iterator[str | None]:
        with start_span("around"):
            yield here()
            yield from steps()
            for _ in steps("inner"):
                yield here()

    with start_span("caller"):
        seen = each_in_a_context(outer())
    assert seen == ["around"] + ["outer"] * 3 + ["outer-stack"] * 2 + ["around"] * 5
    found = parents(sink.traces[0])
    assert (found["outer"], found["inner"], found["outer2"], found["inner2"]) == (
        "around",
        "around",
        "outer",
        "inner",
    )


def test_outside_of_a_trace_the_block_is_a_trace_of_its_own(sink: MemorySink) -> None:
    """And stays the generator's: the caller's spans are traces of theirs."""
    items = steps()
    for step in (next, lambda items: contextvars.Context().run(next, items), next):
        assert step(items) == "outer"
        assert current_trace() is None
        helper("caller")
    list(items)
    names = [str(trace.info.name) for trace in sink.traces]
    assert sorted(names) == ["helper"] * 3 + ["outer"]
    assert parents(sink.traces[-1]) == {**INSIDE, "outer": None}


async def test_async_generators_too(sink: MemorySink) -> None:
    """Where each step is a task of its own, and where it is not."""

    async def later() -> AsyncIterator[str | None]:
        with start_span("later"):
            for i in range(2):
                await asyncio.sleep(0)
                with start_span(f"later{i}"):
                    yield here()

    async def step(items: AsyncIterator[str | None]) -> str | None:
        return await anext(items)

    with start_span("caller") as caller:
        async for name in later():
            assert name in ("later0", "later1")
            assert current_span() is caller
        items = later()
        for i in range(2):
            assert await asyncio.create_task(step(items)) == f"later{i}"
            assert current_span() is caller
        with pytest.raises(StopAsyncIteration):
            await asyncio.create_task(step(items))
    assert [parents(sink.traces[0])[name] for name in ("later", "later0", "later1")] == [
        "caller",
        "later",
        "later",
    ]


def test_a_context_manager_is_what_its_block_runs_in(sink: MemorySink) -> None:
    """Written as a generator, its spans are current in the block: that is what it is for."""

    @contextmanager
    def inner() -> Iterator[None]:
        with start_span("inner"):
            yield

    @contextmanager
    def managed() -> Iterator[None]:
        with start_span("managed"), inner():
            yield

    @asynccontextmanager
    async def managed_later() -> AsyncIterator[None]:
        with start_span("managed"):
            yield

    async def main() -> None:
        async with managed_later():
            assert here() == "managed"
        assert here() == "caller"

    with start_span("caller"):
        with managed():
            assert here() == "inner"
            helper("block")
        assert here() == "caller"
        asyncio.run(main())
        assert here() == "caller"
    assert parents(sink.traces[0])["helper"] == "inner"


@pytest.fixture
def fixture_block() -> Iterator[None]:
    with start_span("fixture"):
        yield


def test_a_fixture_is_what_its_test_runs_in(sink: MemorySink, fixture_block: None) -> None:
    """As a context manager is."""
    assert here() == "fixture"


def test_a_generator_that_is_left_early(sink: MemorySink) -> None:
    """Closed, forgotten in the middle, or forgotten in a cycle with itself."""
    with start_span("caller") as caller:
        items = steps()
        next(items)
        items.close()  # type: ignore[attr-defined]
        assert current_span() is caller
        for _ in steps("forgotten"):
            break
        assert current_span() is caller

        class Reader:
            def __init__(self) -> None:
                self.items = self.read()

            def read(self) -> Iterator[int]:
                with start_span("reader"):
                    yield 1

        reader = Reader()
        next(reader.items)
        gone = weakref.ref(reader)
        del reader
        gc.collect()
        assert gone() is None
        assert current_span() is caller
    assert {
        name: parent for name, parent in parents(sink.traces[0]).items() if parent == "caller"
    }.keys() == {
        "outer",
        "forgotten",
        "reader",
    }


def test_an_error_in_a_step_is_recorded_in_its_block(sink: MemorySink) -> None:
    """And the caller goes on where it was."""

    def failing() -> Iterator[int]:
        with start_span("failing"):
            yield 1
            raise ValueError("so")

    with start_span("caller") as caller:
        with pytest.raises(ValueError, match="so"):
            each_in_a_context(failing())
        assert current_span() is caller
    assert {span.name: span.status.code for span in sink.traces[0].data.spans} == {
        "caller": "OK",
        "failing": "ERROR",
    }


def test_a_trace_that_starts_in_a_step_is_a_trace_of_its_own(sink: MemorySink) -> None:
    """Its spans are its own, also those that a function opens."""

    def job() -> None:
        with start_trace("job"):
            helper("job")

    def items() -> Iterator[None]:
        with start_span("outer"):
            yield
            job()
            assert here() == "outer"
            yield

    with start_span("caller"):
        each_in_a_context(items())
    job_trace, _ = sink.traces
    assert [span.name for span in job_trace.data.spans] == ["job", "helper", "job's"]


async def test_a_request_that_a_generator_makes_is_a_trace_of_its_own(sink: MemorySink) -> None:
    """As a test does that is a generator: a request's trace is that of its scope."""
    requests = MemorySink()
    app = FastAPI()
    app.add_middleware(TraceMiddleware, sink=requests)

    @app.get("/")
    async def read() -> str | None:
        helper("request")
        return here()

    async def client() -> AsyncIterator[str]:
        transport = httpx.ASGITransport(app)
        with start_span("test"):
            yield "first"
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield (await http.get("/")).json()

    assert [item async for item in client()] == ["first", "GET"]
    assert [span.name for span in requests.traces[0].data.spans] == ["GET /", "helper", "request's"]
    assert [span.name for span in sink.traces[0].data.spans] == ["test"]


async def test_a_streaming_response_of_a_plain_generator(sink: MemorySink) -> None:
    """Starlette takes each of its steps in a thread, in a copy of the context."""
    requests = MemorySink()
    app = FastAPI()
    app.add_middleware(TraceMiddleware, sink=requests)

    def connection() -> Iterator[str]:
        with start_span("connection"):
            yield "c"

    @app.get("/")
    def read(db: str = Depends(connection)) -> StreamingResponse:
        def lines() -> Iterator[str]:
            for item in steps():
                yield str(item)

        return StreamingResponse(lines())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        assert (await http.get("/")).text == "outer" * 3 + "outer-stack" * 2
    found = parents(requests.traces[0])
    assert {name: found[name] for name in INSIDE} == {**INSIDE, "outer": "GET /"}


@pytest.mark.parametrize("run", [plainly, each_in_a_context])
def test_a_decorated_generator_with_blocks_of_plain_ones(
    run: Callable[[Iterator[Any]], list[Any]], sink: MemorySink
) -> None:
    """Both ways of keeping a place agree."""

    @trace
    def decorated() -> Iterator[str | None]:
        with start_span("block"):
            yield here()
            yield from steps()
            yield here()
        yield here()

    with start_span("caller"):
        assert run(decorated()) == ["block"] + ["outer"] * 3 + ["outer-stack"] * 2 + ["block", "decorated"]
    found = parents(sink.traces[0])
    assert (found["block"], found["outer"], found["outer2"]) == ("decorated", "block", "outer")


async def test_work_of_a_block_that_outlives_its_request(sink: MemorySink) -> None:
    """It is a trace of its own, in which spans nest."""
    tasks: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        with start_span("block"):
            yield 1
            await go_on.wait()
            helper("late")
            yield 2

    async def read() -> None:
        async for _ in stream():
            pass

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        tasks.append(asyncio.create_task(read()))
        await asyncio.sleep(0)

    await TraceMiddleware(app, sink=sink)({**SCOPE}, None, None)  # type: ignore[arg-type]
    go_on.set()
    await asyncio.gather(*tasks)
    late = next(trace for trace in sink.traces if trace.info.name == "helper")
    assert [span.name for span in late.data.spans] == ["helper", "late's"]
    assert late.data.spans[1].parent_id == late.data.spans[0].span_id


SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}
