"""Assembles a process's source, queues and recorders from the settings, once, and closes them at exit."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial

from .. import keys
from .._capture.values import clean_text
from .._clock import monotonic, wall_ns
from ..exceptions import SettingsError
from ..exporters.targets import open_exporter
from ..model import Source
from ..process import ProcessReport, Stats, in_event_loop, ledger, logger, process
from ..settings import Settings, unknown_settings
from ..sinks import BATCH_SIZE, BackgroundSink, Budget, FanOut, Sink
from ..source import detect
from ..stores import Store, open_store
from .recorder import Recorder


def make_recorder(settings: Settings, sink: Sink | None = None) -> Recorder:
    """Make a recorder that writes to ``sink``, or to the process's queues for these settings.

    The first recorder without a sink of its own also takes the traces that start outside a request.
    """
    recorder = Recorder(
        settings, _with_model(_process_source(settings)), _queue_for(settings) if sink is None else sink
    )
    with suppress(SettingsError):  # the file has become unreadable in the meantime
        for unknown in unknown_settings():
            process.say_once(str(unknown))
    with process.lock:
        process.recorders.add(recorder)
        if sink is None and (process.default_recorder is None or process.default_recorder.is_idle):
            process.default_recorder = recorder
    return recorder


def default_recorder() -> Recorder:
    """Return the recorder of traces outside requests; made from the environment if there is none."""
    if process.default_recorder is None:
        try:
            settings = Settings()
            recorder = make_recorder(settings) if settings.enabled else _idle_recorder()
        except Exception as error:  # noqa: BLE001 - it must not cost the app the call that is traced
            ledger.failed("recorder", error)
            recorder = _idle_recorder()
        with process.lock:
            if process.default_recorder is None:
                process.default_recorder = recorder
    found: Recorder = process.default_recorder
    return found


def switch_off() -> None:
    """Record nothing outside requests, unless another recorder of this process does."""
    with process.lock:
        process.default_recorder = process.default_recorder or _idle_recorder()


def _idle_recorder() -> Recorder:
    """Make a recorder that records nothing, for when Wherefrom is off or its settings cannot be used."""
    # Constructed without the environment, which may be what is wrong.
    settings = Settings.model_construct(sample_rate=0.0, keep_errors=False)
    return Recorder(settings, Source({}), FanOut())


def set_active_model(model_id: str) -> None:
    """Set the metadata ``mlflow.modelId`` of all traces that start later in this process."""
    with process.lock:
        process.active_model = clean_text(model_id)
        for recorder in process.recorders:
            recorder.source = _with_model(recorder.source)


def flush(timeout: float = 5.0) -> bool:
    """Wait at most ``timeout`` seconds until everything recorded so far is written; true when it is."""
    deadline = monotonic() + timeout
    done = [queue.flush(max(deadline - monotonic(), 0)) for queue in _all_queues()]
    process.flush_failed_at = None if all(done) else monotonic()
    return all(done)


_MAX_SHARE = 0.5
_FREE_S = 0.1
_SHORT_S = 0.1


def flush_task() -> None:
    """Write the traces of this worker process, which may end without notice after any task.

    This takes at most half of the time of the process, so that many small tasks are not slowed down further.
    The writer thread writes the rest within ``flush_interval_ms``. If a destination is unavailable, the first
    wait is at most ``shutdown_timeout``, and further ones 0.1 s, as all are on an event loop.
    """
    start = monotonic()
    if process.flushing_s > _FREE_S + (start - process.worker_since) * _MAX_SHARE:
        return
    is_patient = process.task_failed_at is None and not in_event_loop()
    deadline = start + (process.shutdown_timeout if is_patient else _SHORT_S)
    done = [queue.flush(max(deadline - monotonic(), 0), reports=False) for queue in _all_queues()]
    end = monotonic()
    process.task_failed_at = None if all(done) else end
    process.flushing_s += end - start


def settle_stores() -> None:
    """Say what is not written, and leave the stores as files that can be copied.

    The process may end by a signal after this, without its exit hooks.
    """
    for queue in _all_queues():
        if queue.depth:
            logger.warning("%d traces could not be written to %s", queue.depth, type(queue.sink).__name__)
        settle = getattr(queue.sink, "checkpoint", None)
        if settle is not None:
            try:
                settle()
            except Exception as error:  # noqa: BLE001 - what is written stays so
                ledger.failed("checkpoint", error)


def stats() -> Stats:
    """Return the counters of this process, with what waits in its queues."""
    return ledger.read(sum(queue.depth for queue in _all_queues()), _budget().held)


def _all_queues() -> list[BackgroundSink]:
    with process.lock:
        return [queue for queues in process.queues.values() for queue in queues]


def _budget() -> Budget:
    """Return the memory budget that all queues of the process share."""
    with process.lock:
        if process.queue_budget is None:
            process.queue_budget = Budget(0)
        found: Budget = process.queue_budget
    return found


def _queue_for(settings: Settings) -> Sink:
    key = (
        settings.store,
        settings.export,
        settings.queue_size,
        settings.queue_bytes,
        settings.flush_interval_ms,
        settings.retention_days,
        settings.max_store_mb,
    )
    with process.lock:
        if key not in process.queues:
            process.queues[key] = tuple(_make_queues(settings))
            _budget().limit = max(_budget().limit, settings.queue_bytes)
            process.shutdown_timeout = max(process.shutdown_timeout, settings.shutdown_timeout)
            process.on_exit(_close_all)
        queues = process.queues[key]
    return queues[0] if len(queues) == 1 else FanOut(*queues)


def _make_queues(settings: Settings) -> Iterator[BackgroundSink]:
    """Make one queue for the store and one for each exporter, so that a slow one delays no other."""
    if settings.store != "none":
        store = open_store(
            settings.store, retention_days=settings.retention_days, max_store_mb=settings.max_store_mb
        )
        yield _queued(store, settings, on_written=partial(_report_to, store, settings))
    for target in settings.export:
        yield _queued(open_exporter(target), settings)


def _queued(sink: Sink, settings: Settings, on_written: Callable[[], object] | None = None) -> BackgroundSink:
    return BackgroundSink(
        sink,
        queue_size=settings.queue_size,
        budget=_budget(),
        flush_interval_ms=settings.flush_interval_ms,
        batch_size=getattr(sink, "batch_size", BATCH_SIZE),
        on_written=on_written,
    )


def _report_to(store: Store, settings: Settings) -> None:
    """Write this process's counters to the store, where other processes can read them."""
    report = ProcessReport(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        reported=wall_ns() // 1_000_000,
        stats=stats(),
        queues=_waiting(),
        retention_days=settings.retention_days,
    )
    try:
        store.report(report)
    except Exception as error:  # noqa: BLE001 - recording goes on without its report
        ledger.failed("process report", error)


