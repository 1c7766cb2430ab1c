"""From when to when, as a bar in the cell of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

from .axis import Axis
from .markup import element, joined
from .time_axis import make_time_axis, time_labels

_HEIGHT: Final = 16
_LABELS: Final = 16


def draw_span(axis: Axis, begin: int, end: int) -> Markup:
    """A bar from ``begin`` to ``end``; open, with an arrow, at an end that lies beyond the axis."""
    left, right = axis.at(begin), axis.at(end)
    marks = [element("line", look="lasting", x1=left, x2=right, y1=_HEIGHT / 2, y2=_HEIGHT / 2)]
    if begin < axis.low:
        marks.append(_arrow(left, "M-1 -4l-5 4l5 4z"))
    if end > axis.high:
        marks.append(_arrow(right, "M1 -4l5 4l-5 4z"))
    return element(
        "svg", joined(*marks), class_="chart cell", width="100%", height=_HEIGHT, aria_hidden="true"
    )


def span_axis(since: int, until: int, spans: Iterable[tuple[int, int]]) -> Axis:
    """The axis that all bars of a table share: ``since`` to ``until``, or less where nothing is beyond."""
    begins, ends = zip(*spans, strict=True)
    return make_time_axis(max(since, min(begins)), min(until, max(ends)))


def span_labels(axis: Axis) -> Markup:
    """What the places along the bars mean."""
    labels = time_labels(axis, 12)
    return element("svg", labels, class_="chart cell", width="100%", height=_LABELS, aria_hidden="true")


def _arrow(x: str, path: str) -> Markup:
    return element("svg", element("path", look="fill", d=path), x=x, y=_HEIGHT / 2, overflow="visible")
