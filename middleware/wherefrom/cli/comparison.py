"""A comparison for people: a table with a row for each value, and the verdicts in whole sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from .._sanitize import visible
from .._units import duration, full_moment, short_moment
from ..analysis import (
    Comparison,
    ErrorDifference,
    LatencyDifference,
    Row,
    TailDifference,
    Verdict,
    Versions,
)
from .grid import Column, print_grid
from .terminal import Terminal
from .text import styled
from .verdicts import VERDICT_STYLES, print_verdicts

_MARKS: Final = {Verdict.WORSE: "✗ ", Verdict.BETTER: "✓ "}
_GAP: Final = 2
_SMALLEST_P: Final = 0.0001
_VALUE_WISH: Final = 28
_LEFT: Final = Column()
_RIGHT: Final = Column(is_right=True)

Difference = ErrorDifference | LatencyDifference | TailDifference


@dataclass(frozen=True, slots=True)
class _Field:
    """One column; ``rank`` 0 is always shown, the others as the room allows, the lowest first."""

    title: str
    cell: Callable[[Row], Text]
    rank: int = 0
    column: Column = _RIGHT


def print_comparison(terminal: Terminal, comparison: Comparison, now: datetime) -> None:
    """Print the table, the verdicts and what they rest on."""
    fields = _fields(comparison, now, terminal.room is None)
    if terminal.room is not None:
        fields = _that_fit(fields, comparison.rows, terminal.room)
    rows = [[field.cell(row) for field in fields] for row in comparison.rows]
    print_grid(terminal, [field.column for field in fields], rows, header=[field.title for field in fields])
    print_verdicts(terminal, comparison, now)


def _fields(comparison: Comparison, now: datetime, is_whole: bool) -> list[_Field]:
    """Every column there may be, in its order."""

    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if is_whole else short_moment(ms, now))

    is_in_turn = isinstance(comparison, Versions)
    return [
        _Field(visible(comparison.by), lambda row: styled(row.value, "cyan"), 0, _LEFT),
        _Field("first seen", lambda row: moment(row.first_seen), 1 if is_in_turn else 11, _LEFT),
        _Field("last seen", lambda row: moment(row.last_seen), 14, _LEFT),
        _Field("traces", lambda row: Text(f"{row.traces:,}")),
        _Field("per hour", lambda row: _number(row.traces_per_hour), 13),
        _Field("errors", lambda row: Text(f"{row.errors:,}"), 6),
        _Field("error rate", lambda row: Text(percent(row.error_rate))),
        _Field("interval", _interval, 4, _LEFT),
        _Field("p50", lambda row: _ms(row.p50), 2),
        _Field("p95", lambda row: _ms(row.p95), 3),
        _Field("p99", lambda row: _ms(row.p99), 5),
        _Field("error diff", _error_difference, 7),
        _Field("p errors", lambda row: _p(row.error_difference), 8),
        _Field("p95 diff", _p95_difference, 9),
        _Field("p latency", lambda row: _p(row.latency_difference, row.tail_difference), 10),
        _Field("tokens", lambda row: _number(row.tokens.total if row.tokens else None), 12),
        _Field("against", lambda row: styled(row.against or "", "dim"), 4 if is_in_turn else 15, _LEFT),
        _Field("verdict", lambda row: _verdict(comparison, row), 0, _LEFT),
    ]


def _that_fit(fields: Sequence[_Field], rows: Sequence[Row], room: int) -> list[_Field]:
    """The fields that are always shown, and those of the others that still fit and say something."""
    chosen: set[str] = set()
    needed = -_GAP
    for field in sorted(fields, key=lambda field: field.rank):
        widest = max((field.cell(row).cell_len for row in rows), default=0)
        width = max(min(widest, _VALUE_WISH), len(field.title)) + _GAP
        if not field.rank or (widest and needed + width <= room):
            needed += width
            chosen.add(field.title)
    return [field for field in fields if field.title in chosen]


def percent(share: float) -> str:
    """``2.1 %``; a small share with the digits that it takes."""
    return f"{_hundredths(share)} %"


def _hundredths(share: float) -> str:
    number = 100 * share
    return f"{number:.2g}" if 0 < number < 1 else f"{number:.1f}"


def _interval(row: Row) -> Text:
    low, high = row.error_rate_interval.low or 0.0, row.error_rate_interval.high or 0.0
    return Text(f"{_hundredths(low)}\N{EN DASH}{_hundredths(high)}", "dim")


def _ms(value: float | None) -> Text:
    return Text("" if value is None else duration(value * 1e6))


def _number(value: float | None) -> Text:
    return Text("" if value is None else f"{value:,.0f}")


def _error_difference(row: Row) -> Text:
    found = row.error_difference
    return Text("" if found is None else f"{100 * found.difference:+.1f} pp")


def _p95_difference(row: Row) -> Text:
    found = row.latency_difference
    return Text("" if found is None or found.p95_change is None else f"{100 * found.p95_change:+.0f} %")


def _p(*tests: Difference | None) -> Text:
    """The smallest of the corrected p-values."""
    least = min((test.p_adjusted for test in tests if test is not None), default=None)
    if least is None:
        return Text()
    return Text(f"<{_SMALLEST_P}" if least < _SMALLEST_P else f"{least:.2g}")


def _verdict(comparison: Comparison, row: Row) -> Text:
    if row.verdict is None:
        return Text("baseline" if row.value == comparison.baseline else "", "dim")
    return Text(_MARKS.get(row.verdict, "") + row.verdict.value, VERDICT_STYLES[row.verdict])
