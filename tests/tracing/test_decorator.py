"""``@trace``: what it records, and that the function behaves as it did without."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import dataclasses
import datetime as dt
import decimal
import functools
import gc
import inspect
import json
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from wherefrom import keys
from wherefrom.context import span_var, trace_var
from wherefrom.model import Source, Span, SpanStatusCode, Trace, TraceState
from wherefrom.process import process
from wherefrom.settings import Settings
from wherefrom.sinks import MemorySink
from wherefrom.tracing.api import SpanBlock, current_span, current_trace, start_span
from wherefrom.tracing.arguments import Parameters
from wherefrom.tracing.decorator import trace
from wherefrom.tracing.live import LiveTrace
from wherefrom.tracing.recorder import Recorder


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    """Where traces go that start outside a request."""
    sink = MemorySink()
    with default_recorder(Recorder(Settings(store="none"), Source({"app_version": "1"}), sink)):
        yield sink


@contextmanager
def default_recorder(recorder: Recorder) -> Iterator[None]:
    before, process.default_recorder = process.default_recorder, recorder
    try:
        yield
    finally:
        process.default_recorder = before


@contextmanager
def request(**settings: Any) -> Iterator[LiveTrace]:
    """The inside of a request that the middleware records."""
    recorder = Recorder(Settings(store="none", **settings), Source({}), MemorySink())
    live = recorder.start("GET /")
    live.request = cast("Any", SimpleNamespace(identify=lambda *_: None))
    with SpanBlock(live.root):
        yield live


def only_span(sink: MemorySink) -> Span:
    (trace,) = sink.traces
    (span,) = trace.data.spans
    return span


def parents(trace: Trace) -> dict[str, str | None]:
    names = {span.span_id: span.name for span in trace.data.spans}
    return {span.name: names.get(span.parent_id or "") for span in trace.data.spans}


# --- The cases that were recorded from MLflow ---------------------------------------------------------------

RECORDED: dict[str, dict[str, Any]] = {
    case["case"]: case
    for case in json.loads((Path(__file__).parent.parent / "data" / "decorator.json").read_text())["cases"]
}

NOT_OFFERED = {
    "gen reducer": "an output_reducer",
    "no_context": "start_span_no_context",
    "no_context child never ended": "start_span_no_context",
}


@trace
def f(x: int, y: int = 2, *a: int, **k: int) -> int:
    return x + y


@trace
def gen(n: int) -> Iterator[int]:
    for i in range(n):
        with start_span(f"inner{i}"):
            pass
        yield i


@trace
def ser(x: Any) -> Any:
    return x


@trace
def sysexit() -> None:
    raise SystemExit(3)


@trace
def kbi() -> None:
    raise KeyboardInterrupt


@trace
async def af(x: int) -> int:
    return x


@trace
async def acancel() -> None:
    await asyncio.sleep(60)


async def cancel_it() -> str:
    task = asyncio.create_task(acancel())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return "cancelled"


@trace
async def par() -> str:
    async def w(i: int) -> None:
        with start_span(f"w{i}"):
            await asyncio.sleep(0)

    await asyncio.gather(*(w(i) for i in range(3)))
    return "ok"


@trace
def genexc() -> Iterator[int]:
    yield 1
    raise ValueError("g")


def gen_close() -> str:
    steps = gen(3)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    return "closed"


def gen_throw() -> None:
    steps = gen(3)
    next(steps)
    steps.throw(KeyError("k"))  # type: ignore[attr-defined]


def not_iterated() -> None:
    gen(3)


@trace
async def agen(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


async def break_async() -> str:
    async for _ in agen(3):
        break
    await asyncio.sleep(0)
    return "b"


class Methods:
    @trace
    @classmethod
    def c(cls, x: int) -> int:
        return x

    @trace
    @staticmethod
    def s(x: int) -> int:
        return x


@dataclasses.dataclass
class DC:
    a: int
    b: Any = None


class PM(BaseModel):
    q: str


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("norepr")


def start_span_api() -> None:
    with start_span("root", span_type="MYTYPE", attributes={"a": 1}) as span:
        span.set_inputs({"q": 1})
        span.set_outputs([1])
        span.set_attributes({"b": {"c": 1}})
        span.add_event("ev", {"x": 1})
        span.set_status("ERROR")


async def threads() -> None:
    def tt() -> None:
        with start_span("tt"):
            pass

    with start_span("main"):
        await asyncio.to_thread(tt)
        await asyncio.get_running_loop().run_in_executor(None, tt)


async def outlive() -> None:
    async def bg() -> None:
        with start_span("bg"):
            await asyncio.sleep(0)

    with start_span("main"):
        task = asyncio.create_task(bg())
        await asyncio.sleep(0)
    await task


def nested_names() -> None:
    with start_span("a"):
        for _ in range(3):
            with start_span("b"):
                pass


def disabled() -> int:
    with default_recorder(Recorder(Settings(sample_rate=0, keep_errors=False), Source({}), MemorySink())):
        return f(1)


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


RUNS: dict[str, Callable[[], Any]] = {
    "sync args": lambda: f(1, 3, 4, z=5),
    "SystemExit": sysexit,
    "KeyboardInterrupt": kbi,
    "async": lambda: af(1),
    "async cancelled": cancel_it,
    "gather": par,
    "gen full": lambda: list(gen(2)),
    "gen break": lambda: next(iter(gen(3))),
    "gen close": gen_close,
    "gen exc": lambda: list(genexc()),
    "gen throw": gen_throw,
    "gen created not iterated": not_iterated,
    "async gen break": break_async,
    "classmethod outer": lambda: Methods.c(1),
    "staticmethod": lambda: Methods.s(1),
    "missing arg": lambda: f(),  # type: ignore[call-arg]
    "ser dc": lambda: ser(DC(1, DC(1))),
    "ser pydantic": lambda: ser(PM(q="x")),
    "ser bytes": lambda: ser(b"ab"),
    "ser dt": lambda: ser(dt.datetime(2020, 1, 1)),
    "ser dec": lambda: ser(decimal.Decimal("1.5")),
    "ser nan": lambda: ser(float("nan")),
    "ser intkey": lambda: ser({1: 2}),
    "ser big": lambda: ser("x" * 1500),
    "ser lambda": lambda: ser(len),
    "ser badrepr": lambda: type(ser(Unprintable())),
    "ser cyc": lambda: ser(cyclic()),
    "start_span api": start_span_api,
    "to_thread & run_in_executor": threads,
    "task outliving root": outlive,
    "same names": lambda: [f(1), f(1)],
    "dup span names": nested_names,
    "wrap builtin": lambda: trace(len)([1]),
    "disabled": disabled,
}


def span_of(
    name: str,
    parent: str | None = None,
    *,
    inputs: Any = None,
    outputs: Any = None,
    attributes: dict[str, Any] | None = None,
    chunks: tuple[str, ...] = (),
    error: tuple[str, str] | None = None,
) -> dict[str, Any]:
    events: list[dict[str, Any]] = [
        {"name": f"mlflow.chunk.item.{i}", "attributes": {"mlflow.chunk.value": chunk}}
        for i, chunk in enumerate(chunks)
    ]
    if error:
        kind, message = error
        attributes_of_error = {"exception.type": kind, "exception.message": message}
        events.append({"name": "exception", "attributes": attributes_of_error})
    return {
        "name": name,
        "parent": parent,
        "type": "UNKNOWN",
        "status": "ERROR" if error else "OK",
        "status_message": f"{error[0].rpartition('.')[2]}: {error[1]}" if error else "",
        "inputs": inputs,
        "outputs": outputs,
        "attributes": attributes or {},
        "events": events,
    }


def trace_of(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"state": spans[0]["status"], "name": spans[0]["name"], "spans": list(spans)}


def named(name: str) -> dict[str, Any]:
    return {"mlflow.spanFunctionName": name}


RAISED_THERE = {"ser badrepr", "ser cyc", "start_span api"}  # or returned what is not in our API
CLOSED_EARLY = {"wherefrom.generator.closed_early": True}

DIFFERENT: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "SystemExit": (
        "[BEAT] recorded as OK there",
        [trace_of(span_of("sysexit", inputs={}, attributes=named("sysexit"), error=("SystemExit", "3")))],
    ),
    "KeyboardInterrupt": (
        "[BEAT] recorded as OK there",
        [trace_of(span_of("kbi", inputs={}, attributes=named("kbi"), error=("KeyboardInterrupt", "")))],
    ),
    "async cancelled": (
        "[BEAT] recorded as OK there",
        [
            trace_of(
                span_of(
                    "acancel",
                    inputs={},
                    attributes=named("acancel"),
                    error=("asyncio.exceptions.CancelledError", ""),
                )
            )
        ],
    ),
    "gen break": (
        "[BEAT] the trace is lost there",
        [
            trace_of(
                span_of("gen", inputs={"n": 3}, outputs=[0], attributes=CLOSED_EARLY, chunks=("0",)),
                span_of("inner0", "gen"),
            )
        ],
    ),
    "gen close": (
        "[BEAT] the trace is lost there",
        [
            trace_of(
                span_of("gen", inputs={"n": 3}, outputs=[0], attributes=CLOSED_EARLY, chunks=("0",)),
                span_of("inner0", "gen"),
            )
        ],
    ),
    "gen exc": (
        "the span's status says why, as for a function; it is empty there",
        [trace_of(span_of("genexc", inputs={}, chunks=("1",), error=("ValueError", "g")))],
    ),
    "gen throw": (
        "[BEAT] what is thrown in does not reach the body there, and the trace is lost",
        [
            trace_of(
                span_of("gen", inputs={"n": 3}, chunks=("0",), error=("KeyError", "'k'")),
                span_of("inner0", "gen"),
            )
        ],
    ),
    "async gen break": (
        "[BEAT] the trace is lost there",
        [trace_of(span_of("agen", inputs={"n": 3}, outputs=[0], attributes=CLOSED_EARLY, chunks=("0",)))],
    ),
    "ser nan": (
        "NaN is not JSON, and is written as null",
        [
            trace_of(
                span_of("ser", inputs={"x": None}, outputs=pytest.approx(float("nan"), nan_ok=True))
                | {"attributes": named("ser")}
            )
        ],
    ),
    "ser badrepr": (
        "[BEAT] the traced function fails there",
        [
            trace_of(
                span_of(
                    "ser",
                    inputs={"x": "<Unprintable object, its repr failed>"},
                    outputs="<Unprintable object, its repr failed>",
                    attributes=named("ser"),
                )
            )
        ],
    ),
    "ser cyc": (
        "[BEAT] the traced function fails there",
        [
            trace_of(
                span_of(
                    "ser",
                    inputs={"x": ["<circular: list 1 level up>"]},
                    outputs=["<circular: list 1 level up>"],
                    attributes=named("ser"),
                )
            )
        ],
    ),
}


def described(trace: Trace) -> dict[str, Any]:
    parent_of = parents(trace)
    return {
        "state": trace.info.state,
        "name": trace.info.name,
        "spans": [
            {
                "name": span.name,
                "parent": parent_of[span.name],
                "type": span.span_type,
                "status": span.status.code,
                "status_message": span.status.description,
                "inputs": span.inputs,
                "outputs": span.outputs,
                "attributes": span.attributes,
                "events": [
                    {"name": event.name, "attributes": without(event.attributes, "exception.stacktrace")}
                    for event in span.events
                ],
            }
            for span in trace.data.spans
        ],
    }


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def recorded(trace: dict[str, Any]) -> dict[str, Any]:
    """A recorded trace in what both have: MLflow's log level of a span is not ours."""
    spans = [
        span
        | {
            "attributes": without(span["attributes"], "mlflow.spanLogLevel"),
            "events": [
                event | {"attributes": without(event["attributes"], "exception.stacktrace")}
                for event in span["events"]
            ],
        }
        for span in trace["spans"]
    ]
    return {"state": trace["state"], "name": trace["name"], "spans": spans}


