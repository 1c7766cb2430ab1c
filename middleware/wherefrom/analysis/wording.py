"""Values and figures as sentences have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LONGEST_NAME: Final = 80
_MAX_DIGITS: Final = 5


def named(value: str) -> str:
    """A value, truncated to fit into a sentence."""
    return value if len(value) <= _LONGEST_NAME else f"{value[: _LONGEST_NAME - 1]}…"


def against(value: float, other: float, written: Callable[[float, int], str]) -> str:
    """Both values, with enough digits to distinguish them."""
    digits = 1
    while value != other and written(value, digits) == written(other, digits) and digits < _MAX_DIGITS:
        digits += 1
    return f"{written(value, digits)} against {written(other, digits)}"


def in_digits(value: float, digits: int) -> str:
    """``1,240`` from 100 on, otherwise with the digits."""
    return f"{value:,.{max(0, digits - 1) if value >= 100 else digits}f}"


def percent(share: float, digits: int) -> str:
    """``2.1 %`` for 0.021."""
    return f"{100 * share:.{digits}f} %"


def in_ms(value: float, digits: int) -> str:
    """``12.3 ms``, with one digit fewer from 100 ms on."""
    whole = digits - 1 if value >= 100 else digits
    return f"{value:,.{whole}f} ms"
