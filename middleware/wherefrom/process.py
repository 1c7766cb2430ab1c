"""The state of one process: counters, queues, recorders, and the hooks for forks and exit.

Mutable state that outlives a request is an attribute of ``process``, except ContextVars and caches.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from socket import gethostname
from types import CodeType, MethodType
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary, ref

from ._capture.values import clean_text
from ._clock import monotonic, wall_ns

logger = logging.getLogger("wherefrom")
_Done = TypeVar("_Done")

_PF_FORKNOEXEC = 0x40  # of Linux: forked, and no other program started since
# Servers that fork, and whose workers run exit hooks.
_ORDERLY = ("gunicorn.arbiter", "uwsgi", "mod_wsgi")
_COMPLAINT_INTERVAL_S = 60.0  # a failure in each request must not flood the app's log


@dataclass(slots=True, frozen=True)
class Stats:
    """Counts since the process started.

    ``recorded``: traces passed to a sink. ``stored``: traces that a store or exporter accepted. ``dropped``:
    traces and spans that were lost or left out, by reason. ``refused_headers``: header values that were
    rejected, by header. ``errors``: failures inside Wherefrom, by place. ``queue_depth``: waiting traces.
    ``queue_bytes``: their approximate memory.
    """

    recorded: int = 0
    stored: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    refused_headers: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    queue_depth: int = 0
    queue_bytes: int = 0


@dataclass(slots=True, frozen=True)
class ProcessReport:
    """The counters of one process that records traces; times in ms since the epoch.

    ``queues`` is the number of waiting traces by destination. ``retention_days`` is the age at which the
    process deletes traces from the store, ``None`` for never.
    """

    host: str
    pid: int
    started: int
    reported: int
    stats: Stats = field(default_factory=Stats)
    queues: dict[str, int] = field(default_factory=dict)
    retention_days: float | None = None


class Ledger:
    """Counts traces by their fate, from any thread, and logs each kind of failure at most once a minute.

    ``recorded`` is incremented by a plain ``+= 1``: a lock for each request is expensive, and under the GIL
    no other thread runs between its steps.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Set all counters to zero, in a forked child."""
        # Re-entrant: in the lock, the garbage collector may end a traced generator, which counts here too.
        self._lock = threading.RLock()
        self.recorded = 0
        self._stored = 0
        self._dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._complained: dict[str, float] = {}

    def stored(self, count: int) -> None:
        """Count traces that a store or exporter accepted."""
        with self._lock:
            self._stored += count

    def dropped(self, reason: str, count: int = 1) -> None:
        """Count traces or spans that were lost or left out."""
        with self._lock:
            self._dropped[reason] += count

    def refused(self, header: str) -> None:
        """Count a header value that was rejected."""
        with self._lock:
            self._refused[header] += 1

    def failed(self, place: str, error: BaseException) -> None:
        """Count a failure inside Wherefrom at ``place``, and log it at most once a minute."""
        now = self._clock()
        with self._lock:
            self._errors[place] += 1
            silent = now - self._complained.get(place, -_COMPLAINT_INTERVAL_S) < _COMPLAINT_INTERVAL_S
            if not silent:
                self._complained[place] = now
        if not silent:
            with suppress(Exception):  # the app's own log handlers and filters may raise
                logger.warning(
                    "%s failed (%s: %s); the app goes on, for a minute more failures here are only counted",
                    place,
                    type(error).__name__,
                    clean_text(error),
                    exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
                )

    def read(self, queue_depth: int = 0, queue_bytes: int = 0) -> Stats:
        """Return the current counts."""
        with self._lock:
            return Stats(
                recorded=self.recorded,
                stored=self._stored,
                dropped=dict(self._dropped),
                refused_headers=dict(self._refused),
                errors=dict(self._errors),
                queue_depth=queue_depth,
                queue_bytes=queue_bytes,
            )


Hook = Callable[[], object]


class Process:
    """The recording state of one process, and its hooks for forks and exit.

    ``instance_id`` is the id of this process among all. ``queues`` are the background queues by their
    settings, ``sources`` the process metadata by the settings that affect it, ``recorders`` all recorders in
    use. ``default_recorder`` records traces that start outside a request. ``bridges`` are the bridges to
    other tracers, ``thread_hooks`` run before our own work in a thread. ``lock`` guards all of them.
    ``tracing.assembly`` fills them in.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.instance_id = _new_instance_id()
        # Re-entrant: assembling a recorder may end in the finalizer of another one.
        self.lock = threading.RLock()
        self.queues: dict[tuple[object, ...], Sequence[Any]] = {}
        self.queue_budget: Any = None
        self.sources: dict[tuple[object, ...], Mapping[str, str]] = {}
        self.recorders: WeakSet[Any] = WeakSet()
        self.default_recorder: Any = None
        self.active_model: str | None = None
        self.bridges: tuple[Any, ...] = ()
        self.thread_hooks: tuple[Hook, ...] = ()
        # Weak: spans and traces that another tracer refers to by its ids, while something else needs them.
        self.bridged_spans: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.bridged_traces: WeakValueDictionary[int, Any] = WeakValueDictionary()
        # The functions that ``@trace`` decorates: a framework may have registered them before that.
        self.traced: WeakSet[Any] = WeakSet()
        # The open blocks of generators by the id of its frame, whether there has been one, and the
        # code that runs a request.
        self.generators: dict[int, list[Any]] = {}
        self.locates = False
        self.request_code: CodeType | None = None
        self.shutdown_timeout = 0.0
        self.flush_failed_at: float | None = None
        self.task_failed_at: float | None = None
        # ExchangeOptions of each middleware, which is defined in a module above.
        self.exchange_options: WeakSet[Any] = WeakSet()
        self.flushing_s = 0.0
        self.worker_since = 0.0
        self._is_worker: bool | None = None
        self._is_forked = False
        self._inherited: list[object] = []
        self._said: set[str] = set()
        self._fork_hooks: dict[str, list[Callable[[], Hook | None]]] = {
            "before": [],
            "parent": [],
            "child": [],
        }
        self._exit_hooks: list[Hook] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lambda: self._run("before"),
                after_in_parent=lambda: self._run("parent"),
                after_in_child=self._start_afresh,
            )

    def on_fork(
        self, *, before: Hook | None = None, in_parent: Hook | None = None, in_child: Hook | None = None
    ) -> None:
        """Call these around each fork, in the order in which they were registered.

        Bound methods are referenced weakly: registering does not keep an object alive.
        """
        for moment, hook in (("before", before), ("parent", in_parent), ("child", in_child)):
            if hook is not None:
                hooks = self._fork_hooks[moment]
                is_bound = isinstance(hook, MethodType)
                hooks.append(_weak(hook, hooks.remove) if is_bound else partial(_same, hook))

    def on_exit(self, hook: Hook) -> None:
        """Call ``hook`` once when the process ends, however often it is registered."""
        if not self._exit_hooks:
            atexit.register(self.end)
        if hook not in self._exit_hooks:
            self._exit_hooks.append(hook)

    def thread(self, target: Callable[..., object], *args: object, name: str) -> threading.Thread:
        """Make a daemon thread for our own work, which other tracers do not record."""
        return threading.Thread(target=self.unrecorded, args=(target, *args), name=name, daemon=True)

    def unrecorded(self, work: Callable[..., _Done], *args: object) -> _Done:
        """Do our own work, which ``thread_hooks`` keep other tracers from recording.

        They change the current context, which must be one for this work alone, such as that of a thread.
        """
        for hook in self.thread_hooks:
            with suppress(Exception):  # the work goes on, recorded or not
                hook()
        return work(*args)

    def add_bridge(self, bridge: object) -> None:
        """Let a bridge take part in traces outside requests too; it replaces an earlier one of its class."""
        with self.lock:
            self.bridges = (*(other for other in self.bridges if type(other) is not type(bridge)), bridge)

    def never_close(self, inherited: object) -> None:
        """Keep an inherited object open after a fork: closing it would disturb the parent, which uses it."""
        self._inherited.append(inherited)

    @property
    def is_worker(self) -> bool:
        """Whether this process may end without its exit hooks, after any task.

        A child of a fork (RQ, Celery, ``os.fork``) ends by ``os._exit``, and one of ``multiprocessing`` ends
        when its pool is terminated.
        """
        if self._is_worker is None:
            self.worker_since = monotonic()
            parallel = sys.modules.get("multiprocessing.process")
            is_child = self._is_forked or _forked_before() or _has_parent(parallel)
            self._is_worker = is_child and not any(name in sys.modules for name in _ORDERLY)
        return self._is_worker

    def serves(self) -> None:
        """Record that a server will send this process a shutdown message, so that tasks need not flush."""
        self._is_worker = False

    def say_once(self, sentence: str) -> None:
        """Log a warning once per process."""
        if sentence not in self._said:
            self._said.add(sentence)
            with suppress(Exception):  # the app's own log handlers and filters may raise
                logger.warning("%s", sentence)

    def end(self) -> None:
        """Run the exit hooks. A failure is counted and does not stop the others."""
        for hook in list(self._exit_hooks):
            try:
                hook()
            except Exception as error:  # noqa: BLE001 - no caller could handle it
                self.ledger.failed("exit", error)

    def _run(self, moment: str) -> None:
        # A copy: a thread may register a store, and the garbage collector may remove one, while hooks run.
        for reference in list(self._fork_hooks[moment]):
            hook = reference()
            if hook is not None:
                hook()

    def _start_afresh(self) -> None:
        """In a forked child: replace the lock, which another thread of the parent may have held."""
        self.lock = threading.RLock()
        self.ledger.reset()
        self.instance_id = _new_instance_id()
        self._is_forked, self._is_worker, self.flushing_s = True, None, 0.0
        self.flush_failed_at = self.task_failed_at = None
        self._run("child")


