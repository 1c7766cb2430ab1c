"""Values as people write them: numbers, times (``'2h ago'``, ISO dates) and durations (``'1.5s'``)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeGuard

from .fields import ORDER, PATTERN, Field, Operator, Type
from .regex import compile_pattern

NUMBER: Final = r"^[+-]?([0-9]{1,100}(\.[0-9]{0,100})?|\.[0-9]{1,100})([eE][+-]?[0-9]{1,2})?$"
"""What counts as a number in a metadata value, also for a store that matches it itself."""

TAKES_TIME: Final = (
    "milliseconds since the epoch, '2h ago', 'yesterday' or an ISO date such as '2025-01-31T08:00'"
)
TAKES_DURATION: Final = "milliseconds, or text such as '1.5s'"

_NUMBER = re.compile(NUMBER)
_AGO = re.compile(r"((?:[0-9]+(?:\.[0-9]+)?\s*[a-z]+\s*)+)ago", re.IGNORECASE)
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_UNITS_MS: Final = {
    unit: ms
    for ms, units in (
        (1, "ms millisecond milliseconds"),
        (1000, "s sec secs second seconds"),
        (60_000, "m min mins minute minutes"),
        (3_600_000, "h hr hrs hour hours"),
        (86_400_000, "d day days"),
        (604_800_000, "w week weeks"),
    )
    for unit in units.split()
}
_DAYS_BACK: Final = {"today": 0, "yesterday": 1}
_MAX_INTEGER = 2**63 - 1  # of a 64-bit column
_TOO_LARGE: Final = 1e300  # still finite after a conversion of units
_MAX_DIGITS: Final = 300  # int() and float() reject much longer texts, each with another error


def to_number(text: str) -> float | None:
    """The number in ``text``; ``None`` if it is not one. Surrounding blanks are not allowed."""
    # '$' would also match before a trailing newline.
    return float(text) if _NUMBER.fullmatch(text) and not text.endswith("\n") else None


def number_of(text: str) -> float:
    """The number with these digits: an integer if they are only digits, otherwise a float.

    Raises:
        ValueError: the number is too large to compare with.
    """
    number = int(text) if text.lstrip("-").isdigit() and len(text) <= _MAX_DIGITS else float(text)
    if abs(number) >= _TOO_LARGE:
        raise ValueError("a number too large to compare with")
    return number


def is_storable(number: object) -> TypeGuard[int]:
    """Whether the value is an integer of at most 64 bits, which databases can store."""
    return type(number) is int and -_MAX_INTEGER <= number <= _MAX_INTEGER


def bounded(number: float) -> float:
    """``number`` for a database: an integer of more than 64 bits becomes a float."""
    return float(number) if isinstance(number, int) and abs(number) > _MAX_INTEGER else number


def to_moment(text: str, now_ms: int) -> float:
    """Milliseconds since the epoch; a time without a zone is UTC.

    Raises:
        ValueError: ``text`` is not a time; the message describes the forms.
    """
    word = text.strip().lower()
    if (number := to_number(word)) is not None:
        return number
    if word == "now":
        return now_ms
    if word in _DAYS_BACK:
        midnight = datetime.fromtimestamp(now_ms / 1000, UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        return _to_ms(midnight - timedelta(days=_DAYS_BACK[word]))
    if ago := _AGO.fullmatch(word):
        return round(now_ms - _sum_units(ago[1], text, TAKES_TIME))
    try:
        return _to_ms(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: expected {TAKES_TIME}") from error


def to_duration(text: str) -> float:
    """Milliseconds.

    Raises:
        ValueError: ``text`` is not a duration; the message describes the forms.
    """
    word = text.strip().lower()
    if (number := to_number(word)) is not None:
        return number
    return _sum_units(word, text, TAKES_DURATION)


def _sum_units(amounts: str, text: str, takes: str) -> float:
    total, position = 0.0, 0
    while match := _AMOUNT.match(amounts, position):
        if match[2] not in _UNITS_MS:
            break
        total += float(match[1]) * _UNITS_MS[match[2]]
        position = match.end()
    if position != len(amounts) or not position:
        raise ValueError(f"{text!r} is not understood: expected {takes}")
    if total >= _TOO_LARGE:
        raise ValueError(f"{text[:60]!r} is too long ago or takes too long")
    return total


def _to_ms(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


_MAX_PATTERN_BYTES: Final = 50_000  # SQLite's own limit for LIKE and GLOB
_EXPECTED: Final = {
    Type.TEXT: "text",
    Type.ANY: "text or a number",
    Type.JSON: "text, or a number after < and >",
    Type.TIME: "a time",
    Type.DURATION: "a duration",
    Type.NUMBER: "a number",
}


def expected_value(field: Field) -> str:
    """A phrase for the value that is expected after the field's operator."""
    return _EXPECTED[field.type]


def check_value(field: Field, operator: Operator, value: str | float) -> None:
    """Check that ``value`` is valid after ``operator``.

    Raises:
        ValueError: it is not; the message says why.
    """
    if isinstance(value, str):
        _check_text(field, operator, value)
    elif (
        field.type is Type.TEXT or operator in PATTERN or (field.type is Type.JSON and operator not in ORDER)
    ):
        raise ValueError(f"{field.label} {operator} takes text: put the number in quotes")


def _check_text(field: Field, operator: Operator, text: str) -> None:
    if operator in PATTERN:
        _check_pattern(operator, text)
    elif field.type is Type.TIME:
        to_moment(text, now_ms=0)
    elif field.type is Type.DURATION:
        to_duration(text)
    elif operator in ORDER or field.type is Type.NUMBER:
        raise ValueError(f"{field.label} {operator} takes a number: write it without quotes")


def _check_pattern(operator: Operator, pattern: str) -> None:
    if len(pattern.encode()) > _MAX_PATTERN_BYTES:
        raise ValueError(f"a pattern has at most {_MAX_PATTERN_BYTES:,} bytes")
    if operator is Operator.RLIKE:
        try:
            compile_pattern(pattern)
        except ValueError as error:
            raise ValueError(f"no pattern that can be matched in linear time: {error}") from None
