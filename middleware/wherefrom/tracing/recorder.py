"""Live traces and spans, and the recorder that starts them and hands them to a sink."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
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
from ..model.size import memory_of
from ..model.trace import TraceData
from ..process import ledger
from ..propagation import BaggageMember, SpanContext
from ..settings import Settings
from ..sinks import FanOut, Sink
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
_STATES = {
    SpanStatusCode.UNSET: TraceState.OK,
    SpanStatusCode.OK: TraceState.OK,
    SpanStatusCode.ERROR: TraceState.ERROR,
}


class Follower(Protocol):
    """Another tracer's side of one of our traces. It never raises."""

    def __call__(self, trace: LiveTrace, ended: Sequence[Span]) -> object:
        """The trace is over, or it was before and a span of it has ended since."""

    def agree(self, trace: LiveTrace) -> object:
        """Tell each side what the app has said of the trace to the other.

        Called before and after the app says something to us, and when all is known, before the trace is
        handed over.
        """


class LiveSpan(Span):
    """A span of a request that is going on; the same object is stored when it has ended.

    ``trace`` is ``None`` once both have ended: a cycle would leave every trace to the garbage collector.
    ``exported`` is true when OpenTelemetry's exporters get it by another way than our bridge to them.
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

    @property
    def budget(self) -> Budget:
        """What its attributes and events may keep in all: 10,000 nodes and 1.25 MB of text."""
        if self._budget is None:
            self._budget = Budget(_SPAN_NODES, _SPAN_SIZE, self._outer_budget())
        return self._budget

    def _outer_budget(self) -> Budget | None:
        return None if self.trace is None else self.trace.budget

    def set_attribute(self, key: str, value: Any) -> None:
        """Record one attribute: any JSON value; what JSON cannot hold is kept as its ``repr``.

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
        """Count what was not kept, in an attribute."""
        if count > 0:
            self.attributes[counter] = self.attributes.get(counter, 0) + count

    def set_inputs(self, inputs: Any) -> None:
        """Record what the operation was given, as it is now: at most 10,000 nodes and 1 MB of text."""
        self.inputs = snapshot(inputs, self._outer_budget())

    def set_outputs(self, outputs: Any) -> None:
        """Record what the operation gave back, as it is now: at most 10,000 nodes and 1 MB of text."""
        self.outputs = snapshot(outputs, self._outer_budget())

    def set_span_type(self, span_type: str) -> None:
        """Say what kind of operation this is: a ``SpanType`` or any string."""
        self.span_type = clean_text(span_type)

    def set_status(self, status: SpanStatus | SpanStatusCode | str, description: str = "") -> None:
        """Say how the operation went: ``OK``, ``ERROR`` or ``UNSET``.

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
        """Record that something happened, now or at ``timestamp`` (ns since the epoch)."""
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
        """Record an exception that is no failure of this span: the event ``exception`` alone."""
        told = exception_attributes(error)
        self.add_event("exception", {**told, **attributes} if attributes else told, timestamp)

    def record_exception(self, error: BaseException) -> None:
        """Record an exception as OpenTelemetry does: an event ``exception``, and status ``ERROR``."""
        self.add_exception(error)
        self.status = SpanStatus(SpanStatusCode.ERROR, describe(error))

    def end(self, end_time_ns: int | None = None) -> None:
        """End the operation, now or at ``end_time_ns``. A second call does nothing."""
        trace = self.trace
        if trace is None or self.end_time_ns is not None:
            return
        self.end_time_ns = trace.now() if end_time_ns is None else end_time_ns
        if self.status is UNSET:
            self.status = OK
        if trace.over:
            self.trace = None
            if self.recorded:
                trace.hand_over_late(self)


class LiveTrace(Trace):
    """A trace that is being recorded; the same object is handed to the sink.

    ``recording`` is false when nothing of it will be kept: everything may still be called on it.
    ``of_request`` is true when the middleware completes it, not the end of its root span. ``stated`` is a
    state that the app has asked for. ``caller`` is whose trace was joined, and ``baggage`` what
    it sent along: both go out again with requests to others. ``followers`` are the other tracers that know
    the trace too. ``plain`` is true when the middleware has seen that the app put no attributes on the root.
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
    followers: tuple[Follower, ...] = ()
    _kept = False
    _is_left_out = False
    _budget: Budget | None = None

    def __init__(
        self, recorder: Recorder, name: str, span_type: str, caller: SpanContext | None = None
    ) -> None:
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

    @property
    def budget(self) -> Budget:
        """What its spans may keep in all: 100,000 nodes and 16 MB of text."""
        if self._budget is None:
            self._budget = Budget(_TRACE_NODES, _TRACE_SIZE)
        return self._budget

    def add_metadata(self, pairs: Mapping[Any, Any], dropped: int = 0) -> None:
        """Record metadata as text, 250 keys in all; ``dropped`` are those that were not even looked at."""
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
        """Nanoseconds since the epoch; never steps back within a trace, whatever the wall clock does."""
        return self._clock_offset + perf_counter_ns()

    def start_span(
        self, name: str, span_type: str = SpanType.UNKNOWN, parent: Span | None = None
    ) -> LiveSpan:
        """Start a span below ``parent`` (the root when it is not of this trace); the caller ends it."""
        if parent is None or parent.trace_id != self.info.trace_id:
            parent = self.root
        span = LiveSpan(self, (new_span_id(), parent.span_id), clean_text(name), span_type, self.now())
        self.add(span)
        return span

    def add(self, span: LiveSpan) -> None:
        """Record a span of this trace, unless there are too many."""
        if len(self.data.spans) < self.recorder.max_spans:
            self.data.spans.append(span)
        else:
            span.recorded = False
            if self.over:  # nobody adds them up any more
                ledger.dropped("span_limit")
            self.dropped_spans += 1

    def take_identity(self, trace_id: str, span_id: str, parent_id: str | None) -> None:
        """Become the trace that another tracer has begun for the same request, its server span our root.

        Spans that are there already move along. A link to the caller goes when that is now the parent.
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

    def hand_over_late(self, span: LiveSpan) -> None:
        """Store a span that ended after its trace by itself, under the same trace."""
        if self._kept:
            self.recorder.hand_over(Trace(self.info, TraceData([span])))
        for follower in self.followers:
            follower(self, (span,))

    def finish(self) -> None:
        """End the root and hand the trace over: the end of a traced call outside a request."""
        self.root.end()
        if self.settle():
            self.complete_info()
            self.recorder.hand_over(self)
        self.let_go()

    def settle(self, route: str | None = None) -> bool:
        """The root has ended: fix duration and state, and say whether the trace is kept.

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
        self._kept = kept = is_wanted and not self._is_left_out
        return kept

    def leave_out(self) -> None:
        """Keep nothing of this request, whatever becomes of it."""
        self.recording = False
        self._is_left_out = True

    def complete_info(self) -> None:
        """Fill in what the spans tell: name, previews and token counts."""
        info, root = self.info, self.root
        info.tags.setdefault(keys.TRACE_NAME_TAG, root.name)
        if root.inputs is not None or root.outputs is not None:
            self._preview(root)
        if (len(self.data.spans) > 1 or not self.of_request) and (usage := token_usage(self.data.spans)):
            info.trace_metadata[keys.TOKEN_USAGE] = preview(usage, limit=PREVIEW_LENGTH)
        if self.dropped_spans:
            root.attributes["wherefrom.dropped_spans"] = self.dropped_spans
            ledger.dropped("span_limit", self.dropped_spans)

    def memory(self) -> int:
        """Bytes of memory that it takes, about; for a request that records nothing else, cheaply."""
        root, info = self.root, self.info
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
        ):
            try:
                return _PLAIN_BYTES + len(root.name) + len("".join(info.trace_metadata.values()))
            except TypeError:  # the app put there what is no text
                pass
        held = [(member.key, member.value, member.properties) for member in self.baggage]
        return Trace.memory(self) + memory_of(held)

    def let_go(self) -> None:
        """Let spans that have ended forget the trace; those that have not will be stored late."""
        self.over = True
        for follower in self.followers:
            follower(self, self.data.spans)
        for span in self.data.spans:
            if span.end_time_ns is not None:
                span.trace = None  # type: ignore[attr-defined]

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


