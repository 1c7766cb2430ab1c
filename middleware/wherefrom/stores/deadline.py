"""Deadlines and cancellation of queries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from .._clock import monotonic
from ..exceptions import QueryCancelledError, QueryTimeoutError, StoreError


class Deadline:
    """Interrupts the queries of a block after ``seconds``, or when another thread calls ``cancel``.

        with Deadline(2.0):
            client.search_traces(...)

    It applies to every snapshot that is opened in the block, and can be entered once. Without ``seconds``
    only ``cancel`` interrupts.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._error: StoreError | None = None
        self._end_time = 0.0
        self._interrupts: list[Callable[[], None]] = []
        self._timer: threading.Timer | None = None
        self._token: Token[Deadline | None] | None = None

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._end_time = monotonic() + self._seconds
            self._timer = threading.Timer(self._seconds, self._end, [_timeout(self._seconds)])
            self._timer.daemon = True
            self._timer.start()
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed or was cancelled."""
        return self._error is not None

    @property
    def seconds_left(self) -> float | None:
        """The time until the deadline, negative after it; ``None`` without one."""
        return None if self._seconds is None else self._end_time - monotonic()

    def cancel(self) -> None:
        """Interrupt the queries now; later ones fail at once. Thread-safe."""
        self._end(QueryCancelledError("the query was cancelled: nobody waits for it any more"))

    def check(self, seconds: float = 0) -> None:
        """Do nothing if there are at least ``seconds`` before the deadline.

        Raises:
            QueryTimeoutError: the deadline has passed, or is nearer.
            QueryCancelledError: the block was cancelled.
        """
        if self._error is None and self._seconds is not None and monotonic() + seconds > self._end_time:
            self._error = _timeout(self._seconds)
        if self._error is not None:
            raise self._error

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call ``interrupt`` from another thread at the deadline, but never after the block.

        Raises:
            QueryTimeoutError: the deadline has passed already.
            QueryCancelledError: it was cancelled already.
        """
        with self._lock:
            self.check()
            self._interrupts.append(interrupt)
        try:
            yield
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)

    def _end(self, error: StoreError) -> None:
        with self._lock:
            self._error = self._error or error
            for interrupt in self._interrupts:
                interrupt()


def current_deadline() -> Deadline | None:
    """The deadline of the innermost block around the caller."""
    return _current.get()


def check_deadline(seconds: float = 0) -> None:
    """Do as ``Deadline.check`` for that deadline, if there is one."""
    if (deadline := current_deadline()) is not None:
        deadline.check(seconds)


_current: ContextVar[Deadline | None] = ContextVar("wherefrom_deadline", default=None)


def _timeout(seconds: float) -> QueryTimeoutError:
    return QueryTimeoutError(f"this took longer than {seconds:g} s: narrow the time range or the filter")
