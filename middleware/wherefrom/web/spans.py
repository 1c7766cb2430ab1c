"""The spans of a trace as its page shows them: a window of the tree, and one span in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..analysis.description import is_exception
from ..analysis.span_tree import SpanPlace, SpanTree
from ..analysis.stack_traces import FrameRun, frame_runs, read_stack
from ..messages.content import Conversation
from ..messages.conversation import read_span
from ..model import Span, SpanEvent
from .parameters import SpansQuery

WINDOW: Final = 200
"""The most spans that a page lists."""

_MOST_PIECES: Final = 100
_GAP: Final = 4  # thousandths of the trace, one pixel of a bar: own times that are closer are drawn as one
_MOST_TICKS: Final = 12
_MOST_EXCEPTIONS: Final = 20
_LONGEST_STACK: Final = 30_000
_SHOWN_ABOVE: Final = 6  # ancestors of a span


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the trace, in thousandths of its duration."""

    begin: float
    length: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event, ``at_ns`` after the start of the trace; ``place`` is in thousandths of the trace."""

    name: str
    at_ns: int
    place: float
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span; ``depth`` is 0 for a root, and ``start_ns`` is relative to the start of the trace.

    ``duration_ns`` is ``None`` while it runs. ``own_ns`` is its own time, in which no child ran. ``bar`` is
    the span's part of the trace, and ``own`` the parts of its own time. ``service`` is ``None`` in a trace of
    one service.
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
    service: str | None


@dataclass(frozen=True, slots=True)
class ListedSpan:
    """A span in the list, without inputs and outputs.

    ``folded`` is the number of its descendants that are folded below it. ``is_around_chosen``: the span that
    is shown in detail is below it.
    """

    row: SpanRow
    below: int
    folded: int
    is_chosen: bool
    is_around_chosen: bool


@dataclass(frozen=True, slots=True)
class SpanWindow:
    """The spans that a page lists: ``rows`` of the ``listed`` ones, after ``before`` others.

    The trace has ``total`` spans, of which ``errors`` failed. ``is_flat``: they are not listed as a tree.
    """

    rows: tuple[ListedSpan, ...]
    before: int
    listed: int
    total: int
    errors: int
    page: int
    pages: int
    whole_ns: int
    is_flat: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A span by id and name."""

    span_id: str
    name: str


@dataclass(frozen=True, slots=True)
class RaisedException:
    """An exception of a stack, as ``analysis.stack_traces`` reads it; ``runs`` are its frames."""

    relation: str
    text: str
    runs: tuple[FrameRun, ...]


@dataclass(frozen=True, slots=True)
class RecordedException:
    """An event ``exception``: ``raised`` is what its stack tells, empty if it cannot be read."""

    at_ns: int
    kind: str
    message: str
    stack: str
    raised: tuple[RaisedException, ...]


@dataclass(frozen=True, slots=True)
class SpanDetail:
    """One span: what it is in (the outermost first, ``omitted`` of them left out after it), and what it says.

    ``error`` counts the spans that failed up to this one, if it is one of the ``errors``; ``previous_error``
    and ``next_error`` are the ids of those before and after it in the tree. ``since`` and ``until`` are the
    day around a trace that is older than a day, in ms since the epoch.
    """

    trace_id: str
    span: SpanRow
    above: tuple[Named, ...]
    omitted: int
    conversation: Conversation | None
    exceptions: tuple[RecordedException, ...]
    errors: int
    error: int | None
    previous_error: str | None
    next_error: str | None
    since: int | None
    until: int | None


def listed_spans(tree: SpanTree, query: SpansQuery, chosen: int | None = None) -> list[int]:
    """The spans that the query asks for, by their index in the tree; nothing is folded above ``chosen``."""
    found = list(range(len(tree.places)))
    if query.errors:
        found = tree.errors
    if query.search is not None:
        text = query.search.casefold()
        found = [index for index in found if _has_text(tree.places[index].span, text)]
    if query.order == "own":
        found.sort(key=lambda index: -tree.own_ns(tree.places[index].span))
    elif query.fold and not is_flat(query):
        folded = _folded(tree, query, chosen)
        hidden = {at for index in folded for at in range(index + 1, index + 1 + tree.below[index])}
        found = [index for index in found if index not in hidden]
    return found


def is_flat(query: SpansQuery) -> bool:
    """Whether the spans are no tree, since some are left out or they are in another order."""
    return query.errors or query.search is not None or query.order == "own"


def _folded(tree: SpanTree, query: SpansQuery, chosen: int | None) -> set[int]:
    open_ = set() if chosen is None else set(tree.above(chosen))
    return {at for span_id in query.fold if (at := tree.index(span_id)) is not None} - open_


def _has_text(span: Span, text: str) -> bool:
    said = (span.name, span.span_type, span.status.description, span.span_id)
    return any(text in one.casefold() for one in said)


