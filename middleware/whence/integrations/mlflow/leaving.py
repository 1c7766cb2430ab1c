"""The end of a process whose MLflow server cannot be reached: MLflow itself waits some four minutes for it.

Of MLflow and of Python all of this is private. Where a version of them has it no more, the end of the process
waits as it does without us.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import thread as pool
from contextlib import suppress
from queue import Empty
from typing import Any

from mlflow.tracing.export.async_export_queue import AsyncTraceExportQueue
from mlflow.tracing.processor import base_mlflow

from ...ledger import ledger

_registered = False


def hold_nothing_up() -> None:
    """What MLflow has waited for in vain until now, it shall not wait for when the process ends."""
    global _registered
    if not _registered:
        _registered = True
        # Of what is called at the end of the main thread the last comes first: before pools are waited for.
        with suppress(AttributeError, RuntimeError):
            threading._register_atexit(_let_go_of_all)  # type: ignore[attr-defined] # noqa: SLF001


def _let_go_of_all() -> None:
    try:
        for queue in _queues():
            _let_go(queue)
    except Exception as error:  # noqa: BLE001 - another tracer's trouble
        ledger.failed("mlflow", error)


def _queues() -> Iterator[AsyncTraceExportQueue]:
    for processor in list(base_mlflow._batch_processor_registry):  # noqa: SLF001
        queue = getattr(processor.span_exporter, "_async_queue", None)
        if isinstance(queue, AsyncTraceExportQueue):
            yield queue


def _let_go(queue: Any) -> None:
    """Take no more, do not begin what waits, and do not wait for what goes on."""
    queue.put = _drop
    queue._stop_event.set()  # noqa: SLF001
    queue._is_active = False  # noqa: SLF001
    with suppress(Empty):
        while True:
            queue._queue.get_nowait()  # noqa: SLF001
    workers = getattr(queue, "_worker_threadpool", None)
    for worker in getattr(workers, "_threads", ()):
        pool._threads_queues.pop(worker, None)  # type: ignore[attr-defined] # noqa: SLF001


def _drop(_task: object) -> None:
    pass
