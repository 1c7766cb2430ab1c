"""Marks on an axis (values, confidence intervals, ticks), and the small charts of table cells.

The cells are hidden from screen readers: the table has their values as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ...analysis import Interval, Row
from .axis import Axis, anchor, make_axis, make_time_axis, time_labels
from .svg import TONES, element, joined

_UNITS: Final = ((60_000, "min"), (1_000, "s"), (1, "ms"), (0.001, "µs"))


def rate_marks(row: Row, axis: Axis, y: float) -> Markup:
    """The error rate of a row with its confidence interval, at height ``y``."""
    return joined(*_interval(axis, row.error_rate_interval, y), _dot(axis.at(row.error_rate), y))


def latency_marks(row: Row, axis: Axis, y: float) -> Markup:
    """p50 as a dot, p95 as a diamond, p99 as a ring, with confidence intervals; empty without durations."""
    if row.p50 is None or row.p95 is None or row.p99 is None:
        return Markup()
    from_, to = axis.at(row.p50), axis.at(row.p99)
    return joined(
        element("line", style="thread", x1=from_, x2=to, y1=y, y2=y),
        *_interval(axis, row.p50_interval, y),
        *_interval(axis, row.p95_interval, y),
        _dot(from_, y),
        _diamond(axis.at(row.p95), y),
        element("circle", style="ring", cx=to, cy=y, r=4),
    )


def grid(axis: Axis, top: float, bottom: float) -> Markup:
    """A vertical line at each tick."""
    places = map(axis.at, axis.ticks)
    return joined(*(element("line", style="grid", x1=x, x2=x, y1=top, y2=bottom) for x in places))


def labels(axis: Axis, y: float, label: Callable[[float], str]) -> Markup:
    """The labels of the ticks."""
    return joined(
        *(
            element(
                "text", label(tick), style="muted", x=axis.at(tick), y=y, text_anchor=anchor(axis.share(tick))
            )
            for tick in axis.ticks
        )
    )


def latencies(row: Row) -> Iterator[float]:
    """The durations that ``latency_marks`` draws, for the axis."""
    ends = (row.p50_interval.low, row.p50, row.p95, row.p95_interval.high, row.p99)
    return (value for value in ends if value is not None)


def percent_label(share: float) -> str:
    """``0.25 %``."""
    return f"{100 * share:.4g} %"


def ms_label(ms: float) -> str:
    """``2.5 s``."""
    size, unit = next(((size, unit) for size, unit in _UNITS if ms >= size), (1, "ms"))
    return f"{ms / size:.3g} {unit}"


def _dot(x: str, y: float) -> Markup:
    return element("circle", style="fill", cx=x, cy=y, r=5)


def _diamond(x: str, y: float) -> Markup:
    # A path cannot have percentages: draw it around the origin of a nested svg, which can.
    return element(
        "svg", element("path", style="fill", d="M0 -6l6 6l-6 6l-6 -6z"), x=x, y=y, overflow="visible"
    )


def _interval(axis: Axis, interval: Interval, y: float) -> Iterator[Markup]:
    """A bar with both ends; empty where an end is unknown."""
    if interval.low is None or interval.high is None:
        return
    low, high = axis.at(interval.low), axis.at(interval.high)
    yield element("line", style="reach", x1=low, x2=high, y1=y, y2=y)
    for end in (low, high):
        yield element("line", style="reach", x1=end, x2=end, y1=y - 5, y2=y + 5)


_HEIGHT: Final = 22
_LABELS: Final = 16


@dataclass(frozen=True, slots=True)
class Scales:
    """The axes shared by all rows of a table."""

    rates: Axis
    durations: Axis

    def rate(self, row: Row) -> Markup:
        """The error rate of a row with its confidence interval."""
        return _cell(self.rates, rate_marks(row, self.rates, _HEIGHT / 2), TONES[row.verdict])

    def duration(self, row: Row) -> Markup:
        """p50, p95 and p99 of a row with confidence intervals."""
        return _cell(self.durations, latency_marks(row, self.durations, _HEIGHT / 2), TONES[row.verdict])

    def rate_labels(self) -> Markup:
        """The labels of the error rate axis."""
        return _frame(labels(self.rates, 12, percent_label), _LABELS)

    def duration_labels(self) -> Markup:
        """The labels of the latency axis."""
        return _frame(labels(self.durations, 12, ms_label), _LABELS)


def make_scales(rows: Iterable[Row]) -> Scales:
    """The axes for these rows."""
    shown = list(rows)
    return Scales(
        make_axis([row.error_rate_interval.high or 0 for row in shown]),
        make_axis([value for row in shown for value in latencies(row)], may_bend=True),
    )


def _cell(axis: Axis, marks: Markup, tone: str) -> Markup:
    return _frame(joined(grid(axis, 0, _HEIGHT), element("g", marks, style=tone)), _HEIGHT)


def _frame(content: Markup, height: float) -> Markup:
    return element("svg", content, class_="chart cell", width="100%", height=height, aria_hidden="true")


_SPAN_HEIGHT: Final = 16
_SPAN_LABELS: Final = 16


def draw_span(axis: Axis, begin: int, end: int) -> Markup:
    """A bar from ``begin`` to ``end``, with an arrow at an end beyond the axis."""
    left, right = axis.at(begin), axis.at(end)
    marks = [element("line", style="lasting", x1=left, x2=right, y1=_SPAN_HEIGHT / 2, y2=_SPAN_HEIGHT / 2)]
    if begin < axis.low:
        marks.append(_arrow(left, "M-1 -4l-5 4l5 4z"))
    if end > axis.high:
        marks.append(_arrow(right, "M1 -4l5 4l-5 4z"))
    return element(
        "svg", joined(*marks), class_="chart cell", width="100%", height=_SPAN_HEIGHT, aria_hidden="true"
    )


def span_axis(since: int, until: int, spans: Iterable[tuple[int, int]]) -> Axis:
    """The axis shared by all bars of a table: the range of the spans within ``since`` to ``until``."""
    begins, ends = zip(*spans, strict=True)
    return make_time_axis(max(since, min(begins)), min(until, max(ends)))


def span_labels(axis: Axis) -> Markup:
    """The labels of the time axis."""
    labels = time_labels(axis, 12)
    return element("svg", labels, class_="chart cell", width="100%", height=_SPAN_LABELS, aria_hidden="true")


def _arrow(x: str, path: str) -> Markup:
    return element("svg", element("path", style="fill", d=path), x=x, y=_SPAN_HEIGHT / 2, overflow="visible")
