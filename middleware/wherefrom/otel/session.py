"""OpenTelemetry's side of one of our traces, and our spans through its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util import types

from .. import keys
from .._capture.values import clean_text, to_json
from ..context import trace_var
from ..model import Span, SpanStatusCode, SpanType
from ..process import ledger, process
from ..tracing.bridge import BridgeSession
from ..tracing.live import LiveSpan, LiveTrace
from .provider import Pipeline
from .spans import (
    CODES,
    as_attributes,
    kind_of,
    read_events,
    read_link,
    read_links,
    trace_attributes,
    write_event,
    write_link,
)

OUR_SPAN: Final = "wherefrom_span"
"""Attribute of an OpenTelemetry span that has a counterpart among ours."""

_RANDOM: Final = 0x02
_NO_STATE: Final = TraceState()
# Attributes of a server span that describe the request: our span has them too, without query strings.
_OF_REQUEST: Final = (
    "asgi.",
    "client.",
    "http.",
    "net.",
    "network.",
    "server.",
    "url.",
    "user_agent.",
)


class BroughtSpan(LiveSpan):
    """A span of OpenTelemetry in one of our traces."""

    exported = True


class OurSpan(otel.Span):
    """One of our spans through OpenTelemetry's API: values are set on our span."""

    def __init__(self, span: LiveSpan, session: OpenTelemetrySession) -> None:
        self.live = span
        self._session = session
        self._context: tuple[str, SpanContext] | None = None

    @property
    def name(self) -> str:
        """The current name."""
        return self.live.name

    @property
    def kind(self) -> SpanKind:
        """``SERVER`` for a request."""
        return kind_of(self.live)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes that the app has set."""
        return self.live.attributes

    def get_span_context(self) -> SpanContext:
        """The ids, computed when the first child needs them."""
        known, trace_id = self._context, self.live.trace_id
        if known is None or known[0] != trace_id:
            known = self._context = trace_id, self._session.context_of(self.live)
        return known[1]

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return self.live.end_time_ns is None

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute."""
        self.live.set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        self.live.set_attributes(attributes)

    def add_event(self, name: str, attributes: types.Attributes = None, timestamp: int | None = None) -> None:
        """Add an event, now or at ``timestamp``."""
        self.live.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        """Link to another span."""
        if context.is_valid:
            self.live.links.append(read_link(context, attributes))

    def update_name(self, name: str) -> None:
        """Rename it."""
        self.live.name = clean_text(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; ``OK`` is final, and ``UNSET`` is ignored (OpenTelemetry's rules)."""
        code = status.status_code if isinstance(status, Status) else status
        if isinstance(status, Status):
            description = status.description
        if code is not StatusCode.UNSET and self.live.status.code is not SpanStatusCode.OK:
            self.live.set_status(code.name, description or "")

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002 - deprecated there, and known by the end of the span
    ) -> None:
        """Add an ``exception`` event; the status does not change."""
        self.live.add_exception(exception, attributes, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: our spans end with their block, and that of the request with its last byte."""


class OpenTelemetrySession(BridgeSession):
    """OpenTelemetry's side of one of our traces.

    ``server_span`` is the one that another instrumentation opened for the request. ``attributes`` of the
    request are for samplers.
    """

    def __init__(self, pipeline: Pipeline, attributes: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.attributes = attributes
        self.server_span: otel.Span | None = None
        self._decision: tuple[TraceFlags, TraceState] | None = None
        self._sent: dict[str, Any] = {}
        self._token: Any = None

    def begin(self, root: LiveSpan, base: Context | None) -> None:
        """Make the request's span current in ``base``; ``None`` is the current context."""
        self._token = otel_context.attach(otel.set_span_in_context(self.span_of(root), base))

    def adopt(self, trace: LiveTrace, theirs: otel.Span) -> None:
        """Give our root the identity of the server span that another instrumentation opened."""
        context = theirs.get_span_context()
        parent: SpanContext | None = getattr(theirs, "parent", None)
        parent_id = None if parent is None else f"{parent.span_id:016x}"
        trace.take_identity(f"tr-{context.trace_id:032x}", f"{context.span_id:016x}", parent_id)
        self.server_span = theirs
        self._decision = context.trace_flags, context.trace_state
        process.bridged_spans[trace.root.span_id] = trace.root
        setattr(theirs, OUR_SPAN, trace.root)

    def on_span_end(self, span: Span) -> None:
        """Pass a span of ours, or of another tracer, to OpenTelemetry's exporters."""
        processor = self.pipeline.listeners()
        if not isinstance(span, LiveSpan) or span.exported or span.end_time_ns is None:
            return
        trace = span.trace
        if processor is None or trace is None or not self._decided(trace.root)[0].sampled:
            return
        if span is not trace.root:
            processor.on_end(self._exported(span, {}))
        elif self.server_span is None:
            processor.on_end(self._exported(span, trace_attributes(trace.info)))

    def sync(self, trace: LiveTrace) -> None:
        """Set our metadata on the server span of another instrumentation, until the app has returned."""
        theirs = self.server_span
        if trace.over or theirs is None or not theirs.is_recording():
            return
        known = trace_attributes(trace.info) | as_attributes(trace.root.attributes)
        if changed := {key: value for key, value in known.items() if self._sent.get(key) != value}:
            theirs.set_attributes(changed)
            self._sent = known

    def close(self, trace: LiveTrace, error: BaseException | None) -> None:
        """Detach our context, and read what the app has set on the other server span."""
        # In another context, as when the event loop closes, nothing was attached.
        if self._token is not None and trace_var.get() is trace:
            otel_context.detach(self._token)
        self.sync(trace)
        theirs, root = self.server_span, trace.root
        if not isinstance(theirs, ReadableSpan):
            return
        for key, value in (theirs.attributes or {}).items():
            if not key.startswith(_OF_REQUEST) and key not in root.attributes and key not in self._sent:
                root.set_attribute(key, value)
        # Our root has the exception that ended the request already.
        root.events += [
            event
            for event in read_events(theirs.events, root.budget)
            if not (error is not None and event.name == "exception")
        ]
        root.links += read_links(theirs.links)

    def activate(self, span: Span | None, held: object) -> object:
        """Make our span current, or no span if a server has left another request's current."""
        try:
            if isinstance(held, Context):
                return otel_context.attach(held)
            if isinstance(span, LiveSpan):
                return otel_context.attach(otel.set_span_in_context(self.span_of(span)))
            return otel_context.attach(Context()) if our_span(otel.get_current_span()) is not None else None
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed("opentelemetry", error)
            return None

    def deactivate(self, token: object) -> None:
        """Detach what ``activate`` attached."""
        otel_context.detach(token)  # type: ignore[arg-type]

    def held(self) -> Context:
        """Return the current context."""
        return otel_context.get_current()

    def innermost(self, span: Span | None) -> Span | None:
        """Return our span for OpenTelemetry's current one, if it is in the same trace."""
        ours = our_span(otel.get_current_span())
        return span if span is None or ours is None or ours.trace_id != span.trace_id else ours

    def span_of(self, span: LiveSpan) -> otel.Span:
        """Return the OpenTelemetry span to make current for one of our spans."""
        return (
            self.server_span if self.server_span is not None and self._is_root(span) else OurSpan(span, self)
        )

    def context_of(self, span: LiveSpan) -> SpanContext:
        """Return the span context of one of our spans, which its children refer to."""
        if self.server_span is not None and self._is_root(span):
            return self.server_span.get_span_context()
        process.bridged_spans[span.span_id] = span
        flags, state = self._decided(span)
        return SpanContext(int(span.trace_id[3:], 16), int(span.span_id, 16), False, flags, state)

    def _is_root(self, span: LiveSpan) -> bool:
        return getattr(self.server_span, OUR_SPAN, None) is span

    def _decided(self, span: LiveSpan) -> tuple[TraceFlags, TraceState]:
        """OpenTelemetry's sampling decision for a trace that we started, made once."""
        if self._decision is None:
            trace = span.trace
            if trace is not None:
                span = trace.root
            try:
                self._decision = self._decide(span, trace)
            except Exception as error:  # noqa: BLE001 - a sampler of the app's own
                ledger.failed("opentelemetry", error)
                self._decision = TraceFlags(TraceFlags.DEFAULT), _NO_STATE
        return self._decision

    def _decide(self, root: LiveSpan, trace: LiveTrace | None) -> tuple[TraceFlags, TraceState]:
        caller = None if trace is None else trace.caller
        flags = _RANDOM if caller is None or caller.random else TraceFlags.DEFAULT
        if trace is not None and not trace.recording and self.pipeline.listeners() is None:
            return TraceFlags(flags), _NO_STATE  # no processor would get its spans
        sampler = self.pipeline.sampler
        if sampler is None:
            return TraceFlags(flags | TraceFlags.SAMPLED), _NO_STATE
        trace_id = int(root.trace_id[3:], 16)
        parent = Context()
        if caller is not None:
            state = TraceState(list(caller.tracestate))
            remote = SpanContext(trace_id, int(caller.span_id, 16), True, TraceFlags(caller.flags), state)
            parent = otel.set_span_in_context(otel.NonRecordingSpan(remote))
        result = sampler.should_sample(parent, trace_id, root.name, kind_of(root), dict(self.attributes), ())
        if result.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        return TraceFlags(flags), result.trace_state or _NO_STATE

    def _exported(self, span: LiveSpan, of_trace: Mapping[str, Any]) -> ReadableSpan:
        """One of our spans as exporters take it."""
        context = self.context_of(span)
        parent = None
        if span.parent_id is not None:
            remote = span.span_type == SpanType.SERVER
            parent = SpanContext(
                context.trace_id, int(span.parent_id, 16), remote, context.trace_flags, context.trace_state
            )
        attributes = {**of_trace, **as_attributes(span.attributes)}
        if kind_of(span) is SpanKind.INTERNAL and span.span_type != SpanType.UNKNOWN:
            attributes[keys.SPAN_TYPE] = str(span.span_type)
        for key, value in ((keys.SPAN_INPUTS, span.inputs), (keys.SPAN_OUTPUTS, span.outputs)):
            if value is not None:
                attributes[key] = to_json(value)
        description = span.status.description if span.status.code is SpanStatusCode.ERROR else None
        return ReadableSpan(
            name=span.name,
            context=context,
            parent=parent,
            resource=self.pipeline.resource,
            attributes=attributes,
            events=[write_event(event) for event in span.events],
            links=[link for data in span.links if (link := write_link(data)) is not None],
            kind=kind_of(span),
            status=Status(CODES[span.status.code], description),
            start_time=span.start_time_ns,
            end_time=span.end_time_ns,
            instrumentation_scope=self.pipeline.scope,
        )


def session_of(trace: LiveTrace) -> OpenTelemetrySession | None:
    """Return OpenTelemetry's side of a trace, or ``None`` if it takes no part."""
    return next((other for other in trace.sessions if isinstance(other, OpenTelemetrySession)), None)


def our_span(span: otel.Span) -> LiveSpan | None:
    """Return our span behind an OpenTelemetry span, or ``None``."""
    found: LiveSpan | None = span.live if isinstance(span, OurSpan) else getattr(span, OUR_SPAN, None)
    return found