def window_page(listed: Sequence[int], query: SpansQuery, chosen: int | None) -> int:
    """The page of the list to show, from 1: the one asked for, or else that of the span shown in detail."""
    pages = max(-(-len(listed) // WINDOW), 1)
    if query.page is not None:
        return min(query.page, pages)
    return listed.index(chosen) // WINDOW + 1 if chosen in listed else 1


def span_window(
    tree: SpanTree,
    listed: Sequence[int],
    page: int,
    query: SpansQuery,
    chosen: int | None,
    more: Mapping[str, Span],
) -> SpanWindow:
    """A page of the list; ``more`` are its spans with attributes and events, by id."""
    before = (page - 1) * WINDOW
    scale = _Scale(tree)
    around = set() if chosen is None else set(tree.above(chosen))
    folded = set() if is_flat(query) else _folded(tree, query, chosen)
    rows = []
    for index in listed[before : before + WINDOW]:
        place = tree.places[index]
        rows.append(
            ListedSpan(
                row=_row(tree, place, more.get(place.span.span_id, place.span), scale),
                below=tree.below[index],
                folded=tree.below[index] if index in folded else 0,
                is_chosen=index == chosen,
                is_around_chosen=index in around,
            )
        )
    return SpanWindow(
        rows=tuple(rows),
        before=before,
        listed=len(listed),
        total=len(tree.places),
        errors=len(tree.errors),
        page=page,
        pages=max(-(-len(listed) // WINDOW), 1),
        whole_ns=max(tree.end - tree.begin, 1),
        is_flat=is_flat(query),
    )


def span_rows(tree: SpanTree, indexes: Sequence[int]) -> list[SpanRow]:
    """These spans of a tree that has them in full."""
    scale = _Scale(tree)
    return [_row(tree, tree.places[index], tree.places[index].span, scale) for index in indexes]


def span_detail(
    span: Span, tree: SpanTree, index: int, since: int | None = None, until: int | None = None
) -> SpanDetail:
    """The span at an index of the tree; ``span`` is the same in full."""
    scale = _Scale(tree)
    above = [Named(one.span_id, one.name) for one in (tree.places[at].span for at in tree.above(index))]
    omitted = max(len(above) - _SHOWN_ABOVE, 0)
    errors = tree.errors
    before, after = [at for at in errors if at < index], [at for at in errors if at > index]
    return SpanDetail(
        trace_id=span.trace_id,
        span=_row(tree, tree.places[index], span, scale),
        above=(*above[:1], *above[1 + omitted :]),
        omitted=omitted,
        conversation=read_span(span),
        exceptions=tuple(_exception(event, scale) for event in span.events if is_exception(event))[
            :_MOST_EXCEPTIONS
        ],
        errors=len(errors),
        error=len(before) + 1 if index in errors else None,
        previous_error=tree.places[before[-1]].span.span_id if before else None,
        next_error=tree.places[after[0]].span.span_id if after else None,
        since=since,
        until=until,
    )


class _Scale:
    """From the first start to the last end of the spans, in thousandths."""

    def __init__(self, tree: SpanTree) -> None:
        self.begin, self.end = tree.begin, tree.end
        self._whole = max(self.end - self.begin, 1)

    def place(self, moment_ns: int) -> float:
        share = (moment_ns - self.begin) / self._whole
        return round(1000 * min(max(share, 0), 1), 2)

    def stretch(self, begin_ns: int, end_ns: int) -> Stretch:
        begin = self.place(begin_ns)
        return Stretch(begin, round(max(self.place(end_ns) - begin, 0), 2))


def _row(tree: SpanTree, place: SpanPlace, span: Span, scale: _Scale) -> SpanRow:
    own = tree.own(span)
    end = scale.end if span.end_time_ns is None else span.end_time_ns
    return SpanRow(
        span_id=span.span_id,
        parent_id=span.parent_id,
        depth=place.depth,
        name=span.name,
        type=span.span_type,
        status=span.status.code.value,
        status_message=span.status.description,
        start_ns=span.start_time_ns - scale.begin,
        duration_ns=None if span.end_time_ns is None else span.end_time_ns - span.start_time_ns,
        own_ns=sum(over - begin for begin, over in own),
        bar=scale.stretch(span.start_time_ns, end),
        own=_drawn([scale.stretch(begin, over) for begin, over in own]),
        inputs=span.inputs,
        outputs=span.outputs,
        attributes=span.attributes,
        events=tuple(_event(event, scale) for event in span.events),
        links=tuple(span.links),
        service=tree.services.get(span.span_id),
    )


def _drawn(own: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """The stretches as they can be seen."""
    if len(own) <= _MOST_PIECES // 4:
        return tuple(own)
    found = [own[0]]
    for one in own[1:]:
        last = found[-1]
        if one.begin - last.begin - last.length < _GAP:
            found[-1] = Stretch(last.begin, round(one.begin + one.length - last.begin, 2))
        else:
            found.append(one)
    return tuple(found)


def _event(event: SpanEvent, scale: _Scale) -> EventRow:
    return EventRow(event.name, event.timestamp - scale.begin, scale.place(event.timestamp), event.attributes)


def _exception(event: SpanEvent, scale: _Scale) -> RecordedException:
    kind, message, stack = (
        str(event.attributes.get(f"exception.{name}", "")) for name in ("type", "message", "stacktrace")
    )
    raised = [
        RaisedException(one.relation, one.text, tuple(frame_runs(one.frames)))
        for one in read_stack(stack[:_LONGEST_STACK])
    ]
    is_read = any(one.runs for one in raised)
    return RecordedException(
        event.timestamp - scale.begin, kind, message, stack, tuple(raised) if is_read else ()
    )
