"""Marks on an axis (values, confidence intervals, ticks), and the small charts of table cells.

The cells are hidden from screen readers: the table has their values as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ..._units import utc
from ...analysis import Interval, Row
from .svg import TONES, element, joined, percent

_TICKS: Final = 4
_MOST_TICKS: Final = 6
_LEAST_TICKS: Final = 3
_PER_POWER: Final = ((1, 2, 5), (1, 3), (1,))
_FAR_APART: Final = 30
_ROUND: Final = (1, 2, 2.5, 5, 10)
# Room for half a mark at both ends.
_MARGIN: Final = 0.025
_NEAR_END: Final = 0.05


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high``; ``ticks`` are values."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_logarithmic: bool = False

    def share(self, value: float) -> float:
        """The position of a value from 0 to 1; values beyond an end are clamped to it."""
        value = min(max(value, self.low), self.high)
        if self.is_logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float, width: float) -> float:
        """The position of a value in a chart of this width, with a margin at both ends."""
        return width * (_MARGIN + self.share(value) * (1 - 2 * _MARGIN))

    def at(self, value: float) -> str:
        """The position as a percentage of the width."""
        return percent(self.place(value, 1))


def anchor(share: float) -> str:
    """The ``text-anchor`` that keeps a label inside the chart."""
    return "start" if share < _NEAR_END else "end" if share > 1 - _NEAR_END else "middle"


def make_axis(values: Sequence[float], *, may_bend: bool = False) -> Axis:
    """An axis from 0 to the largest value; with ``may_bend`` logarithmic for values far apart."""
    highest = max(values, default=0) or 1
    least = min((value for value in values if value > 0), default=highest)
    if may_bend and highest / least >= _FAR_APART:
        return _by_powers(least, highest)
    step = _round_up(highest / _TICKS)
    count = math.ceil(highest / step - 1e-9)
    return Axis(0, step * count, tuple(step * place for place in range(count + 1)))


def make_logarithmic(low: float, high: float) -> Axis:
    """A logarithmic axis between two values with at most six ticks at round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in _PER_POWER:
        found = (step * 10.0**power for power in powers for step in steps)
        ticks = [tick for tick in found if low <= tick <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    if len(ticks) < _LEAST_TICKS:
        step = _round_up((high - low) / _TICKS)
        ticks = [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(low, high, tuple(ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]), is_logarithmic=True)


def _by_powers(least: float, highest: float) -> Axis:
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(highest))
    powers = range(first, max(last, first + 1) + 1)
    each = math.ceil((len(powers) - 1) / _TICKS)
    ticks = tuple(10.0**power for power in powers[::each])
    return Axis(10.0**first, 10.0 ** powers[-1], ticks, is_logarithmic=True)


def _round_up(number: float) -> float:
    power = 10.0 ** math.floor(math.log10(number))
    return next(step * power for step in _ROUND if number <= step * power * (1 + 1e-9))


_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_STEPS: Final = (
    *(1000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * hours for hours in (1, 2, 3, 6, 12)),
    *(_DAY * days for days in (1, 2, 7, 14, 30, 90, 365)),
)
_MOST_TIME_TICKS: Final = 4


def make_time_axis(first: int, last: int) -> Axis:
    """From ``first`` to ``last``, in ms since the epoch, with at most four ticks."""
    span = max(last - first, 1)
    step = next((step for step in _STEPS if span / step <= _MOST_TIME_TICKS), -(-span // _MOST_TIME_TICKS))
    ticks = range(-(-first // step) * step, last + 1, step)
    return Axis(first, first + span, tuple(ticks[:_MOST_TIME_TICKS]))


def time_labels(axis: Axis, y: float) -> Markup:
    """The labels of the ticks: the day at midnight, else the time, and both at the first tick.

    The script of the page converts ``data-time`` to the time zone of the browser.
    """
    step = axis.ticks[1] - axis.ticks[0] if len(axis.ticks) > 1 else axis.high - axis.low
    return joined(
        *(
            element(
                "text",
                _label(int(tick), step, is_first=tick == axis.ticks[0]),
                style="muted",
                x=axis.at(tick),
                y=y,
                text_anchor=anchor(axis.share(tick)),
                data_time=int(tick),
            )
            for tick in axis.ticks
        )
    )


def _label(ms: int, step: float, *, is_first: bool) -> str:
    moment = utc(ms)
    if moment is None:
        return ""
    day = f"{moment:%b} {moment.day}"
    if step >= _DAY or ms % _DAY == 0:
        return day
    time = f"{moment:%H:%M:%S}" if step < _MINUTE else f"{moment:%H:%M}"
    return f"{day}, {time}" if is_first else time


def spoken(ms: int, *, with_seconds: bool = False) -> str:
    """``2026-11-25 22:09 UTC``, or ``2026-11-25 22:09:15 UTC``."""
    moment, seconds = utc(ms), ":%S" if with_seconds else ""
    return f"{ms} ms since 1970" if moment is None else f"{moment:%Y-%m-%d %H:%M{seconds}} UTC"


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
