"""All uses of MLflow's internals, each with the reason; tested against MLflow 3.17 and 3.18.

The rest of the bridge uses only documented functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import thread as pool
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from queue import Empty
from typing import Any, Final

import mlflow
from mlflow.entities import LiveSpan, TraceInfo
from mlflow.entities.span import NO_OP_SPAN_TRACE_ID, NoOpSpan
from mlflow.tracing import provider
from mlflow.tracing.export.async_export_queue import AsyncTraceExportQueue
from mlflow.tracing.processor import base_mlflow
from mlflow.tracing.provider import (
    _MLFLOW_TRACE_USER_DESTINATION,
    detach_span_from_context,
    get_current_otel_span,
    set_span_in_context,
)
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from mlflow.version import IS_TRACING_SDK_ONLY
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span as OTelSpan

from ..process import ledger

TRACER: Final = provider.__name__
"""What MLflow's own tracer is called in its provider."""

FIRST_EXPERIMENT: Final = "0"
DEFAULT_EXPERIMENT: Final = FIRST_EXPERIMENT if IS_TRACING_SDK_ONLY else None
"""The experiment to name where nobody has: all of MLflow finds it by itself, ``mlflow-tracing`` fails."""

OUR_SPAN: Final = "wherefrom_span"
"""Attribute of MLflow's spans in our requests (of OpenTelemetry's, below): the one of ours."""

Token = Any
"""What ``activate`` gives and ``deactivate`` takes."""


def activate(span: LiveSpan | NoOpSpan) -> Token:
    """Make a span MLflow's current span.

    The public ``mlflow.start_span`` cannot be used: it always creates a new span.
    """
    return set_span_in_context(span)


def deactivate(token: Token) -> None:
    """Restore the span that was current before ``activate``."""
    detach_span_from_context(token)


def nothing() -> NoOpSpan:
    """An invalid span to activate: the next span becomes a root."""
    return NoOpSpan()  # type: ignore[no-untyped-call]


def current() -> OTelSpan | None:
    """MLflow's current span as an OpenTelemetry span; an invalid one if there is none."""
    return get_current_otel_span()


def holding(span: OTelSpan) -> NoOpSpan:
    """An object to ``activate`` that makes this span current again."""
    return NoOpSpan(otel_span=span)  # type: ignore[no-untyped-call]


def is_recorded(span: LiveSpan | NoOpSpan) -> bool:
    """Whether MLflow records a span that it returned: it is neither sampled out nor failed."""
    return bool(span.trace_id != NO_OP_SPAN_TRACE_ID)


@contextmanager
def info_of(trace_id: str) -> Iterator[TraceInfo | None]:
    """The info of a live trace, under MLflow's lock; ``None`` if MLflow has removed it.

    ``mlflow.update_current_trace`` writes to it, and no public function reads it.
    """
    with _manager().get_trace(trace_id) as trace:
        yield None if trace is None else trace.info


def find(trace_id: str, span_id: str) -> LiveSpan | None:
    """A span of a live trace."""
    return _manager().get_span_from_id(trace_id, span_id)


def _manager() -> InMemoryTraceManager:
    manager: InMemoryTraceManager = InMemoryTraceManager.get_instance()  # type: ignore[no-untyped-call]
    return manager


def forget(trace_number: int) -> None:
    """Remove a started trace from MLflow, as if it had not started."""
    _manager().pop_trace(trace_number)


def mark(span: LiveSpan | NoOpSpan, ours: object) -> None:
    """Store the id of our span on MLflow's, for code that finds it current."""
    setattr(span._span, OUR_SPAN, ours)  # noqa: SLF001


def rename(span: LiveSpan, name: str) -> None:
    """Rename a span: the route is known only after the request."""
    span._span.update_name(name)  # type: ignore[attr-defined] # noqa: SLF001


