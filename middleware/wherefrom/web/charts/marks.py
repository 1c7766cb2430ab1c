"""Marks on an axis: a value as a shape, an interval as a bar between two ends, ticks as lines with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from markupsafe import Markup

from ...analysis import Interval, Row
from .axis import Axis, anchor
from .svg import element, joined

_UNITS: Final = ((60_000, "min"), (1_000, "s"), (1, "ms"), (0.001, "µs"))


def rate_marks(row: Row, axis: Axis, y: float) -> Markup:
    """The error rate of a value with its interval, at the height ``y``."""
    return joined(*_interval(axis, row.error_rate_interval, y), _dot(axis.at(row.error_rate), y))


def latency_marks(row: Row, axis: Axis, y: float) -> Markup:
    """p50 as a dot, p95 as a diamond and p99 as a ring, with intervals; nothing without durations."""
    if row.p50 is None or row.p95 is None or row.p99 is None:
        return Markup()
    from_, to = axis.at(row.p50), axis.at(row.p99)
    return joined(
        element("line", look="thread", x1=from_, x2=to, y1=y, y2=y),
        *_interval(axis, row.p50_interval, y),
        *_interval(axis, row.p95_interval, y),
        _dot(from_, y),
        _diamond(axis.at(row.p95), y),
        element("circle", look="ring", cx=to, cy=y, r=4),
    )


def grid(axis: Axis, top: float, bottom: float) -> Markup:
    """A line down at each tick."""
    places = map(axis.at, axis.ticks)
    return joined(*(element("line", look="grid", x1=x, x2=x, y1=top, y2=bottom) for x in places))


def labels(axis: Axis, y: float, label: Callable[[float], str]) -> Markup:
    """The ticks in words."""
    return joined(
        *(
            element(
                "text", label(tick), look="muted", x=axis.at(tick), y=y, text_anchor=anchor(axis.share(tick))
            )
            for tick in axis.ticks
        )
    )


def latencies(row: Row) -> Iterator[float]:
    """Everything that ``latency_marks`` shows of a value."""
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
    return element("circle", look="fill", cx=x, cy=y, r=5)


def _diamond(x: str, y: float) -> Markup:
    # A path takes no percentages: it is drawn around the corner of a picture of its own.
    return element(
        "svg", element("path", look="fill", d="M0 -6l6 6l-6 6l-6 -6z"), x=x, y=y, overflow="visible"
    )


def _interval(axis: Axis, interval: Interval, y: float) -> Iterator[Markup]:
    """A bar with both its ends; an end that is not known has none to show."""
    if interval.low is None or interval.high is None:
        return
    low, high = axis.at(interval.low), axis.at(interval.high)
    yield element("line", look="reach", x1=low, x2=high, y1=y, y2=y)
    for end in (low, high):
        yield element("line", look="reach", x1=end, x2=end, y1=y - 5, y2=y + 5)
