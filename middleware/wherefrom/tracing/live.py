"""Live traces and spans: what an app adds to while its request runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from time import perf_counter_ns
from typing import Any, Protocol

from .. import keys
from .._capture.values import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_KEY_LENGTH,
    MAX_PAIRS,
    PREVIEW_LENGTH,
    Budget,
    clean_pairs,
    clean_text,
    cut,
    first_pairs,
    preview,
    snapshot,
)
from .._ids import new_ids, new_span_id
from ..exceptions import InvalidTraceError
from ..model import (
    OK,
    UNSET,
    Source,
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    SpanType,
    Trace,
    TraceInfo,
    TraceState,
)
from ..model.trace import TraceData
from ..process import ledger
from ..propagation import BaggageMember, SpanContext
from .exceptions import describe, exception_attributes
from .sampling import Sampler
from .token_usage import token_usage

_SPAN_NODES, _SPAN_SIZE = 10_000, 1_250_000
_TRACE_NODES, _TRACE_SIZE = 100_000, 16_000_000
_NEVER_DROPPED = frozenset({keys.SESSION, keys.USER, keys.MODEL_ID})

# Reading a member off its enum costs as much as a call (Python 3.11), and these are read for every request.
_IN_PROGRESS, _OK = TraceState.IN_PROGRESS, TraceState.OK
# What a request takes that records nothing but itself: measured, 1.8 to 2.8 kB.
_PLAIN_BYTES = 3000
_CONTAINERS = (dict, list)
_FIELDS = tuple(field.name for field in fields(Span))
_STATES = {
    SpanStatusCode.UNSET: TraceState.OK,
    SpanStatusCode.OK: TraceState.OK,
    SpanStatusCode.ERROR: TraceState.ERROR,
}


class TracedRequest(Protocol):
    """What ``Recorder.finish`` asks of the request whose trace it ends, in this order."""

    def end(self, error: BaseException | None) -> str | None:
        """End the root span with its outcome, and return the route template that answered."""

    def describe(self, route: str | None) -> None:
        """Put the request's attributes on the root span. Not called for a trace that nobody gets."""

    def respond(self) -> None:
        """Call the app's hook: the trace is complete and may still be changed."""


class Owner(Protocol):
    """What a live trace needs of the recorder that started it: see ``Recorder``."""

    source: Source
    clock: Callable[[], int]
    experiment: str
    max_spans: int
    max_length: int
    request_id_header: str
    sampler: Sampler
    records_all: bool

    def user(self, user_id: str) -> str:
        """Return a user id as it is recorded."""

    def finish(
        self,
        trace: LiveTrace,
        request: TracedRequest | None = None,
        error: BaseException | None = None,
        *,
        late: LiveSpan | None = None,
    ) -> None:
        """End a trace, or write a span that ended after it."""


