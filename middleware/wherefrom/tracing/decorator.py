"""``@trace``: records each call of a function, generator, coroutine or method as a span."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from functools import partial, partialmethod, singledispatchmethod, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast, overload

from .. import keys
from .._capture.values import (
    MAX_ATTRIBUTES,
    MAX_KEY_LENGTH,
    Budget,
    clean_text,
    first_pairs,
    snapshot,
)
from ..context import enter, leave
from ..model import SpanType
from ..process import process
from .api import current_trace, end_span, open_span, record_failure
from .arguments import Parameters
from .callables import TracedCallable
from .live import LiveSpan
from .streams import Stream, Unrecorded, first_step, follow

# Not callable themselves, but what they return for an instance is.
_DESCRIPTORS = (partialmethod, singledispatchmethod)

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
Sent = TypeVar("Sent")
Traceable = TypeVar(
    "Traceable",
    bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any] | partialmethod[Any]"
    " | singledispatchmethod[Any]",
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
    the request's trace; outside, the outermost call is a trace of its own. Signature, kind, attributes and
    behaviour of the function do not change; an exception is recorded and propagates.

    If a function returns a generator, an async generator or a coroutine, the span ends when that ends.

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
            wrapped = type(func)(decorate(func.__func__))
            vars(wrapped).update({**vars(func), **vars(wrapped)})
            return wrapped
        if isinstance(func, type) or not (callable(func) or isinstance(func, _DESCRIPTORS)):
            raise TypeError(f"@trace decorates functions and methods, not {func!r:.100}")
        body = _body_of(func)
        wrap = _wrapper_for(body)
        own_name = getattr(body, "__name__", None) or type(body).__name__
        # As in MLflow, generators do not carry it.
        own = {} if wrap in (_generator, _async_generator) else {keys.SPAN_FUNCTION_NAME: own_name}
        plan = _Plan(func, name or own_name, span_type, {**own, **(attributes or {})}, capture_io)
        wrapper = wrap(func, plan)
        function = getattr(func, "fn", func)  # of Litestar's routes
        if isinstance(function, FunctionType):
            process.traced.add(function)
        if isinstance(func, FunctionType):
            return wrapper
        if not hasattr(func, "__name__"):
            wrapper.__name__ = wrapper.__qualname__ = own_name
        return TracedCallable(func, wrapper, again)

    again = partial(trace, name=name, span_type=span_type, attributes=attributes, capture_io=capture_io)
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
        if trace is not None and not trace.over and not trace.recording:
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

    def close(self, span: LiveSpan, result: R) -> R:
        """End the span of a call that returned, or let the returned generator or coroutine end it."""
        return follow(span, result, captures=self.captures(span))


def _open_stream(plan: _Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stream | None:
    span = plan.open(args, kwargs)
    return None if span is None else Stream(span, captures=plan.captures(span))


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
        return plan.close(span, result)

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
                record_failure(span, error)
            end_span(span, error)
            raise
        leave(tokens)
        return plan.close(span, result)

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
        stream = _open_stream(plan, args, kwargs) or Unrecorded()
        thrown: BaseException | None = None
        try:
            with stream:
                body = func(*args, **kwargs)
                item = await first_step(body)
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


def _body_of(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, (partial, *_DESCRIPTORS)):
        func = func.func
    return func


def _wrapper_for(body: Callable[..., Any]) -> Callable[[Any, _Plan], Any]:
    forms = (body, type(body).__call__)  # the second for callable objects
    if any(map(inspect.iscoroutinefunction, forms)):
        return _coroutine
    if any(map(inspect.isgeneratorfunction, forms)):
        return _generator
    return _async_generator if any(map(inspect.isasyncgenfunction, forms)) else _function