def test_every_recorded_case_is_replayed_or_not_offered() -> None:
    """No case is forgotten."""
    assert RUNS.keys() | NOT_OFFERED.keys() == RECORDED.keys()
    assert not RUNS.keys() & NOT_OFFERED.keys()


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_case_leaves_the_same_trace_as_in_mlflow(name: str, sink: MemorySink) -> None:
    """State, names, tree, types, statuses, inputs, outputs, attributes and events agree, but in DIFFERENT."""
    try:
        result = RUNS[name]()
        if inspect.isawaitable(result):
            result = asyncio.run(awaited(result))
    except BaseException as error:
        raised = {"type": type(error).__name__, "message": str(error)}
        assert raised == RECORDED[name]["raised"]
    else:
        assert name in RAISED_THERE or repr(result)[:200] == RECORDED[name]["returned"]
    gc.collect()
    expected = [recorded(trace) for trace in RECORDED[name]["traces"]]
    if name in DIFFERENT:
        assert expected != DIFFERENT[name][1], "no longer different"
        expected = DIFFERENT[name][1]
    assert [
        described(trace) for trace in sorted(sink.traces, key=lambda trace: str(trace.info.name))
    ] == expected


async def awaited(result: Awaitable[Any]) -> Any:
    return await result


@pytest.mark.parametrize("name", sorted(RUNS.keys() - DIFFERENT.keys() - {"missing arg"}))
def test_previews_hold_what_they_hold_in_mlflow(name: str, sink: MemorySink) -> None:
    """The beginning of the root's inputs and outputs as JSON, at most 1,000 characters."""
    result = RUNS[name]()
    if inspect.isawaitable(result):
        asyncio.run(awaited(result))
    for ours, theirs in zip(sink.traces, RECORDED[name]["traces"], strict=True):
        for field in ("request_preview", "response_preview"):
            mine, other = getattr(ours.info, field), theirs[field]
            if other is not None and other.endswith("..."):
                assert len(mine) == len(other) == 1000
                assert mine.endswith("...")
            else:
                assert (mine and json.loads(mine)) == (other and json.loads(other))


