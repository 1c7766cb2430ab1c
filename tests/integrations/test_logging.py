"""Log lines that know their trace."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import logging.handlers
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import pytest
import structlog
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import MemorySink, Trace, start_span, update_current_trace
from wherefrom.integrations.logging import TraceFilter, one_line
from wherefrom.integrations.structlog import add_trace
from wherefrom.integrations.threads import copy_context_to

from .apps import client, traced, within_a_request

FORMAT = "%(trace_id)s|%(span_id)s|%(request_id)s|%(session_id)s|%(user_id)s|%(message)s"
HEADERS = {"X-Request-ID": "r1", "X-Session-ID": "s1", "X-User-ID": "u1"}
NOTHING = "-|-|-|-|-|"


@pytest.fixture
def log() -> Iterator[Callable[[], list[str]]]:
    """The lines of the logger ``shop``."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(TraceFilter())
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)


def say(text: str) -> None:
    logging.getLogger("shop.orders").info(text)


def line(trace: Trace, text: str, span: int = 0) -> str:
    return f"{trace.info.trace_id}|{trace.data.spans[span].span_id}|r1|s1|u1|{text}"


async def test_every_place_of_a_request_says_the_same(sink: MemorySink, log: Callable[[], list[str]]) -> None:
    """Handlers, spans, exception handlers, background tasks and threads: the same ids on every line."""
    app = FastAPI()

    @app.get("/")
    async def read(background: BackgroundTasks) -> None:
        say("handler")
        with start_span("work"):
            say("span")
        await anyio.to_thread.run_sync(say, "thread")
        with copy_context_to(ThreadPoolExecutor(1)) as pool:
            pool.submit(say, "pool").result()
        background.add_task(say, "background")

    @app.get("/fails")
    async def fail() -> None:
        raise LookupError("no")

    @app.get("/crashes")
    async def crash() -> None:
        raise RuntimeError("no")

    @app.get("/threaded")
    def threaded() -> None:
        say("sync handler")

    @app.exception_handler(LookupError)
    async def lookup(_request: Any, _error: Exception) -> JSONResponse:
        say("exception handler")
        return JSONResponse(None, 404)

    @app.exception_handler(Exception)
    async def anything(_request: Any, _error: Exception) -> JSONResponse:
        say("last resort")
        return JSONResponse(None, 500)

    say("before")
    async with client(traced(app, sink)) as http:
        for path in ("/", "/fails", "/crashes", "/threaded"):
            await http.get(path, headers=HEADERS)
    say("after")
    main, fails, crashes, sync = sink.traces
    assert log() == [
        NOTHING + "before",
        line(main, "handler"),
        line(main, "span", 1),
        line(main, "thread"),
        line(main, "pool"),
        line(main, "background"),
        line(fails, "exception handler"),
        line(crashes, "last resort"),
        line(sync, "sync handler"),
        NOTHING + "after",
    ]


async def test_what_the_app_says_itself(sink: MemorySink, log: Callable[[], list[str]]) -> None:
    """Session and user are those of the moment; what is not known is a dash."""

    async def work() -> None:
        say("first")
        update_current_trace(session_id="s9")
        say("then")

    trace = await within_a_request(work, sink, headers={"X-Request-ID": "r1"})
    ids = f"{trace.info.trace_id}|{trace.data.spans[0].span_id}|r1"
    assert log() == [f"{ids}|-|-|first", f"{ids}|s9|-|then"]


async def test_a_hashed_user_is_a_hash_here_too(sink: MemorySink, log: Callable[[], list[str]]) -> None:
    """With ``user_hash_key`` no name is in the log."""

    async def work() -> None:
        say("hello")

    await within_a_request(work, sink, headers=HEADERS, user_hash_key="k")
    assert "u1" not in log()[0]
    assert sink.traces[0].info.trace_metadata["mlflow.trace.user"] in log()[0]


ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


