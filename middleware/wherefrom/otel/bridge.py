"""The bridge to OpenTelemetry: one server span for each request on both sides; its spans join our traces."""

from __future__ import annotations

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.trace import SpanKind

from .._capture.values import clean_text
from .._types import Scope
from ..model import Span
from ..process import ledger, process
from ..tracing.api import current_trace
from ..tracing.bridge import Bridge
from ..tracing.live import LiveSpan, LiveTrace
from .instrumentors import AUTO, Instrumentor, switch_on
from .provider import Pipeline, global_provider, pipeline_of
from .session import OUR_SPAN, BroughtSpan, OpenTelemetrySession, OurSpan, session_of
from .spans import fill, kind_name


class WherefromSpanProcessor(SpanProcessor):
    """Adds the spans of a provider to the traces of our requests.

    A span joins the trace of its parent, or of the request in which it starts; one that ends after its
    request is stored late. Spans outside our requests are ignored: around a job, ``@wherefrom.trace`` starts
    a trace that they join.

    The bridge registers one. Add one yourself to a provider that the bridge does not know.
    """

    def on_start(self, span: SDKSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Add a span that has started to its trace."""
        try:
            found = _place_of(span)
            if found is not None and not hasattr(span, OUR_SPAN):
                _bring(span, *found)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("opentelemetry", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Record a span that has ended."""
        try:
            context = span.context
            ours = None if context is None else process.bridged_spans.get(f"{context.span_id:016x}")
            if isinstance(ours, BroughtSpan) and ours.end_time_ns is None:
                skew = 0 if ours.trace is None else ours.trace.skew()
                if ours.recorded:
                    fill(ours, span)
                    ours.set_back(skew)
                ours.end(None if span.end_time is None else span.end_time - skew)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("opentelemetry", error)

    def shutdown(self) -> None:
        """Do nothing: the process closes our queue."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - nothing is buffered
        """Do nothing: nothing is buffered here."""
        return True


def _place_of(span: SDKSpan) -> tuple[LiveTrace, Span] | None:
    """Return the trace and the parent of a span that starts; ``None`` if it is not in one of our requests."""
    parent = span.parent
    known = None if parent is None else process.bridged_spans.get(f"{parent.span_id:016x}")
    if known is not None and known.trace is not None:
        return known.trace, known
    trace = current_trace()
    session = None if trace is None else session_of(trace)
    if trace is None or session is None:
        return None
    if parent is not None and not parent.is_remote and trace.info.trace_id == f"tr-{parent.trace_id:032x}":
        return trace, known or _span_of(trace, parent.span_id) or trace.root
    if span.kind is SpanKind.SERVER and _is_server_span(span, trace, session):
        session.adopt(trace, span)
    return None


def _is_server_span(span: SDKSpan, trace: LiveTrace, session: OpenTelemetrySession) -> bool:
    """Whether a SERVER span that starts inside our request is that request.

    It may also be a request that the app sends to another app in this process; then method or path differ.
    """
    if session.server_span is not None or trace.over or not trace.of_request:
        return False
    theirs, ours = span.attributes or {}, session.attributes
    method = theirs.get("http.request.method_original") or theirs.get("http.request.method")
    same_method = method is None or method == ours.get("http.request.method", method)
    return same_method and theirs.get("url.path", ours.get("url.path")) == ours.get("url.path")


def _bring(span: SDKSpan, trace: LiveTrace, parent: Span) -> None:
    ids = f"{span.get_span_context().span_id:016x}", parent.span_id
    ours: LiveSpan
    if trace.over:
        # As for our own spans: the root of a new trace with a link to this one, which has its children too.
        other = trace.recorder.follow(trace, span.name, kind_name(span.kind), parent)
        other.take_identity(other.info.trace_id, ids[0], None)
        ours = other.root
        ours.__class__ = BroughtSpan
        ours.start_time_ns = (span.start_time or 0) - other.skew()
    elif not trace.recording or _span_of(trace, span.get_span_context().span_id) is not None:
        return
    else:
        start = (span.start_time or 0) - trace.skew()
        ours = BroughtSpan(trace, ids, clean_text(span.name), kind_name(span.kind), start)
        trace.add(ours)
    process.bridged_spans[ours.span_id] = ours
    setattr(
        span, OUR_SPAN, ours
    )  # a reference that keeps our span alive as long as theirs, and finds it when theirs is current


def _span_of(trace: LiveTrace, number: int) -> Span | None:
    """Return the span that another bridge has started in the same provider with the same id."""
    if len(trace.sessions) <= 1:
        return None
    span_id = f"{number:016x}"
    return next((span for span in reversed(trace.data.spans) if span.span_id == span_id), None)


class OpenTelemetryBridge(Bridge):
    """Makes our requests OpenTelemetry's server spans, and adds OpenTelemetry's spans to our traces.

    Inside a request, OpenTelemetry's current span is ours, so spans of instrumented libraries are its
    children, as are those of ``start_span`` and ``@trace``. If FastAPI's telemetry, Starlette's or contrib's
    middleware opens the server span, outside or inside of our middleware, our root takes its trace id, span
    id and parent, and sets our metadata on it. Otherwise the provider's exporters get our root as the server
    span, with our other spans.

    Each side samples on its own: OpenTelemetry's sampler for its exporters, our settings for our store. A
    span that OpenTelemetry's sampler drops is on neither side.

    Args:
        tracer_provider: By default the global provider, looked up for each request; if there is none at the
            first request, a minimal one is set.
    """

    def __init__(self, tracer_provider: otel.TracerProvider | None = None) -> None:
        self._given = tracer_provider
        self._processor = WherefromSpanProcessor()
        self._pipeline: tuple[otel.TracerProvider, Pipeline] | None = None
        self._instruments = False
        try:
            if tracer_provider or not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
                self.pipeline()
        except Exception as error:  # noqa: BLE001 - OTEL_PYTHON_TRACER_PROVIDER may name none, say
            ledger.failed("opentelemetry", error)
        process.add_bridge(self)

    def instrument(self, *names: str) -> list[Instrumentor]:
        """Switch on instrumentors by their names, or all that are installed.

        One that cannot be switched on is logged in one sentence, once, and changes nothing else.
        The setting ``instrument`` does this when the middleware is made. Do it earlier for libraries that
        have to be instrumented before they are used, and in a process without the middleware.

        Returns:
            Each that is installed, with the reason if it is off. Its contents may change.

        Raises:
            SettingsError: no instrumentor has one of the names.
        """
        found = switch_on(names or [AUTO], **({"tracer_provider": self._given} if self._given else {}))
        if not found:
            process.say_once("no OpenTelemetry instrumentor is installed that could be switched on")
        for instrumentor in found:
            if instrumentor.is_problem:
                process.say_once(str(instrumentor))
        self._instruments = True
        process.thread_hooks = (_suppress,)
        return found

    def on_request(self, trace: LiveTrace, scope: Scope | None) -> OpenTelemetrySession | None:
        """Make the trace's root OpenTelemetry's current span, or take the identity of its server span."""
        if self._instruments:
            self._receive_events()
        current = otel.get_current_span()
        is_inside = current.get_span_context().is_valid
        if scope is None:
            # A trace that starts inside a trace of OpenTelemetry is part of it, unless that has ended.
            return None if is_inside and not trace.follows else OpenTelemetrySession(self.pipeline(), {})
        session = OpenTelemetrySession(self.pipeline(), _facts(scope))
        theirs = _server_span(scope, current)
        if theirs is not None:
            session.adopt(trace, theirs)
        if theirs is None or not _is_local(current):
            # A current span of another request was left by it: start from an empty context.
            try:
                session.begin(trace.root, Context() if is_inside else None)
            except Exception as error:  # noqa: BLE001 - exporters still get the trace's spans
                ledger.failed(type(self).__name__, error)
        return session

    def _receive_events(self) -> None:
        """Receive contents that instrumentors send as log records, from the first request on.

        By then, the app has set its logger provider, if it has one.
        """
        self._instruments = False
        try:
            from .events import receive_events

            receive_events()
        except Exception as error:  # noqa: BLE001 - the API of logs may still change
            ledger.failed("opentelemetry", error)

    def pipeline(self) -> Pipeline:
        """Return the current provider, with our processor on it."""
        provider = self._given or otel.get_tracer_provider()
        known = self._pipeline
        if known is None or known[0] is not provider:
            if isinstance(provider, otel.ProxyTracerProvider):
                provider = global_provider()
            known = self._pipeline = provider, pipeline_of(provider, self._processor)
        return known[1]


def _suppress() -> None:
    """Keep instrumentors from recording what a thread does: such as a store's queries."""
    otel_context.attach(otel_context.set_value("suppress_instrumentation", True, Context()))


def _server_span(scope: Scope, current: otel.Span) -> otel.Span | None:
    """Return the server span that another instrumentation opened for this request, outside of our middleware.

    FastAPI's telemetry puts it into the scope. For the others there is only the current span, and a server
    may run this request in the context of the previous one. So a span that another request of ours has taken,
    that has ended, or that is not a server span, does not belong to this request.
    """
    opened = getattr(scope.get("fastapi.telemetry"), "span", None)
    span: otel.Span = current if opened is None else opened
    context = span.get_span_context()
    if not context.is_valid or context.is_remote or isinstance(span, OurSpan) or hasattr(span, OUR_SPAN):
        return None
    if opened is not None or isinstance(span, otel.NonRecordingSpan):  # has no kind
        return span
    return span if span.is_recording() and getattr(span, "kind", None) is SpanKind.SERVER else None


def _is_local(span: otel.Span) -> bool:
    context = span.get_span_context()
    return context.is_valid and not context.is_remote


def _facts(scope: Scope) -> dict[str, Any]:
    """Return attributes of the request, for samplers and to recognise its server span."""
    facts = {"url.path": scope.get("path", "")}
    if scope["type"] == "http":
        facts["http.request.method"] = scope.get("method", "GET")
    return facts
