"""Functions that return a generator or a coroutine: the span ends with what they returned."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import subprocess
import sys
import threading
import types
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from wherefrom import MemorySink, TraceMiddleware, current_span, start_span, trace
from wherefrom.model import Span

from .test_decorator import CLOSED_EARLY, only_span, parents, request, sink

__all__ = ["sink"]


class Boom(Exception):
    """As it is raised in the tests."""


async def answer(question: str) -> str:
    with start_span("model"):
        await asyncio.sleep(0)
    return f"{question}!"


def words(text: str) -> Iterator[str]:
    for word in text.split():
        with start_span("word"):
            pass
        yield word


async def words_later(text: str) -> AsyncIterator[str]:
    for word in text.split():
        with start_span("word"):
            await asyncio.sleep(0)
        yield word


def ask(question: str) -> Coroutine[Any, Any, str]:
    return answer(question)


def stream(text: str) -> Iterator[str]:
    return words(text)


def stream_later(text: str) -> AsyncIterator[str]:
    return words_later(text)


async def open_stream(text: str) -> AsyncIterator[str]:
    return words_later(text)


class Asking:
    async def __call__(self, question: str) -> str:
        return await answer(question)

    def method(self, question: str) -> Coroutine[Any, Any, str]:
        return answer(question)

    @staticmethod
    def static(question: str) -> Coroutine[Any, Any, str]:
        return answer(question)

    @classmethod
    def of_class(cls, question: str) -> Coroutine[Any, Any, str]:
        return answer(question)


ASKING: list[Callable[[str], Coroutine[Any, Any, str]]] = [
    ask,
    lambda question: answer(question),
    partial(ask),
    partial(answer),
    Asking(),
    partial(Asking()),
    Asking().method,
    Asking.static,
    Asking.of_class,
]
if sys.version_info >= (3, 12):
    ASKING.append(inspect.markcoroutinefunction(partial(ask)))


async def drain(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


@pytest.mark.parametrize("func", ASKING)
async def test_a_returned_coroutine_ends_the_span(
    func: Callable[[str], Coroutine[Any, Any, str]], sink: MemorySink
) -> None:
    """Whatever callable returns it: the result is the output, the spans inside are its children."""
    assert await trace(func)("why") == "why!"
    (kept,) = sink.traces
    root, model = kept.data.spans
    assert (root.outputs, root.inputs, root.status.code) == ("why!", {"question": "why"}, "OK")
    assert model.parent_id == root.span_id
    assert ended(root) >= ended(model)


def ended(span: Span) -> int:
    assert span.end_time_ns is not None
    return span.end_time_ns


@pytest.mark.parametrize(
    "run",
    [
        lambda: list(trace(stream)("a b")),
        lambda: asyncio.run(drain(trace(stream_later)("a b"))),
        lambda: asyncio.run(opened()),
        lambda: asyncio.run(awaited_twice()),
    ],
)
def test_a_returned_generator_ends_the_span(run: Callable[[], list[str]], sink: MemorySink) -> None:
    """Its items are the output, also where it is the result of a coroutine."""
    assert run() == ["a", "b"]
    (kept,) = sink.traces
    root, *inner = kept.data.spans
    assert root.outputs == ["a", "b"]
    assert [event.name for event in root.events] == ["mlflow.chunk.item.0", "mlflow.chunk.item.1"]
    assert [(span.name, span.parent_id) for span in inner] == [("word", root.span_id)] * 2
    assert ended(root) >= ended(inner[-1])


async def opened() -> list[str]:
    return await drain(await trace(open_stream)("a b"))


async def awaited_twice() -> list[str]:
    return await drain(await trace(lambda text: open_stream(text))("a b"))


@pytest.mark.parametrize(
    ("func", "kind", "check"),
    [
        (ask, types.CoroutineType, inspect.iscoroutine),
        (ask, Coroutine, asyncio.iscoroutine),
        (ask, Coroutine, inspect.isawaitable),
        (stream, types.GeneratorType, inspect.isgenerator),
        (stream, Generator, inspect.isgenerator),
        (stream_later, types.AsyncGeneratorType, inspect.isasyncgen),
        (stream_later, AsyncGenerator, inspect.isasyncgen),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'answer' was never awaited")
def test_what_is_returned_passes_for_the_original(
    func: Callable[[str], Any], kind: type, check: Callable[[object], bool], sink: MemorySink
) -> None:
    """To frameworks that look what they got."""
    original: Any = func("x")
    returned: Any = trace(func)("x")
    assert returned.__name__ == original.__name__
    assert check(returned)
    assert isinstance(returned, kind)
    assert repr(returned).partition(" at ")[0] == repr(original).partition(" at ")[0]


@pytest.mark.parametrize(
    "run",
    [
        lambda coroutine: asyncio.run(coroutine),
        lambda coroutine: asyncio.run(in_task(coroutine)),
        lambda coroutine: asyncio.run(asyncio_wait_for(coroutine)),
        lambda coroutine: asyncio.run(gathered(coroutine)),
        lambda coroutine: anyio.run(lambda: coroutine),
        lambda coroutine: anyio.run(in_group, coroutine),
    ],
)
def test_a_returned_coroutine_runs_wherever_the_original_does(
    run: Callable[[Any], object], sink: MemorySink
) -> None:
    """As a task, in a group, with a timeout."""
    run(trace(ask)("x"))
    assert sink.traces[0].data.spans[0].outputs == "x!"


async def in_task(coroutine: Coroutine[Any, Any, str]) -> str:
    return await asyncio.create_task(coroutine)


async def asyncio_wait_for(coroutine: Coroutine[Any, Any, str]) -> str:
    return await asyncio.wait_for(coroutine, 5)


async def gathered(coroutine: Coroutine[Any, Any, str]) -> None:
    await asyncio.gather(coroutine)


async def in_group(coroutine: Coroutine[Any, Any, str]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: coroutine)


def test_a_coroutine_that_is_never_awaited_ends_its_span_and_python_still_warns(sink: MemorySink) -> None:
    """One warning, which names the original."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _ = trace(ask)("x")
        del _
        gc.collect()
    assert [str(warning.message) for warning in warned] == ["coroutine 'answer' was never awaited"]
    span = only_span(sink)
    assert span.attributes["wherefrom.coroutine.never_awaited"] is True
    assert (span.outputs, span.status.code) == (None, "OK")


