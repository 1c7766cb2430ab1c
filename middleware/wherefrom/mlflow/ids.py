"""Gives MLflow's spans the ids of ours, so that a trace has one id in both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator

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
