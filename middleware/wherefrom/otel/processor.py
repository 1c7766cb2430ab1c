"""Spans of OpenTelemetry's on their way into our traces."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.trace import SpanKind

from .._capture.values import clean_text
from ..model import Span
from ..process import ledger
from ..tracing.api import current_trace
from ..tracing.recorder import LiveSpan, LiveTrace
from .current import OUR_SPAN, BroughtSpan, Counterpart, counterpart_of, spans
from .spans import fill, kind_name


class WherefromSpanProcessor(SpanProcessor):
    """Brings the spans of a provider into the traces of our requests.

    A span joins the trace of its parent, or of the request that it started in. It is there from its start,
    as our own spans are, so that one which ends after its request is stored late. Spans of no request of
    ours are left alone: around a job, ``@wherefrom.trace`` makes a trace that they can join.

    The bridge registers one. It can also be added by hand, to providers that the bridge does not know.
    """

    def on_start(self, span: SDKSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """A span has started: give it a place in its trace."""
        try:
            found = _place_of(span)
            if found is not None and not hasattr(span, OUR_SPAN):
                _bring(span, *found)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("opentelemetry", error)

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended: record what it has become."""
        try:
            context = span.context
            ours = None if context is None else spans.get(f"{context.span_id:016x}")
            if isinstance(ours, BroughtSpan) and ours.end_time_ns is None:
                if ours.recorded:
                    fill(ours, span)
                ours.end(span.end_time)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("opentelemetry", error)

    def shutdown(self) -> None:
        """Do nothing: our queue is closed by the process, not by a provider."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - nothing is held back
        """Do nothing: spans are in their trace when they end."""
        return True


def _place_of(span: SDKSpan) -> tuple[LiveTrace, Span] | None:
    """The trace and the parent for a span that starts; ``None`` when it is not of a request of ours."""
    parent = span.parent
    known = None if parent is None else spans.get(f"{parent.span_id:016x}")
    if known is not None and known.trace is not None:
        return known.trace, known
    trace = current_trace()
    counterpart = None if trace is None else counterpart_of(trace)
    if trace is None or counterpart is None:
        return None
    if parent is not None and not parent.is_remote and trace.info.trace_id == f"tr-{parent.trace_id:032x}":
        return trace, known or _span_of(trace, parent.span_id) or trace.root
    if span.kind is SpanKind.SERVER and _is_server_span(span, trace, counterpart):
        counterpart.adopt(trace, span)
    return None


def _is_server_span(span: SDKSpan, trace: LiveTrace, counterpart: Counterpart) -> bool:
    """Whether a SERVER span that starts inside a request of ours is that very request.

    It may also be one that the app makes to another app in this process; then method or path differ.
    """
    if counterpart.server_span is not None or trace.over or not trace.of_request:
        return False
    theirs, ours = span.attributes or {}, counterpart.attributes
    method = theirs.get("http.request.method_original") or theirs.get("http.request.method")
    same_method = method is None or method == ours.get("http.request.method", method)
    return same_method and theirs.get("url.path", ours.get("url.path")) == ours.get("url.path")


def _bring(span: SDKSpan, trace: LiveTrace, parent: Span) -> None:
    ids = f"{span.get_span_context().span_id:016x}", parent.span_id
    if not trace.recording or _span_of(trace, span.get_span_context().span_id) is not None:
        return
    ours: LiveSpan = BroughtSpan(
        trace, ids, clean_text(span.name), kind_name(span.kind), span.start_time or 0
    )
    trace.add(ours)
    spans[ours.span_id] = ours
    setattr(span, OUR_SPAN, ours)  # keeps ours alive as long as theirs is, and tells what is current


def _span_of(trace: LiveTrace, number: int) -> Span | None:
    """The span of ours that another bridge has begun in the same provider: it has one id for both."""
    if len(trace.followers) <= 1:
        return None
    span_id = f"{number:016x}"
    return next((span for span in reversed(trace.data.spans) if span.span_id == span_id), None)
