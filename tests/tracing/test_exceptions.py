"""What is recorded of an exception."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from opentelemetry import trace as otel
from pydantic import BaseModel

from wherefrom import (
    MemorySink,
    Settings,
    Span,
    TraceMiddleware,
    current_span,
    current_trace,
    start_span,
    trace,
)
from wherefrom.analysis.description import Failure
from wherefrom.asgi.headers import index_headers
from wherefrom.model import SpanStatusCode
from wherefrom.sinks import FanOut
from wherefrom.tracing.exceptions import describe, exception_attributes, without_framework_groups

from ..asgi.raw import client, http_scope, only, root_of, serve, traced


def caught(call: Any, *arguments: Any) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError


def told_of(call: Any, *arguments: Any) -> dict[str, Any]:
    return exception_attributes(caught(call, *arguments))


def stack_of(call: Any, *arguments: Any) -> str:
    return str(told_of(call, *arguments)["exception.stacktrace"])


def failing(message: str = "bad") -> None:
    raise ValueError(message)


def deep(levels: int, last: Callable[[], Any] = failing) -> None:
    if levels:
        deep(levels - 1, last)
    else:
        last()


def test_the_stack_has_the_app_s_frames_alone() -> None:
    """Frames of every part of the package are left out: they say nothing about the app."""
    for call, arguments in ((index_headers, (None,)), (FanOut().write, ()), (describe, ())):
        stack = stack_of(call, *arguments)
        assert "/wherefrom/" not in stack.replace("tests", "")
        assert __file__ in stack


def test_of_a_cause_and_a_member_too() -> None:
    """Wherever in the tree an exception has passed our code."""

    @trace
    def work() -> None:
        raise ValueError("inner")

    def caused() -> None:
        try:
            work()
        except ValueError as error:
            raise RuntimeError("outer") from error

    def grouped() -> None:
        raise ExceptionGroup("several", [caught(work), caught(caused)])

    for call in (caused, grouped):
        stack = stack_of(call)
        assert "/wherefrom/tracing" not in stack
        assert ", in work\n" in stack
        assert "ValueError: inner" in stack


def test_kind_and_message() -> None:
    """The type with its module, and the message as text."""
    told = exception_attributes(ValueError("\ud800"))
    assert (told["exception.type"], told["exception.message"]) == ("ValueError", "?")
    assert describe(KeyError("x")) == "KeyError: 'x'"


class Numbers(BaseModel):
    values: list[int]


def test_a_long_message_leaves_room_for_the_frames() -> None:
    """A validation error of 400 items: the message is cut in the stack, and much longer beside it."""
    told = told_of(lambda: Numbers(values=["x"] * 400))  # type: ignore[list-item]
    stack = told["exception.stacktrace"]
    assert f'File "{__file__}"' in stack
    assert "400 validation errors for Numbers" in stack
    assert len(stack) < 4_000
    assert "\nvalues.100\n" in told["exception.message"]


@pytest.mark.parametrize("levels", [120, 400])
def test_of_a_deep_stack_head_and_tail_are_kept(levels: int) -> None:
    """Where it began and where it failed; what is between is counted."""
    namespace: dict[str, Any] = {"failing": failing}
    calls = "".join(f"def f{n}(): f{n + 1}()\n" for n in range(levels)) + f"def f{levels}(): failing()\n"
    exec(calls, namespace)
    stack = stack_of(namespace["f0"])
    assert ", in caught\n" in stack
    assert ", in f0" in stack
    assert ", in failing\n" in stack
    assert stack.endswith("ValueError: bad\n")
    (left_out,) = re.findall(r"  \.\.\. (\d+) frames left out\n", stack)
    assert len(re.findall(r'  File "', stack)) + int(left_out) == levels + 3
    assert len(stack) < 21_000


def test_endless_recursion() -> None:
    """Repeated frames are counted, as Python does."""

    def again() -> None:
        again()

    stack = stack_of(again)
    assert "RecursionError" in stack
    assert "frames left out" in stack
    assert stack.count("\n") < 100


def test_causes_come_first_as_in_python() -> None:
    """Both spellings, ``from None``, and a cause within a cause."""

    def chained() -> None:
        try:
            try:
                failing("first")
            except ValueError:
                dict[str, str]()["second"]
        except KeyError as error:
            raise RuntimeError("third") from error

    def suppressed() -> None:
        try:
            failing()
        except ValueError:
            raise RuntimeError("alone") from None

    stack = stack_of(chained)
    places = [stack.index(text) for text in ("ValueError: first", "During handling", "KeyError: 'second'")]
    places += [stack.index(text) for text in ("direct cause", "RuntimeError: third")]
    assert places == sorted(places)
    assert "ValueError" not in stack_of(suppressed)


def test_the_text_is_python_s_own() -> None:
    """What nothing is left out of reads as ``traceback`` writes it: chains, groups, notes, their nesting."""

    def noted() -> None:
        error = ValueError("two\nlines")
        error.add_note("a note")
        raise error

    def tree() -> None:
        inner = ExceptionGroup("inner", [caught(noted), KeyError("never raised")])
        try:
            failing()
        except ValueError as error:
            raise ExceptionGroup("outer", [caught(failing), inner, caught(causing)]) from error

    def causing() -> None:
        try:
            failing("cause")
        except ValueError as error:
            raise RuntimeError from error

    for call in (noted, causing, tree):
        error = caught(call)
        expected = "".join(traceback.format_exception(error))
        assert exception_attributes(error)["exception.stacktrace"] == expected


def test_a_group_names_what_is_in_it() -> None:
    """In message and status: what ``str`` says of it is how many there are."""

    async def fail(number: int) -> None:
        raise ValueError(f"number {number}")

    async def run(numbers: list[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(fail(number))

    def once(*numbers: int) -> None:
        asyncio.run(run(list(numbers)))

    said = "unhandled errors in a TaskGroup"
    one, same, many = (caught(once, *numbers) for numbers in ((1,), (2, 2, 3), range(30)))
    assert exception_attributes(one)["exception.type"] == "ExceptionGroup"
    assert exception_attributes(one)["exception.message"] == f"{said} (1 sub-exception): ValueError: number 1"
    assert describe(same) == (
        f"ExceptionGroup: {said} (3 sub-exceptions): ValueError: number 2 (2 times); ValueError: number 3"
    )
    assert describe(many).endswith("ValueError: number 9; ...")
    nested = BaseExceptionGroup("outer", [KeyboardInterrupt(), ExceptionGroup("inner", [one])])
    assert describe(nested).endswith("outer (2 sub-exceptions): KeyboardInterrupt; ValueError: number 1")


def test_chains_and_groups_without_end_are_bounded() -> None:
    """What is left out is counted; the ends of a chain are kept: where it began, and what was raised last."""
    last: BaseException = ValueError("number 0")
    for number in range(1, 5000):
        following = ValueError(f"number {number}")
        following.__context__ = last
        last = following
    stack = exception_attributes(last)["exception.stacktrace"]
    assert "ValueError: number 4999\n" in stack
    assert re.search(r"\.\.\. \d+ exceptions left out\n", stack)
    assert stack.count("ValueError") <= 10
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert exception_attributes(first)["exception.stacktrace"].count("ValueError") == 2
    wide = ExceptionGroup("wide", [ExceptionGroup("w", [ValueError("x" * 5000)] * 1000)] * 1000)
    narrow: Exception = ValueError("bottom")
    for _ in range(500):
        narrow = ExceptionGroup("narrow", [narrow])
    for group in (wide, narrow):
        told = exception_attributes(group)
        assert "more exceptions" in told["exception.stacktrace"]
        assert len(told["exception.stacktrace"]) < 30_000
        assert len(describe(group)) <= 1000


def test_an_exception_of_somebody_s_own_never_raises() -> None:
    """Whatever its methods and attributes do."""

    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

        @property
        def args(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    def rude() -> None:
        raise Rude

    assert "Rude" in stack_of(rude)
    with start_span("s") as span:
        span.record_exception(Rude())
    assert len(span.events) == 1


def test_syntax_errors_say_where() -> None:
    """File, line and text of what could not be compiled."""
    stack = stack_of(compile, "x = (\ny", "given.py", "exec")
    assert 'File "given.py", line 1' in stack
    assert "SyntaxError: '(' was never closed" in stack


# --- One exception is one event -----------------------------------------------------------------------------


def by_hand(error: BaseException) -> None:
    span = current_span()
    assert span is not None
    span.record_exception(error)


def recorded_and_raised() -> None:
    try:
        failing()
    except ValueError as error:
        by_hand(error)
        raise


def recorded_before_it_is_raised() -> None:
    error = TimeoutError("late")
    by_hand(error)
    raise error


def recorded_with_another_since() -> None:
    try:
        failing()
    except ValueError as error:
        by_hand(error)
        by_hand(KeyError("cleanup"))
        raise


def with_opentelemetry() -> None:
    try:
        failing()
    except ValueError as error:
        otel.get_current_span().record_exception(error)
        raise


def events_of(span: Any) -> list[str]:
    return [event.attributes["exception.type"] for event in span.events if event.name == "exception"]


def attempts_without_arguments() -> None:
    for _ in range(2):
        try:
            raise ValueError
        except ValueError as error:
            by_hand(error)
    raise KeyError


async def test_another_without_arguments_is_another_event(sink: MemorySink) -> None:
    """It may have the address of the one before, which is gone."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        with start_span("attempts"):
            attempts_without_arguments()

    with pytest.raises(KeyError):
        await serve(traced(app, sink))
    _, span = only(sink).data.spans
    assert events_of(span) == ["ValueError", "ValueError", "KeyError"]
    stacks = [event.attributes["exception.stacktrace"] for event in span.events]
    assert [stack.rstrip().rpartition("\n")[2] for stack in stacks] == events_of(span)


