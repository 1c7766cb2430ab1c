"""What a process assembles once: its source, the sinks of its settings, and the recorders on them."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from weakref import WeakSet

from .. import keys
from .._capture.values import clean_text
from ..exporters import open_exporter
from ..model import Source
from ..process import ProcessReport, Stats, ledger, logger
from ..settings import Settings
from ..sinks import BATCH_SIZE, BackgroundSink, Budget, FanOut, Sink
from ..source import detect
from ..stores import Store, open_store
from .recorder import Recorder

_lock = threading.RLock()
_queues: dict[tuple[object, ...], tuple[BackgroundSink, ...]] = {}
_budget = Budget(0)
_sources: dict[tuple[object, ...], Source] = {}
_recorders: WeakSet[Recorder] = WeakSet()
_default: list[Recorder] = []
_active_model: list[str] = []


def make_recorder(settings: Settings, sink: Sink | None = None) -> Recorder:
    """A recorder on ``sink``, or on the process's queue for these settings.

    The first recorder without a sink of its own also takes the traces that start outside a request.
    """
    recorder = Recorder(
        settings, _with_model(_process_source(settings)), _queue_for(settings) if sink is None else sink
    )
    with _lock:
        _recorders.add(recorder)
        if sink is None and (
            not _default or (isinstance(_default[0].sink, FanOut) and not _default[0].sink.sinks)
        ):
            _default[:] = [recorder]
    return recorder


def default_recorder() -> Recorder:
    """The recorder for traces that start outside a request, made from the environment when none is there."""
    if not _default:
        try:
            settings = Settings()
            recorder = make_recorder(settings) if settings.enabled else _idle_recorder()
        except Exception as error:  # noqa: BLE001 - it must not cost the app the call that is traced
            ledger.failed("recorder", error)
            recorder = _idle_recorder()
        with _lock:
            _default[:] = _default or [recorder]
    return _default[0]


def switch_off() -> None:
    """Keep nothing of what starts outside a request, unless something else records in this process."""
    with _lock:
        _default[:] = _default or [_idle_recorder()]


def _idle_recorder() -> Recorder:
    """A recorder that records nothing: used when Wherefrom is disabled or its settings are invalid."""
    # Constructed without the environment, which may be what is wrong.
    settings = Settings.model_construct(sample_rate=0.0, keep_errors=False)
    return Recorder(settings, Source({}), FanOut())


def set_active_model(model_id: str) -> None:
    """Name the model that answers in this process: metadata ``mlflow.modelId`` of traces that start later."""
    with _lock:
        _active_model[:] = [clean_text(model_id)]
        for recorder in _recorders:
            recorder.source = _with_model(recorder.source)


def flush(timeout: float = 5.0) -> bool:
    """Wait at most ``timeout`` seconds until everything recorded so far is written; true when it is."""
    deadline = time.monotonic() + timeout
    done = [queue.flush(max(deadline - time.monotonic(), 0)) for queue in _all_queues()]
    _gave_up[:] = [] if all(done) else [time.monotonic()]
    return all(done)


def stats() -> Stats:
    """What became of the traces of this process."""
    return ledger.read(sum(queue.depth for queue in _all_queues()), _budget.held)


def _all_queues() -> list[BackgroundSink]:
    with _lock:
        return [queue for queues in _queues.values() for queue in queues]


def _queue_for(settings: Settings) -> Sink:
    key = (
        settings.store,
        settings.export,
        settings.queue_size,
        settings.queue_bytes,
        settings.flush_interval_ms,
        settings.retention_days,
    )
    with _lock:
        if key not in _queues:
            _queues[key] = tuple(_make_queues(settings))
            _budget.limit = max(_budget.limit, settings.queue_bytes)  # one for the process
            _at_exit(settings.shutdown_timeout)
        queues = _queues[key]
    return queues[0] if len(queues) == 1 else FanOut(*queues)


def _make_queues(settings: Settings) -> Iterator[BackgroundSink]:
    """The store's and the exporters'. Each has one of its own, so that a slow one holds up no other."""
    if settings.store != "none":
        store = open_store(settings.store, retention_days=settings.retention_days)
        yield _queued(store, settings, on_written=partial(_report_to, store, settings))
    for target in settings.export:
        yield _queued(open_exporter(target), settings)


def _queued(sink: Sink, settings: Settings, on_written: Callable[[], object] | None = None) -> BackgroundSink:
    return BackgroundSink(
        sink,
        queue_size=settings.queue_size,
        budget=_budget,
        flush_interval_ms=settings.flush_interval_ms,
        batch_size=getattr(sink, "batch_size", BATCH_SIZE),
        on_written=on_written,
    )


def _report_to(store: Store, settings: Settings) -> None:
    """Tell the store what became of this process's traces, for those who look from outside."""
    report = ProcessReport(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        reported=time.time_ns() // 1_000_000,
        stats=stats(),
        queues=_waiting(),
        retention_days=settings.retention_days,
    )
    try:
        store.report(report)
    except Exception as error:  # noqa: BLE001 - what it tells of goes on
        ledger.failed("process report", error)


def _waiting() -> dict[str, int]:
    waiting: Counter[str] = Counter()
    for queue in _all_queues():
        waiting[type(queue.sink).__name__] += queue.depth
    return dict(waiting)


@lru_cache(maxsize=1)
def _started(pid: int) -> int:  # noqa: ARG001 - a fork is a process of its own
    return time.time_ns() // 1_000_000


_timeouts: list[float] = []
_gave_up: list[float] = []


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _at_exit(timeout: float) -> None:
    if not _timeouts:
        atexit.register(_close_all)
    _timeouts.append(timeout)


def _close_all() -> None:
    # What the end of the lifespan has just waited for in vain is not waited for again.
    waited = bool(_gave_up) and time.monotonic() - _gave_up[0] < max(_timeouts)
    deadline = time.monotonic() + (0 if waited else max(_timeouts))
    for queue in _all_queues():
        left = queue.depth
        if not queue.close(max(deadline - time.monotonic(), 0)):
            logger.warning("%d traces could not be written before the process ended", left)


def _process_source(settings: Settings) -> Source:
    key = (tuple(sorted(settings.env_metadata.items())), settings.max_metadata_length)
    with _lock:
        if key not in _sources:
            detected = detect(
                env_metadata=settings.env_metadata, max_metadata_length=settings.max_metadata_length
            )
            _sources[key] = detected.source
        return _sources[key]


def _with_model(source: Mapping[str, str]) -> Source:
    return Source({**source, keys.MODEL_ID: _active_model[0]} if _active_model else source)
