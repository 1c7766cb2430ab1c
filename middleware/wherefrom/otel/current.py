"""Our metadata as attributes of the server span, whoever opened it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util import types

from .. import keys
from .._capture.values import clean_text, to_json
from ..model import Span, SpanEvent, SpanStatusCode, SpanType, TraceInfo
from ..process import ledger
from ..tracing.recorder import LiveSpan, LiveTrace
from .provider import Pipeline
from .spans import read_link

REQUEST_ID: Final = "client_request_id"
_LEFT_OUT: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS})


def trace_attributes(info: TraceInfo) -> dict[str, str]:
    """The metadata under its own keys, and session and user also under OpenTelemetry's."""
    metadata = info.trace_metadata
    attributes = {key: value for key, value in metadata.items() if key not in _LEFT_OUT}
    if info.client_request_id is not None:
        attributes[REQUEST_ID] = info.client_request_id
    if keys.SESSION in metadata:
        attributes["session.id"] = metadata[keys.SESSION]
    if keys.USER in metadata:
        attributes["user.id"] = metadata[keys.USER]
    return attributes


OUR_SPAN: Final = "wherefrom_span"
"""Attribute of an OpenTelemetry span that has a counterpart among ours."""

spans: WeakValueDictionary[str, LiveSpan] = WeakValueDictionary()
"""Spans of ours that OpenTelemetry knows, by span id, as long as anyone needs them."""

_SCALARS: Final = (str, bool, int, float)
_SCALARS_ONLY: Final = frozenset(_SCALARS)
_RANDOM: Final = 0x02
_NO_STATE: Final = TraceState()
_KINDS: Final[Mapping[str, SpanKind]] = {
    SpanType.SERVER: SpanKind.SERVER,
    SpanType.CLIENT: SpanKind.CLIENT,
    "PRODUCER": SpanKind.PRODUCER,
    "CONSUMER": SpanKind.CONSUMER,
}
_CODES: Final = {
    SpanStatusCode.UNSET: StatusCode.UNSET,
    SpanStatusCode.OK: StatusCode.OK,
    SpanStatusCode.ERROR: StatusCode.ERROR,
}


class BroughtSpan(LiveSpan):
    """A span of OpenTelemetry's in our trace."""

    exported = True


