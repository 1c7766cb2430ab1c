"""The bridge: one OpenTelemetry server span a request, the same as ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from .._types import Scope
from ..context import accompany, trace_var
from ..model import Span, Trace
from ..process import ledger
from ..tracing.recorder import LiveSpan, LiveTrace
from .current import OUR_SPAN, Counterpart, OurSpan, counterpart_of
from .processor import WherefromSpanProcessor
from .provider import Pipeline, global_provider, pipeline_of
from .spans import read_events, read_links

# What a server span says of the request itself: ours says it too, without query strings.
_OF_REQUEST = (
    "asgi.",
    "client.",
    "http.",
    "net.",
    "network.",
    "server.",
    "url.",
    "user_agent.",
)


class OpenTelemetryBridge:
    """Makes our requests and OpenTelemetry's server spans one, and its spans part of our traces.

    Inside a request the current OpenTelemetry span is ours: what any instrumented library records becomes a
    child of it, and so inside ``start_span`` and ``@trace``. Where FastAPI's telemetry, Starlette's
    or contrib's middleware opens the server span, outside of us or inside, our root takes its trace id, span
    id and parent, and puts the metadata on it. Where nobody does, ours is given to the provider's exporters,
    as the server span, with our other spans.

    Each side samples for itself: OpenTelemetry's sampler decides what its exporters get, our settings what
    we keep. A span that its sampler drops does not exist, for us neither.

    Args:
        tracer_provider: The provider whose spans to bring in. When not given it is the process's own, looked
            up with each request; where there is none when the first request comes, a minimal one is set up.
    """

    def __init__(self, tracer_provider: otel.TracerProvider | None = None) -> None:
        self._given = tracer_provider
        self._processor = WherefromSpanProcessor()
        self._pipeline: tuple[otel.TracerProvider, Pipeline] | None = None
        try:
            if tracer_provider or not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
                self.pipeline()
        except Exception as error:  # noqa: BLE001 - OTEL_PYTHON_TRACER_PROVIDER may name none, say
            ledger.failed("opentelemetry", error)
        accompany(_Companion(self.pipeline))

    def request(self, trace: LiveTrace, scope: Scope) -> AbstractContextManager[Callable[[], object]]:
        """A block in which the request's span is OpenTelemetry's current one."""
        return _Request(trace, scope, self.pipeline())

    def pipeline(self) -> Pipeline:
        """The provider as it is now, with our processor on it."""
        provider = self._given or otel.get_tracer_provider()
        known = self._pipeline
        if known is None or known[0] is not provider:
            if isinstance(provider, otel.ProxyTracerProvider):
                provider = global_provider()
            known = self._pipeline = provider, pipeline_of(provider, self._processor)
        return known[1]


class _Request:
    """One request: entered before the app, left when it has returned."""

    def __init__(self, trace: LiveTrace, scope: Scope, pipeline: Pipeline) -> None:
        self._trace = trace
        self._scope = scope
        self._counterpart = Counterpart(pipeline, _facts(scope))
        self._token: Any = None

    def __enter__(self) -> Callable[[], None]:
        trace, counterpart = self._trace, self._counterpart
        current = otel.get_current_span()
        theirs = _server_span(self._scope, current)
        if theirs is not None:
            counterpart.adopt(trace, theirs)
        trace.followers += (counterpart,)
        if theirs is None or not _is_local(current):
            # What is current without being this request's was left by another: nothing of it is ours to keep.
            base = Context() if current.get_span_context().is_valid else None
            self._token = otel_context.attach(otel.set_span_in_context(counterpart.span_of(trace.root), base))
        return self._tell

    def _tell(self) -> None:
        self._counterpart.tell(self._trace)

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        # In another context, as at the end of a loop, there is nothing of ours to put back.
        if self._token is not None and trace_var.get() is self._trace:
            otel_context.detach(self._token)
        self._counterpart.tell(self._trace)
        theirs = self._counterpart.server_span
        if isinstance(theirs, ReadableSpan):
            self._learn(theirs, failed=error is not None)

    def _learn(self, theirs: ReadableSpan, *, failed: bool) -> None:
        """What the app has put on their server span belongs on ours."""
        root, told = self._trace.root, self._counterpart.told
        for key, value in (theirs.attributes or {}).items():
            if not key.startswith(_OF_REQUEST) and key not in root.attributes and not told(key):
                root.set_attribute(key, value)
        # What ended the request is an event of ours already.
        root.events += [
            event
            for event in read_events(theirs.events, root.budget)
            if not (failed and event.name == "exception")
        ]
        root.links += read_links(theirs.links)


class _Companion:
    """OpenTelemetry's current span, kept in step with ours."""

    def __init__(self, pipeline: Callable[[], Pipeline]) -> None:
        self._pipeline = pipeline

    def attach(self, trace: Trace | None, span: Span | None, held: object) -> object:
        """Make our span current, or nothing where a server has left one of another request's.

        In a trace that has no bridge, leave OpenTelemetry alone.
        """
        try:
            if isinstance(held, Context):
                return otel_context.attach(held)
            if trace is None and _is_of_request(otel.get_current_span()):
                return otel_context.attach(Context())
            if isinstance(trace, LiveTrace) and isinstance(span, LiveSpan):
                counterpart = counterpart_of(trace) or self._new_counterpart(trace)
                if counterpart is not None:
                    return otel_context.attach(otel.set_span_in_context(counterpart.span_of(span)))
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("opentelemetry", error)
        return None

    def _new_counterpart(self, trace: LiveTrace) -> Counterpart | None:
        """For a trace outside of requests; what is inside a trace of OpenTelemetry's stays inside."""
        if trace.of_request or otel.get_current_span().get_span_context().is_valid:
            return None
        counterpart = Counterpart(self._pipeline(), {})
        trace.followers += (counterpart,)
        return counterpart

    def detach(self, token: object) -> None:
        """Put back what was current."""
        otel_context.detach(token)  # type: ignore[arg-type]

    def held(self) -> Context:
        """What is current."""
        return otel_context.get_current()

    def innermost(self, span: Span | None) -> Span | None:
        """The span of ours that stands for OpenTelemetry's current one, when that is of the same trace."""
        current = otel.get_current_span()
        ours = current.live if isinstance(current, OurSpan) else getattr(current, OUR_SPAN, None)
        if span is None or ours is None or ours.trace_id != span.trace_id:
            return span
        return ours