# --- The function stays what it was -------------------------------------------------------------------------


def plain(a: int, /, b: str = "x", *args: int, c: float, **kwargs: int) -> str:
    """Says so."""
    return b


async def coroutine(a: int) -> int:
    return a


def generator(a: int) -> Generator[int, str, bytes]:
    yield a
    return b""


async def async_generator(a: int) -> AsyncGenerator[int, str]:
    yield a


class Callables:
    def __call__(self, a: int) -> int:
        return a


class AsyncCallable:
    async def __call__(self, a: int) -> int:
        return a


class GeneratorCallable:
    def __call__(self, a: int) -> Iterator[int]:
        yield a


class AsyncGeneratorCallable:
    async def __call__(self, a: int) -> AsyncIterator[int]:
        yield a


KINDS = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


@pytest.mark.parametrize("func", [plain, coroutine, generator, async_generator])
def test_a_decorated_function_looks_like_the_original(func: Callable[..., Any]) -> None:
    """Name, documentation, signature and kind are those of the function, so frameworks treat it the same."""
    for decorated in (trace(func), trace(name="other")(func)):
        assert [kind(decorated) for kind in KINDS] == [kind(func) for kind in KINDS]
        assert inspect.signature(decorated) == inspect.signature(func)
        assert (decorated.__name__, decorated.__doc__) == (func.__name__, func.__doc__)
        assert (decorated.__module__, decorated.__qualname__) == (func.__module__, func.__qualname__)
        assert inspect.unwrap(decorated) is func


@pytest.mark.parametrize("func", [coroutine, generator, async_generator])
def test_a_decorated_partial_keeps_kind_and_signature(func: Callable[..., Any]) -> None:
    """``functools.partial`` has no name of its own; the function's is used."""
    original = functools.partial(func, 1)
    decorated = trace(original)
    assert [kind(decorated) for kind in KINDS] == [kind(original) for kind in KINDS]
    assert inspect.signature(decorated) == inspect.signature(original)
    assert getattr(decorated, "__name__", None) == func.__name__


@pytest.mark.parametrize(
    ("callable_object", "kind"),
    [
        (AsyncCallable(), inspect.iscoroutinefunction),
        (GeneratorCallable(), inspect.isgeneratorfunction),
        (AsyncGeneratorCallable(), inspect.isasyncgenfunction),
    ],
)
def test_a_callable_object_becomes_a_function_of_the_kind_of_its_call(
    callable_object: Any, kind: Callable[[Any], bool]
) -> None:
    """Its name is that of its class."""
    decorated = trace(callable_object)
    assert kind(decorated)
    assert decorated.__name__ == type(callable_object).__name__
    assert inspect.signature(decorated) == inspect.signature(callable_object)


def test_a_callable_object_is_recorded_without_self(sink: MemorySink) -> None:
    """What counts is its ``__call__``."""
    assert trace(Callables())(3) == 3
    span = only_span(sink)
    assert (span.name, span.inputs, span.outputs) == ("Callables", {"a": 3}, 3)


@pytest.mark.parametrize("thing", [dict, property(lambda self: 1), 5, "name", None.__class__])
def test_what_is_not_a_function_is_refused_at_once(thing: Any) -> None:
    """A class would no longer be one, and a property cannot be called."""
    with pytest.raises(TypeError, match="@trace decorates functions and methods"):
        trace(thing)


class Service:
    """Every kind of method, with the decorators in both orders."""

    def __len__(self) -> int:
        return 0

    @trace
    def method(self, a: int) -> int:
        return a

    @trace
    async def coroutine(self, a: int) -> int:
        return a

    @trace
    def generator(self, a: int) -> Iterator[int]:
        yield a

    @classmethod
    @trace
    def class_inner(cls, a: int) -> int:
        return a

    @trace
    @classmethod
    def class_outer(cls, a: int) -> int:
        return a

    @staticmethod
    @trace
    def static_inner(a: int) -> int:
        return a

    @trace
    @staticmethod
    async def static_outer(a: int) -> int:
        return a

    @trace(name="other", span_type="TOOL")
    @classmethod
    async def class_coroutine(cls, a: int) -> int:
        return a


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.method(1),
        lambda service: Service.method(service, 1),
        lambda service: asyncio.run(service.coroutine(a=1)),
        lambda service: next(service.generator(1)),
        lambda service: service.class_inner(1),
        lambda service: Service.class_outer(a=1),
        lambda service: service.static_inner(1),
        lambda service: asyncio.run(Service.static_outer(1)),
        lambda service: asyncio.run(service.class_coroutine(1)),
        lambda service: trace(service.method)(1),
    ],
)
def test_methods_are_recorded_without_self_and_cls(
    call: Callable[[Service], object], sink: MemorySink
) -> None:
    """Also where ``self`` is false, as an empty collection is."""
    assert call(Service()) == 1
    gc.collect()
    for span in sink.traces[0].data.spans:
        assert span.inputs == {"a": 1}
        assert span.outputs in (1, [1])


