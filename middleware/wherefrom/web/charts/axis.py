"""Scales: from values and times to shares of a width, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .markup import percent

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
        """How far along a value lies, from 0 to 1; one that is off the scale lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.is_logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float, width: float) -> float:
        """Where a value lies in a chart of this width, with room for half a mark at both ends."""
        return width * (_MARGIN + self.share(value) * (1 - 2 * _MARGIN))

    def at(self, value: float) -> str:
        """The place in a chart of any width."""
        return percent(self.place(value, 1))


def anchor(share: float) -> str:
    """How a label is set so that it stays inside of a chart."""
    return "start" if share < _NEAR_END else "end" if share > 1 - _NEAR_END else "middle"


def make_axis(values: Sequence[float], *, may_bend: bool = False) -> Axis:
    """An axis from 0 for all of the values; ``may_bend``: logarithmic where they lie far apart."""
    highest = max(values, default=0) or 1
    least = min((value for value in values if value > 0), default=highest)
    if may_bend and highest / least >= _FAR_APART:
        return _by_powers(least, highest)
    step = _round_up(highest / _TICKS)
    count = math.ceil(highest / step - 1e-9)
    return Axis(0, step * count, tuple(step * place for place in range(count + 1)))


def make_logarithmic(low: float, high: float) -> Axis:
    """A logarithmic axis between two values, with ticks at round numbers, six at most."""
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