class LiveSpan(Span):
    """A span that is being recorded. The sink gets a copy of it: later changes are not stored.

    ``trace`` is ``None`` once both have ended: with the cycle, every trace would wait for the garbage
    collector. ``exported`` is true when OpenTelemetry's exporters get the span without our bridge.
    """

    recorded = True
    exported = False
    _budget: Budget | None = None

    def __init__(
        self, trace: LiveTrace, ids: tuple[str, str | None], name: str, span_type: str, start: int
    ) -> None:
        # What is not set here has its default on the class: once a request, that is worth more than brevity.
        self.trace: LiveTrace | None = trace
        self.trace_id = trace.info.trace_id
        self.span_id, self.parent_id = ids
        self.name = name
        self.span_type = span_type
        self.start_time_ns = start
        self.attributes = {}
        self.events = []
        self.links = []

    def __eq__(self, other: object) -> bool:
        """Whether the fields are equal: a span equals its record."""
        return isinstance(other, Span) and all(getattr(self, f) == getattr(other, f) for f in _FIELDS)

    __hash__ = None  # type: ignore[assignment] # as of every dataclass that compares by its fields

    @property
    def budget(self) -> Budget:
        """The limit of its attributes and events together: 10,000 nodes and 1.25 MB of text."""
        budget = self._budget
        if budget is None:
            budget = self._budget = Budget(_SPAN_NODES, _SPAN_SIZE, self._outer_budget())
        return budget

    def _outer_budget(self) -> Budget | None:
        return None if self.trace is None else self.trace.budget

    def set_attribute(self, key: str, value: Any) -> None:
        """Record one attribute: any JSON value, or the ``repr`` of any other.

        A span keeps 1,000 attributes and 1,000 events, with 10,000 nodes and 1.25 MB of text in all; the rest
        is counted in ``wherefrom.dropped_attributes_count`` and ``wherefrom.dropped_events_count``.
        """
        self._set(clean_text(key, MAX_KEY_LENGTH), value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Record several attributes."""
        pairs, dropped = first_pairs(attributes, MAX_ATTRIBUTES)
        for key, value in pairs:
            self._set(clean_text(key, MAX_KEY_LENGTH), value)
        self.drop(keys.DROPPED_ATTRIBUTES, dropped)

    def _set(self, key: str, value: Any) -> None:
        attributes, budget = self.attributes, self.budget
        if key not in attributes and (
            len(attributes) >= MAX_ATTRIBUTES or (budget.outer is not None and budget.outer.is_spent)
        ):
            self.drop(keys.DROPPED_ATTRIBUTES)
        else:
            attributes[key] = snapshot(value, budget)

    def drop(self, counter: str, count: int = 1) -> None:
        """Count in an attribute what was not recorded."""
        if count > 0:
            self.attributes[counter] = self.attributes.get(counter, 0) + count

    def set_inputs(self, inputs: Any) -> None:
        """Record a snapshot of the operation's inputs: at most 10,000 nodes and 1 MB of text."""
        self.inputs = snapshot(inputs, self._outer_budget())

    def set_outputs(self, outputs: Any) -> None:
        """Record a snapshot of the operation's outputs: at most 10,000 nodes and 1 MB of text."""
        self.outputs = snapshot(outputs, self._outer_budget())

    def set_span_type(self, span_type: str) -> None:
        """Set the type: a ``SpanType`` or any string."""
        self.span_type = clean_text(span_type)

    def set_status(self, status: SpanStatus | SpanStatusCode | str, description: str = "") -> None:
        """Set the status: ``OK``, ``ERROR`` or ``UNSET``.

        Raises:
            InvalidTraceError: ``status`` is none of them.
        """
        if isinstance(status, SpanStatus):
            self.status = status
            return
        try:
            self.status = SpanStatus(SpanStatusCode(status), clean_text(description))
        except ValueError:
            raise InvalidTraceError(f"a span's status is 'OK', 'ERROR' or 'UNSET', not {status!r}") from None

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        """Record an event, now or at ``timestamp`` (ns since the epoch)."""
        budget = self.budget
        if len(self.events) >= MAX_EVENTS or budget.is_spent:
            self.drop(keys.DROPPED_EVENTS)
            return
        budget.spend(1, 0)
        pairs, dropped = first_pairs(attributes or {}, MAX_ATTRIBUTES)
        kept = {clean_text(key, MAX_KEY_LENGTH): snapshot(value, budget) for key, value in pairs}
        if dropped > 0:
            kept[keys.DROPPED_ATTRIBUTES] = dropped
        if timestamp is None:
            timestamp = time.time_ns() if self.trace is None else self.trace.now()
        self.events.append(SpanEvent(clean_text(name, PREVIEW_LENGTH), timestamp, kept))

    def add_exception(
        self,
        error: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Record the event ``exception`` for an exception that is no failure of this span."""
        self.add_event("exception", {**exception_attributes(error), **(attributes or {})}, timestamp)

    def record_exception(self, error: BaseException) -> None:
        """Record an exception as OpenTelemetry does: an event ``exception``, and status ``ERROR``."""
        self.add_exception(error)
        self.status = SpanStatus(SpanStatusCode.ERROR, describe(error))

    def end(self, end_time_ns: int | None = None) -> None:
        """End the span, now or at ``end_time_ns`` (ns since the epoch). A second call does nothing."""
        trace = self.trace
        if trace is None or self.end_time_ns is not None:
            return
        self.end_time_ns = trace.now() if end_time_ns is None else end_time_ns
        if self.status is UNSET:
            self.status = OK
        if trace.over:
            trace.recorder.finish(trace, late=self)

    def record(self) -> Span:
        """Return a copy for the sink, which shares no container with the span."""
        # Without __init__ and its defaults: once a request, this takes half the time.
        span = Span.__new__(Span)
        span.trace_id = self.trace_id
        span.span_id = self.span_id
        span.parent_id = self.parent_id
        span.name = self.name
        span.span_type = self.span_type
        span.start_time_ns = self.start_time_ns
        span.end_time_ns = self.end_time_ns
        span.status = self.status
        span.attributes = self.attributes.copy()
        events, links = self.events, self.links
        span.events = [SpanEvent(e.name, e.timestamp, e.attributes.copy()) for e in events] if events else []
        span.links = [link.copy() for link in links] if links else []
        if (inputs := self.inputs) is not None:
            span.inputs = inputs.copy() if inputs.__class__ in _CONTAINERS else inputs
        if (outputs := self.outputs) is not None:
            span.outputs = outputs.copy() if outputs.__class__ in _CONTAINERS else outputs
        return span


class EndedSpan(LiveSpan):
    """The span of a trace that the sink got as it is: containers are read as copies, changes are ignored."""

    # Properties come before what the instance holds under the same names.
    @property
    def attributes(self) -> dict[str, Any]:  # type: ignore[override]
        """A copy of the attributes."""
        return {**self.__dict__["attributes"]}

    @property
    def events(self) -> list[SpanEvent]:  # type: ignore[override]
        """A copy of the events."""
        return [*self.__dict__["events"]]

    @property
    def links(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """A copy of the links."""
        return [*self.__dict__["links"]]

    def __setattr__(self, name: str, value: object) -> None:
        """Ignore the change: what the sink got stays as it is."""


class RecordedTrace(Trace):
    """A finished trace as the sink gets it. Nothing else refers to it, so it does not change any more.

    ``is_plain`` is true when it records nothing but the request itself: its size is then known without
    walking through it.
    """

    __slots__ = ("is_plain", "root")

    root: Span

    def __init__(self, info: TraceInfo, data: TraceData, root: Span, *, is_plain: bool) -> None:
        self.info = info
        self.data = data
        self.root = root
        self.is_plain = is_plain

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.info == other.info and self.data == other.data

    __hash__ = None  # type: ignore[assignment] # as of every dataclass that compares by its fields

    def memory(self) -> int:
        """Return about how many bytes of memory the trace takes."""
        if self.is_plain:
            try:
                text = "".join(self.info.trace_metadata.values())
                return _PLAIN_BYTES + len(self.root.name) + len(text)
            except TypeError:  # the app put something there that is not text
                pass
        return Trace.memory(self)


class LiveTrace(Trace):
    """A trace that is being recorded. ``Recorder.start`` makes it, and ``Recorder.finish`` ends it.

    ``recording`` is false when the trace will not be stored; all methods may still be called.
    ``of_request`` is true when the middleware finishes it, and not the end of its root span. ``over`` is true
    once it is finished. ``stated`` is a state that the app asked for. ``caller`` is the remote parent that
    was joined, and ``baggage`` what it sent: both go out again with outgoing requests. ``sessions`` are the
    ``BridgeSession`` of each bridge that takes part. ``plain`` is true when the app put no attributes on the
    root.
    """

    __slots__ = ("__dict__", "root")

    root: LiveSpan

    # Defaults of the class, not of every instance: most requests change none of them.
    recording = True
    of_request = False
    over = False
    plain = False
    dropped_spans = 0
    stated: TraceState | None = None
    caller: SpanContext | None = None
    caller_sampled: bool | None = None
    baggage: tuple[BaggageMember, ...] = ()
    # BridgeSession, which is defined in a module above.
    sessions: tuple[Any, ...] = ()
    is_kept = False
    _is_left_out = False
    _budget: Budget | None = None
    _record: RecordedTrace | None = None

    def __init__(self, recorder: Owner, name: str, span_type: str, caller: SpanContext | None = None) -> None:
        wall = recorder.clock()
        self._clock_offset = wall - perf_counter_ns()
        now_ms = wall // 1_000_000
        trace_id, span_id = new_ids(now_ms)
        parent_id = None
        if caller is not None:
            self.caller = caller
            trace_id, parent_id, self.caller_sampled = f"tr-{caller.trace_id}", caller.span_id, caller.sampled
        source = recorder.source
        metadata = source.pairs.copy()
        self.info = TraceInfo(
            trace_id, recorder.experiment, now_ms, None, _IN_PROGRESS, None, None, None, metadata, {}, source
        )
        self.root = root = LiveSpan(self, (span_id, parent_id), name, span_type, wall)
        self.data = TraceData([root])
        self.recorder = recorder
        if not recorder.records_all:
            self.recording = recorder.sampler.starts(trace_id, caller)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.info == other.info and self.data == other.data

    __hash__ = None  # type: ignore[assignment] # as of every dataclass that compares by its fields

    @property
    def budget(self) -> Budget:
        """The limit of its spans together: 100,000 nodes and 16 MB of text."""
        if self._budget is None:
            self._budget = Budget(_TRACE_NODES, _TRACE_SIZE)
        return self._budget

    def add_metadata(self, pairs: Mapping[Any, Any], dropped: int = 0) -> None:
        """Record metadata as text, 250 keys in all; ``dropped`` is the number of pairs left out before."""
        self._add_pairs(self.info.trace_metadata, pairs, keys.DROPPED_METADATA, dropped)

    def add_tags(self, pairs: Mapping[Any, Any], dropped: int = 0) -> None:
        """Record tags as text, as with ``add_metadata``."""
        self._add_pairs(self.info.tags, pairs, keys.DROPPED_TAGS, dropped)

    def _add_pairs(self, kept: dict[str, str], pairs: Mapping[Any, Any], counter: str, dropped: int) -> None:
        for key, value in clean_pairs(pairs, self.recorder.max_length).items():
            if len(kept) < MAX_PAIRS or key in kept or key in _NEVER_DROPPED:
                kept[key] = value
            else:
                dropped += 1
        if dropped > 0:
            metadata = self.info.trace_metadata
            metadata[counter] = str(int(metadata.get(counter, 0)) + dropped)

    def now(self) -> int:
        """Return ns since the epoch; monotonic within a trace, even when the wall clock is set back."""
        return self._clock_offset + perf_counter_ns()

    def start_span(
        self, name: str, span_type: str = SpanType.UNKNOWN, parent: Span | None = None
    ) -> LiveSpan:
        """Start a child of ``parent`` (of the root, if that is of another trace); the caller ends it."""
        if parent is None or parent.trace_id != self.info.trace_id:
            parent = self.root
        span = LiveSpan(self, (new_span_id(), parent.span_id), clean_text(name), span_type, self.now())
        self.add(span)
        for session in self.sessions:
            try:
                session.on_span_start(span)
            except Exception as error:  # noqa: BLE001 - another tracer's failure
                ledger.failed(type(session).__name__, error)
        return span

    def add(self, span: LiveSpan) -> None:
        """Record a span of this trace, unless ``max_spans_per_trace`` is reached."""
        if len(self.data.spans) < self.recorder.max_spans:
            self.data.spans.append(span)
        else:
            span.recorded = False
            if self.over:  # complete_info, which counts them otherwise, has run
                ledger.dropped("span_limit")
            self.dropped_spans += 1

    def take_identity(self, trace_id: str, span_id: str, parent_id: str | None) -> None:
        """Take the ids of another tracer's trace of the same request, whose server span is our root now.

        Spans that were started already move along. A link to the caller is removed when that is the parent.
        """
        root = self.root
        former, self.info.trace_id = root.span_id, trace_id
        for span in self.data.spans:
            span.trace_id = trace_id
            if span.parent_id == former:
                span.parent_id = span_id
        root.span_id, root.parent_id = span_id, parent_id
        root.links = [link for link in root.links if link["span_id"] != parent_id]
        if not self.recorder.records_all:
            self.recording = self.recorder.sampler.starts(trace_id, self.caller)

    @property
    def is_handed_over(self) -> bool:
        """Whether the sink has the trace itself, and not a copy."""
        return self._record is not None

    def settle(self, route: str | None) -> bool:
        """Set duration and state from the root span, which has ended; return whether the trace is stored.

        ``route`` may have a sample rate of its own.
        """
        root, info, recorder = self.root, self.info, self.recorder
        duration_ns = (root.end_time_ns or 0) - root.start_time_ns
        info.execution_duration = duration_ns // 1_000_000
        info.state = self.stated or (_OK if root.status is OK else _STATES[root.status.code])
        self.over = True
        is_wanted = recorder.records_all or (
            self.recording
            and recorder.sampler.keeps(info.trace_id, self.caller_sampled, route, info.state, duration_ns)
        )
        self.is_kept = is_kept = is_wanted and not self._is_left_out
        return is_kept

    def leave_out(self) -> None:
        """Do not store this trace, whatever its outcome."""
        self.recording = False
        self._is_left_out = True

    def complete_info(self) -> None:
        """Fill in what the spans determine: name, previews and token counts."""
        info, root = self.info, self.root
        info.tags.setdefault(keys.TRACE_NAME_TAG, root.name)
        if root.inputs is not None or root.outputs is not None:
            self._preview(root)
        if (len(self.data.spans) > 1 or not self.of_request) and (usage := token_usage(self.data.spans)):
            info.trace_metadata[keys.TOKEN_USAGE] = preview(usage, limit=PREVIEW_LENGTH)
        if self.dropped_spans:
            root.attributes["wherefrom.dropped_spans"] = self.dropped_spans
            ledger.dropped("span_limit", self.dropped_spans)

    def record(self) -> RecordedTrace:
        """Return the trace for the sink, which shares no container with the live trace.

        A request that records nothing but itself is not copied: that would take a fifth of its time.
        """
        info, root = self.info, self.root
        if (
            self.plain
            and root.status is OK
            and root.inputs is None
            and root.outputs is None
            and not root.events
            and len(self.data.spans) == 1
            and len(info.tags) == 1
            and info.request_preview is None
            and info.response_preview is None
            and not self.sessions
        ):
            return self._hand_over()
        spans = [span.record() for span in self.data.spans]  # type: ignore[attr-defined] # LiveSpan, all
        return RecordedTrace(_copy(info), TraceData(spans), spans[0], is_plain=False)

    def _hand_over(self) -> RecordedTrace:
        """Give info and root span to the sink without a copy; what is read of the trace later is a copy."""
        root = self.root
        root.trace = None
        root.__class__ = EndedSpan
        self._record = record = RecordedTrace(self.info, self.data, root, is_plain=True)
        del self.info, self.data  # from now on __getattr__ answers for them
        return record

    def __getattr__(self, name: str) -> Any:
        record = self._record
        if record is None or name not in ("info", "data"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = _copy(record.info) if name == "info" else TraceData([self.root])
        setattr(self, name, value)
        return value

    def record_late(self, span: LiveSpan) -> Trace:
        """Return a span that ended after the trace, with what is known of the trace by now."""
        return Trace(_copy(self.info), TraceData([span.record()]))

    def _preview(self, root: LiveSpan) -> None:
        info, limit = self.info, self.recorder.max_length
        longest = max(limit, PREVIEW_LENGTH)
        if root.inputs is not None:
            text = preview(root.inputs, longest)
            info.trace_metadata[keys.TRACE_INPUTS] = cut(text, limit)
            if info.request_preview is None:
                info.request_preview = cut(text, PREVIEW_LENGTH)
        if root.outputs is not None:
            text = preview(root.outputs, longest)
            info.trace_metadata[keys.TRACE_OUTPUTS] = cut(text, limit)
            if info.response_preview is None:
                info.response_preview = cut(text, PREVIEW_LENGTH)


def _copy(info: TraceInfo) -> TraceInfo:
    return TraceInfo(
        info.trace_id,
        info.experiment,
        info.request_time,
        info.execution_duration,
        info.state,
        info.client_request_id,
        info.request_preview,
        info.response_preview,
        info.trace_metadata.copy(),
        info.tags.copy(),
        info.source,
    )