def test_abstract_methods_stay_abstract() -> None:
    """What other decorators put on the function is still there."""

    class Base(abc.ABC):
        @trace
        @abc.abstractmethod
        def method(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


def test_an_argument_that_is_only_called_cls_is_recorded(sink: MemorySink) -> None:
    """A class label, say."""

    @trace
    def label(cls: str) -> str:
        return cls

    label("cat")
    assert only_span(sink).inputs == {"cls": "cat"}


# --- What is recorded ---------------------------------------------------------------------------------------


def test_the_options_name_and_mark_the_span(sink: MemorySink) -> None:
    """``attributes`` are on every span, each with a dict of its own."""

    @trace(name="answer", span_type="LLM", attributes={"model": "m", 5: object})  # type: ignore[dict-item]
    def func() -> None:
        span = current_span()
        assert span is not None
        span.set_attribute("seen", len(span.attributes))

    func()
    func()
    for kept in sink.traces:
        (span,) = kept.data.spans
        assert (span.name, span.span_type) == ("answer", "LLM")
        assert span.attributes == {
            keys.SPAN_FUNCTION_NAME: "func",
            "model": "m",
            "5": "<class 'object'>",
            "seen": 3,
        }


def test_capture_io_false_records_neither_arguments_nor_results(sink: MemorySink) -> None:
    """Nor do previews and metadata show them, whatever kind of function it is."""

    @trace(capture_io=False)
    def func(secret: str) -> str:
        return secret

    @trace(capture_io=False)
    def steps(secret: str) -> Iterator[str]:
        yield secret

    func("s3cret")
    list(steps("s3cret"))
    assert len(sink.traces) == 2
    assert not any("s3cret" in kept.to_json() for kept in sink.traces)


def test_outputs_that_were_set_inside_win_over_the_result(sink: MemorySink) -> None:
    """As in MLflow."""

    @trace
    def func() -> str:
        span = current_span()
        assert span is not None
        span.set_outputs("summary")
        return "everything"

    @trace
    def steps() -> Iterator[int]:
        span = current_span()
        assert span is not None
        yield 1
        span.set_outputs("sum")

    assert func() == "everything"
    assert list(steps()) == [1]
    assert [kept.data.spans[0].outputs for kept in sink.traces] == ["summary", "sum"]


def test_arguments_are_recorded_as_they_were_at_the_call(sink: MemorySink) -> None:
    """What the function does to them later does not show; neither do later changes to the result."""

    @trace
    def func(messages: list[str]) -> list[str]:
        messages.append("late")
        return messages

    func(["early"]).append("later")
    span = only_span(sink)
    assert (span.inputs, span.outputs) == ({"messages": ["early"]}, ["early", "late"])


def test_a_yielded_item_is_recorded_as_it_was_when_yielded(sink: MemorySink) -> None:
    """A body may fill one buffer again and again."""

    @trace
    def steps() -> Iterator[list[int]]:
        buffer: list[int] = []
        for i in range(3):
            buffer.append(i)
            yield buffer

    list(steps())
    assert only_span(sink).outputs == [[0], [0, 1], [0, 1, 2]]


def test_a_builtin_without_a_signature_is_recorded_all_the_same(sink: MemorySink) -> None:
    """Its arguments have no names."""
    assert trace(max)(1, 2, key=None) == 2
    assert only_span(sink).inputs == {"args": [1, 2], "kwargs": {"key": None}}


@pytest.mark.parametrize(
    "call",
    [
        lambda func: func(),
        lambda func: func(1, 2, 3),
        lambda func: func(1, a=1),
        lambda func: func(1, c=3),
        lambda func: func(b=1, c=3),
    ],
)
def test_a_call_that_does_not_fit_raises_its_own_type_error(
    call: Callable[[Any], object], sink: MemorySink
) -> None:
    """The message is the one that the function would have given, and the call is recorded as failed."""

    def func(a: int, b: int = 0) -> None: ...

    with pytest.raises(TypeError) as expected:
        call(func)
    for decorated in (trace(func), trace(functools.partial(func))):
        with pytest.raises(TypeError) as raised:
            call(decorated)
        assert str(raised.value) == str(expected.value)
    assert [kept.info.state for kept in sink.traces] == [TraceState.ERROR] * 2


SIGNATURES: list[Callable[..., object]] = [
    lambda: None,
    lambda a: None,
    lambda a, b=2: None,
    lambda a, /, b=2, *, c, d=4: None,
    lambda *args: None,
    lambda a, *args, b=2, **kwargs: None,
    lambda a, /, **kwargs: None,
    lambda self, a: None,
    lambda cls, a=1: None,
]


@given(
    st.sampled_from(SIGNATURES),
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "self", "cls", "x"]), st.integers(), max_size=4),
)
def test_arguments_bind_as_the_call_binds_them(
    func: Callable[..., object], args: list[int], kwargs: dict[str, int]
) -> None:
    """For every call that the function accepts; for the others nothing is raised."""
    ours = Parameters(func).bind(tuple(args), kwargs)
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except TypeError:
        return
    bound.apply_defaults()
    expected = without(bound.arguments, "self")
    assert ours == expected
    assert list(ours) == list(expected)


# --- Errors -------------------------------------------------------------------------------------------------


class Boom(Exception):
    """As it is raised in the tests."""


@trace
def fail(error: BaseException) -> None:
    raise error


