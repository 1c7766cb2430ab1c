"""The spans of one trace as a tree: order, depth, own times, and where an error began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from ..model import Span, SpanStatusCode


@dataclass(frozen=True, slots=True)
class Branch:
    """A span in the tree; ``lasts`` has, for each span on the path to it, whether it is the last child."""

    span: Span
    lasts: tuple[bool, ...]

    @property
    def depth(self) -> int:
        """The number of its ancestors."""
        return len(self.lasts)


def branches_of(spans: Sequence[Span]) -> Iterator[Branch]:
    """The spans depth first, siblings by start time; each span occurs once, whatever its parent is."""
    places = SpanTree(spans).places
    # Of siblings the last in the order of the tree: each later one replaces those before it.
    last = {place.parent: at for at, place in enumerate(places)}
    lasts: list[bool] = []
    for at, (span, depth, parent) in enumerate(places):
        if depth:
            lasts[depth - 1 :] = [last[parent] == at]
        yield Branch(span, tuple(lasts[:depth]))


def own_times(span: Span, children: Sequence[Span], now_ns: int) -> list[tuple[int, int]]:
    """The intervals of a span's own time, as start and end in ns since the epoch.

    A span that has not ended counts as running until ``now_ns``.
    """
    position, end = span.start_time_ns, _end(span, now_ns)
    found = []
    for begin, over in sorted((child.start_time_ns, _end(child, now_ns)) for child in children):
        if begin > position:
            found.append((position, min(begin, end)))
        position = max(position, over)
        if position >= end:
            break
    if position < end:
        found.append((position, end))
    return [(begin, over) for begin, over in found if begin < over]


def _end(span: Span, now_ns: int) -> int:
    return max(now_ns if span.end_time_ns is None else span.end_time_ns, span.start_time_ns)


class SpanPlace(NamedTuple):
    """A span in the order of the tree; ``parent`` is the index of the span above it."""

    span: Span
    depth: int
    parent: int | None


class SpanTree:
    """The spans of a trace, depth first; each occurs once, whatever its parent is.

    ``begin`` and ``end`` are the first start and the last end in ns since the epoch. ``services`` are the
    names of the services of the spans, by span id, if several recorded the trace.
    """

    def __init__(self, spans: Sequence[Span], services: Mapping[str, str] | None = None) -> None:
        self.services = services or {}
        in_order = sorted(spans, key=attrgetter("start_time_ns"))
        self.begin = in_order[0].start_time_ns if in_order else 0
        self.end = max((max(span.start_time_ns, span.end_time_ns or 0) for span in spans), default=0)
        self._children: dict[str | None, list[Span]] = {}
        for span in in_order:
            self._children.setdefault(span.parent_id, []).append(span)
        self._index: dict[str, int] = {}
        self.places: list[SpanPlace] = []
        known = {span.span_id for span in spans}
        # A span that no top leads to is part of a cycle, and becomes a top.
        for top in (*(span for span in in_order if span.parent_id not in known), *in_order):
            if top.span_id not in self._index:
                self._place(top)

    def _place(self, top: Span) -> None:
        """Add a span that is below no other, and all that are below it."""
        index, places, children = self._index, self.places, self._children
        stack = [SpanPlace(top, 0, None)]
        while stack:
            place = stack.pop()
            span_id = place.span.span_id
            if span_id in index:
                continue
            at = index[span_id] = len(places)
            places.append(place)
            if span_id in children:
                below = place.depth + 1
                stack += [SpanPlace(child, below, at) for child in reversed(children[span_id])]

    def index(self, span_id: str | None) -> int | None:
        """The index of a span; ``None`` if the trace does not have it."""
        return None if span_id is None else self._index.get(span_id)

    def above(self, index: int) -> list[int]:
        """The spans that a span is in, the outermost first."""
        found: list[int] = []
        parent = self.places[index].parent
        while parent is not None:
            found.append(parent)
            parent = self.places[parent].parent
        return found[::-1]

    @cached_property
    def below(self) -> list[int]:
        """For each span the number of its descendants, which follow it."""
        found = [0] * len(self.places)
        for index in range(len(found) - 1, -1, -1):
            if (parent := self.places[index].parent) is not None:
                found[parent] += found[index] + 1
        return found

    def own(self, span: Span) -> list[tuple[int, int]]:
        """The intervals of a span's own time, as start and end in ns since the epoch."""
        return own_times(span, self._children.get(span.span_id, ()), self.end)

    def own_ns(self, span: Span) -> int:
        """A span's own time."""
        return sum(over - begin for begin, over in self.own(span))

    @cached_property
    def errors(self) -> list[int]:
        """The spans that failed."""
        return [at for at, place in enumerate(self.places) if place.span.status.code is SpanStatusCode.ERROR]

    def origin(self) -> int | None:
        """Where the error began: from the outermost span that failed to the last one that failed in it.

        An exception leaves the span in which it was raised shortly before those around it: of several spans
        that failed below another, the one that ended last has passed its error on.
        """
        below: dict[int | None, list[int]] = {}
        for index in self.errors:
            below.setdefault(self.places[index].parent, []).append(index)
        if not below:
            return None
        found = min(self.errors, key=lambda index: (self.places[index].depth, index))
        while found in below:
            found = max(below[found], key=lambda index: (self._end(index), index))
        return found

    def _end(self, index: int) -> int:
        end = self.places[index].span.end_time_ns
        return self.end if end is None else end