def _new_instance_id() -> str:
    """16 hex of a hash of host, pid and moment: a process that starts again with its pid has another."""
    return sha256(f"{gethostname()}/{os.getpid()}/{wall_ns()}".encode()).hexdigest()[:16]


def in_event_loop() -> bool:
    """Whether an event loop of asyncio or trio runs in this thread."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if asyncio is not None:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return True
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _forked_before() -> bool:
    """Whether this process was forked, perhaps before this module was imported; known on Linux only."""
    try:
        with open("/proc/self/stat", "rb") as file:
            flags = int(file.read().rpartition(b")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & _PF_FORKNOEXEC)


def _has_parent(parallel: Any) -> bool:
    return parallel is not None and parallel.parent_process() is not None


def _same(hook: Hook) -> Hook:
    return hook


def _weak(hook: Hook, forget: Callable[[Callable[[], Hook | None]], None]) -> Callable[[], Hook | None]:
    """Return a function that returns the bound method ``hook`` while its object lives."""
    # Not WeakMethod: at the end of the interpreter, where an object and its class die together, its callback
    # runs twice and prints a traceback the second time.
    function: Any = hook.__func__  # type: ignore[attr-defined]

    def method() -> Hook | None:
        owner = reference()
        return None if owner is None else MethodType(function, owner)

    reference = ref(hook.__self__, lambda _: forget(method))  # type: ignore[attr-defined]
    return method


process = Process()
ledger = process.ledger
"""The counters of ``process``: what ``wherefrom.stats()`` reads."""