@trace
async def fail_async(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@trace
def fail_late(error: BaseException) -> Iterator[int]:
    yield 1
    raise error


@trace
async def fail_late_async(error: BaseException) -> AsyncIterator[int]:
    yield 1
    raise error


async def drain(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


FAILURES: list[Callable[[BaseException], object]] = [
    fail,
    lambda error: asyncio.run(fail_async(error)),
    lambda error: list(fail_late(error)),
    lambda error: asyncio.run(drain(fail_late_async(error))),
]


@pytest.mark.parametrize("call", FAILURES)
def test_an_exception_is_recorded_and_reaches_the_caller_untouched(
    call: Callable[[BaseException], object], sink: MemorySink
) -> None:
    """The same object, with no context, cause or note that it did not have."""
    error = Boom("so")
    with pytest.raises(Boom) as raised:
        call(error)
    assert raised.value is error
    assert (error.__context__, error.__cause__, error.__suppress_context__) == (None, None, False)
    assert not hasattr(error, "__notes__")
    span = only_span(sink)
    assert (span.status.code, span.status.description) == (SpanStatusCode.ERROR, "Boom: so")
    event = span.events[-1]
    assert (event.name, event.attributes["exception.message"]) == ("exception", "so")
    assert sink.traces[0].info.state is TraceState.ERROR


@pytest.mark.parametrize("call", FAILURES)
def test_an_exception_keeps_the_context_in_which_it_was_raised(
    call: Callable[[BaseException], object], sink: MemorySink
) -> None:
    """What the caller was handling is its context, as it is without us."""
    error, first = Boom(), ValueError("first")
    try:
        raise first
    except ValueError:
        with pytest.raises(Boom):
            call(error)
    assert error.__context__ is first


class Spiteful(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize("call", [fail, lambda error: list(fail_late(error))])
def test_an_exception_that_cannot_be_printed_still_reaches_the_caller(
    call: Callable[[BaseException], object], sink: MemorySink
) -> None:
    """And the call is recorded."""
    with pytest.raises(Spiteful):
        call(Spiteful())
    assert only_span(sink).status.code is SpanStatusCode.ERROR


def test_a_handled_error_of_a_child_leaves_the_parent_ok(sink: MemorySink) -> None:
    """Only what leaves a call is that call's error."""

    @trace
    def parent() -> str:
        try:
            fail(Boom())
        except Boom:
            return "handled"
        return "?"

    assert parent() == "handled"
    assert [span.status.code for span in sink.traces[0].data.spans] == ["OK", "ERROR"]
    assert sink.traces[0].info.state is TraceState.OK


def test_a_coroutine_that_is_dropped_half_way_is_not_ok(sink: MemorySink) -> None:
    """It is as bad as cancelled."""
    started = fail_async(Boom())
    started.send(None)
    started.close()
    assert only_span(sink).status.description == "GeneratorExit: "


# --- Traces of their own, and joined ------------------------------------------------------------------------


def test_outside_a_request_the_outermost_call_is_a_trace_and_nested_calls_join_it(sink: MemorySink) -> None:
    """With the metadata of the process, and nothing current before and after."""

    @trace
    async def outer() -> int:
        return sum(await asyncio.gather(middle(), middle()))

    @trace
    async def middle() -> int:
        await asyncio.sleep(0)
        return sum(gen(2))

    assert asyncio.run(outer()) == 2
    (kept,) = sink.traces
    assert kept.info.trace_metadata["app_version"] == "1"
    assert kept.info.trace_metadata[keys.TRACE_OUTPUTS] == "2"
    names = sorted((span.name, parents(kept)[span.name]) for span in kept.data.spans)
    assert names == sorted(
        [
            ("outer", None),
            *[("middle", "outer"), ("gen", "middle"), ("inner0", "gen"), ("inner1", "gen")] * 2,
        ],
        key=str,
    )
    assert current_trace() is None
    assert current_span() is None


def test_in_a_request_calls_are_spans_of_the_request(sink: MemorySink) -> None:
    """The request's end completes the trace, not the call's."""
    with request() as live:
        f(1)
        list(gen(1))
    assert [span.name for span in live.data.spans] == ["GET /", "f", "gen", "inner0"]
    assert parents(live)["inner0"] == "gen"
    assert not sink.traces


def test_a_plain_thread_starts_a_trace_of_its_own(sink: MemorySink) -> None:
    """A thread does not inherit context; ``asyncio.to_thread`` and ``copy_context().run`` do."""

    @trace
    def main() -> None:
        context = contextvars.copy_context()
        for target in (f, lambda x: context.run(f, x)):
            thread = threading.Thread(target=target, args=(1,))
            thread.start()
            thread.join()

    main()
    assert [[span.name for span in kept.data.spans] for kept in sink.traces] == [["f"], ["main", "f"]]


class Watched:
    """Counts how often it was looked at."""

    looks = 0

    def __repr__(self) -> str:
        Watched.looks += 1
        return "Watched()"


def test_in_a_request_that_is_not_recorded_nothing_is_captured(caplog: pytest.LogCaptureFixture) -> None:
    """No span, no look at an argument, no word in the log, for every kind of function."""
    Watched.looks = 0
    value = Watched()

    @trace
    def steps(value: Any) -> Generator[Any, Any, str]:
        try:
            yield value
        except Boom:
            yield "thrown"
        return "done"

    @trace
    async def async_steps(value: Any) -> AsyncGenerator[Any, Any]:
        try:
            sent = yield value
        except Boom:
            sent = "thrown"
        yield sent

    async def main() -> None:
        assert await af(value) is value  # type: ignore[comparison-overlap, arg-type]
        async with aclosing(async_steps(value)) as items:
            assert await anext(items) is value
            assert await items.asend("sent") == "sent"
            with pytest.raises(StopAsyncIteration):
                await anext(items)
        items = async_steps(value)
        await anext(items)
        assert await items.athrow(Boom()) == "thrown"
        await items.aclose()

    with request(sample_rate=0, keep_errors=False) as live:
        assert ser(value) is value
        items = steps(value)
        assert next(items) is value
        assert items.throw(Boom()) == "thrown"
        with pytest.raises(StopIteration, match="done"):
            next(items)
        asyncio.run(main())
        with pytest.raises(Boom):
            fail(Boom())
    assert [span.name for span in live.data.spans] == ["GET /"]
    assert Watched.looks == 0
    assert not caplog.records


def test_outside_a_request_a_call_that_is_not_recorded_captures_nothing_either() -> None:
    """Nor do calls and generators nested in it."""
    Watched.looks = 0
    sink = MemorySink()

    @trace
    def outer(value: Any) -> list[Any]:
        return list(steps(value))

    @trace
    def steps(value: Any) -> Iterator[Any]:
        yield ser(value)

    with default_recorder(Recorder(Settings(sample_rate=0, keep_errors=False), Source({}), sink)):
        outer(Watched())
        list(steps(Watched()))
    assert not sink.traces
    assert Watched.looks == 0


def test_beyond_the_limit_of_spans_nothing_is_captured() -> None:
    """Such spans are counted and not kept."""
    Watched.looks = 0
    with request(max_spans_per_trace=2) as live:
        f(1)
        ser(Watched())
    assert live.dropped_spans == 1
    assert Watched.looks == 0


def test_a_call_that_outlives_its_trace_is_stored_late(sink: MemorySink) -> None:
    """Under the same trace, with what it returned."""

    @trace
    async def main() -> asyncio.Task[int]:
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
        return task

    @trace
    async def later() -> int:
        await asyncio.sleep(0.001)
        return 5

    async def run() -> None:
        await (await main())

    asyncio.run(run())
    (kept,) = sink.traces
    assert [(span.name, span.end_time_ns is not None) for span in kept.data.spans] == [
        ("main", True),
        ("later", True),
    ]
    assert kept.data.spans[1].outputs == 5


# --- Generators ---------------------------------------------------------------------------------------------


def test_a_generator_that_is_never_started_leaves_nothing(sink: MemorySink) -> None:
    """Its span would start at the first step."""
    gen(1)
    never = agen(1)
    del never
    gen(1).close()  # type: ignore[attr-defined]
    gc.collect()
    assert not sink.traces


def test_what_is_sent_thrown_and_returned_passes_through(sink: MemorySink) -> None:
    """Also by way of ``yield from``."""
    seen: list[object] = []

    @trace
    def steps() -> Generator[int, str, str]:
        seen.append((yield 1))
        try:
            yield 2
        except Boom as error:
            seen.append(error)
        yield 3
        return "done"

    def delegating() -> Generator[int, str, None]:
        seen.append((yield from steps()))

    error = Boom()
    items = delegating()
    assert next(items) == 1
    assert items.send("sent") == 2
    assert items.throw(error) == 3
    assert list(items) == []
    assert seen == ["sent", error, "done"]
    span = only_span(sink)
    assert (span.outputs, span.status.code) == ([1, 2, 3], SpanStatusCode.OK)


Step = tuple[str, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["next", "send", "throw", "close"]),
        st.sampled_from(["ValueError", "KeyError", "StopIteration", "StopAsyncIteration", "GeneratorExit"]),
    ),
    max_size=6,
)
BODY = st.lists(
    st.tuples(
        st.sampled_from(["yield", "catch", "catch and raise", "catch and return", "raise", "finally"]),
        st.sampled_from(["ValueError", "KeyError", "StopIteration", "StopAsyncIteration"]),
    ),
    max_size=6,
)
ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (ValueError, KeyError, StopIteration, StopAsyncIteration, GeneratorExit)
}