@pytest.mark.parametrize(
    "call", [recorded_and_raised, recorded_before_it_is_raised, recorded_with_another_since]
)
async def test_by_hand_and_by_the_span_is_one_event(call: Callable[[], None], sink: MemorySink) -> None:
    """In a block, a decorated function and a request, with the frames that it has in the end."""
    expected = [type(caught(start_block, call)).__name__, *["KeyError"] * ("another" in call.__name__)]

    async def block(_scope: Any, _receive: Any, _send: Any) -> None:
        with start_span("block"):
            call()

    async def decorated(_scope: Any, _receive: Any, _send: Any) -> None:
        trace(call)()

    async def request(_scope: Any, _receive: Any, _send: Any) -> None:
        call()

    for app, name in ((block, "block"), (decorated, call.__name__), (request, "GET")):
        sink.traces.clear()
        with pytest.raises((ValueError, TimeoutError)):
            await serve(traced(app, sink))
        (span,) = (span for span in only(sink).data.spans if span.name == name)
        assert events_of(span) == expected
        assert f", in {call.__name__}\n" in span.events[0].attributes["exception.stacktrace"]
        assert span.status.code is SpanStatusCode.ERROR


def start_block(call: Callable[[], None]) -> None:
    with start_span("block"):
        call()


async def test_with_opentelemetry_s_api_too(sink: MemorySink) -> None:
    """With the bridge its current span is ours."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        with_opentelemetry()

    with pytest.raises(ValueError, match="bad"):
        await serve(traced(app, sink, bridges="opentelemetry"))
    assert events_of(root_of(sink)) == ["ValueError"]


def test_each_failed_attempt_is_an_event(sink: MemorySink) -> None:
    """Equal exceptions are not the same one, even where Python uses the memory of the last one again."""
    spans: list[Span] = []

    @trace
    def retry() -> None:
        span = current_span()
        assert span is not None
        spans.append(span)
        for attempt in range(4):
            try:
                failing("busy")
            except ValueError as error:
                by_hand(error)
                if attempt == 3:
                    raise

    with pytest.raises(ValueError, match="busy"):
        retry()
    assert events_of(spans[0]) == ["ValueError"] * 4


# --- error.type ---------------------------------------------------------------------------------------------


async def test_error_type(sink: MemorySink) -> None:
    """Of a request its exception's type; of a 5xx without one the status; nothing of what is no error.

    Other spans have the attributes that they have in MLflow.
    """
    app = FastAPI()

    @app.get("/raises")
    def raises() -> None:
        with start_span("inner"):
            Numbers(values=["x"])  # type: ignore[list-item]

    @app.get("/status/{code}")
    def answers(code: int) -> None:
        raise HTTPException(code)

    @app.get("/noted")
    def notes() -> None:
        found = current_trace()
        assert found is not None
        found.root.add_exception(ValueError("handled"))

    @app.get("/handled")
    def handled() -> None:
        notes()
        raise HTTPException(500)

    @app.get("/own")
    def own() -> None:
        span = current_span()
        assert span is not None
        span.attributes["error.type"] = "quota"
        raise HTTPException(503)

    async with client(traced(app, sink), raises=False) as http:
        for path in ("/raises", "/status/404", "/status/503", "/noted", "/handled", "/own", "/none"):
            await http.get(path)
    found = [span.attributes.get("error.type") for one in sink.traces for span in one.data.spans]
    kind = "pydantic_core._pydantic_core.ValidationError"
    assert found == [kind, None, None, "503", None, "ValueError", "quota", None]


async def test_what_never_answered(sink: MemorySink) -> None:
    """An app that returns without a response is a 500 to its server."""

    async def silent(_scope: Any, _receive: Any, _send: Any) -> None: ...

    await serve(TraceMiddleware(silent, sink=sink, settings=Settings(store="none")), http_scope())
    assert root_of(sink).attributes["error.type"] == "500"


# --- How it is read -----------------------------------------------------------------------------------------


def read(error: BaseException, stack: str | None = None) -> list[tuple[str, str, str]]:
    told = exception_attributes(error)
    stack = told["exception.stacktrace"] if stack is None else stack
    raised = Failure(told["exception.type"], told["exception.message"], stack).raised
    return [(one.relation, one.text, _function(one.frames)) for one in raised]


def _function(frames: tuple[str, ...]) -> str:
    """The name of the innermost one."""
    return str(re.findall(r", in (\w+)$", "\n".join(frames), re.MULTILINE)[-1])


def test_a_stack_is_read_back() -> None:
    """The exception itself, the members of a group, then the causes; ours and Python's own."""

    def configure() -> None:
        dict[str, str]()["DATABASE"]

    def connect() -> None:
        try:
            configure()
        except KeyError as error:
            raise ConnectionError("no database\nset one") from error

    def serve_all() -> None:
        try:
            failing("first")
        except ValueError:
            raise ExceptionGroup("two", [caught(connect), caught(failing)])  # noqa: B904

    connected, several = caught(connect), caught(serve_all)
    one = [
        ("", "ConnectionError: no database\nset one", "connect"),
        ("caused by", "KeyError: 'DATABASE'", "configure"),
    ]
    many = [
        ("", "ExceptionGroup: two (2 sub-exceptions)", "serve_all"),
        ("in the group", "KeyError: 'DATABASE'", "configure"),
        ("in the group", "ConnectionError: no database\nset one", "connect"),
        ("in the group", "ValueError: bad", "failing"),
        ("while handling", "ValueError: first", "failing"),
    ]
    for error, expected in ((connected, one), (several, many)):
        assert read(error) == expected
        assert read(error, "".join(traceback.format_exception(error))) == expected


