"""The queue between requests and a store: bounded by traces and bytes, one writer thread, batches."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import ceil, inf
from random import uniform
from typing import Any

from .._clock import monotonic
from ..exceptions import StoreUnavailableError
from ..model import Assessment, Source, Trace, TraceState
from ..model.record import Encoded, FactsTuple, Pack, Record, decode, decode_facts, encode, is_facts
from ..process import ledger, process
from .base import Sink

BATCH_SIZE = 1024
QUEUE_BYTES = 64_000_000
_BATCHES_IN_BUDGET = 8
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_LEAST_JITTER = 0.5
_IDLE_S = 1.0
_REPORT_EVERY_S = 5.0
# A record's own objects: the entry, the pair and the header of its bytes.
_RECORD_BYTES = 200
_PACK_SIZE = 64
_ERROR = TraceState.ERROR
_MAX_SOURCES = 100

Waiting = Trace | Record | Assessment | Pack
_WriteRecords = Callable[[Sequence[Record], Mapping[str, Source]], object]
_WriteAssessments = Callable[[Sequence[Assessment]], object]
# Its number in the order of coming, what waits, its bytes, and whether it is an error.
_Entry = tuple[int, Waiting, int, bool]


def _pack(number: int, facts: list[FactsTuple]) -> _Entry:
    pack = Pack.of(facts)
    return number, pack, (len(pack.data) // pack.traces + _RECORD_BYTES) * pack.traces, False


class Budget:
    """The memory limit of several queues together, including traces that are being written.

    ``limit`` and ``held`` are bytes. A trace that waits in two queues counts in each. When the limit is
    exceeded, the queue that holds most drops traces: an unreachable destination costs no other its traces.
    """

    def __init__(self, limit: int = QUEUE_BYTES) -> None:
        self.limit = limit
        self._queues: tuple[BackgroundSink, ...] = ()
        self._start_afresh()
        process.on_fork(in_child=self._start_afresh)  # the lock may be held by a thread of the parent

    def _start_afresh(self) -> None:
        # Re-entrant: the garbage collector may end a traced generator inside the lock, which writes a trace.
        self.lock = threading.RLock()
        self.held = 0

    def join(self, queue: BackgroundSink) -> None:
        """Add a queue."""
        with self.lock:
            self._queues += (queue,)

    def make_room(self) -> int:
        """Drop waiting traces until the limit holds; return how many. The caller holds the lock."""
        dropped = 0
        while self.held > self.limit:
            waiting = [queue for queue in self._queues if queue.is_waiting]
            if not waiting:
                break
            most = max(waiting, key=lambda queue: queue.held)
            dropped += most.drop_newest(size=self.held - self.limit)
        return dropped


class BackgroundSink:
    """Queues traces without blocking, and writes them to ``sink`` from one thread, in batches.

    ``queue_size`` limits the waiting traces, ``budget`` their bytes. A full queue drops and counts traces:
    the newest without an error first, then the newest. A batch has at most ``batch_size`` traces and an
    eighth of the budget. While the sink raises ``StoreUnavailableError`` the batch is retried with backoff;
    traces that it could not write among others go to the end of the queue. After a fork the child starts with
    an empty queue and its own thread. ``on_written`` is called every few seconds after writes, when they have
    ceased, and at the end of a flush; it must not raise.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        queue_size: int = 10_000,
        budget: Budget | None = None,
        flush_interval_ms: int = 200,
        batch_size: int = BATCH_SIZE,
        on_written: Callable[[], object] | None = None,
    ) -> None:
        self.sink = sink
        # A store that takes records needs no trace made of them.
        self._write_records: _WriteRecords | None = getattr(sink, "write_records", None)
        self._write_assessments: _WriteAssessments | None = getattr(sink, "write_assessments", None)
        self._on_written = on_written
        self._size = queue_size
        self._batch_size = batch_size
        self._interval = flush_interval_ms / 1000
        self._ends_with = 0
        self._budget = budget or Budget()
        self._start_afresh()
        self._budget.join(self)
        process.on_fork(in_child=self._start_afresh)  # the parent writes what it had queued

    def _start_afresh(self) -> None:
        self.held = 0
        self._numbers = count()
        self._errors: deque[_Entry] = deque()
        self._others: deque[_Entry] = deque()
        self._traces = 0  # in these two
        self._loose: list[FactsTuple] = []  # not in these yet
        self._batch: list[_Entry] = []
        # Those of the facts that wait, by digest: few, since most processes have one.
        self._sources: dict[str, Source] = {}
        self._done = 0  # written or refused
        self._put_back = 0
        self._reported_done = 0
        # A worker may run only one task, so its first report is delayed.
        self._reported_at = monotonic() if process.is_worker else -_REPORT_EVERY_S
        self._awake = False
        self._has_assessments = False  # whether there have been any
        # Attempts in a row at which the sink was out of reach, and since when.
        self._failures = 0
        self._failing_since: float | None = None
        self._closing = False
        self._flushers = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition(self._budget.lock)
        self._reporting = threading.Lock()  # a flush returns after the report that the thread is writing
        self._wake = threading.Event()
        self._hurry = threading.Event()  # somebody waits in flush: skip the interval

    @property
    def takes_records(self) -> bool:
        """Whether the sink reads records, and needs no traces made of them."""
        return self._write_records is not None

    @property
    def depth(self) -> int:
        """The number of traces that wait to be written."""
        return self._traces + len(self._loose) + len(self._batch)

    @property
    def is_waiting(self) -> bool:
        """Whether there are traces that can be dropped, as those of the batch cannot."""
        return bool(self._others or self._errors)

    def write(self, traces: Sequence[Trace]) -> None:
        """Queue traces; never blocks, never raises."""
        for trace in traces:
            self._put(trace, trace.memory(), is_error=trace.info.state == _ERROR)

    def put_record(self, record: Encoded, *, is_error: bool) -> None:
        """Queue the record of a trace; never blocks, never raises."""
        self._put(record, _RECORD_BYTES + len(record[0]), is_error=is_error)

    def put_facts(self, facts: FactsTuple, source: Source) -> None:
        """Queue the facts of a request; never blocks, never raises."""
        if source.digest not in self._sources:
            if len(self._sources) >= _MAX_SOURCES and not self.depth:
                self._sources.clear()
            self._sources[source.digest] = source
        loose = self._loose  # without the lock, as in ``_put``
        loose.append(facts)
        if len(loose) >= _PACK_SIZE or self._traces + len(loose) > self._size:
            self._settle()
        if not self._awake:
            self._awake = True
            self._rouse()

    def put_assessment(self, assessment: Assessment) -> bool:
        """Queue feedback if the sink takes any, and return whether it does; never blocks, never raises."""
        if self._write_assessments is not None:
            self._has_assessments = True
            self._settle()  # the trace comes first
            self._put(assessment, assessment.memory)
        return self._write_assessments is not None

    def _put(self, waiting: Waiting, size: int, is_error: bool = False) -> None:
        budget, others, errors = self._budget, self._others, self._errors
        if size > budget.limit:
            ledger.dropped("queue_bytes")
            return
        # Without the lock, which is expensive once a request: under the GIL no other thread runs between
        # the steps of an append, or of a `+=` whose right side calls nothing.
        (errors if is_error else others).append((next(self._numbers), waiting, size, is_error))
        self._traces += 1
        self.held += size
        budget.held += size
        if budget.held > budget.limit or self._traces + len(self._loose) > self._size:
            self._settle()
        # One wake-up an interval, not one a request: the thread clears the flag when it has nothing to do.
        if not self._awake:
            self._awake = True
            self._rouse()

    def _settle(self) -> None:
        """Give the loose facts their place in the queue, and drop what exceeds the limits."""
        with self._changed:
            loose, self._loose = self._loose, []
            if loose:
                self._add(self._others.append, _pack(next(self._numbers), loose))
            too_many = 0
            while (excess := self._traces - self._size) > 0:
                too_many += self.drop_newest(traces=excess)
            too_large = self._budget.make_room()
        # Counted outside the lock: the ledger has its own.
        if too_many:
            ledger.dropped("queue_full", too_many)
        if too_large:
            ledger.dropped("queue_bytes", too_large)

    def drop_newest(self, *, traces: int = 1, size: int = 0) -> int:
        """Drop the newest trace without an error, or the newest; return how many were dropped.

        Of a pack as many are dropped as it takes for this number and this size in bytes. The caller holds the
        budget's lock.
        """
        waiting = self._others or self._errors
        place = len(waiting) - 1  # it keeps its place: others append without the lock
        number, newest, held, _ = waiting[place]
        whole = newest.traces if isinstance(newest, Pack) else 1
        dropped = min(max(traces, ceil(size * whole / held)), whole)
        if isinstance(newest, Pack) and dropped < whole:
            waiting[place] = left = _pack(number, newest.facts()[:-dropped])
            held -= left[2]
        else:
            del waiting[place]
        self._traces -= dropped
        self._hold(-held)
        return dropped

    def _add(self, put: Callable[[_Entry], object], entry: _Entry) -> None:
        """Put an entry of a pack into the queue. The caller holds the lock."""
        _, pack, size, _ = entry
        assert isinstance(pack, Pack)
        put(entry)
        self._traces += pack.traces
        self._hold(size)

    def _hold(self, size: int) -> None:
        self.held += size
        self._budget.held += size

    def flush(self, timeout: float = 5.0, *, reports: bool = True) -> bool:
        """Wait at most ``timeout`` seconds until the queue is written; return whether it is.

        ``reports``: whether to call ``on_written`` too.
        """
        deadline = monotonic() + timeout
        with self._changed:
            self._flushers += 1
            self._hurry.set()
            try:
                self._rouse()
                done = self._wait_for_lap(deadline)
            finally:
                self._flushers -= 1
                if not self._flushers:
                    self._hurry.clear()
        if done and reports:
            self._report_if_due(0)  # the last chance of a process that a signal ends after this
        return done

    def _wait_for_lap(self, deadline: float) -> bool:
        """Wait until all that is queued is written and nothing was put back; return whether it is so."""
        while True:
            self._settle()
            put_back, newest, failures = self._put_back, next(self._numbers), self._failures
            timeout = max(deadline - monotonic(), 0)
            # A sink that has been out of reach for longer than this waits gets one more attempt.
            hopeless = self._failing_since is not None and monotonic() - self._failing_since > timeout
            self._changed.wait_for(
                lambda newest=newest, failures=failures, hopeless=hopeless: (  # type: ignore[misc]
                    self._oldest() > newest or (hopeless and self._failures > failures)
                ),
                timeout,
            )
            if self._oldest() <= newest:
                return False
            if self._put_back == put_back:
                return True

    def close(self, timeout: float = 5.0) -> bool:
        """Flush, stop the thread, and count as dropped what was not written in time."""
        done = self.flush(timeout)
        self._closing = True
        self._hurry.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(0.5 if done else 0)
        self._hurry.clear()
        self._settle()
        with self._changed:
            left = self.depth
            while self.is_waiting:
                self.drop_newest(traces=_PACK_SIZE)
        if left:
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
        thread = process.thread(self._run, name="wherefrom-writer")
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or out of threads
            ledger.failed("writer thread", error)
            self._awake = False
        else:
            self._thread = thread
            self._end_with_worker()

    def _end_with_worker(self) -> None:
        """Close at the end of a child of multiprocessing, which ends by ``os._exit`` without ``atexit``."""
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None and self._ends_with != os.getpid():
            from multiprocessing.util import Finalize

            self._ends_with = os.getpid()
            Finalize(None, self.close, exitpriority=10)

    def _run(self) -> None:
        try:
            self._write_on()
        finally:
            self._awake = False  # whatever ends the thread, the next trace starts another

    def _write_on(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closing:
            if not self.depth:
                self._sleep_until_roused()
            started = monotonic()
            self._hurry.wait(self._interval / 2)
            done = self._done
            drained = self._drain(started + self._interval)
            if self._done != done:
                pause = _FIRST_PAUSE_S
                self._report_if_due(_REPORT_EVERY_S)
            if not drained:
                self._wake.clear()
                # Jitter: the processes that a server has refused should not all return at once.
                self._wake.wait(pause * uniform(_LEAST_JITTER, 1))  # noqa: S311 - no secret
                if self._done == done:
                    pause = min(pause * 2, _LONGEST_PAUSE_S)
        self._report_if_due(0)

    def _sleep_until_roused(self) -> None:
        self._wake.clear()
        self._awake = False
        # A trace that was queued before the flag was cleared has not woken the thread.
        if not self.depth and not self._closing and not self._wake.wait(_IDLE_S):
            self._report_if_due(0)
            self._wake.wait()
        self._awake = True

    def _report_if_due(self, interval: float) -> None:
        if self._on_written is None:
            return
        with self._reporting:
            now = monotonic()
            if self._reported_done != self._done and now - self._reported_at >= interval:
                self._reported_at, self._reported_done = now, self._done
                self._on_written()

    def _drain(self, until: float) -> bool:
        """Write what waits now; return whether the sink took all of it.

        The batches are spread over the time that is left: an app whose cores are all busy waits for each.
        """
        self._settle()
        newest, put_back = next(self._numbers), self._put_back
        try:
            while self._oldest() < newest:
                self._fill_batch()
                self._write_batch()
                if (left := ceil(self.depth / self._batch_size)) and (rest := until - monotonic()) > 0:
                    self._hurry.wait(rest / (left + 1))
        except StoreUnavailableError as error:
            ledger.failed(type(self.sink).__name__, error)
            with self._changed:
                self._failures += 1
                self._failing_since = self._failing_since or monotonic()
                self._changed.notify_all()
            return False
        self._failing_since = None
        return self._put_back == put_back

    def _fill_batch(self) -> None:
        room = self._budget.limit // _BATCHES_IN_BUDGET - sum(entry[2] for entry in self._batch)
        with self._changed:  # flush must find each trace in the queue or in the batch
            while len(self._batch) < self._batch_size:
                waiting = self._older()
                if not waiting or (self._batch and waiting[0][2] > room):
                    break
                entry = waiting.popleft()
                room -= entry[2]
                if isinstance(entry[1], Pack):
                    self._open(entry, waiting)
                else:
                    self._traces -= 1
                    self._batch.append(entry)

    def _open(self, entry: _Entry, home: deque[_Entry]) -> None:
        """Move what the batch has room for out of a pack. The caller holds the lock."""
        number, pack, size, _ = entry
        assert isinstance(pack, Pack)
        traces, facts, room = pack.traces, pack.facts(), self._batch_size - len(self._batch)
        each = size // traces
        self._traces -= traces
        self._batch += [(number, one, each, False) for one in facts[:room]]
        self._hold(each * len(facts[:room]) - size)
        if facts[room:]:
            self._add(home.appendleft, _pack(number, facts[room:]))

    def _older(self) -> deque[_Entry]:
        """Return the deque with the trace that came first. The caller holds the lock."""
        errors, others = self._errors, self._others
        return errors if errors and (not others or errors[0] < others[0]) else others

    def _oldest(self) -> float:
        """Return the number of the oldest trace that is left, or infinity."""
        with self._changed:
            first = self._batch or self._older()
            return first[0][0] if first else inf

    def _write_batch(self) -> None:
        """Write the batch, one by one if the sink refuses it: a bad trace must not cost the others.

        A trace that is written, or refused for good, leaves the batch at once.
        """
        count = len(self._batch)
        while self._batch:
            try:
                self._write_first(count)
            except StoreUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - one of them, or this one
                if count == 1:
                    ledger.failed(type(self.sink).__name__, error)
                    ledger.dropped("refused_by_sink")
                    self._forget_first(1)
            count = 1

    def _write_first(self, count: int) -> None:
        waiting: list[Any] = [waiting for _, waiting, _, _ in self._batch[:count]]
        left = self._write_apart(waiting) if self._has_assessments else self._write_recorded(waiting)
        self._forget_first(count, left)

    def _write_recorded(self, waiting: Sequence[Trace | Record]) -> Sequence[int]:
        """Write traces and records; return the positions of those that the sink could not write."""
        left: Sequence[int] = ()
        if self._write_records is not None:
            self._write_records([encode(w) if isinstance(w, Trace) else w for w in waiting], self._sources)
        else:
            left = self._write_traces([w if isinstance(w, Trace) else self._decode(w) for w in waiting])
        ledger.stored(len(waiting) - len(left))
        return left

    def _write_apart(self, waiting: Sequence[Any]) -> Sequence[int]:
        """Write traces, then feedback: a server may refuse that of a trace which it does not have."""
        feedback = {at: one for at, one in enumerate(waiting) if isinstance(one, Assessment)}
        traces = [at for at in range(len(waiting)) if at not in feedback]
        left = [traces[at] for at in self._write_recorded([waiting[at] for at in traces])] if traces else []
        if feedback and self._write_assessments is not None:
            try:
                self._write_assessments([*feedback.values()])
            except StoreUnavailableError as error:
                again = {id(one) for one in error.left or feedback.values()}
                if not traces and len(again) == len(feedback):
                    raise
                ledger.failed(type(self.sink).__name__, error)
                left += [at for at, one in feedback.items() if id(one) in again]
        return left

    def _decode(self, record: Record) -> Trace:
        return decode_facts(record, self._sources) if is_facts(record) else decode(record)

    def _write_traces(self, traces: Sequence[Trace]) -> Sequence[int]:
        """Write traces; return the positions of those that the sink could not write among others."""
        try:
            self.sink.write(traces)
        except StoreUnavailableError as error:
            if error.left is None or len(error.left) >= len(traces):
                raise
            ledger.failed(type(self.sink).__name__, error)
            left = {id(trace) for trace in error.left}
            return [position for position, trace in enumerate(traces) if id(trace) in left]
        return ()

    def _forget_first(self, count: int, left: Sequence[int] = ()) -> None:
        again = set(left)
        with self._changed:
            gone, self._batch = self._batch[:count], self._batch[count:]
            for position in left:  # with a new number: traces that came since go first
                _, waiting, size, is_error = gone[position]
                home = self._errors if is_error else self._others
                home.append((next(self._numbers), waiting, size, is_error))
                self._traces += 1
            self._hold(-sum(entry[2] for position, entry in enumerate(gone) if position not in again))
            self._done += count - len(left)
            self._put_back += len(left)
            self._changed.notify_all()
