"""Spans of MLflow's as they start and end."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.trace import SpanKind

from ..process import ledger
from ..tracing.api import current_trace
from .counterpart import are_given, counterpart_of, of_number


class MLflowSpanProcessor(SpanProcessor):
    """Brings the spans that MLflow makes in our requests into our traces; the bridge registers it.

    A span is there from its start, as our own are, so that one which ends after its request is stored late.
    """

    def on_start(self, span: SDKSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """A span has started; those that the bridge itself begins are ours already."""
        try:
            if are_given():
                return
            counterpart = of_number(span.get_span_context().trace_id)
            if counterpart is not None:
                counterpart.bring(span)
            elif span.parent is None and span.kind is SpanKind.SERVER:
                _adopt(span)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("mlflow", error)

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        try:
            context = span.get_span_context()
            counterpart = None if context is None else of_number(context.trace_id)
            if counterpart is not None:
                counterpart.ended(span)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("mlflow", error)

    def shutdown(self) -> None:
        """Do nothing: our queue is closed by the process, not by MLflow."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - nothing is held back
        """Do nothing: spans are in their trace when they end."""
        return True


def _adopt(span: SDKSpan) -> None:
    """A server span has started: the request that it starts in, or one that the app makes to another app."""
    trace = current_trace()
    counterpart = None if trace is None or trace.over else counterpart_of(trace)
    if trace is None or counterpart is None or not counterpart.owned:
        return
    if (span.attributes or {}).get("url.path", counterpart.path) == counterpart.path:
        counterpart.adopt(trace, span)
