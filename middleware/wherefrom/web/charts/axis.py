"""Axes: positions of values and times along a width, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from .svg import element, joined, percent

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


def utc(ms: int) -> datetime | None:
    """The time; ``None`` beyond the range of the calendar."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def spoken(ms: int) -> str:
    """``2026-11-25 22:09 UTC``."""
    moment = utc(ms)
    return f"{ms} ms since 1970" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