def _waiting() -> dict[str, int]:
    waiting: Counter[str] = Counter()
    for queue in _all_queues():
        waiting[type(queue.sink).__name__] += queue.depth
    return dict(waiting)


@lru_cache(maxsize=1)
def _started(pid: int) -> int:  # noqa: ARG001 - a fork is a process of its own
    return wall_ns() // 1_000_000


def _close_all() -> None:
    now, timeout, failed_at = monotonic(), process.shutdown_timeout, process.flush_failed_at
    # The end of the lifespan has just waited this long in vain: waiting once more would double the shutdown.
    has_waited = failed_at is not None and now - failed_at < timeout
    deadline = now + (0 if has_waited else timeout)
    for queue in _all_queues():
        left = queue.depth
        if not queue.close(max(deadline - monotonic(), 0)):
            logger.warning("%d traces could not be written before the process ended", left)
    settle_stores()


def _process_source(settings: Settings) -> Mapping[str, str]:
    key = (tuple(sorted(settings.env_metadata.items())), settings.max_metadata_length)
    with process.lock:
        if key not in process.sources:
            detected = detect(
                env_metadata=settings.env_metadata, max_metadata_length=settings.max_metadata_length
            )
            process.sources[key] = detected.source
        return process.sources[key]


def _with_model(source: Mapping[str, str]) -> Source:
    model = process.active_model
    return Source(source if model is None else {**source, keys.MODEL_ID: model})