class Recorder:
    """Starts traces, decides which are kept, and hands those to the sink.

    ``clock`` gives ns since the epoch. ``source`` may be replaced while requests run; it counts for traces
    that start later. ``records_all`` is true when no trace is ever left out.
    """

    def __init__(
        self, settings: Settings, source: Source, sink: Sink, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.source = source
        self.sink = sink
        self.clock = clock
        self.experiment = settings.experiment
        self.max_spans = settings.max_spans_per_trace
        self.max_length = settings.max_metadata_length
        self.request_id_header = settings.request_id_header
        key = settings.user_hash_key
        self._user_key = key.get_secret_value().encode() if key else None
        self.sampler = Sampler(settings)
        self.records_all = self.sampler.keeps_all

    @property
    def is_idle(self) -> bool:
        """Whether the sink writes nowhere."""
        return isinstance(self.sink, FanOut) and not self.sink.sinks

    def start_trace(
        self, name: str, span_type: str = SpanType.UNKNOWN, caller: SpanContext | None = None
    ) -> LiveTrace:
        """Start a trace whose root span has this name; with ``caller``, join its trace and its decision."""
        return LiveTrace(self, name, span_type, caller)

    def user(self, user_id: str) -> str:
        """A user id as it is kept: itself, or the first 32 hex of its HMAC-SHA256 under ``user_hash_key``."""
        if self._user_key is None:
            return user_id
        return hmac.new(self._user_key, user_id.encode(), sha256).hexdigest()[:32]

    def hand_over(self, trace: Trace) -> None:
        """Give a trace to the sink; whatever goes wrong there is counted and never raised."""
        ledger.recorded += 1
        try:
            self.sink.write((trace,))
        except Exception as error:  # noqa: BLE001 - telemetry never hurts the host
            ledger.failed("sink", error)
            ledger.dropped("sink_failed")
