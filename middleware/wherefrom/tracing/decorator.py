"""``@trace``: records each call of a function, generator, coroutine or method as a span."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

from .. import keys
from .._capture.values import (
    MAX_ATTRIBUTES,
    MAX_KEY_LENGTH,
    PREVIEW_LENGTH,
    Budget,
    clean_text,
    first_pairs,
    preview,
    snapshot,
)
from ..context import Place, Tokens, enter, here, leave
from ..model import SpanType
from .api import current_trace, end_span, open_span
from .arguments import Parameters
from .live import LiveSpan

_MAX_ITEMS = 1000
_MAX_NODES = 10_000  # of all items: each step has time of its own
_MAX_EVENTS = 100

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
Sent = TypeVar("Sent")
Traceable = TypeVar(
    "Traceable", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]"
)


@overload
def trace(
    func: Traceable,
    *,
    name: str | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: Mapping[str, Any] | None = None,
    capture_io: bool = True,
) -> Traceable: ...


@overload
def trace(
    func: None = None,
    *,
    name: str | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: Mapping[str, Any] | None = None,
    capture_io: bool = True,
) -> Callable[[Traceable], Traceable]: ...


def trace(
    func: Any = None,
    *,
    name: str | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: Mapping[str, Any] | None = None,
    capture_io: bool = True,
) -> Any:
    """Record each call as a span: ``@trace``, ``@trace(name=...)`` or ``trace(func)``.

    Works on functions, coroutines, generators, async generators, methods (above or below ``@classmethod``
    and ``@staticmethod``), ``functools.partial`` and callable objects. In a request the span is part of
    the request's trace; outside, the outermost call is a trace of its own. Signature, kind and behaviour of
    the function do not change; an exception is recorded and propagates.

    ``inputs`` are the arguments by name as they were at the call, with defaults and without ``self`` or
    ``cls``; ``outputs`` is the result, unless ``current_span().set_outputs`` was called. With
    ``capture_io=False`` neither is recorded.

    The span of a generator starts at the first step and ends with it; one that is closed or deallocated
    before its end is marked ``wherefrom.generator.closed_early``. The span is current while the
    body runs and not while the caller does. ``outputs`` is the list of yielded items, at most 1,000
    and 1 MB; ``wherefrom.generator.items`` counts all when there are more. The first 100 are also events
    ``mlflow.chunk.item.<i>``. Invalid arguments raise their ``TypeError`` at the first step.

    Args:
        func: the function to record; passed by the decorator syntax.
        name: the span's name; by default the function's.
        span_type: a ``SpanType`` or any string.
        attributes: JSON values for every span of this function.
        capture_io: whether to record arguments and results.

    Raises:
        TypeError: ``func`` is a class, a property, or not callable.
    """

    def decorate(func: Any) -> Any:
        if isinstance(func, (classmethod, staticmethod)):
            return type(func)(decorate(func.__func__))
        if isinstance(func, type) or not callable(func):
            raise TypeError(f"@trace decorates functions and methods, not {func!r:.100}")
        body = _body_of(func)
        wrap = _wrapper_for(body)
        own_name = getattr(body, "__name__", None) or type(body).__name__
        # As in MLflow, generators do not carry it.
        own = {} if wrap in (_generator, _async_generator) else {keys.SPAN_FUNCTION_NAME: own_name}
        plan = _Plan(func, name or own_name, span_type, {**own, **(attributes or {})}, capture_io)
        wrapper = wrap(func, plan)
        if not hasattr(func, "__name__"):
            wrapper.__name__ = wrapper.__qualname__ = own_name
        return wrapper

    return decorate if func is None else decorate(func)


class _Plan:
    """What all calls of one decorated function share."""

    __slots__ = ("_attributes", "_bind", "_captures", "_name", "_span_type")

    def __init__(
        self,
        func: Callable[..., Any],
        name: str,
        span_type: str,
        attributes: Mapping[str, Any],
        captures: bool,
    ) -> None:
        self._name = clean_text(name)
        self._span_type = clean_text(span_type)
        budget = Budget()
        self._attributes = {
            (name := clean_text(key, MAX_KEY_LENGTH)): snapshot(value, budget, name)
            for key, value in first_pairs(attributes, MAX_ATTRIBUTES)[0]
        }
        self._captures = captures
        self._bind = Parameters(func).bind

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LiveSpan | None:
        """Start the span of one call; ``None`` where the trace is not recorded."""
        trace = current_trace()
        if trace is not None and not trace.recording:
            return None
        span = open_span(self._name, self._span_type)
        span.attributes.update(self._attributes)
        if self.captures(span):
            span.set_inputs(self._bind(args, kwargs))
        return span

    def captures(self, span: LiveSpan) -> bool:
        """Whether to record inputs and outputs."""
        trace = span.trace
        return self._captures and span.recorded and trace is not None and trace.recording

    def close(self, span: LiveSpan, result: object) -> None:
        """End the span of a call that returned."""
        if span.outputs is None and self.captures(span):
            span.set_outputs(result)
        end_span(span)


class _Stream:
    """One run of a generator: a context in which its span is current, entered for each step of the body.

    What the body makes current, such as a ``with start_span(...)`` around a ``yield``, is saved at the end of
    a step and restored at the next.
    """

    __slots__ = ("_budget", "_captures", "_count", "_ended", "_inside", "_items", "_span", "_tokens")

    def __init__(self, span: LiveSpan, *, captures: bool) -> None:
        self._span = span
        self._captures = captures
        self._items: list[Any] = []
        self._budget = Budget(_MAX_NODES, outer=None if span.trace is None else span.trace.budget)
        self._count = 0
        self._inside: Place = (span.trace, span, None)
        self._tokens: Tokens | None = None
        self._ended = False

    def __enter__(self) -> None:
        self._tokens = enter(*self._inside)

    def __exit__(self, *_raised: object) -> None:
        self._inside = here()
        self._leave()

    def _leave(self) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            leave(tokens)

    def __del__(self) -> None:
        # A generator that is not closed, or whose event loop is gone, ends with its deallocation.
        if not self._ended:
            self._leave()
            self.end(closed=True)

    def record(self, item: object) -> None:
        """Record a snapshot of a yielded item, up to the limit."""
        if not self._captures:
            return
        self._count += 1
        if self._count > _MAX_ITEMS or self._budget.is_spent:
            return
        (kept,) = snapshot((item,), self._budget)  # in a list, where NaN is None
        if self._items and self._budget.is_spent:
            return
        self._items.append(kept)
        if self._count <= _MAX_EVENTS:
            text = preview(kept, PREVIEW_LENGTH, spaced=False)
            self._span.add_event(f"{keys.CHUNK_EVENT_PREFIX}{self._count - 1}", {keys.CHUNK_VALUE: text})

    def end(self, error: BaseException | None = None, *, closed: bool) -> None:
        """End the span; ``closed`` when the caller closed the generator early, which is not an error."""
        span = self._span
        self._ended = True
        if self._captures and span.outputs is None and (error is None or closed):
            span.outputs = self._items
        if self._count > len(self._items):
            span.attributes["wherefrom.generator.items"] = self._count
        if closed:
            span.attributes["wherefrom.generator.closed_early"] = True
        end_span(span, error)


def _open_stream(plan: _Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Stream | None:
    span = plan.open(args, kwargs)
    return None if span is None else _Stream(span, captures=plan.captures(span))


def _function(func: Callable[P, R], plan: _Plan) -> Callable[P, R]:
    @wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        span = plan.open(args, kwargs)
        if span is None:
            return func(*args, **kwargs)
        tokens = enter(span.trace, span)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            leave(tokens)
            end_span(span, error)
            raise
        leave(tokens)
        plan.close(span, result)
        return result

    return wrapper


def _coroutine(func: Callable[P, Coroutine[Any, Any, R]], plan: _Plan) -> Callable[P, Coroutine[Any, Any, R]]:
    @wraps(func)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        span = plan.open(args, kwargs)
        if span is None:
            return await func(*args, **kwargs)
        tokens = enter(span.trace, span)
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            leave(tokens)
            if isinstance(error, GeneratorExit):  # deallocated before its end: like a cancellation
                span.record_exception(error)
            end_span(span, error)
            raise
        leave(tokens)
        plan.close(span, result)
        return result

    return wrapper


def _generator(
    func: Callable[P, Generator[Item, Sent, R]], plan: _Plan
) -> Callable[P, Generator[Item, Sent, R]]:
    @wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Generator[Item, Sent, R]:
        stream = _open_stream(plan, args, kwargs)
        if stream is None:
            return (yield from func(*args, **kwargs))
        thrown: BaseException | None = None
        try:
            with stream:
                body = func(*args, **kwargs)
                item = next(body)
            while True:
                stream.record(item)
                # What the caller throws is passed to the body outside of this handler: inside, it would be
                # the __context__ of whatever the body raises.
                try:
                    sent = yield item
                except BaseException as raised:  # noqa: BLE001 - the body handles it
                    thrown = raised
                with stream:
                    item = body.send(sent) if thrown is None else body.throw(thrown)
                thrown = None
        except StopIteration as stop:
            stream.end(closed=isinstance(thrown, GeneratorExit))
            return cast("R", stop.value)
        except BaseException as error:
            stream.end(error, closed=isinstance(error, GeneratorExit))
            raise
        finally:
            thrown = None  # exception and frame refer to each other

    return wrapper


def _async_generator(
    func: Callable[P, AsyncGenerator[Item, Sent]], plan: _Plan
) -> Callable[P, AsyncGenerator[Item, Sent]]:
    @wraps(func)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Item, Sent]:
        stream = _open_stream(plan, args, kwargs) or _Unrecorded()
        thrown: BaseException | None = None
        try:
            with stream:
                body = func(*args, **kwargs)
                item = await _first_step(body)
            while True:
                stream.record(item)
                try:
                    sent = yield item
                except BaseException as raised:  # noqa: BLE001 - as in the generator above
                    thrown = raised
                with stream:
                    item = await (body.asend(sent) if thrown is None else body.athrow(thrown))
                thrown = None
        except StopAsyncIteration:
            stream.end(closed=isinstance(thrown, GeneratorExit))
        except BaseException as error:
            stream.end(error, closed=isinstance(error, GeneratorExit))
            raise
        finally:
            thrown = None

    return wrapper


class _Unrecorded(_Stream):
    """A run that is not recorded; needed because async generators have no ``yield from``."""

    __slots__ = ()

    def __init__(self) -> None:
        self._ended = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_raised: object) -> None:
        pass

    def record(self, item: object) -> None:
        pass

    def end(self, error: BaseException | None = None, *, closed: bool) -> None:
        pass


def _first_step(body: AsyncGenerator[Item, Any]) -> Coroutine[Any, Any, Item]:
    """Return the first step of an async generator that its wrapper, and not the event loop, closes.

    Python registers an async generator with the event loop at its first step. If both wrapper and body were
    registered, the loop would close both at its end, and one would fail as already running.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=_leave_to_wrapper)
    try:
        return body.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _leave_to_wrapper(_body: AsyncGenerator[Any, Any]) -> None:
    pass


def _body_of(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, partial):
        func = func.func
    return func


def _wrapper_for(body: Callable[..., Any]) -> Callable[[Any, _Plan], Any]:
    forms = (body, type(body).__call__)  # the second for callable objects
    if any(map(inspect.iscoroutinefunction, forms)):
        return _coroutine
    if any(map(inspect.isgeneratorfunction, forms)):
        return _generator
    return _async_generator if any(map(inspect.isasyncgenfunction, forms)) else _function
