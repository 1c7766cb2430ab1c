"""The spans of a trace as rows of a waterfall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..analysis.span_tree import Branch, branches_of, own_times
from ..model import Span, SpanEvent

_MOST_PIECES: Final = 60


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the whole, in thousandths of it: where it begins, and how long it is."""

    begin: float
    length: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened ``at_ns`` after the trace began, at ``place`` in thousandths of the whole."""

    name: str
    at_ns: int
    place: float
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span, ``depth`` below the top; ``start_ns`` counts from the beginning of the trace.

    ``duration_ns`` is ``None`` while it runs. ``own_ns`` is the time in which none of its children ran;
    ``bar`` is where it lies in the whole, and ``own`` are the parts of that which were its own.
    """

    span_id: str
    parent_id: str | None
    depth: int
    name: str
    type: str
    status: str
    status_message: str
    start_ns: int
    duration_ns: int | None
    own_ns: int
    bar: Stretch
    own: tuple[Stretch, ...]
    inputs: Any
    outputs: Any
    attributes: dict[str, Any]
    events: tuple[EventRow, ...]
    links: tuple[dict[str, Any], ...]


def span_rows(spans: Sequence[Span]) -> Iterator[SpanRow]:
    """The rows, in the order of the tree."""
    if not spans:
        return
    scale = _Scale(spans)
    children: dict[str, list[Span]] = {}
    for span in spans:
        if span.parent_id is not None:
            children.setdefault(span.parent_id, []).append(span)
    for branch in branches_of(spans):
        yield _row(branch, children.get(branch.span.span_id, ()), scale)


class _Scale:
    """From the first beginning to the last end, in thousandths."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.begin = min(span.start_time_ns for span in spans)
        self.end = max(max(span.start_time_ns, span.end_time_ns or 0) for span in spans)
        self._whole = max(self.end - self.begin, 1)

    def place(self, moment_ns: int) -> float:
        share = (moment_ns - self.begin) / self._whole
        return round(1000 * min(max(share, 0), 1), 2)

    def stretch(self, begin_ns: int, end_ns: int) -> Stretch:
        begin = self.place(begin_ns)
        return Stretch(begin, round(max(self.place(end_ns) - begin, 0), 2))


def _row(branch: Branch, children: Sequence[Span], scale: _Scale) -> SpanRow:
    span = branch.span
    own = own_times(span, children, scale.end)
    end = scale.end if span.end_time_ns is None else span.end_time_ns
    return SpanRow(
        span_id=span.span_id,
        parent_id=span.parent_id,
        depth=branch.depth,
        name=span.name,
        type=span.span_type,
        status=span.status.code.value,
        status_message=span.status.description,
        start_ns=span.start_time_ns - scale.begin,
        duration_ns=None if span.end_time_ns is None else span.end_time_ns - span.start_time_ns,
        own_ns=sum(over - begin for begin, over in own),
        bar=scale.stretch(span.start_time_ns, end),
        own=tuple(scale.stretch(begin, over) for begin, over in own[:_MOST_PIECES]),
        inputs=span.inputs,
        outputs=span.outputs,
        attributes=span.attributes,
        events=tuple(_event(event, scale) for event in span.events),
        links=tuple(span.links),
    )


def _event(event: SpanEvent, scale: _Scale) -> EventRow:
    return EventRow(event.name, event.timestamp - scale.begin, scale.place(event.timestamp), event.attributes)
