"""``wherefrom.context``: what code sees of the request it works for, wherever it runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware, context, update_current_trace
from wherefrom.context import enter, leave, span_var, trace_var
from wherefrom.tracing.api import current_span, current_trace

HEADERS = {"X-Request-ID": "r-1", "X-Session-ID": "s-1", "X-User-ID": "u-1"}


def seen() -> tuple[str | None, ...]:
    """The context at this place."""
    return context.request_id, context.session_id, context.user_id


EXPECTED = ("r-1", "s-1", "u-1")


class Notes(list[Any]):
    """What was seen, in the order in which it was."""

    def note(self) -> None:
        self.append(seen())


@pytest.fixture
def notes() -> Notes:
    return Notes()


def build(notes: Notes) -> FastAPI:  # noqa: C901 - one handler for each place
    """An app that notes what it sees in each place where code of an app can run."""
    app = FastAPI()

    def dependency() -> Iterator[None]:
        notes.note()
        yield
        notes.note()

    async def async_dependency() -> AsyncIterator[None]:
        notes.note()
        yield
        notes.note()

    @app.exception_handler(LookupError)
    async def handle(_request: Request, _error: LookupError) -> JSONResponse:
        notes.note()
        return JSONResponse({}, 410)

    @app.exception_handler(ArithmeticError)
    def handle_sync(_request: Request, _error: ArithmeticError) -> JSONResponse:
        notes.note()
        return JSONResponse({}, 410)

    @app.get("/async")
    async def handler() -> None:
        notes.note()

    @app.get("/def")
    def threaded() -> None:
        assert threading.current_thread() is not threading.main_thread()
        notes.note()

    @app.get("/dependencies", dependencies=[Depends(dependency), Depends(async_dependency)])
    async def dependent() -> None: ...

    @app.get("/stream/async")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            notes.note()
            yield b"x"
            await asyncio.sleep(0)
            notes.note()

        return StreamingResponse(body())

    @app.get("/stream/def")
    def threaded_stream() -> StreamingResponse:
        def body() -> Iterator[bytes]:
            notes.note()
            yield b"x"
            notes.note()

        return StreamingResponse(body())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        async def later() -> None:
            notes.note()

        tasks.add_task(notes.note)
        tasks.add_task(later)

    @app.get("/exception/async")
    async def failing() -> None:
        raise LookupError

    @app.get("/exception/def")
    def failing_sync() -> None:
        raise ZeroDivisionError

    @app.get("/task")
    async def task() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            notes.note()

        await asyncio.create_task(work())
        async with asyncio.TaskGroup() as group:
            group.create_task(work())

    @app.get("/executor")
    async def executor() -> None:
        with ThreadPoolExecutor() as pool:
            await asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, notes.note)
        await asyncio.to_thread(notes.note)

    return app


WHERE = {
    "/async": 1,
    "/def": 1,
    "/dependencies": 4,
    "/stream/async": 2,
    "/stream/def": 2,
    "/background": 2,
    "/exception/async": 1,
    "/exception/def": 1,
    "/task": 2,
    "/executor": 2,
}


@pytest.mark.parametrize(
    "place", ["outside", "inside", "behind BaseHTTPMiddleware", "before BaseHTTPMiddleware"]
)
@pytest.mark.parametrize(("path", "times"), WHERE.items())
async def test_it_is_seen_everywhere(
    sink: MemorySink, notes: Notes, path: str, times: int, place: str
) -> None:
    """Handlers, dependencies, generators, background tasks, exception handlers, tasks, threads."""
    app: Any = build(notes)

    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    if place == "behind BaseHTTPMiddleware":
        app.add_middleware(TraceMiddleware, sink=sink)
        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    elif place == "before BaseHTTPMiddleware":
        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        app.add_middleware(TraceMiddleware, sink=sink)
    elif place == "inside":
        app.add_middleware(TraceMiddleware, sink=sink)
    else:
        app = TraceMiddleware(app, sink=sink)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        await http.get(path, headers=HEADERS)
        assert seen() == (None, None, None)
    assert notes == [EXPECTED] * times
    (trace,) = sink.traces
    assert trace.info.name == f"GET {path}"
    assert trace.info.state == "OK"


async def test_a_middleware_of_the_app_sees_it_too(sink: MemorySink) -> None:
    """A ``BaseHTTPMiddleware`` inside of ours sees the context before and after it calls on."""
    notes = Notes()
    app = build(Notes())

    async def dispatch(request: Request, call_next: Any) -> Any:
        notes.note()
        response = await call_next(request)
        notes.note()
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(TraceMiddleware, sink=sink)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        await http.get("/async", headers=HEADERS)
    assert notes == [EXPECTED] * 2


@pytest.mark.parametrize("end", ["success", "exception", "cancellation"])
async def test_it_is_clean_afterwards(sink: MemorySink, end: str) -> None:
    """After a request, however it ended, its task sees nothing of it."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        if end == "exception":
            raise RuntimeError
        if end == "cancellation":
            raise asyncio.CancelledError

    transport = httpx.ASGITransport(TraceMiddleware(app, sink=sink))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with suppress(RuntimeError, asyncio.CancelledError):
            await http.get("/", headers=HEADERS)
        assert (trace_var.get(), span_var.get()) == (None, None)
    assert len(sink.traces) == 1


def test_outside_a_request_everything_is_none() -> None:
    """Outside of a request there is nothing to know, and asking is no error."""
    assert (context.trace, context.span, context.trace_id) == (None, None, None)
    assert seen() == (None, None, None)
    assert context.metadata == {}
    assert current_trace() is None
    assert current_span() is None


async def test_it_shows_what_the_app_has_said(sink: MemorySink) -> None:
    """What ``update_current_trace`` sets is in the context at once, a hashed user id as its hash."""
    app = FastAPI()

    @app.get("/")
    async def read() -> dict[str, Any]:
        update_current_trace(session_id="s-2", user="u-2", client_request_id="r-2", metadata={"a": 1})
        assert context.trace is current_trace()
        assert context.span is current_span()
        return {"seen": seen(), "a": context.metadata["a"], "trace": context.trace_id}

    settings = Settings(user_hash_key="k")
    transport = httpx.ASGITransport(TraceMiddleware(app, sink=sink, settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = (await http.get("/", headers=HEADERS)).json()
    (trace,) = sink.traces
    user = trace.info.trace_metadata["mlflow.trace.user"]
    assert answer == {"seen": ["r-2", "s-2", user], "a": "1", "trace": trace.info.trace_id}
    assert user not in {"u-1", "u-2"}


def test_it_is_a_registry_of_contextvars_extras() -> None:
    """The context is that package's registry, so its tools work on it."""
    from contextvars_extras import ContextVarsRegistry

    assert isinstance(context, ContextVarsRegistry)
    with pytest.raises(AttributeError):
        context.unknown = 1


def test_leaving_in_another_context_is_no_error() -> None:
    """Tokens of another context put nothing back, and raise nothing."""
    tokens = contextvars.copy_context().run(enter, None, None)
    leave(tokens)
    assert trace_var.get() is None


def test_a_plain_thread_has_no_request(sink: MemorySink) -> None:
    """A thread started without the context is outside of the request, as everywhere in Python."""
    recorder = wherefrom.tracing.recorder.Recorder(Settings(store="none"), wherefrom.model.Source({}), sink)
    live = recorder.start("x")
    tokens = enter(live, live.root)
    answers: list[Any] = []
    try:
        thread = threading.Thread(target=lambda: answers.append(context.trace))
        thread.start()
        thread.join()
    finally:
        leave(tokens)
    assert answers == [None]
