"""The axis of time: ticks at round moments, told in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from .axis import Axis, anchor
from .markup import element, joined

_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_STEPS: Final = (
    *(1000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * hours for hours in (1, 2, 3, 6, 12)),
    *(_DAY * days for days in (1, 2, 7, 14, 30, 90, 365)),
)
_MOST_TICKS: Final = 4


def make_time_axis(first: int, last: int) -> Axis:
    """From ``first`` to ``last``, in ms since the epoch, with at most four ticks."""
    span = max(last - first, 1)
    step = next((step for step in _STEPS if span / step <= _MOST_TICKS), -(-span // _MOST_TICKS))
    ticks = range(-(-first // step) * step, last + 1, step)
    return Axis(first, first + span, tuple(ticks[:_MOST_TICKS]))


def time_labels(axis: Axis, y: float) -> Markup:
    """The ticks in words: the day at midnight, the time otherwise, and both at the first.

    ``data-time`` is for the page, which tells the time in the zone of its reader.
    """
    step = axis.ticks[1] - axis.ticks[0] if len(axis.ticks) > 1 else axis.high - axis.low
    return joined(
        *(
            element(
                "text",
                _label(int(tick), step, is_first=tick == axis.ticks[0]),
                look="muted",
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
    """The moment; ``None`` where no calendar reaches."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def spoken(ms: int) -> str:
    """``2026-11-25 22:09 UTC``."""
    moment = utc(ms)
    return f"{ms} ms since 1970" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