def _server_span(scope: Scope, current: otel.Span) -> otel.Span | None:
    """The server span that another instrumentation has opened for this request, outside of us.

    FastAPI's telemetry tells it in the scope. For the others there is only what is current, and a server may
    have run this request in the context of the last: what another request of ours has taken, what has ended
    and what is no server span is not this request's.
    """
    told = getattr(scope.get("fastapi.telemetry"), "span", None)
    span: otel.Span = current if told is None else told
    context = span.get_span_context()
    if not context.is_valid or context.is_remote or isinstance(span, OurSpan) or hasattr(span, OUR_SPAN):
        return None
    if told is not None or isinstance(span, otel.NonRecordingSpan):  # the latter: not sampled
        return span
    return span if span.is_recording() and getattr(span, "kind", None) is SpanKind.SERVER else None


def _is_of_request(span: otel.Span) -> bool:
    ours = span.live if isinstance(span, OurSpan) else getattr(span, OUR_SPAN, None)
    return ours is not None


def _is_local(span: otel.Span) -> bool:
    context = span.get_span_context()
    return context.is_valid and not context.is_remote


def _facts(scope: Scope) -> dict[str, Any]:
    """What tells a request from others: for samplers, and to know its server span by."""
    facts = {"url.path": scope.get("path", "")}
    if scope["type"] == "http":
        facts["http.request.method"] = scope.get("method", "GET")
    return facts
