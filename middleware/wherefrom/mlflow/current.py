"""MLflow's current span, kept in step with ours."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LiveSpan as MLflowSpan
from opentelemetry.trace import SpanKind

from ..model import Span, Trace
from ..process import ledger
from ..tracing.api import current_trace
from ..tracing.recorder import LiveSpan, LiveTrace
from . import private
from .counterpart import counterpart_of


class MLflowCompanion:
    """Makes MLflow's side of our span current where ours is, and tells which of ours MLflow's current one is.

    Only inside requests: elsewhere MLflow's users find it as it is without us.
    """

    def attach(self, trace: Trace | None, span: Span | None, held: object) -> object:
        """Make our span current; where no request of ours is, take away what a server has left of another."""
        try:
            if held is not None:
                return private.activate(held)  # type: ignore[arg-type]
            if not isinstance(trace, LiveTrace) or not isinstance(span, LiveSpan):
                return private.activate(private.nothing()) if _is_of_request(private.current()) else None
            counterpart = counterpart_of(trace)
            theirs = None if counterpart is None else counterpart.theirs(span)
            return None if theirs is None else private.activate(theirs)
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("mlflow", error)
            return None

    def detach(self, token: Any) -> None:
        """Put back what was current."""
        private.deactivate(token)

    def held(self) -> object:
        """What is current, when it is of a request."""
        current = private.current()
        return private.holding(current) if current is not None and _is_of_request(current) else None

    def innermost(self, span: Span | None) -> Span | None:
        """The span of ours that MLflow's current one stands for, when that is below ``span``."""
        ours, trace = getattr(private.current(), private.OUR_SPAN, None), current_trace()
        counterpart = None if trace is None else counterpart_of(trace)
        if span is None or ours is None or counterpart is None or ours.trace_id != span.trace_id:
            return span
        return span if counterpart.is_within(span, ours) else ours


def _is_of_request(span: object) -> bool:
    return hasattr(span, private.OUR_SPAN)


def server_span(trace: LiveTrace) -> MLflowSpan | None:
    """The server span that another instrumentation has opened for our request, when MLflow knows it too.

    What another request of ours has taken, and what has ended, was left here by a server that leaks context.
    """
    current = private.current()
    if current is None or not current.is_recording() or getattr(current, "kind", None) is not SpanKind.SERVER:
        return None
    if getattr(current, private.OUR_SPAN, trace.root) is not trace.root or getattr(current, "parent", None):
        return None
    context = current.get_span_context()
    theirs = private.find(f"tr-{context.trace_id:032x}", f"{context.span_id:016x}")
    if theirs is not None:
        trace.take_identity(theirs.trace_id, theirs.span_id, None)
    return theirs
