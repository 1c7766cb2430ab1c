"""Requests and error rates over time: a strip for each value, with the first traces of deployments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ..._units import counted
from ...analysis import Bucket, Timeline
from .marks import Axis, make_time_axis, percent_label, spoken, time_labels
from .svg import Drawing, cut, element, joined, percent

_FLAGS: Final = 3
_FLAG: Final = 14
_NAME: Final = 18
_UP: Final = 34
_DOWN: Final = 22
_GAP: Final = 10
_STRIP: Final = _NAME + _UP + _DOWN + _GAP
_LABELS: Final = 20
_LEAST_SHOWN: Final = 1.5  # pixels: a single request stays visible
_CHARACTERS: Final = 26
_LONGEST: Final = 128  # characters of a name in a tip
# The share of the width that a character takes on a telephone.
_CHARACTER: Final = 0.022


@dataclass(frozen=True, slots=True)
class Event:
    """The first trace of a deployment, ``at`` a time in ms since the epoch."""

    at: int
    name: str
    href: str | None = None


def draw_timeline(
    timeline: Timeline,
    values: Sequence[str],
    events: Iterable[Event] = (),
    link: Callable[[Bucket], str | None] = lambda _: None,
) -> Drawing:
    """Bars up for requests, bars down for error rates; all strips share their scales.

    ``link`` returns the address of the traces of a bucket.
    """
    shown = [bucket for bucket in timeline.buckets if bucket.value in values]
    first = min(bucket.start for bucket in shown)
    axis = make_time_axis(first, max(bucket.start for bucket in shown) + timeline.width_ms)
    scale = _Scale(axis, timeline.width_ms, max(one.traces for one in shown), max(map(_rate, shown)))
    inside = [event for event in events if axis.low <= event.at <= axis.high]
    flags, top = deployment_flags(inside, axis)
    bottom = top + _STRIP * len(values)
    strips = [
        _strip(value, [one for one in shown if one.value == value], scale, top + _STRIP * place, link)
        for place, value in enumerate(values)
    ]
    places = [axis.at(event.at) for event in inside]
    span = {"y1": top - 4, "y2": bottom - _GAP}
    lines = [element("line", style="deployment", x1=x, x2=x, **span) for x in places]
    return Drawing(
        joined(*lines, *strips, flags, time_labels(axis, bottom + 6)),
        height=bottom + _LABELS,
        title=f"Requests ↑ and error rate ↓ by {cut(timeline.by, _CHARACTERS)}, times in UTC",
        description=_description(timeline, shown, inside),
        has_links=any(link(bucket) for bucket in shown),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """The position of a bucket and the heights of its bars."""

    axis: Axis
    width_ms: int
    most: int
    highest: float

    def bars(self, bucket: Bucket, y: float) -> Markup:
        left, right = (self.axis.place(at, 1) for at in (bucket.start, bucket.start + self.width_ms))
        place = {"x": percent(left), "width": percent((right - left) * 0.9)}
        up = max(_UP * bucket.traces / self.most, _LEAST_SHOWN)
        down = max(_DOWN * _rate(bucket) / self.highest, _LEAST_SHOWN) if bucket.errors else 0
        return joined(
            element("rect", style="touch", y=y - _UP, height=_UP + _DOWN, **place),
            element("rect", style="requests", y=y - up, height=up, **place),
            element("rect", style="errors", y=y + 1, height=down, **place) if down else Markup(),
        )


def _strip(
    value: str, buckets: Sequence[Bucket], scale: _Scale, top: float, link: Callable[[Bucket], str | None]
) -> Markup:
    middle = top + _NAME + _UP
    total, errors = sum(one.traces for one in buckets), sum(one.errors for one in buckets)
    figures = (
        f"{counted(total, 'request')}, {percent_label(round(errors / total, 4))} failed" if total else "none"
    )
    return joined(
        element("text", cut(value, _CHARACTERS), style="ink strong halo", x=0, y=top + 12),
        element("text", figures, style="muted halo", x="100%", y=top + 12, text_anchor="end"),
        *(_bar(bucket, scale.bars(bucket, middle), link(bucket), scale.width_ms) for bucket in buckets),
        element("line", style="grid", x1=0, x2="100%", y1=middle + 0.5, y2=middle + 0.5),
    )


def _bar(bucket: Bucket, bars: Markup, href: str | None, width_ms: int) -> Markup:
    title = element("title", _label(bucket, width_ms))
    if href is None:
        return element("g", title, bars)
    return element("a", title, bars, href=href)


def _label(bucket: Bucket, width_ms: int) -> str:
    failed = (
        f", {counted(bucket.errors, 'error')} ({percent_label(round(_rate(bucket), 4))})"
        if bucket.errors
        else ""
    )
    until = f" for {width_ms // 60_000} min" if width_ms >= 60_000 else f" for {width_ms // 1000} s"
    value, begin = cut(bucket.value, _CHARACTERS), spoken(bucket.start)
    return f"{value}, {begin}{until}: {counted(bucket.traces, 'request')}{failed}"


def deployment_flags(events: Sequence[Event], axis: Axis) -> tuple[Markup, float]:
    """The names of deployments in rows without overlap, and the height of the rows."""
    ends = [0.0] * _FLAGS
    flags = []
    for event in sorted(events, key=lambda event: event.at):
        name = "▾ " + cut(event.name, _CHARACTERS)
        share, length = axis.place(event.at, 1), len(name) * _CHARACTER
        is_late = share + length > 1
        begin = share - length if is_late else share
        row = next((row for row, end in enumerate(ends) if end <= begin), None)
        if row is not None:
            ends[row] = begin + length
            flags.append(_flag(event, name, axis.at(event.at), _FLAG * row + 11, is_late=is_late))
    rows = sum(end > 0 for end in ends)
    return joined(*flags), _FLAG * rows + 6


def _flag(event: Event, name: str, x: str, y: float, *, is_late: bool) -> Markup:
    anchor = "end" if is_late else "start"
    title = element("title", f"{cut(event.name, _LONGEST)}: first trace {spoken(event.at)}")
    shown = element("text", name, style="flag", x=x, y=y, text_anchor=anchor)
    return element("g", title, shown) if event.href is None else element("a", title, shown, href=event.href)


def _description(timeline: Timeline, shown: Sequence[Bucket], events: Sequence[Event]) -> str:
    total, errors = sum(one.traces for one in shown), sum(one.errors for one in shown)
    summary = f"{counted(total, 'request')} and {counted(errors, 'error')} from {spoken(shown[0].start)}"
    deployed = "; ".join(f"{cut(event.name, _CHARACTERS)} deployed {spoken(event.at)}" for event in events)
    return f"{summary} to {spoken(shown[-1].start + timeline.width_ms)}. {deployed}".strip()


def _rate(bucket: Bucket) -> float:
    return bucket.errors / bucket.traces