def told(error: BaseException | None) -> object:
    """An exception with everything that hangs on it."""
    if error is None:
        return None
    chain = (told(error.__context__), told(error.__cause__), error.__suppress_context__)
    return (type(error).__name__, str(error), chain)


def scripted(body: list[Step], log: list[object]) -> Generator[int, object, str]:
    """A generator that does what ``body`` says and logs what happens to it."""
    for i, (verb, error) in enumerate(body):
        if verb == "raise":
            raise ERRORS[error](f"body {i}")
        try:
            log.append((yield i))
        except BaseException as thrown:
            log.append(("caught", told(thrown)))
            if verb in ("yield", "finally"):
                raise
            if verb == "catch and raise":
                raise ERRORS[error](f"body {i}") from None
            if verb == "catch and return":
                return "early"
        finally:
            if verb == "finally":
                log.append("finally")
    return "returned"


async def async_scripted(body: list[Step], log: list[object]) -> AsyncGenerator[int, object]:
    """The same, but it ignores only one ``GeneratorExit``: Python does not offer to close it again."""
    exits = 0
    for i, (verb, error) in enumerate(body):
        await asyncio.sleep(0)
        if verb == "raise":
            raise ERRORS[error](f"body {i}")
        try:
            log.append((yield i))
        except BaseException as thrown:
            exits += isinstance(thrown, GeneratorExit)
            log.append(("caught", told(thrown)))
            if verb in ("yield", "finally") or exits > 1:
                raise
            if verb == "catch and raise":
                raise ERRORS[error](f"body {i}") from None
            if verb == "catch and return":
                return
        finally:
            if verb == "finally" and exits < 2:
                await asyncio.sleep(0)
                log.append("finally")


def closing(body: list[Step]) -> list[Step]:
    """Enough to close even a body that catches each ``GeneratorExit`` and goes on."""
    return [("close", "")] * (len(body) + 2)


def consume(items: Generator[int, object, str], steps: list[Step]) -> list[object]:
    """What the consumer of a generator sees, step by step."""
    seen: list[object] = []
    for i, (verb, error) in enumerate(steps):
        try:
            if verb == "next":
                seen.append(next(items))
            elif verb == "send":
                seen.append(items.send(f"sent {i}"))
            elif verb == "throw":
                seen.append(items.throw(ERRORS[error](f"thrown {i}")))
            else:
                items.close()
                seen.append("closed")
        except BaseException as raised:
            seen.append((told(raised), getattr(raised, "value", None)))
        assert span_var.get() is None
    return seen


async def async_consume(items: AsyncGenerator[int, object], steps: list[Step]) -> list[object]:
    seen: list[object] = []
    for i, (verb, error) in enumerate(steps):
        try:
            if verb == "next":
                seen.append(await anext(items))
            elif verb == "send":
                seen.append(await items.asend(f"sent {i}"))
            elif verb == "throw":
                seen.append(await items.athrow(ERRORS[error](f"thrown {i}")))
            else:
                await items.aclose()
                seen.append("closed")
        except BaseException as raised:
            seen.append(told(raised))
        assert span_var.get() is None
    return seen


@given(BODY, STEPS)
def test_a_traced_generator_behaves_as_the_original(body: list[Step], steps: list[Step]) -> None:
    """Whatever it does and whatever is done to it; and its span always ends, its context never shows."""
    sink = MemorySink()
    with default_recorder(Recorder(Settings(store="none"), Source({}), sink)):
        results = []
        for func in (scripted, trace(scripted)):
            log: list[object] = []
            seen = consume(func([*body, ("yield", "")], log), [*steps, *closing(body)])
            results.append((seen, log))
    assert results[0] == results[1]
    assert_ended(sink, started=bool(results[0][1]) or any(isinstance(step, int) for step in results[0][0]))


