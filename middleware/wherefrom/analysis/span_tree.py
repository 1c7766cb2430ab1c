"""The spans of one trace as a tree: order, depth, own times, and where an error began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    lasts: list[bool] = []
    for span, depth, is_last in _in_order(spans):
        if depth:
            lasts[depth - 1 :] = [is_last]
        yield Branch(span, tuple(lasts[:depth]))


def _in_order(spans: Sequence[Span]) -> Iterator[tuple[Span, int, bool]]:
    """The spans as in ``branches_of``, with their depth, and whether they are the last child."""
    known = {span.span_id for span in spans}
    in_order = sorted(spans, key=lambda span: span.start_time_ns)
    children: dict[str | None, list[Span]] = {}
    for span in in_order:
        children.setdefault(span.parent_id, []).append(span)
    seen: set[str] = set()
    tops = [span for span in in_order if span.parent_id not in known]
    # A span that no top leads to is part of a cycle, and becomes a top.
    for top in (*tops, *in_order):
        if top.span_id not in seen:
            yield from _below(top, children, seen)


def _below(
    top: Span, children: dict[str | None, list[Span]], seen: set[str]
) -> Iterator[tuple[Span, int, bool]]:
    stack = [(top, 0, True)]
    while stack:
        found = span, depth, _ = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        yield found
        if span.span_id not in children:
            continue
        below = [child for child in children[span.span_id] if child.span_id not in seen]
        stack += ((child, depth + 1, child is below[-1]) for child in reversed(below))


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
        self.places = list(_places(spans))
        self.begin = min((span.start_time_ns for span in spans), default=0)
        self.end = max((max(span.start_time_ns, span.end_time_ns or 0) for span in spans), default=0)
        self._index = {place.span.span_id: at for at, place in enumerate(self.places)}
        self._children: dict[str, list[Span]] = {}
        for span in spans:
            if span.parent_id is not None:
                self._children.setdefault(span.parent_id, []).append(span)

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


def _places(spans: Sequence[Span]) -> Iterator[SpanPlace]:
    path: list[int] = []
    for index, (span, depth, _) in enumerate(_in_order(spans)):
        del path[depth:]
        yield SpanPlace(span, depth, path[-1] if path else None)
        path.append(index)