@pytest.mark.parametrize(
    "stack", ["", "\n\n", "no stack at all", "  | + | +-+", "Traceback (most recent call last):"]
)
def test_what_is_no_stack_is_no_trouble(stack: str) -> None:
    """Of another tracer, or of nobody."""
    assert len(Failure("E", "m", stack).raised) <= 1


PROGRAM = """
async def fail():
    raise ValueError("no")

async def handle():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())

async def call(handle):
    await handle()
"""


@pytest.mark.parametrize(
    ("name", "folder", "kind"),
    [
        ("routes", "/srv", "ExceptionGroup"),
        ("profile", "/srv", "ExceptionGroup"),
        ("library", "/srv/site-packages", "ValueError"),
    ],
)
def test_the_group_of_an_app_is_recorded_whatever_its_module_is_called(
    name: str, folder: str, kind: str
) -> None:
    """Like one of the standard library too."""

    def load(name: str, folder: str) -> dict[str, Any]:
        module = {"__name__": name, "asyncio": asyncio}
        exec(compile(PROGRAM, f"{folder}/{name}.py", "exec"), module)
        return module

    called = load("framework", "/srv/site-packages")["call"](load(name, folder)["handle"])
    error = caught(asyncio.run, called)
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_name != "call":
        step = step.tb_next
    found = without_framework_groups(error.with_traceback(step))
    assert type(found).__name__ == kind