@given(BODY, STEPS)
def test_a_traced_async_generator_behaves_as_the_original(body: list[Step], steps: list[Step]) -> None:
    """The same for ``asend``, ``athrow`` and ``aclose``."""
    sink = MemorySink()

    async def run(func: Callable[..., AsyncGenerator[int, object]]) -> object:
        log: list[object] = []
        seen = await async_consume(func([*body, ("yield", "")], log), [*steps, *closing(body)])
        return (seen, log)

    async def main() -> None:
        assert await run(trace(async_scripted)) == await run(async_scripted)

    with default_recorder(Recorder(Settings(store="none"), Source({}), sink)):
        asyncio.run(main())
    assert_ended(sink, started=False)


def assert_ended(sink: MemorySink, *, started: bool) -> None:
    assert len(sink.traces) <= 1
    assert sink.traces or not started
    for kept in sink.traces:
        assert kept.info.state in (TraceState.OK, TraceState.ERROR)
        assert all(span.end_time_ns is not None for span in kept.data.spans)


def test_the_generators_span_is_current_while_its_body_runs_and_not_while_its_caller_does(
    sink: MemorySink,
) -> None:
    """What the caller makes current in between is the caller's, what the body does is the body's."""
    inside: list[str | None] = []

    def here() -> str | None:
        span = current_span()
        return None if span is None else span.name

    @trace
    def steps() -> Iterator[str | None]:
        inside.append(here())
        yield here()
        with start_span("block"):
            yield here()
            inside.append(here())
            with start_span("nested"):
                pass
            yield here()
        inside.append(here())
        yield here()

    seen = []
    with start_span("caller"):
        for item in steps():
            seen.append((item, here()))
            with start_span("between"):
                pass
    assert inside == ["steps", "block", "steps"]
    assert seen == [(name, "caller") for name in ("steps", "block", "block", "steps")]
    assert parents(sink.traces[0]) == {
        "caller": None,
        "steps": "caller",
        "block": "steps",
        "nested": "block",
        "between": "caller",
    }


async def test_the_same_holds_for_async_generators(sink: MemorySink) -> None:
    """Even where each step is taken by another task."""
    inside: list[str] = []

    @trace
    async def steps() -> AsyncIterator[int]:
        for i in range(2):
            with start_span(f"block{i}") as block:
                yield i
                assert current_span() is block
                await asyncio.sleep(0)
                with start_span(f"nested{i}"):
                    yield i
        span = current_span()
        assert span is not None
        inside.append(span.name)

    with start_span("caller") as caller:
        items = steps()
        while True:
            try:
                await asyncio.create_task(step_of(items))
            except StopAsyncIteration:
                break
            assert current_span() is caller
    assert inside == ["steps"]
    assert parents(sink.traces[0]) == {
        "caller": None,
        "steps": "caller",
        "block0": "steps",
        "nested0": "block0",
        "block1": "steps",
        "nested1": "block1",
    }


async def step_of(items: AsyncIterator[int]) -> int:
    return await anext(items)


def test_blocks_around_a_yield_nest_rightly_when_each_step_runs_in_a_context_of_its_own(
    sink: MemorySink,
) -> None:
    """As frameworks step synchronous generators in a pool of threads."""

    @trace
    def steps() -> Iterator[int]:
        for i in range(2):
            with start_span(f"block{i}"):
                yield i

    with start_span("caller") as caller:
        items = steps()
        while contextvars.copy_context().run(next, items, None) is not None:
            assert current_span() is caller
    assert parents(sink.traces[0]) == {
        "caller": None,
        "steps": "caller",
        "block0": "steps",
        "block1": "steps",
    }


def test_a_generator_may_be_closed_from_another_context(sink: MemorySink) -> None:
    """Nothing is raised, and nothing of it is left current there."""
    items = gen(3)
    contextvars.copy_context().run(next, items)

    def close_elsewhere() -> None:
        with start_span("elsewhere") as span:
            items.close()  # type: ignore[attr-defined]
            assert current_span() is span

    threading.Thread(target=close_elsewhere).start()
    contextvars.Context().run(close_elsewhere)
    assert (trace_var.get(), span_var.get()) == (None, None)
    assert next(kept for kept in sink.traces if kept.info.name == "gen").data.spans[0].outputs == [0]


async def test_an_async_generator_may_be_closed_by_another_task(sink: MemorySink) -> None:
    """Its ``finally`` may await, and what runs there is still part of its trace."""

    @trace
    async def steps() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            with start_span("cleanup"):
                pass

    items = steps()
    await anext(items)
    await asyncio.create_task(close(items))
    assert [span.name for span in sink.traces[0].data.spans] == ["steps", "cleanup"]
    assert sink.traces[0].data.spans[0].attributes == CLOSED_EARLY


async def close(items: AsyncGenerator[Any, Any]) -> None:
    await items.aclose()


def test_a_forgotten_generator_ends_its_span_when_it_is_collected(sink: MemorySink) -> None:
    """At once where nothing else refers to it, with no help of the garbage collector."""
    gc.disable()
    try:
        for _ in gen(3):
            break
        assert sink.traces[0].data.spans[0].attributes == CLOSED_EARLY
    finally:
        gc.enable()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("cyclic", [True, False])
def test_a_forgotten_async_generator_is_closed_by_the_event_loop(
    keep: bool, cyclic: bool, sink: MemorySink
) -> None:
    """Once: the body, its own clean-up and the span all end, and the loop has nothing to complain of."""
    complaints: list[dict[str, Any]] = []
    log: list[str] = []
    kept: list[object] = []

    @trace
    async def steps(link: list[object]) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            log.append("cleaned up")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        link: list[object] = []
        items = steps(link)
        if cyclic:
            link.append(items)
        if keep:
            kept.append(items)
        async for _ in items:
            break
        del items, link
        gc.collect()
        for _ in range(6):
            await asyncio.sleep(0)
        assert log == ([] if keep else ["cleaned up"])

    asyncio.run(main())
    assert log == ["cleaned up"]
    assert not complaints
    assert only_span(sink).attributes == CLOSED_EARLY


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_generator_that_will_not_be_closed_ends_its_span_all_the_same(sink: MemorySink) -> None:
    """Python drops it where it stands, here in the middle of a step; its context is not left behind."""

    @trace
    async def steps() -> AsyncGenerator[int, None]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                await asyncio.sleep(0)

    items = steps()
    with pytest.raises(StopIteration, match="1"):
        anext(items).send(None)
    del items
    gc.collect()
    assert (trace_var.get(), span_var.get()) == (None, None)
    assert only_span(sink).attributes == CLOSED_EARLY


