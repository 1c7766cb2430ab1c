"""The span tree of a trace, and the own time of each span: the time in which no child ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..model import Span


@dataclass(frozen=True, slots=True)
class Branch:
    """A span in the tree; ``lasts`` tells of each span on the path to it whether it is the last child."""

    span: Span
    lasts: tuple[bool, ...]

    @property
    def depth(self) -> int:
        """The number of its ancestors."""
        return len(self.lasts)


def branches_of(spans: Sequence[Span]) -> Iterator[Branch]:
    """The spans depth first, siblings by start time; every span comes once, whatever its parent is."""
    known = {span.span_id for span in spans}
    in_order = sorted(spans, key=lambda span: span.start_time_ns)
    children: dict[str | None, list[Span]] = {}
    for span in in_order:
        children.setdefault(span.parent_id, []).append(span)
    seen: set[str] = set()
    tops = [span for span in in_order if span.parent_id not in known]
    # A span that is not below a top is part of a cycle, and is a top itself.
    for top in (*tops, *in_order):
        yield from _below(top, children, seen)


def _below(top: Span, children: dict[str | None, list[Span]], seen: set[str]) -> Iterator[Branch]:
    stack: list[tuple[Span, tuple[bool, ...]]] = [(top, ())]
    while stack:
        span, lasts = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        yield Branch(span, lasts)
        below = [child for child in children.get(span.span_id, ()) if child.span_id not in seen]
        stack += ((child, (*lasts, child is below[-1])) for child in reversed(below))


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