@pytest.mark.parametrize("drop", [lambda coroutine: coroutine.close(), lambda coroutine: None])
def test_a_coroutine_that_is_dropped_half_way_is_not_ok(
    drop: Callable[[Any], None], sink: MemorySink
) -> None:
    """It is as bad as cancelled; its clean-up is still part of it."""

    async def body() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            with start_span("cleanup"):
                pass

    coroutine = trace(lambda: body())()
    coroutine.send(None)
    drop(coroutine)
    del coroutine
    (kept,) = sink.traces
    assert kept.data.spans[0].status.description == "GeneratorExit: "
    assert kept.data.spans[1].parent_id == kept.data.spans[0].span_id


def test_a_coroutine_that_is_closed_before_its_start_ends_its_span(sink: MemorySink) -> None:
    """Without a warning, as without us."""
    trace(ask)("x").close()
    assert only_span(sink).attributes["wherefrom.coroutine.never_awaited"] is True


async def test_a_cancelled_coroutine_is_recorded_as_cancelled(sink: MemorySink) -> None:
    """The cancellation reaches the caller."""
    task = asyncio.create_task(trace(lambda: asyncio.sleep(60))())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only_span(sink).events[-1].attributes["exception.type"] == "asyncio.exceptions.CancelledError"


def failing(error: BaseException) -> Iterator[int]:
    yield 1
    raise error


async def failing_later(error: BaseException) -> AsyncIterator[int]:
    yield 1
    raise error