def test_a_generator_leaves_no_cycle_behind() -> None:
    """Neither when it fails, nor when an exception that was thrown in comes out again."""

    @trace
    def steps() -> Generator[int, None, None]:
        yield 1
        raise Boom

    gc.collect()
    gc.disable()
    try:
        for thrown in (None, Boom):
            with request() as live:
                items = steps()
                gone = weakref.ref(items)
                next(items)
                try:
                    items.throw(thrown()) if thrown else next(items)
                except Boom as error:
                    error_gone = weakref.ref(error)
            del items, live
            assert (gone(), error_gone()) == (None, None)
    finally:
        gc.enable()


def test_what_a_generator_yields_is_recorded_up_to_a_bound(sink: MemorySink) -> None:
    """1,000 items, 100 events; beyond there is a count."""

    @trace
    def steps(n: int) -> Iterator[int]:
        yield from range(n)

    assert sum(steps(1000)) + sum(steps(1001)) == 1000 * 1000
    full, over = (kept.data.spans[0] for kept in sink.traces)
    assert full.outputs == over.outputs == list(range(1000))
    assert [len(span.events) for span in (full, over)] == [100, 100]
    assert full.attributes == {}
    assert over.attributes == {"wherefrom.generator.items": 1001}


def test_what_a_generator_yields_is_recorded_up_to_a_megabyte(sink: MemorySink) -> None:
    """Later, smaller items are not recorded either: the list would have a hole."""

    @trace
    def steps() -> Iterator[str]:
        yield "x" * 600_000
        yield "y" * 600_000
        yield "z"

    list(steps())
    span = only_span(sink)
    assert span.outputs == ["x" * 600_000]
    assert span.attributes == {"wherefrom.generator.items": 3}
    assert len(span.events) == 1
    assert len(span.events[0].attributes["mlflow.chunk.value"]) == 1000


def test_a_closed_generator_whose_body_returns_is_closed_early_too(sink: MemorySink) -> None:
    """Catching ``GeneratorExit`` to return is a way of being closed."""

    @trace
    def steps() -> Generator[int, None, None]:
        try:
            yield 1
        except GeneratorExit:
            return

    items = steps()
    next(items)
    items.close()
    assert only_span(sink).attributes == CLOSED_EARLY


def test_an_error_while_a_generator_is_closed_is_an_error(sink: MemorySink) -> None:
    """Its clean-up failed."""

    @trace
    def steps() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            raise Boom

    items = steps()
    next(items)
    with pytest.raises(Boom):
        items.close()
    span = only_span(sink)
    assert (span.status.code, span.attributes) == (SpanStatusCode.ERROR, {})


def test_a_generator_called_with_the_wrong_arguments_says_so_at_its_first_step(sink: MemorySink) -> None:
    """And is recorded as failed."""
    items = gen()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'n'"):
        next(iter(items))
    assert sink.traces[0].info.state is TraceState.ERROR


def test_a_traced_generator_makes_a_context_manager(sink: MemorySink) -> None:
    """The span is that of the whole block, and an error in the block is thrown in and comes out."""

    @contextmanager
    @trace
    def managed(name: str) -> Iterator[str]:
        yield name

    @asynccontextmanager
    @trace
    async def async_managed(name: str) -> AsyncIterator[str]:
        yield name

    async def main() -> None:
        async with async_managed("a"):
            pass

    with managed("ok") as name:
        assert name == "ok"
        assert current_span() is None
    error = Boom()
    with pytest.raises(Boom) as raised, managed("failed"):
        raise error
    assert raised.value is error
    asyncio.run(main())
    assert [kept.info.state for kept in sink.traces] == ["OK", "ERROR", "OK"]


# --- FastAPI ------------------------------------------------------------------------------------------------


class Question(BaseModel):
    text: str


def app_with(decorate: Callable[[Any], Any]) -> FastAPI:
    app = FastAPI()

    @decorate
    def connection() -> Iterator[str]:
        yield "connection"

    @decorate
    async def user(request: Request, token: str = "none") -> str:
        return token

    @app.post("/ask/{tenant}")
    @decorate
    async def ask(
        request: Request,
        tenant: int,
        question: Question,
        who: str = Depends(user),
        db: str = Depends(connection),
    ) -> dict[str, Any]:
        """Asks."""
        return {"tenant": tenant, "text": question.text, "who": who, "db": db}

    @app.get("/plain")
    @decorate
    def plain(q: int = 1) -> int:
        return q

    @app.get("/stream")
    def stream() -> StreamingResponse:
        @decorate
        def lines() -> Iterator[str]:
            for i in range(3):
                with start_span(f"line{i}"):
                    yield f"{i}\n"

        return StreamingResponse(lines())

    return app


async def test_fastapi_sees_the_same_parameters(sink: MemorySink) -> None:
    """The same schema, the same answers; ``Request`` is recorded by its repr, models as what they hold."""
    traced = app_with(trace)
    assert traced.openapi() == app_with(lambda func: func).openapi()
    transport = httpx.ASGITransport(traced)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post(
            "/ask/7", json={"text": "why"}, params={"token": "t"}, headers={"authorization": "Bearer secret"}
        )
        assert answer.json() == {"tenant": 7, "text": "why", "who": "t", "db": "connection"}
        assert (await client.get("/plain?q=3")).json() == 3
        assert (await client.get("/stream")).text == "0\n1\n2\n"
    kept = {trace.info.name: trace for trace in sink.traces}
    assert kept.keys() == {"connection", "user", "ask", "plain", "lines"}
    inputs = kept["ask"].data.spans[0].inputs
    assert inputs.pop("request").startswith("<starlette.requests.Request object at ")
    assert inputs == {"tenant": 7, "question": {"text": "why"}, "who": "t", "db": "connection"}
    assert not any("secret" in trace.to_json() for trace in sink.traces)
    assert parents(kept["lines"]) == {"lines": None, "line0": "lines", "line1": "lines", "line2": "lines"}
