"""All uses of MLflow's internals, each with the reason; tested against MLflow 3.17.

The rest of the bridge uses documented functions alone.
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

DEFAULT_EXPERIMENT: Final = "0" if IS_TRACING_SDK_ONLY else None
"""The experiment to name where nobody has: all of MLflow finds it by itself, ``mlflow-tracing`` fails."""

OUR_SPAN: Final = "wherefrom_span"
"""Attribute of MLflow's spans in our requests (of OpenTelemetry's, below): the one of ours."""

Token = Any
"""What ``activate`` gives and ``deactivate`` takes."""


def activate(span: LiveSpan | NoOpSpan) -> Token:
    """Make a span MLflow's current one.

    Public is only ``mlflow.start_span``, whose span takes its parent from what is current.
    """
    return set_span_in_context(span)


def deactivate(token: Token) -> None:
    """Put back what was current before."""
    detach_span_from_context(token)


def nothing() -> NoOpSpan:
    """What makes the next span a root of its own when it is current."""
    return NoOpSpan()  # type: ignore[no-untyped-call]


def current() -> OTelSpan | None:
    """MLflow's current span as OpenTelemetry's; an invalid one where there is none."""
    return get_current_otel_span()


def holding(span: OTelSpan) -> NoOpSpan:
    """Something to ``activate`` that makes this one current again."""
    return NoOpSpan(otel_span=span)  # type: ignore[no-untyped-call]


def is_recorded(span: LiveSpan | NoOpSpan) -> bool:
    """Whether a span that MLflow has started is one: neither sampled away nor failed."""
    return bool(span.trace_id != NO_OP_SPAN_TRACE_ID)


@contextmanager
def info_of(trace_id: str) -> Iterator[TraceInfo | None]:
    """The info of a trace that goes on, under MLflow's lock; ``None`` when MLflow has let it go.

    ``mlflow.update_current_trace`` writes there, and nothing public reads it.
    """
    with _manager().get_trace(trace_id) as trace:
        yield None if trace is None else trace.info


def find(trace_id: str, span_id: str) -> LiveSpan | None:
    """A span of a trace that goes on."""
    return _manager().get_span_from_id(trace_id, span_id)


def _manager() -> InMemoryTraceManager:
    manager: InMemoryTraceManager = InMemoryTraceManager.get_instance()  # type: ignore[no-untyped-call]
    return manager


def forget(trace_number: int) -> None:
    """Have MLflow let go of a trace that was begun, as if it had not been."""
    _manager().pop_trace(trace_number)


def mark(span: LiveSpan | NoOpSpan, ours: object) -> None:
    """Write on a span which of ours it stands for, for who finds it current."""
    setattr(span._span, OUR_SPAN, ours)  # noqa: SLF001


def rename(span: LiveSpan, name: str) -> None:
    """Give a span another name: the route is known when the request is over."""
    span._span.update_name(name)  # type: ignore[attr-defined] # noqa: SLF001


def experiment_id(name: str) -> str:
    """The id of an experiment, made when missing; asks the server.

    ``MlflowClient`` does the same and is not in ``mlflow-tracing``; ``mlflow.set_experiment`` is, and would
    overrule what the app sets.
    """
    client: Any = TrackingServiceClient(mlflow.get_tracking_uri())  # type: ignore[no-untyped-call]
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except mlflow.MlflowException:  # another process was quicker
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def knows_its_experiment() -> bool:
    """Whether MLflow can say where a new trace belongs without asking its server."""
    known: Any = fluent  # untyped
    return bool(
        known._active_experiment_id  # noqa: SLF001 - by set_experiment
        or _MLFLOW_TRACE_USER_DESTINATION.get()  # mlflow.tracing.set_destination
        or known._get_latest_active_run()  # noqa: SLF001 - in any thread
    )


def stop_sending() -> Iterator[threading.Thread]:
    """Have MLflow send no more than it is about to; the threads that still do, for four minutes perhaps.

    Public is ``mlflow.flush_trace_async_logging(terminate=True)``, which waits for them.
    """
    for processor in list(base_mlflow._batch_processor_registry):  # noqa: SLF001
        queue = getattr(processor.span_exporter, "_async_queue", None)
        if isinstance(queue, AsyncTraceExportQueue):
            _stop(queue)
            yield from getattr(getattr(queue, "_worker_threadpool", None), "_threads", ())


def _stop(queue: Any) -> None:
    queue.put = _drop
    queue._stop_event.set()  # noqa: SLF001
    queue._is_active = False  # noqa: SLF001 - or it is emptied once more at the very end
    with suppress(Empty):
        while True:
            queue._queue.get_nowait()  # noqa: SLF001


def _drop(_task: object) -> None:
    pass


@cache
def exit_without_waiting() -> None:
    """Do not wait for MLflow's exporter at exit: it would wait four minutes for a server that is down.

    What Python has for this is private too; where it is missing, the process ends as without us.
    """
    # What is registered last is called first: before Python waits for the threads of pools.
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
    """A block in which the next span gets this id, and a new trace that one (``tr-`` + 32 hex)."""
    token = _given.set((None if trace_id is None else int(trace_id[3:], 16), int(span_id, 16)))
    try:
        yield
    finally:
        _given.reset(token)


def are_given() -> bool:
    """Whether the span that starts is one of ours."""
    return _given.get() is not None


class GivenIds(IdGenerator):
    """The ids of the block around, and elsewhere those of the generator that was there before."""

    def __init__(self, inner: IdGenerator) -> None:
        self._inner = inner

    def generate_span_id(self) -> int:
        """A span id."""
        given = _given.get()
        return self._inner.generate_span_id() if given is None else given[1]

    def generate_trace_id(self) -> int:
        """A trace id."""
        given = _given.get()
        trace_id = None if given is None else given[0]
        return self._inner.generate_trace_id() if trace_id is None else trace_id

    def is_trace_id_random(self) -> bool:
        """Ours hold the 56 random bits that are asked for."""
        return self._inner.is_trace_id_random()


def install(provider: TracerProvider, tracer: str) -> None:
    """Have the ids of a provider come from here, and of the named tracer, which may be there already."""
    if not isinstance(provider.id_generator, GivenIds):
        provider.id_generator = GivenIds(provider.id_generator)  # type: ignore[assignment] # it takes any
    provider.get_tracer(tracer).id_generator = provider.id_generator  # type: ignore[attr-defined] # the SDK's
