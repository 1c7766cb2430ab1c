"""Scales for plots: from values to places, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_TICKS: Final = 4
_FAR_APART: Final = 30
_ROUND: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high`` over ``width`` units that begin at ``left``; ``ticks`` are values."""

    low: float
    high: float
    ticks: tuple[float, ...]
    left: float
    width: float
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies; one that is off the scale lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.is_logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.left + share * self.width


def make_axis(values: Sequence[float], left: float, width: float, *, may_bend: bool = False) -> Axis:
    """An axis from 0 for all of the values; ``may_bend``: logarithmic where they lie far apart."""
    highest = max(values, default=0) or 1
    least = min((value for value in values if value > 0), default=highest)
    if may_bend and highest / least >= _FAR_APART:
        first, last = math.floor(math.log10(least)), math.ceil(math.log10(highest))
        powers = range(first, max(last, first + 1) + 1)
        each = math.ceil((len(powers) - 1) / _TICKS)
        ticks = tuple(10.0**power for power in powers[::each])
        return Axis(10.0**first, 10.0 ** powers[-1], ticks, left, width, is_logarithmic=True)
    step = _round_up(highest / _TICKS)
    count = math.ceil(highest / step - 1e-9)
    return Axis(0, step * count, tuple(step * place for place in range(count + 1)), left, width)


def _round_up(number: float) -> float:
    power = 10.0 ** math.floor(math.log10(number))
    return next(step * power for step in _ROUND if number <= step * power * (1 + 1e-9))
