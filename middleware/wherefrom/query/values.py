"""Which values a field takes under which operator."""

from __future__ import annotations

from typing import Final

from .fields import ORDER, PATTERN, Field, Operator, Type
from .literals import to_duration, to_moment
from .regex import compile_pattern

_MAX_PATTERN_BYTES: Final = 50_000  # SQLite's own limit for LIKE and GLOB
_EXPECTED: Final = {
    Type.TEXT: "text",
    Type.ANY: "text or a number",
    Type.TIME: "a time",
    Type.DURATION: "a duration",
}


def expected_value(field: Field) -> str:
    """What to expect after the field's operator, in words."""
    return _EXPECTED[field.type]


def check_value(field: Field, operator: Operator, value: str | float) -> None:
    """Nothing, if ``value`` can stand after ``operator``.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if isinstance(value, str):
        _check_text(field, operator, value)
    elif field.type is Type.TEXT or operator in PATTERN:
        raise ValueError(f"{field.label} {operator} takes text: put the number in quotes")


def _check_text(field: Field, operator: Operator, text: str) -> None:
    if operator in PATTERN:
        _check_pattern(operator, text)
    elif field.type is Type.TIME:
        to_moment(text, now_ms=0)
    elif field.type is Type.DURATION:
        to_duration(text)
    elif operator in ORDER:
        raise ValueError(f"{field.label} {operator} takes a number: write it without quotes")


def _check_pattern(operator: Operator, pattern: str) -> None:
    if len(pattern.encode()) > _MAX_PATTERN_BYTES:
        raise ValueError(f"a pattern has at most {_MAX_PATTERN_BYTES:,} bytes")
    if operator is Operator.RLIKE:
        try:
            compile_pattern(pattern)
        except ValueError as error:
            raise ValueError(f"no pattern that can be matched in linear time: {error}") from None