async def failing_once(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize(
    "call",
    [
        lambda error: list(trace(lambda: failing(error))()),
        lambda error: asyncio.run(drain(trace(lambda: failing_later(error))())),
        lambda error: asyncio.run(trace(lambda: failing_once(error))()),
    ],
)
def test_an_exception_is_recorded_and_reaches_the_caller_untouched(
    call: Callable[[BaseException], object], sink: MemorySink
) -> None:
    """The same object, without a context."""
    error = Boom("so")
    with pytest.raises(Boom) as raised:
        call(error)
    assert raised.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert only_span(sink).status.description == "Boom: so"


def test_what_is_sent_thrown_and_returned_passes_through(sink: MemorySink) -> None:
    """The same as with the generator itself."""

    def body() -> Generator[int, str, str]:
        try:
            sent = yield 1
        except Boom:
            sent = yield 2
        return sent

    items = trace(lambda: body())()
    assert next(items) == 1
    assert items.throw(Boom()) == 2
    with pytest.raises(StopIteration, match="sent"):
        items.send("sent")
    assert next(items, None) is None
    assert (only_span(sink).outputs, only_span(sink).attributes.get("wherefrom.generator.items")) == (
        [1, 2],
        None,
    )


async def test_what_is_sent_and_thrown_passes_through_an_async_generator(sink: MemorySink) -> None:
    """Also its end."""

    async def body() -> AsyncGenerator[Any, Any]:
        try:
            sent = yield 1
        except Boom:
            sent = "thrown"
        yield sent

    steps: list[Callable[[Any], Any]] = [
        lambda items: items.asend("sent"),
        lambda items: items.athrow(Boom()),
    ]
    for step in steps:
        async with aclosing(trace(lambda: body())()) as items:
            assert await anext(items) == 1
            assert await step(items) in ("sent", "thrown")
            with pytest.raises(StopAsyncIteration):
                await anext(items)
    assert [kept.data.spans[0].outputs for kept in sink.traces] == [[1, "sent"], [1, "thrown"]]


@pytest.mark.parametrize("leave", [lambda items: items.close(), lambda items: None])
def test_a_generator_that_is_left_early_ends_its_span(leave: Callable[[Any], None], sink: MemorySink) -> None:
    """Closed or forgotten; what its clean-up does is part of it."""

    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            with start_span("cleanup"):
                pass

    items: Any = trace(lambda: body())()
    next(items)
    leave(items)
    del items
    (kept,) = sink.traces
    assert kept.data.spans[0].attributes.items() >= CLOSED_EARLY.items()
    assert parents(kept)["cleanup"] == kept.data.spans[0].name
    assert current_span() is None


def test_a_generator_that_is_never_started_ends_its_span(sink: MemorySink) -> None:
    """The function ran, so there is a span."""
    trace(stream)("a b")
    assert only_span(sink).attributes["wherefrom.generator.closed_early"] is True


def test_an_async_generator_that_is_forgotten_is_closed_by_the_event_loop(sink: MemorySink) -> None:
    """Once, and its clean-up is a trace of its own with a link, as all work that begins after the call."""
    complaints: list[dict[str, Any]] = []

    async def body() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            with start_span("cleanup"):
                pass

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async for _ in trace(lambda: body())():
            break
        gc.collect()
        for _ in range(4):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert not complaints
    forgotten, cleanup = sink.traces
    assert [span.name for kept in sink.traces for span in kept.data.spans] == ["<lambda>", "cleanup"]
    assert [link["trace_id"] for link in cleanup.data.spans[0].links] == [forgotten.info.trace_id]


def test_a_generator_that_others_refer_to_goes_on(sink: MemorySink) -> None:
    """A function that gives out one generator again and again does not have it closed."""
    shared = words("a b c")

    @trace
    def take() -> Iterator[str]:
        return shared

    assert [next(take()), next(take()), next(take())] == ["a", "b", "c"]
    assert [kept.data.spans[0].outputs for kept in sink.traces] == [["a"], ["b"], ["c"]]


def test_its_span_is_current_while_its_body_runs_and_not_while_the_caller_does(sink: MemorySink) -> None:
    """Also where each step is taken in a context of its own."""

    def body() -> Iterator[str]:
        for _ in range(2):
            span = current_span()
            assert span is not None
            yield span.name

    with start_span("caller") as caller:
        items = trace(lambda: body(), name="steps")()
        assert current_span() is caller
        assert contextvars.copy_context().run(next, items) == "steps"
        assert next(items) == "steps"
        assert current_span() is caller


def test_two_threads_that_step_one_generator_get_its_own_error(sink: MemorySink) -> None:
    """Python's, and the span goes on."""
    inside, go_on = threading.Event(), threading.Event()

    def body() -> Iterator[int]:
        inside.set()
        go_on.wait(10)
        yield 1

    items = trace(lambda: body())()
    thread = threading.Thread(target=next, args=(items,))
    thread.start()
    inside.wait(10)
    with pytest.raises(ValueError, match="already executing"):
        next(items)
    go_on.set()
    thread.join()
    assert list(items) == []
    assert only_span(sink).outputs == [1]


def test_a_generator_of_types_coroutine_can_be_awaited(sink: MemorySink) -> None:
    """It is a generator to ``inspect`` and a coroutine to ``await``."""

    @types.coroutine
    def pause(value: int) -> Generator[None, None, int]:
        yield
        return value

    async def main() -> int:
        return await trace(lambda: pause(7))()

    assert asyncio.run(main()) == 7
    assert only_span(sink).outputs == 7


async def test_a_coroutine_that_is_also_a_context_manager_is_left_as_it_is(sink: MemorySink) -> None:
    """As what aiohttp's methods return: ``await`` and ``async with`` both work."""
    async with aiohttp.ClientSession() as session:
        get = trace(session.get)
        with pytest.raises(aiohttp.ClientError):
            async with get("http://127.0.0.1:9/"):
                raise AssertionError
        with pytest.raises(aiohttp.ClientError):
            await get("http://127.0.0.1:9/")
    assert len(sink.traces) == 2


def test_outside_of_what_is_recorded_the_original_is_returned() -> None:
    """Nothing is put around it."""
    items = words("a")
    with request(sample_rate=0, keep_errors=False):
        assert trace(lambda: items)() is items


def test_capture_io_false_records_no_items(sink: MemorySink) -> None:
    """And no result."""
    assert list(trace(stream, capture_io=False)("s3cret")) == ["s3cret"]
    assert asyncio.run(trace(ask, capture_io=False)("s3cret")) == "s3cret!"
    assert len(sink.traces) == 2
    assert not any("s3cret" in kept.to_json() for kept in sink.traces)


@pytest.mark.parametrize("fails", [False, True])
def test_it_leaves_no_cycle_behind(fails: bool) -> None:
    """What was returned goes when it has ended, without the garbage collector."""

    async def body() -> None:
        if fails:
            raise Boom

    gc.collect()
    gc.disable()
    try:
        with request():
            coroutine = trace(lambda: body())()
            gone = weakref.ref(coroutine)
            with suppress(StopIteration, Boom):
                coroutine.send(None)
            items = trace(stream)("a b")
            items_gone = weakref.ref(items)
            next(items)
        del coroutine, items
        assert (gone(), items_gone()) == (None, None)
    finally:
        gc.enable()


async def test_a_streaming_response_of_a_plain_function_is_one_span() -> None:
    """From its first line to its last, in the trace of the request."""
    sink = MemorySink()
    app = FastAPI()
    app.add_middleware(TraceMiddleware, sink=sink)
    lines = trace(stream, name="lines")
    later = trace(stream_later, name="later")

    @app.get("/sync")
    def sync() -> StreamingResponse:
        return StreamingResponse(lines("a b"))

    @app.get("/async")
    async def asynchronous() -> StreamingResponse:
        return StreamingResponse(later("a b"))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path, name in (("/sync", "lines"), ("/async", "later")):
            assert (await client.get(path)).text == "ab"
            kept = sink.traces[-1]
            assert [span.name for span in kept.data.spans] == [f"GET {path}", name, "word", "word"]
            assert parents(kept)["word"] == name
            assert kept.data.spans[1].outputs == ["a", "b"]


CYTHON = """
import asyncio

async def ask(question):
    await asyncio.sleep(0)
    return question + "!"

def stream(n):
    for i in range(n):
        yield i

async def stream_later(n):
    for i in range(n):
        yield i
"""
SETUP = """
from Cython.Build import cythonize
from setuptools import setup
setup(name="compiled", ext_modules=cythonize("compiled.pyx", language_level=3))
"""
USE = """
import asyncio, warnings, gc
import compiled
from wherefrom import MemorySink, Settings, trace
from wherefrom.model import Source
from wherefrom.process import process
from wherefrom.tracing.recorder import Recorder

sink = MemorySink()
process.default_recorder = Recorder(Settings(store="none"), Source({}), sink)
assert asyncio.run(trace(compiled.ask)("why")) == "why!"
assert list(trace(compiled.stream)(2)) == [0, 1]

async def main():
    return [item async for item in trace(compiled.stream_later)(2)]

assert asyncio.run(main()) == [0, 1]
print([kept.data.spans[0].outputs for kept in sink.traces])
"""


def test_functions_that_cython_compiles(tmp_path: Path) -> None:
    """Their coroutines and generators are of types of their own."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    (tmp_path / "compiled.pyx").write_text(CYTHON)
    (tmp_path / "setup.py").write_text(SETUP)
    (tmp_path / "use.py").write_text(USE)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    plain = os.environ | {"CFLAGS": "-O0"}
    built = subprocess.run(build, cwd=tmp_path, env=plain, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"no C compiler: {built.stderr[-200:]}")
    used = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True)
    assert used.stdout == "['why!', [0, 1], [0, 1]]\n", used.stderr
