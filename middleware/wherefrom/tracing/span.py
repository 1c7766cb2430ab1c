"""Live spans: what an app adds to while an operation runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .. import keys
from .._capture.values import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_KEY_LENGTH,
    PREVIEW_LENGTH,
    Budget,
    clean_text,
    first_pairs,
    snapshot,
)
from ..exceptions import InvalidTraceError
from ..model import OK, UNSET, Span, SpanEvent, SpanStatus, SpanStatusCode
from .exceptions import describe, exception_attributes

if TYPE_CHECKING:
    from .live import LiveTrace

_SPAN_NODES, _SPAN_SIZE = 10_000, 1_250_000
_CONTAINERS = (dict, list)
_FIELDS = tuple(field.name for field in fields(Span))


class LiveSpan(Span):
    """A span that is being recorded. The sink gets a copy of it: later changes are not stored.

    ``trace`` is ``None`` once both have ended: with the cycle, every trace would wait for the garbage
    collector. ``exported`` is true when OpenTelemetry's exporters get the span without our bridge.
    """

    recorded = True
    exported = False
    _budget: Budget | None = None

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