async def test_no_value_breaks_a_line(sink: MemorySink, log: Callable[[], list[str]]) -> None:
    """Values that the app takes from clients stay on one line, readable and distinct."""

    async def work() -> None:
        update_current_trace(session_id=f"a{ENDS}b", user="\x1b[31mred\udc80", client_request_id="r\r\n\x00")
        say("hello")

    await within_a_request(work, sink)
    (only,) = log()
    _, _, request, session, user, _ = only.split("|")
    assert request == r"r\r\n\x00"
    assert session == r"a\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"
    assert user == r"\x1b[31mred?"


@given(st.text() | st.text(alphabet=ENDS + "ab"))
def test_one_line_is_one_line(text: str) -> None:
    """Whatever counts as the end of a line is escaped, and all else is as it was."""
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    if text.isprintable() and text.isascii():
        assert shown == text


def test_other_values_are_text() -> None:
    """A hook may have put anything into the metadata; logging must not fail for it."""
    assert one_line(5) == "5"


async def test_a_record_keeps_what_it_has(sink: MemorySink) -> None:
    """A field from ``extra``, or from the thread that put the record in a queue, is not written over."""
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    sender = logging.handlers.QueueHandler(lines)
    sender.addFilter(TraceFilter())
    logger = logging.getLogger("queued")
    logger.setLevel(logging.INFO)
    logger.addHandler(sender)

    async def work() -> None:
        logger.info("hello", extra={"user_id": "someone else"})

    trace = await within_a_request(work, sink, headers=HEADERS)
    record = lines.get_nowait()
    assert TraceFilter().filter(record)
    assert (record.trace_id, record.user_id) == (trace.info.trace_id, "someone else")  # type: ignore[attr-defined]


def test_it_is_configured_as_any_filter() -> None:
    """In ``dictConfig``, with the name of a logger, or with another word for what is not known."""
    record = logging.LogRecord("other", logging.INFO, "", 0, "hello", (), None)
    assert not TraceFilter("shop").filter(record)
    config = {
        "version": 1,
        "incremental": False,
        "disable_existing_loggers": False,
        "filters": {"trace": {"()": "wherefrom.integrations.logging.TraceFilter", "default": ""}},
        "handlers": {
            "memory": {"class": "logging.handlers.BufferingHandler", "capacity": 9, "filters": ["trace"]}
        },
        "loggers": {"configured": {"handlers": ["memory"], "level": "INFO"}},
    }
    logging.config.dictConfig(config)
    logging.getLogger("configured").info("hello")
    (handler,) = logging.getLogger("configured").handlers
    assert isinstance(handler, logging.handlers.BufferingHandler)
    assert vars(handler.buffer[0])["trace_id"] == ""


class TestStructlog:
    async def test_every_event_knows_its_trace(self, sink: MemorySink) -> None:
        """The same fields as in the standard library's records, JSON or not."""
        logger = structlog.wrap_logger(
            structlog.ReturnLogger(), processors=[add_trace, structlog.processors.JSONRenderer()]
        )
        events: list[dict[str, Any]] = []

        async def work() -> None:
            with start_span("work"):
                events.append(json.loads(logger.bind(order=7).msg("placed")))

        trace = await within_a_request(work, sink, headers=HEADERS)
        assert events == [
            {
                "order": 7,
                "event": "placed",
                "trace_id": trace.info.trace_id,
                "span_id": trace.data.spans[1].span_id,
                "request_id": "r1",
                "session_id": "s1",
                "user_id": "u1",
            }
        ]

    async def test_only_what_is_known_and_not_given(self, sink: MemorySink) -> None:
        """What the event has already stays; what is not known is not there."""
        events: list[Any] = []

        async def work() -> None:
            events.append(add_trace(None, "info", {"event": "x", "request_id": "mine"}))

        await within_a_request(work, sink)
        assert events[0].keys() == {"event", "request_id", "trace_id", "span_id"}
        assert events[0]["request_id"] == "mine"
        assert add_trace(None, "info", {"event": "x"}) == {"event": "x"}
