"""Traces as rows of CSV, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

from ._records import NOT_PAIRS, trace_record
from ._sanitize import visible
from .model import Trace

Write = Callable[[Sequence[Trace]], None]

MOST_KEYS: Final = 200  # spreadsheets and data frames become slow with more columns

HTTP_STATUS: Final = "http_status"
TIMESTAMP: Final = "timestamp"  # in ms since the epoch
DURATION: Final = "execution_time_ms"
_FIXED: Final = (
    "trace_id", "experiment", TIMESTAMP, DURATION, "status", HTTP_STATUS, "name", "client_request_id",
    "session_id", "user", "request_preview", "response_preview",
)  # fmt: skip
_OTHER: Final = "other"
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns, named as in a filter; ``other`` has the pairs without a column, as JSON."""

    pairs: tuple[str, ...]  # such as metadata.tenant

    @classmethod
    def of(cls, metadata: Iterable[str], tags: Iterable[str]) -> Layout:
        """Columns for the keys that traces are known to carry, if they are not too many."""
        known = [f"metadata.{key}" for key in metadata if key not in NOT_PAIRS]
        known += [f"tag.{key}" for key in tags if key not in NOT_PAIRS]
        return cls(tuple(known[:MOST_KEYS]))

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return [*_FIXED, *self.pairs, _OTHER]

    def row(self, trace: Trace) -> list[Any]:
        """The values of one trace, ``None`` if it lacks one."""
        others = trace_record(trace)
        own = [others.pop(column, None) for column in (*_FIXED, *self.pairs)]
        return [*own, orjson.dumps(others).decode() if others else None]


def comma_separated(
    stream: TextIO, layout: Layout, *, is_terminal: bool = False, has_header: bool = False
) -> Write:
    """One trace a row, without its spans; on a terminal without control characters.

    ``has_header`` says that the names of the columns are written already.

    Text that a spreadsheet would read as a formula gets an apostrophe: a client may send ``=HYPERLINK(...)``
    as its user id.
    """
    rows, quoted = (
        csv.writer(stream, lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )

    def write_row(cells: Sequence[Any]) -> None:
        # A carriage return ends a row too, but before Python 3.13 it is not quoted.
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoted if has_return else rows).writerow(cells)

    if not has_header:
        write_row([_harmless(name) for name in layout.columns])
    when = layout.columns.index(TIMESTAMP)

    def write(traces: Sequence[Trace]) -> None:
        for trace in traces:
            row = layout.row(trace)
            row[when] = _iso(row[when])
            cells = [_harmless(value) if isinstance(value, str) else value for value in row]
            write_row([visible("" if cell is None else cell) for cell in cells] if is_terminal else cells)

    return write


def _harmless(text: str) -> str:
    if not _FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def _iso(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(ms)
