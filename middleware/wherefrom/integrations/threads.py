"""Threads: work for a pool that stays in the trace of who asked for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

__all__ = ["copy_context_to"]

P = ParamSpec("P")
T = TypeVar("T")


def copy_context_to(executor: Executor) -> Executor:
    """An executor like ``executor``, whose work runs in a copy of the context of whoever submits it.

    >>> with copy_context_to(ThreadPoolExecutor()) as pool:
    ...     answers = list(pool.map(ask, questions))

    So spans that are made there are part of the caller's trace, below the span that was current at
    ``submit``. ``asyncio.to_thread`` and ``anyio.to_thread.run_sync`` do as much by themselves;
    ``ThreadPoolExecutor.submit``, ``map`` and ``loop.run_in_executor`` do not.

    Raises:
        TypeError: the executor's work runs in other processes, where no context can go.
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
