"""Threads: executors whose work stays in the trace of the caller."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

__all__ = ["copy_context_to"]

P = ParamSpec("P")
T = TypeVar("T")


def copy_context_to(executor: Executor) -> Executor:
    """Return an executor that runs work in a copy of its caller's context, on ``executor``.

    >>> with copy_context_to(ThreadPoolExecutor()) as pool:
    ...     answers = list(pool.map(ask, questions))

    Spans that the work opens are then children of the span that was current at ``submit``.
    ``asyncio.to_thread`` and ``anyio.to_thread.run_sync`` copy the context by themselves;
    ``ThreadPoolExecutor.submit``, ``map`` and ``loop.run_in_executor`` do not.

    Raises:
        TypeError: the executor uses processes: a context cannot be sent to another process.
    """
    if isinstance(executor, ProcessPoolExecutor):
        raise TypeError("a context cannot go to another process: copy_context_to takes executors of threads")
    return _ContextExecutor(executor)


class _ContextExecutor(Executor):
    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        context = copy_context()
        return self._executor.submit(lambda: context.run(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
