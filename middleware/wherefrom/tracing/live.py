"""Live traces and their spans, which refer to each other: what an app adds to while its request runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
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
    hooked_text,
    preview,
    redacted_text,
    snapshot,
)
from .._clock import ticks_ns, wall_ns
from .._ids import format_ids, new_random, new_span_id
from ..exceptions import InvalidTraceError
from ..messages.bodies import abridged
from ..messages.conversation import conversation_of_call, read_conversation
from ..messages.prices import Prices
from ..messages.totals import Totals, sum_calls
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
from ..model.parts import mark_part
from ..model.record import FactsTuple, decode_facts
from ..model.trace import TraceData
from ..process import ledger, process
from ..propagation import BaggageMember, SpanContext
from ..sinks import Sink
from .exceptions import describe, exception_attributes, without_addresses
from .sampling import Sampler

_SPAN_NODES, _SPAN_SIZE = 5_000, 500_000
_CONTAINERS = (dict, list)
_STACK = "exception.stacktrace"
_KNOWN = 3
_NETWORK = frozenset({SpanType.SERVER.value, SpanType.CLIENT.value})
_FIELDS = tuple(field.name for field in fields(Span))
_TRACE_NODES, _TRACE_SIZE = 100_000, 16_000_000
# What is encoded at once; the writer thread encodes what is larger.
_SMALL_NODES, _SMALL_SIZE, _FEW_SPANS = 300, 20_000, 20
_MIN_SKEW_NS = 1_000_000_000
_NEVER_DROPPED = frozenset({keys.SESSION, keys.USER, keys.MODEL_ID})

# Reading a member off its enum costs as much as a call (Python 3.11), and these are read for every request.
_IN_PROGRESS, _OK = TraceState.IN_PROGRESS, TraceState.OK
_STATES = {
    SpanStatusCode.UNSET: TraceState.OK,
    SpanStatusCode.OK: TraceState.OK,
    SpanStatusCode.ERROR: TraceState.ERROR,
}


class Identified(Protocol):
    """The request whose trace it is."""

    def identify(self, trace: LiveTrace, info: TraceInfo, root: Span) -> None:
        """Put the ids and metadata of the request on its trace, which somebody uses for the first time."""

    def rename(self, request_id: str) -> bool:
        """Replace the request id; ``False`` if another one has already been sent to the client."""

    def excuses(self, error: BaseException) -> bool:
        """Whether an exception only means that the client has disconnected, which is not an error."""


class TracedRequest(Identified, Protocol):
    """A request that keeps facts, and puts them on its trace when that is needed."""

    def outline(self) -> tuple[str | None, int] | None:
        """Return the route template that answered, and the time of the last byte in ns since the epoch.

        ``None`` unless the request completed without an error and nothing else is to be done for it.
        """

    def facts(self, trace: LiveTrace, route: str | None, ended_ns: int) -> FactsTuple:
        """Return what is recorded of a request that has an outline, whose trace nobody has used."""

    def end(self, error: BaseException | None) -> str | None:
        """End the root span with its outcome, and return the route template that answered."""

    def describe(self, route: str | None) -> None:
        """Put the request's attributes on the root span. Not called for a trace that nobody gets."""

    def respond(self) -> None:
        """Call the app's hook: the trace is complete and may still be changed."""