def experiment_id(name: str) -> str:
    """The id of an experiment from the server; it is created if it is missing.

    ``MlflowClient`` does the same, but ``mlflow-tracing`` lacks it; ``mlflow.set_experiment`` would override
    the experiment of the app.
    """
    client: Any = TrackingServiceClient(mlflow.get_tracking_uri())  # type: ignore[no-untyped-call]
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except mlflow.MlflowException:  # another process created it first
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def knows_its_experiment() -> bool:
    """Whether MLflow can determine the experiment of a new trace without its server."""
    known: Any = fluent  # MLflow does not annotate it
    return bool(
        known._active_experiment_id  # noqa: SLF001 - by set_experiment
        or _MLFLOW_TRACE_USER_DESTINATION.get()  # the app called mlflow.tracing.set_destination
        or known._get_latest_active_run()  # noqa: SLF001 - in any thread
    )


def stop_sending() -> Iterator[threading.Thread]:
    """Stop MLflow's export queue; return the threads that may still be sending, for up to four minutes.

    The public ``mlflow.flush_trace_async_logging(terminate=True)`` waits for them.
    """
    for processor in list(base_mlflow._batch_processor_registry):  # noqa: SLF001
        queue = getattr(processor.span_exporter, "_async_queue", None)
        if isinstance(queue, AsyncTraceExportQueue):
            _stop(queue)
            yield from getattr(getattr(queue, "_worker_threadpool", None), "_threads", ())


def _stop(queue: Any) -> None:
    queue.put = lambda _task: None
    queue._stop_event.set()  # noqa: SLF001
    queue._is_active = False  # noqa: SLF001 - or it is emptied once more at the very end
    with suppress(Empty):
        while True:
            queue._queue.get_nowait()  # noqa: SLF001


@cache
def exit_without_waiting() -> None:
    """Do not wait for MLflow's exporter at exit: it waits four minutes for a server that is down.

    Python's hook for this is private too; without it, the process exits as it would without Wherefrom.
    """
    # Callbacks run in reverse order: ours runs before Python joins the threads of pools.
    with suppress(AttributeError, RuntimeError):
        threading._register_atexit(_abandon_exports)  # type: ignore[attr-defined] # noqa: SLF001


def _abandon_exports() -> None:
    try:
        for thread in stop_sending():
            pool._threads_queues.pop(thread, None)  # type: ignore[attr-defined] # noqa: SLF001
    except Exception as error:  # noqa: BLE001 - another tracer's failure
        ledger.failed("mlflow", error)


_given: ContextVar[tuple[int | None, int] | None] = ContextVar("wherefrom_mlflow_ids", default=None)


@contextmanager
def ids(trace_id: str | None, span_id: str) -> Iterator[None]:
    """In the block, the next span gets this id, and a new trace gets that one (``tr-`` + 32 hex)."""
    token = _given.set((None if trace_id is None else int(trace_id[3:], 16), int(span_id, 16)))
    try:
        yield
    finally:
        _given.reset(token)


def are_given() -> bool:
    """Whether the span that starts has been given one of our ids."""
    return _given.get() is not None


class GivenIds(IdGenerator):
    """Generates the ids of the surrounding ``ids`` block; outside of one, those of the original generator."""

    def __init__(self, inner: IdGenerator) -> None:
        self._inner = inner

    def generate_span_id(self) -> int:
        """Return a span id."""
        given = _given.get()
        return self._inner.generate_span_id() if given is None else given[1]

    def generate_trace_id(self) -> int:
        """Return a trace id."""
        given = _given.get()
        trace_id = None if given is None else given[0]
        return self._inner.generate_trace_id() if trace_id is None else trace_id

    def is_trace_id_random(self) -> bool:
        """Return whether trace ids have 56 random bits; ours do."""
        return self._inner.is_trace_id_random()


def install(provider: TracerProvider, tracer: str) -> None:
    """Replace the id generator of a provider, and of the named tracer, which may exist already."""
    if not isinstance(provider.id_generator, GivenIds):
        provider.id_generator = GivenIds(provider.id_generator)  # type: ignore[assignment] # it takes any
    provider.get_tracer(tracer).id_generator = provider.id_generator  # type: ignore[attr-defined] # the SDK's