class OurSpan(otel.Span):
    """One of our spans, as OpenTelemetry's API sees it: what is set here is set there."""

    def __init__(self, span: LiveSpan, counterpart: Counterpart) -> None:
        self.live = span
        self._counterpart = counterpart
        self._context: tuple[str, SpanContext] | None = None

    @property
    def name(self) -> str:
        """The name so far."""
        return self.live.name

    @property
    def kind(self) -> SpanKind:
        """``SERVER`` for a request."""
        return kind_of(self.live)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the app has set so far."""
        return self.live.attributes

    def get_span_context(self) -> SpanContext:
        """The ids, as children get them; asked for only where there are any."""
        known, trace_id = self._context, self.live.trace_id
        if known is None or known[0] != trace_id:
            known = self._context = trace_id, self._counterpart.context_of(self.live)
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
        """Say how it went; ``OK`` is final, and ``UNSET`` says nothing (OpenTelemetry's rules)."""
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
        """Add the event ``exception``; the status stays what it is."""
        self.live.add_exception(exception, attributes, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: our spans end with their block, and the request's with its last byte."""


class Counterpart:
    """One of our traces as OpenTelemetry sees it. It is one of the trace's ``followers``.

    ``server_span`` is the one that another instrumentation has opened for the same request. ``attributes``
    is what a sampler may want to know. It holds no reference to the trace, which holds it.
    """

    def __init__(self, pipeline: Pipeline, attributes: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.attributes = attributes
        self.server_span: otel.Span | None = None
        self._decision: tuple[TraceFlags, TraceState] | None = None
        self._told: dict[str, Any] = {}

    def adopt(self, trace: LiveTrace, theirs: otel.Span) -> None:
        """Take the identity of the server span that is there: ours is the same one from now on."""
        context = theirs.get_span_context()
        parent: SpanContext | None = getattr(theirs, "parent", None)
        parent_id = None if parent is None else f"{parent.span_id:016x}"
        trace.take_identity(f"tr-{context.trace_id:032x}", f"{context.span_id:016x}", parent_id)
        self.server_span = theirs
        self._decision = context.trace_flags, context.trace_state
        spans[trace.root.span_id] = trace.root
        setattr(theirs, OUR_SPAN, trace.root)

    def span_of(self, span: LiveSpan) -> otel.Span:
        """What to make current for one of our spans."""
        if self.server_span is not None and getattr(self.server_span, OUR_SPAN, None) is span:
            return self.server_span
        return OurSpan(span, self)

    def context_of(self, span: LiveSpan) -> SpanContext:
        """The ids of one of our spans, by which its children will be known."""
        if self.server_span is not None and getattr(self.server_span, OUR_SPAN, None) is span:
            return self.server_span.get_span_context()
        spans[span.span_id] = span
        flags, state = self._decided(span)
        return SpanContext(int(span.trace_id[3:], 16), int(span.span_id, 16), False, flags, state)

    def tell(self, trace: LiveTrace) -> None:
        """Put what we know of the request on the server span that another instrumentation opened."""
        theirs = self.server_span
        if theirs is None or not theirs.is_recording():
            return
        known = trace_attributes(trace.info) | as_attributes(trace.root.attributes)
        if news := {key: value for key, value in known.items() if self._told.get(key) != value}:
            theirs.set_attributes(news)
            self._told = known

    def agree(self, trace: LiveTrace) -> None:
        """Do nothing: OpenTelemetry is told at the end, and has nothing to say of a trace."""

    def told(self, key: str) -> bool:
        """Whether an attribute of their server span came from us."""
        return key in self._told

    def __call__(self, trace: LiveTrace, ended: Sequence[Span]) -> None:
        """Give spans that have ended to OpenTelemetry's exporters: ours, and those of other tracers."""
        try:
            processor = self.pipeline.listeners()
            if processor is None or not self._decided(trace.root)[0].sampled:
                return
            for span in ended:
                if not isinstance(span, LiveSpan) or span.exported or span.end_time_ns is None:
                    continue
                if span is not trace.root:
                    processor.on_end(self._exported(span, {}))
                elif self.server_span is None:
                    processor.on_end(self._exported(span, trace_attributes(trace.info)))
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("opentelemetry", error)

    def _decided(self, span: LiveSpan) -> tuple[TraceFlags, TraceState]:
        """OpenTelemetry's own sampling of a trace that we began, asked for once."""
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
            return TraceFlags(flags), _NO_STATE  # nobody would get what its spans record
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
        if span.span_type not in _KINDS and span.span_type != SpanType.UNKNOWN:
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
            events=[_event(event) for event in span.events],
            links=[link for data in span.links if (link := _link(data)) is not None],
            kind=kind_of(span),
            status=Status(_CODES[span.status.code], description),
            start_time=span.start_time_ns,
            end_time=span.end_time_ns,
            instrumentation_scope=self.pipeline.scope,
        )


def counterpart_of(trace: LiveTrace) -> Counterpart | None:
    """The trace as OpenTelemetry sees it, where a bridge has made it known there."""
    return next((follower for follower in trace.followers if isinstance(follower, Counterpart)), None)


def kind_of(span: Span) -> SpanKind:
    """The kind that says the same as a span type."""
    return _KINDS.get(span.span_type, SpanKind.INTERNAL)


def as_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values as OpenTelemetry's attributes take them: scalars, lists of one kind, or JSON text."""
    return {key: _attribute(value) for key, value in attributes.items() if value is not None}


def _attribute(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return value
    kinds = {type(item) for item in value} if isinstance(value, list) else {list}
    if len(kinds) <= 1 and kinds <= _SCALARS_ONLY:
        return value
    return to_json(value)


def _event(event: SpanEvent) -> Event:
    return Event(event.name, as_attributes(event.attributes), event.timestamp)


def _link(data: Mapping[str, Any]) -> Link | None:
    try:
        trace_id, span_id = int(data["trace_id"].removeprefix("tr-"), 16), int(data["span_id"], 16)
    except (KeyError, ValueError, AttributeError):
        return None
    return Link(SpanContext(trace_id, span_id, True), as_attributes(data.get("attributes") or {}))
