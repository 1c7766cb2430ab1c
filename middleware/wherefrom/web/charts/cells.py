"""Charts as low as a line of text, for the cells of a table: what they show is told beside them in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ...analysis import Row
from .axis import Axis, make_axis, make_time_axis, time_labels
from .marks import grid, labels, latencies, latency_marks, ms_label, percent_label, rate_marks
from .svg import TONES, element, joined

_HEIGHT: Final = 22
_LABELS: Final = 16


@dataclass(frozen=True, slots=True)
class Scales:
    """The axes that all rows of a table share."""

    rates: Axis
    durations: Axis

    def rate(self, row: Row) -> Markup:
        """The error rate of a row, with its interval."""
        return _cell(self.rates, rate_marks(row, self.rates, _HEIGHT / 2), TONES[row.verdict])

    def duration(self, row: Row) -> Markup:
        """p50, p95 and p99 of a row, with intervals."""
        return _cell(self.durations, latency_marks(row, self.durations, _HEIGHT / 2), TONES[row.verdict])

    def rate_labels(self) -> Markup:
        """What the lines behind error rates mean."""
        return _frame(labels(self.rates, 12, percent_label), _LABELS)

    def duration_labels(self) -> Markup:
        """What the lines behind latencies mean."""
        return _frame(labels(self.durations, 12, ms_label), _LABELS)


def make_scales(rows: Iterable[Row]) -> Scales:
    """The axes for some rows."""
    shown = list(rows)
    return Scales(
        make_axis([row.error_rate_interval.high or 0 for row in shown]),
        make_axis([value for row in shown for value in latencies(row)], may_bend=True),
    )


def _cell(axis: Axis, marks: Markup, tone: str) -> Markup:
    return _frame(joined(grid(axis, 0, _HEIGHT), element("g", marks, look=tone)), _HEIGHT)


def _frame(content: Markup, height: float) -> Markup:
    return element("svg", content, class_="chart cell", width="100%", height=height, aria_hidden="true")


_SPAN_HEIGHT: Final = 16
_SPAN_LABELS: Final = 16


def draw_span(axis: Axis, begin: int, end: int) -> Markup:
    """A bar from ``begin`` to ``end``; open, with an arrow, at an end that lies beyond the axis."""
    left, right = axis.at(begin), axis.at(end)
    marks = [element("line", look="lasting", x1=left, x2=right, y1=_SPAN_HEIGHT / 2, y2=_SPAN_HEIGHT / 2)]
    if begin < axis.low:
        marks.append(_arrow(left, "M-1 -4l-5 4l5 4z"))
    if end > axis.high:
        marks.append(_arrow(right, "M1 -4l5 4l-5 4z"))
    return element(
        "svg", joined(*marks), class_="chart cell", width="100%", height=_SPAN_HEIGHT, aria_hidden="true"
    )


def span_axis(since: int, until: int, spans: Iterable[tuple[int, int]]) -> Axis:
    """The axis that all bars of a table share: ``since`` to ``until``, or less where nothing is beyond."""
    begins, ends = zip(*spans, strict=True)
    return make_time_axis(max(since, min(begins)), min(until, max(ends)))


def span_labels(axis: Axis) -> Markup:
    """What the places along the bars mean."""
    labels = time_labels(axis, 12)
    return element("svg", labels, class_="chart cell", width="100%", height=_SPAN_LABELS, aria_hidden="true")


def _arrow(x: str, path: str) -> Markup:
    return element("svg", element("path", look="fill", d=path), x=x, y=_SPAN_HEIGHT / 2, overflow="visible")
