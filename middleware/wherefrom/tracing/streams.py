"""Spans that outlast a call: of generators and coroutines. Each step runs with the span current."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import lru_cache, partial
from inspect import CO_ITERABLE_COROUTINE
from types import CoroutineType, GeneratorType
from typing import Any, TypeVar, cast

from .. import keys
from .._capture.values import PREVIEW_LENGTH, Budget, preview, snapshot
from ..context import Place, Tokens, enter, here, leave
from .api import end_span
from .live import LiveSpan

_MAX_ITEMS = 1000
_MAX_NODES = 10_000  # for all items together: each step has its own time
_MAX_EVENTS = 100

R = TypeVar("R")
Item = TypeVar("Item")


class Stream:
    """One run of a generator: a context in which its span is current, entered for each step of the body.

    What the body makes current, such as a ``with start_span(...)`` around a ``yield``, is saved at the end of
    a step and restored at the next.
    """

    __slots__ = ("_budget", "_captures", "_count", "_inside", "_items", "_tokens", "is_over", "span")

    def __init__(self, span: LiveSpan, *, captures: bool) -> None:
        self.span = span
        self._captures = captures
        self._items: list[Any] = []
        self._budget = Budget(_MAX_NODES, outer=None if span.trace is None else span.trace.budget)
        self._count = 0
        self._inside: Place = (span.trace, span, None)
        self._tokens: Tokens | None = None
        self.is_over = False

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
        # A generator that is not closed, or whose event loop has ended, ends with its deallocation.
        if not self.is_over:
            self._leave()
            self.end(closed=True, deallocated=True)

    @property
    def is_idle(self) -> bool:
        """Whether a step may be taken: the stream is not over, and no step is being taken."""
        return not self.is_over and self._tokens is None

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
            self.span.add_event(f"{keys.CHUNK_EVENT_PREFIX}{self._count - 1}", {keys.CHUNK_VALUE: text})

    def end(self, error: BaseException | None = None, *, closed: bool, deallocated: bool = False) -> None:
        """End the span. ``closed``: the caller closed the generator early, which is not an error."""
        span = self.span
        self.is_over = True
        if self._captures and span.outputs is None and (error is None or closed):
            span.outputs = self._items
        if self._count > len(self._items):
            span.attributes["wherefrom.generator.items"] = self._count
        if closed:
            span.attributes["wherefrom.generator.closed_early"] = True
        end_span(span, error, flushes=not deallocated)


class Unrecorded(Stream):
    """A run that is not recorded; needed because async generators have no ``yield from``."""

    __slots__ = ()

    def __init__(self) -> None:
        self.is_over = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_raised: object) -> None:
        pass

    def record(self, item: object) -> None:
        """Record nothing."""

    def end(self, error: BaseException | None = None, *, closed: bool, deallocated: bool = False) -> None:
        """End nothing."""


def first_step(body: AsyncGenerator[Item, Any]) -> Coroutine[Any, Any, Item]:
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


def follow(span: LiveSpan, result: R, *, captures: bool) -> R:
    """End the span of a call that returned ``result``.

    If ``result`` is a generator, an async generator or a coroutine, its end ends the span. The object that
    replaces it behaves like it, also in ``isinstance``, ``inspect`` and Python's warnings.
    """
    kind = _follower_for(type(result))  # type: ignore[arg-type] # types are hashable
    if kind is not None:
        return cast("R", kind(result, span, captures=captures))
    if captures and span.outputs is None:
        span.set_outputs(result)
    end_span(span)
    return result


class _Followed:
    """Wraps a generator or coroutine that a traced call returned, and changes nothing but its steps."""

    __slots__ = ("__weakref__", "_body", "_stream")

    def __init__(self, body: Any, span: LiveSpan, *, captures: bool) -> None:
        self._body = body
        self._stream = Stream(span, captures=captures)

    @property  # type: ignore[misc] # read-only here
    def __class__(self) -> Any:  # isinstance() sees the class of the original
        return type(self._body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __repr__(self) -> str:
        return repr(self._body)

    def __del__(self) -> None:
        stream = self._stream
        if not stream.is_over:
            # If others refer to the body, it goes on. If not, its clean-up is part of the call.
            with stream:
                del self._body
            stream.end(closed=True, deallocated=True)


class _FollowedGenerator(_Followed):
    __slots__ = ()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._step(self._body.__next__)

    def send(self, value: Any) -> Any:
        return self._step(partial(self._body.send, value))

    def throw(self, *thrown: Any) -> Any:
        return self._step(partial(self._body.throw, *thrown), closes=_closes(thrown))

    def close(self) -> Any:
        return self._step(self._body.close, closes=True, ends=True)

    def _step(self, take: Callable[[], Any], *, closes: bool = False, ends: bool = False) -> Any:
        stream = self._stream
        if not stream.is_idle:
            return take()
        try:
            with stream:
                item = take()
        except BaseException as error:
            ended = isinstance(error, StopIteration)
            stream.end(None if ended else error, closed=closes and isinstance(error, _CLOSED))
            raise
        if ends:
            stream.end(closed=True)
        else:
            stream.record(item)
        return item


class _FollowedAsyncGenerator(_Followed):
    __slots__ = ()

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return self._step(self._body.__anext__)

    def asend(self, value: Any) -> Any:
        return self._step(partial(self._body.asend, value))

    def athrow(self, *thrown: Any) -> Any:
        return self._step(partial(self._body.athrow, *thrown), closes=_closes(thrown))

    def aclose(self) -> Any:
        return self._step(self._body.aclose, closes=True, ends=True)

    async def _step(self, take: Callable[[], Any], *, closes: bool = False, ends: bool = False) -> Any:
        stream = self._stream
        if not stream.is_idle:
            return await take()
        try:
            with stream:
                item = await take()
        except BaseException as error:
            ended = isinstance(error, StopAsyncIteration)
            stream.end(None if ended else error, closed=closes and isinstance(error, _CLOSED))
            raise
        if ends:
            stream.end(closed=True)
        else:
            stream.record(item)
        return item


class _Run(Stream):
    """One run of a coroutine."""

    __slots__ = ("is_started",)

    def __init__(self, span: LiveSpan, *, captures: bool) -> None:
        super().__init__(span, captures=captures)
        self.is_started = False

    def end(self, error: BaseException | None = None, *, closed: bool, deallocated: bool = False) -> None:
        """End the span. A coroutine that is ``closed`` before its end counts as cancelled."""
        self.is_over = True
        if not self.is_started:
            self.span.attributes["wherefrom.coroutine.never_awaited"] = True
        elif closed:
            self.span.record_exception(error or GeneratorExit())
        end_span(self.span, error, flushes=not deallocated)

    def returned(self, result: R) -> R:
        """End the span of a coroutine that returned."""
        self.is_over = True
        return follow(self.span, result, captures=self._captures)


class _FollowedCoroutine(_Followed):
    __slots__ = ()

    _stream: _Run

    def __init__(self, body: Any, span: LiveSpan, *, captures: bool) -> None:
        self._body = body
        self._stream = _Run(span, captures=captures)

    def __await__(self) -> Any:
        return _Awaiting(self)

    def send(self, value: Any) -> Any:
        return self._step(partial(self._body.send, value))

    def throw(self, *thrown: Any) -> Any:
        return self._step(partial(self._body.throw, *thrown))

    def close(self) -> Any:
        stream = self._stream
        if not stream.is_idle:
            return self._body.close()
        try:
            with stream:
                self._body.close()
        except BaseException as error:
            stream.end(error, closed=False)
            raise
        return stream.end(closed=True)

    def _step(self, take: Callable[[], Any]) -> Any:
        stream = self._stream
        if not stream.is_idle:
            return take()
        stream.is_started = True
        try:
            with stream:
                return take()
        except StopIteration as stop:
            result = stream.returned(stop.value)
            if result is stop.value:
                raise
            ended = StopIteration(result)
        except BaseException as error:
            stream.end(error, closed=isinstance(error, GeneratorExit))
            raise
        raise ended


class _Awaiting:
    """The iterator behind ``await``: the steps of a coroutine."""

    __slots__ = ("_coroutine", "close", "send", "throw")

    def __init__(self, coroutine: _FollowedCoroutine) -> None:
        self._coroutine = coroutine
        self.send, self.throw, self.close = coroutine.send, coroutine.throw, coroutine.close

    def __iter__(self) -> _Awaiting:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class _FollowedGeneratorCoroutine(_FollowedCoroutine):
    """A generator of ``types.coroutine``, which may be awaited and iterated."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def _follow_generator(body: Any, span: LiveSpan, *, captures: bool) -> _Followed:
    is_coroutine = body.gi_code.co_flags & CO_ITERABLE_COROUTINE
    return (_FollowedGeneratorCoroutine if is_coroutine else _FollowedGenerator)(
        body, span, captures=captures
    )


_CLOSED = (GeneratorExit, StopIteration, StopAsyncIteration)

# An object that is more than a coroutine, such as aiohttp's requests with ``async with``, is not wrapped.
_MORE = frozenset({"__enter__", "__aenter__", "__call__", "__getitem__", "__len__"})


@lru_cache(maxsize=256)
def _follower_for(kind: type) -> Callable[..., _Followed] | None:
    if kind is GeneratorType:
        return _follow_generator
    if kind is CoroutineType:
        return _FollowedCoroutine
    if any(not _MORE.isdisjoint(vars(base)) for base in kind.__mro__):
        return None
    # Also those of other compilers, such as Cython, and those that an inner traced call has returned.
    for base, follower in (
        (Coroutine, _FollowedCoroutine),
        (Generator, _FollowedGenerator),
        (AsyncGenerator, _FollowedAsyncGenerator),
    ):
        if issubclass(kind, base):
            return follower
    return None


def _closes(thrown: tuple[Any, ...]) -> bool:
    return isinstance(thrown[0], GeneratorExit) or thrown[0] is GeneratorExit
