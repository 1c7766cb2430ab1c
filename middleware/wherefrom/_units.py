"""Times, durations, sizes and counts, as people read and write them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)


def local_time(ms: int) -> datetime | None:
    """The time in the local zone; ``None`` beyond the range of the calendar."""
    try:
        return datetime.fromtimestamp(ms / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def short_moment(ms: int, now: datetime) -> str:
    """``14:03:22`` today, ``Nov 23 14:03`` this year, ``2025-11-23`` before."""
    moment = local_time(ms)
    if moment is None:
        return f"{ms} ms"
    if moment.date() == now.date():
        return f"{moment:%H:%M:%S}"
    return f"{moment:%b %d %H:%M}" if moment.year == now.year else f"{moment:%Y-%m-%d}"


def full_moment(ms: int) -> str:
    """``2026-11-23T14:03:22.123+01:00``."""
    moment = local_time(ms)
    return f"{ms} ms since 1970" if moment is None else moment.isoformat(timespec="milliseconds")


def spoken_moment(ms: int) -> str:
    """``2026-11-23 14:03:22.123 CET``."""
    moment = local_time(ms)
    if moment is None:
        return f"{ms} ms since 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ms % 1000:03} {moment:%Z}"


def utc(ms: int) -> datetime | None:
    """The time in UTC, without milliseconds; ``None`` beyond the range of the calendar."""
    try:
        return datetime.fromtimestamp(ms // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def spoken_utc(ms: int) -> str:
    """``2026-11-25 22:09:59.123 UTC``."""
    found = utc(ms)
    return f"{ms} ms since 1970" if found is None else f"{found:%Y-%m-%d %H:%M:%S}.{ms % 1000:03} UTC"


def duration(ns: float) -> str:
    """``12 µs``, ``1.24 ms``, ``1.24 s``, ``2 min 05 s`` or ``3 h 07 min``."""
    if ns < 0:
        return "-" + duration(-ns)
    if ns < 999_500:
        return f"{ns / 1e3:.0f} µs"
    if ns < 999.5e6:
        return f"{_three_digits(ns / 1e6)} ms"
    seconds = ns / 1e9
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(count: int) -> str:
    """Bytes as ``512 B``, ``1.5 kB`` or ``2.1 GB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{_three_digits(amount)} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def dollars(amount: float) -> str:
    """``$0.0035``, ``$12.30`` or ``$1,234``: two digits of small amounts."""
    if amount >= 1_000:
        return f"${amount:,.0f}"
    if amount >= 0.1 or amount <= 0:
        return f"${amount:.2f}"
    if amount < 1e-6:
        return "<$0.000001"
    return f"${amount:.{1 - math.floor(math.log10(amount))}f}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 trace``, ``1,234 traces``; ``plural`` is for nouns that do not just add ``s``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or f'{noun}s'}"


def age_ms(text: str) -> int | None:
    """The milliseconds in an age such as ``30d`` or ``1.5h``; ``None`` if it is invalid or zero."""
    found = _AGE.fullmatch(text.strip())
    return (int(float(found[1]) * _UNIT_MS[found[2]]) or None) if found else None


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
