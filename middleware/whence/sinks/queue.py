"""The queue between requests and a store: a deque, one writer thread, batches."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from random import uniform

from ..exceptions import StoreUnavailableError
from ..ledger import ledger
from ..model import Trace
from .base import Sink

BATCH_SIZE = 1024
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_LEAST_JITTER = 0.5
_IDLE_S = 1.0
_TELL_EVERY_S = 5.0


class BackgroundSink:
    """Takes traces without waiting and writes them to ``sink`` from one thread, in batches.

    ``queue_size`` bounds the traces that wait; further ones are dropped and counted. The sink is handed
    ``batch_size`` at most; while it raises ``StoreUnavailableError`` they are kept and tried again, less and
    less often. Safe to fork: a child starts with an empty queue and a thread of its own. ``on_written`` is
    called now and then after writes, when they have ceased, and at the end of a flush; it must not raise.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        queue_size: int = 10_000,
        flush_interval_ms: int = 200,
        batch_size: int = BATCH_SIZE,
        on_written: Callable[[], object] | None = None,
    ) -> None:
        self.sink = sink
        self._on_written = on_written
        self._size = queue_size
        self._batch_size = batch_size
        self._interval = flush_interval_ms / 1000
        self._ends_with = 0
        self._start_afresh()
        _living.add(self)

    def _start_afresh(self) -> None:
        self._waiting: deque[Trace] = deque()
        self._batch: list[Trace] = []
        self._done = 0
        self._told_done = 0
        self._told_at = -_TELL_EVERY_S
        self._awake = False
        self._closing = False
        self._flushers = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._telling = threading.Lock()  # what the thread is telling is told before a flush returns
        self._wake = threading.Event()
        self._hurry = threading.Event()  # somebody waits: the interval is cut short

    @property
    def depth(self) -> int:
        """Traces that wait to be written."""
        return len(self._waiting) + len(self._batch)

    def write(self, traces: Sequence[Trace]) -> None:
        """Queue traces; never waits, never raises."""
        for trace in traces:
            if len(self._waiting) < self._size:
                self._waiting.append(trace)
            else:
                ledger.dropped("queue_full")
        # One wake-up an interval, not one a request: the flag falls only when the thread found nothing to do.
        if not self._awake:
            self._awake = True
            self._rouse()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait at most ``timeout`` seconds until everything queued so far is written; true when it is."""
        deadline = time.monotonic() + timeout
        with self._changed:
            target = self._done + self.depth
            self._flushers += 1
            self._hurry.set()
            try:
                self._rouse()
                done = self._changed.wait_for(
                    lambda: self._done >= target, max(deadline - time.monotonic(), 0)
                )
            finally:
                self._flushers -= 1
                if not self._flushers:
                    self._hurry.clear()
        if done:
            self._tell_if_due(0)  # a process that ends by a signal flushes, and then says no more
        return done

    def close(self, timeout: float = 5.0) -> bool:
        """Flush, stop the thread, and count what could not be written in time as dropped."""
        done = self.flush(timeout)
        self._closing = True
        self._hurry.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(0.5 if done else 0)
        self._hurry.clear()
        if left := self.depth:
            self._waiting.clear()
            ledger.dropped("shutdown", left)
        return done

    def _rouse(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._changed:
                if self._thread is None or not self._thread.is_alive():
                    self._start_thread()
        self._wake.set()

    def _start_thread(self) -> None:
        self._closing = False
        thread = threading.Thread(target=self._run, name="whence-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or out of threads
            ledger.failed("writer thread", error)
            self._awake = False
        else:
            self._thread = thread
            self._end_with_worker()

    def _end_with_worker(self) -> None:
        """Children of multiprocessing end by ``os._exit``: nothing that ``atexit`` knows is called there."""
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None and self._ends_with != os.getpid():
            from multiprocessing.util import Finalize

            self._ends_with = os.getpid()
            Finalize(None, self.close, exitpriority=10)

    def _run(self) -> None:
        try:
            self._write_on()
        finally:
            self._awake = False  # however the thread ends, the next trace starts another

    def _write_on(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closing:
            if not self.depth:
                self._sleep_until_roused()
            self._hurry.wait(self._interval)
            if self._drain():
                pause = _FIRST_PAUSE_S
                self._tell_if_due(_TELL_EVERY_S)
            else:
                self._wake.clear()
                # Not all processes that a server has turned away come back at once.
                self._wake.wait(pause * uniform(_LEAST_JITTER, 1))  # noqa: S311 - no secret
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        self._tell_if_due(0)

    def _sleep_until_roused(self) -> None:
        self._wake.clear()
        self._awake = False
        # A trace that came before the flag fell roused nobody.
        if not self.depth and not self._closing and not self._wake.wait(_IDLE_S):
            self._tell_if_due(0)
            self._wake.wait()
        self._awake = True

    def _tell_if_due(self, interval: float) -> None:
        if self._on_written is None:
            return
        with self._telling:
            now = time.monotonic()
            if self._told_done != self._done and now - self._told_at >= interval:
                self._told_at, self._told_done = now, self._done
                self._on_written()

    def _drain(self) -> bool:
        """Write what waits now; false when the sink is unavailable."""
        remaining = self.depth
        try:
            while remaining > 0:
                with self._changed:  # what flush counts does not change between its two homes
                    while len(self._batch) < self._batch_size and self._waiting:
                        self._batch.append(self._waiting.popleft())
                remaining -= len(self._batch)
                self._write_batch()
        except StoreUnavailableError as error:
            ledger.failed(type(self.sink).__name__, error)
            return False
        return True

    def _write_batch(self) -> None:
        """Write the batch, one by one where the sink refuses it: a bad trace must not cost the others.

        What is written, or refused for good, leaves the batch at once and is not written again.
        """
        try:
            self._write_first(len(self._batch))
        except StoreUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - one of them
            while self._batch:
                try:
                    self._write_first(1)
                except StoreUnavailableError:
                    raise
                except Exception as error:  # noqa: BLE001 - this one
                    ledger.failed(type(self.sink).__name__, error)
                    ledger.dropped("refused_by_sink")
                    self._forget_first(1)

    def _write_first(self, count: int) -> None:
        self.sink.write(self._batch[:count])
        ledger.stored(count)
        self._forget_first(count)

    def _forget_first(self, count: int) -> None:
        with self._changed:
            del self._batch[:count]
            self._done += count
            self._changed.notify_all()


_living: weakref.WeakSet[BackgroundSink] = weakref.WeakSet()


def _after_fork() -> None:
    for sink in list(_living):
        sink._start_afresh()  # noqa: SLF001 - the parent writes what it had queued


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