class Owner(Protocol):
    """What a live trace needs of the recorder that started it: see ``Recorder``."""

    source: Source
    sink: Sink
    clock: Callable[[], int]
    experiment: str
    max_spans: int
    max_length: int
    request_id_header: str
    upstream: str
    prices: Prices
    sampler: Sampler
    records_all: bool
    records_none: bool

    def user(self, user_id: str) -> str:
        """Return a user id as it is recorded."""

    def follow(self, ended: LiveTrace, name: str, span_type: str, origin: Span) -> LiveTrace:
        """Start a trace for a span that begins after the trace of its context has ended."""

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
    _exceptions: tuple[tuple[int, tuple[Any, ...], SpanEvent], ...] = ()
    # Set while blocks of generators are open: see ``tracing.generators``.
    outer: Span | None = None
    block: Any = None

    trace: LiveTrace | None

    def __init__(
        self, trace: LiveTrace, ids: tuple[str, str | None], name: str, span_type: str, start: int
    ) -> None:
        super().__init__(trace.info.trace_id, *ids, name, span_type, start)
        self.trace = trace

    def __eq__(self, other: object) -> bool:
        """Whether the fields are equal: a span equals its record."""
        return isinstance(other, Span) and all(getattr(self, f) == getattr(other, f) for f in _FIELDS)

    __hash__ = None  # type: ignore[assignment] # as of every dataclass that compares by its fields

    @property
    def budget(self) -> Budget:
        """The limit of its attributes and events together: 5,000 nodes and 500 kB of text."""
        budget = self._budget
        if budget is None:
            budget = self._budget = Budget(_SPAN_NODES, _SPAN_SIZE, self._outer_budget())
        return budget

    def _outer_budget(self) -> Budget | None:
        return None if self.trace is None else self.trace.budget

    def set_attribute(self, key: str, value: Any) -> None:
        """Record one attribute: any JSON value, or the ``repr`` of any other.

        A span keeps 1,000 attributes and 1,000 events, with 5,000 nodes and 500 kB of text in all; the rest
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
            attributes[key] = snapshot(value, budget, key)

    def drop(self, counter: str, count: int = 1) -> None:
        """Count in an attribute what was not recorded."""
        if count > 0:
            self.attributes[counter] = self.attributes.get(counter, 0) + count

    def set_inputs(self, inputs: Any) -> None:
        """Record a snapshot of the operation's inputs: at most 5,000 nodes and 1 MB of text."""
        self.inputs = snapshot(inputs, self._outer_budget())

    def set_outputs(self, outputs: Any) -> None:
        """Record a snapshot of the operation's outputs: at most 5,000 nodes and 1 MB of text."""
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
            text = without_addresses(hooked_text(keys.STATUS, description))
            self.status = SpanStatus(SpanStatusCode(status), text)
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
        kept = {
            (own := clean_text(key, MAX_KEY_LENGTH)): snapshot(value, budget, own) for key, value in pairs
        }
        if dropped > 0:
            kept[keys.DROPPED_ATTRIBUTES] = dropped
        if timestamp is None:
            timestamp = wall_ns() if self.trace is None else self.trace.now()
        self.events.append(SpanEvent(clean_text(name, PREVIEW_LENGTH), timestamp, kept))

    def add_exception(
        self,
        error: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Record the event ``exception`` for an exception that is no failure of this span."""
        self._add_exception(error, attributes, timestamp)

    def record_exception(self, error: BaseException) -> None:
        """Record an exception as OpenTelemetry does: an event, ``error.type``, and status ``ERROR``."""
        self._fail(error, self._add_exception(error))

    def escape(self, error: BaseException) -> None:
        """``record_exception`` for an exception that leaves the span; without a second event for it."""
        args = _args_of(error)
        # Without arguments it cannot be recognized: all such exceptions share one empty tuple.
        found = (e for key, known, e in self._exceptions if key == id(error) and known is args and args)
        event = next(found, None)
        if event is None:
            self.record_exception(error)
            return
        attributes = exception_attributes(error)
        if _STACK in event.attributes:  # complete now, if it was recorded before it was raised
            event.attributes[_STACK] = snapshot(attributes[_STACK], self.budget, _STACK)
        self._fail(error, attributes)

    def _add_exception(
        self,
        error: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> Mapping[str, Any]:
        found = exception_attributes(error)
        count = len(self.events)
        self.add_event("exception", {**found, **(attributes or {})}, timestamp)
        if len(self.events) > count:
            # Recognized by its arguments too, because the id of a deleted object is reused. A reference to
            # the exception itself would keep the variables of its frames alive.
            self._exceptions = *self._exceptions[-_KNOWN:], (id(error), _args_of(error), self.events[-1])
        return found

    def _fail(self, error: BaseException, found: Mapping[str, Any]) -> None:
        if self.span_type in _NETWORK:  # OpenTelemetry requires it there; other spans are as in MLflow
            self.attributes.setdefault(keys.ERROR_TYPE, found["exception.type"])
        self.status = SpanStatus(SpanStatusCode.ERROR, describe(error))

    def detach(self) -> None:
        """Forget the trace, and the arguments of exceptions: either may refer to what refers to the span."""
        self.trace = None
        self._exceptions = ()

    def set_back(self, skew: int) -> None:
        """Correct the times of events from another tracer, whose clock was ``skew`` ns ahead."""
        if not skew or self.trace is None:
            return
        first, last = self.start_time_ns - _MIN_SKEW_NS, self.trace.now() + _MIN_SKEW_NS
        self.events = [
            event if first < event.timestamp < last else replace(event, timestamp=event.timestamp - skew)
            for event in self.events
        ]

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
        elif trace.follows and self is trace.root:
            trace.recorder.finish(trace)

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


def _args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the tuple of arguments of an exception, even if its class overrides ``args``."""
    args: tuple[Any, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return args


class UnreadSpan(LiveSpan):
    """The root span of a trace that nobody has looked at: it becomes a ``LiveSpan`` when a field is used."""

    def __init__(self, trace: LiveTrace) -> None:
        self.trace = trace


def _on_first_use(name: str) -> property:
    def read(span: LiveSpan) -> Any:
        span.trace.make(span)  # type: ignore[union-attr] # an unread span has its trace
        return getattr(span, name)

    def write(span: LiveSpan, value: Any) -> None:
        span.trace.make(span)  # type: ignore[union-attr]
        setattr(span, name, value)

    return property(read, write)


for _name in _FIELDS:
    setattr(UnreadSpan, _name, _on_first_use(_name))


class LiveTrace(Trace):
    """A trace that is being recorded. ``Recorder.start`` makes it, and ``Recorder.finish`` ends it.

    Until somebody uses it, it is two clock readings: info, root span and ids are made at the first use.
    ``over`` is true once it is finished. ``follows`` is true for work that began in the context of a trace
    that was over: it ends with its root span. ``bridges`` are those that were asked to take part. ``stated``
    is a state that the app asked for. ``caller`` is the remote parent that was joined, and ``baggage`` what
    it sent: both go out again with outgoing requests. ``sessions`` are the ``BridgeSession`` of each bridge
    that takes part. ``facts`` is what was recorded of a trace that nobody used while its request ran.
    """

    __slots__ = ("__dict__",)

    # Defaults of the class, not of every instance: most requests change none of them.
    request: Identified | None = None
    over = False
    follows = False
    bridges: tuple[Any, ...] = ()
    ended_ns: int | None = None
    dropped_spans = 0
    stated: TraceState | None = None
    caller: SpanContext | None = None
    caller_sampled: bool | None = None
    baggage: tuple[BaggageMember, ...] = ()
    # BridgeSession, which is defined in a module above.
    sessions: tuple[Any, ...] = ()
    is_kept = False
    facts: FactsTuple | None = None
    _recording: bool | None = None
    _info: TraceInfo | None = None
    _is_left_out = False
    _budget: Budget | None = None
    _ids: tuple[str, str] | None = None
    _random: tuple[int, int, int] | None = None

    def __init__(self, recorder: Owner, name: str, span_type: str, caller: SpanContext | None = None) -> None:
        self.recorder = recorder
        self.source = recorder.source
        self.started_ns = started_ns = recorder.clock()
        self.epoch_ns = started_ns - ticks_ns()
        self._name = name
        self._type = span_type
        if caller is not None:
            self.caller = caller
            self.caller_sampled = caller.sampled
        self._root: LiveSpan | None = UnreadSpan(self)

    @property
    def root(self) -> LiveSpan:
        """The root span."""
        if self._root is None:
            self.make(LiveSpan.__new__(LiveSpan))
        return self._root  # type: ignore[return-value] # made

    @property
    def of_request(self) -> bool:
        """Whether the middleware finishes it, and not the end of its root span."""
        return self.request is not None

    @property
    def random(self) -> tuple[int, int, int]:
        """The random bits of the ids: 24 and 56 of the trace id, 63 of the root's span id."""
        if self._random is None:
            self._random = new_random()
        return self._random

    @property
    def ids(self) -> tuple[str, str]:
        """The trace id, and the span id of the root as it started."""
        if self._ids is None:
            trace_id, span_id = format_ids(self.started_ns, *self.random)
            self._ids = (trace_id if self.caller is None else f"tr-{self.caller.trace_id}"), span_id
        return self._ids

    # Properties, not __getattr__: with that, CPython 3.11 reads every attribute slowly.
    @property
    def info(self) -> TraceInfo:  # type: ignore[override]
        """Everything about the trace but its spans."""
        if self._info is None:
            self.make(self._root or LiveSpan.__new__(LiveSpan))
        return self._info  # type: ignore[return-value] # made

    @property
    def data(self) -> TraceData:  # type: ignore[override]
        """The spans."""
        if self._info is None:
            self.make(self._root or LiveSpan.__new__(LiveSpan))
        return self._data

    def make(self, root: LiveSpan) -> None:
        """Make info and spans: somebody uses the trace, or its root span, for the first time.

        Of a trace that is over they are a copy of what was recorded.
        """
        with process.lock:  # two threads may use it first at the same time
            if self._info is None:
                self._make(root)
            if type(root) is UnreadSpan:  # of a task that outlives the request, where another one is made
                vars(root).update(vars(self._root))
                LiveSpan.__setattr__(root, "__class__", LiveSpan)

    def _make(self, root: LiveSpan) -> None:
        if self.facts is not None:
            recorded = decode_facts(self.facts, {self.source.digest: self.source})
            info, (span,) = recorded.info, recorded.data.spans
        else:
            trace_id, span_id = self.ids
            parent_id = None if self.caller is None else self.caller.span_id
            info = TraceInfo(trace_id, self.recorder.experiment, self.started_ns // 1_000_000)
            info.state, info.source = _IN_PROGRESS, self.source
            info.trace_metadata = self.source.pairs.copy()
            span = Span(trace_id, span_id, parent_id, self._name, self._type, self.started_ns)
            if self.request is not None:
                self.request.identify(self, info, span)
            if self.ended_ns is not None:
                span.end_time_ns, span.status, info.state = self.ended_ns, OK, _OK
                info.execution_duration = (self.ended_ns - self.started_ns) // 1_000_000
        vars(root).update(vars(span), trace=None if self.over else self)
        root.__class__ = LiveSpan
        self._root, self._data = root, TraceData([root])
        self._info = info  # last: another thread that sees it sees all of it

    @property
    def is_read(self) -> bool:
        """Whether somebody has used the trace, or its root span."""
        return self._info is not None

    @property
    def recording(self) -> bool:
        """Whether the trace may be stored; all methods may be called all the same."""
        if self._recording is None:
            recorder = self.recorder
            self._recording = recorder.records_all or recorder.sampler.starts(self.ids[0], self.caller)
        return self._recording

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.info == other.info and self.data == other.data

    __hash__ = None  # type: ignore[assignment] # as of every dataclass that compares by its fields

    @property
    def budget(self) -> Budget:
        """The limit of its spans together: 100,000 nodes and 16 MB of text."""
        if self._budget is None:
            self._budget = Budget(_TRACE_NODES, _TRACE_SIZE)
        return self._budget

    def set_request_id(self, request_id: str) -> None:
        """Set the request id; if another one was already sent to the client, record this one as metadata."""
        info = self.info
        if self.request is None or request_id == info.client_request_id or self.request.rename(request_id):
            info.client_request_id = request_id
        else:
            self.add_metadata({keys.OTHER_REQUEST_ID: request_id})

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
        return self.epoch_ns + ticks_ns()

    def skew(self) -> int:
        """Return how many ns ``time`` is ahead of this trace's clock; 0 if they differ by a second or less.

        Other tracers read times from ``time``, which a test may patch, and the system clock may be set.
        """
        ahead = time.time_ns() - self.now()
        return ahead if abs(ahead) > _MIN_SKEW_NS else 0

    def start_span(
        self, name: str, span_type: str = SpanType.UNKNOWN, parent: Span | None = None
    ) -> LiveSpan:
        """Start a child of ``parent``, or of the root if ``parent`` is in another trace; the caller ends it.

        Once this trace is over, the span is the root of a trace of its own, with a link to ``parent``.
        """
        if parent is None or parent.trace_id != self.info.trace_id:
            parent = self.root
        if self.over:
            root = self.recorder.follow(self, name, span_type, parent).root
            if process.generators:
                root.outer = parent
            return root
        span = LiveSpan(self, (new_span_id(), parent.span_id), clean_text(name), span_type, self.now())
        if process.generators:
            span.outer = parent
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
        if not self._is_left_out:
            self._ids, self._recording = (trace_id, span_id), None

    def settle(self, route: str | None) -> bool:
        """Set duration and state from the root span, which has ended; return whether the trace is stored.

        ``route`` may have a sample rate of its own.
        """
        recorder = self.recorder
        root, info = self.root, self.info
        duration_ns = (root.end_time_ns or 0) - root.start_time_ns
        info.execution_duration = duration_ns // 1_000_000
        info.state = self.stated or _STATES[root.status.code]
        self.over = True
        state, trace_id = self.info.state, self.info.trace_id
        is_wanted = recorder.records_all or (
            self.recording
            and recorder.sampler.keeps(trace_id, self.caller_sampled, route, state, duration_ns)
        )
        self.is_kept = is_kept = is_wanted and not self._is_left_out
        return is_kept

    def is_wanted(self, route: str | None, ended_ns: int) -> bool:
        """Whether a trace that nobody has used is stored; it had no error."""
        sampler = self.recorder.sampler
        if sampler.drops_success and self.caller is None:
            return False
        return sampler.keeps(self.ids[0], self.caller_sampled, route, _OK, ended_ns - self.started_ns)

    def end_unread(self, ended_ns: int, is_kept: bool, facts: FactsTuple | None) -> None:
        """End a trace that nobody has used."""
        self.over = True
        self.ended_ns = ended_ns
        self.is_kept = is_kept
        self.facts = facts
        self._root = None

    def leave_out(self) -> None:
        """Do not store this trace, whatever its outcome."""
        self._recording = False
        self._is_left_out = True

    def complete_info(self) -> None:
        """Fill in what the spans determine: name, previews and token counts."""
        info, root = self.info, self.root
        info.tags.setdefault(keys.TRACE_NAME_TAG, root.name)
        if root.parent_id is not None:
            mark_part(info, root)
        spans = self.data.spans
        has_values = root.inputs is not None or root.outputs is not None
        said = None
        if has_values or len(spans) > 1 or self.request is None:
            try:
                said = self._read_calls(root, has_values=has_values)
            except Exception as error:  # noqa: BLE001 - a preview must not cost the trace
                ledger.failed("conversation", error)
        if has_values or said is not None:
            self._preview(root, *(said or (None, None)))
        if self.dropped_spans:
            root.attributes["wherefrom.dropped_spans"] = self.dropped_spans
            ledger.dropped("span_limit", self.dropped_spans)

    @property
    def is_small(self) -> bool:
        """Whether it is encoded within microseconds."""
        budget = self._budget
        return len(self.data.spans) <= _FEW_SPANS and (
            budget is None
            or (_TRACE_NODES - budget.nodes < _SMALL_NODES and _TRACE_SIZE - budget.size < _SMALL_SIZE)
        )

    def part(self, late: LiveSpan | None) -> Trace:
        """Return the trace, or a span that ended after it with what is known of the trace by now."""
        return self if late is None else Trace(self.info, TraceData([late]))

    def copy(self, late: LiveSpan | None) -> Trace:
        """Return ``part`` for a sink: it shares no container with the live trace."""
        spans = self.data.spans if late is None else [late]
        return Trace(_copy(self.info), TraceData([span.record() for span in spans]))  # type: ignore[attr-defined] # LiveSpan, all

    def _read_calls(self, root: LiveSpan, *, has_values: bool) -> tuple[str | None, str | None] | None:
        """Record what the model calls say, and return question and answer if there is a conversation."""
        spans, conversation = self.data.spans, None
        if has_values:
            inputs, outputs = abridged(root.inputs), abridged(root.outputs)
            conversation = read_conversation(inputs, outputs, root.attributes, root.events)
        known = {} if conversation is None else {root.span_id: conversation}
        self._record_calls(sum_calls(spans, self.recorder.prices, known))
        if not has_values and len(spans) > 1:
            conversation = conversation_of_call(spans)
        return None if conversation is None else conversation.texts

    def _record_calls(self, totals: Totals) -> None:
        """Record models, tokens and cost of the model calls as metadata."""
        pairs = self.info.trace_metadata
        if totals.usage is not None:
            pairs[keys.TOKEN_USAGE] = preview(totals.usage.to_dict(), limit=PREVIEW_LENGTH)
        if totals.cost is not None:
            pairs.setdefault(keys.COST, preview(totals.cost.to_dict(), limit=PREVIEW_LENGTH))
        if totals.models:
            pairs.setdefault(keys.MODELS, clean_text(", ".join(totals.models), PREVIEW_LENGTH))
        if totals.first_token_ms is not None:
            pairs.setdefault(keys.FIRST_TOKEN, str(totals.first_token_ms))

    def _preview(self, root: LiveSpan, question: str | None, answer: str | None) -> None:
        """Record inputs and outputs as metadata and, of a conversation, question and answer as previews."""
        info, limit = self.info, self.recorder.max_length
        longest = max(limit, PREVIEW_LENGTH)
        shown = []
        for value, said, key in (
            (root.inputs, question, keys.TRACE_INPUTS),
            (root.outputs, answer, keys.TRACE_OUTPUTS),
        ):
            text = None if value is None else preview(value, longest)
            if text is not None:
                info.trace_metadata[key] = cut(text, limit)
            shown.append(redacted_text(said, PREVIEW_LENGTH) if said else text and cut(text, PREVIEW_LENGTH))
        if info.request_preview is None:
            info.request_preview = shown[0]
        if info.response_preview is None:
            info.response_preview = shown[1]


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
