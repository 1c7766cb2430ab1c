"""The formats that traces are exported in: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from .._sanitize import visible, visible_json
from ..exceptions import MissingExtraError
from ..model import Trace
from .records import DURATION, TIMESTAMP, Layout

Write = Callable[[Sequence[Trace]], None]


class Format(StrEnum):
    """What ``--to`` takes."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_ENDINGS: Final = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ROWS_IN_GROUP: Final = 5_000


def format_of(path: Path) -> Format | None:
    """The format that the ending of a file's name tells."""
    return _ENDINGS.get(path.suffix.lower())


def json_lines(stream: TextIO) -> Write:
    """One trace a line, as MLflow's trace JSON, with all its spans."""

    def write(traces: Sequence[Trace]) -> None:
        stream.writelines(visible_json(trace.to_json()) + "\n" for trace in traces)

    return write


def comma_separated(stream: TextIO, layout: Layout, *, is_seen: bool = False) -> Write:
    """One trace a row, without its spans; ``is_seen``: on a terminal, which no cell may steer.

    A text that a spreadsheet would take for a formula gets an apostrophe before it: a client may well send
    ``=HYPERLINK(...)`` as its user id.
    """
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([_harmless(name) for name in layout.columns])
    when = layout.columns.index(TIMESTAMP)

    def write(traces: Sequence[Trace]) -> None:
        for trace in traces:
            row = layout.row(trace)
            row[when] = _iso(row[when])
            cells = [_harmless(value) if isinstance(value, str) else value for value in row]
            rows.writerow([visible("" if cell is None else cell) for cell in cells] if is_seen else cells)

    return write


@contextmanager
def parquet(path: Path, layout: Layout) -> Iterator[Write]:
    """The rows of the CSV as they are, and the spans of each as JSON.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        pyarrow, writing = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise MissingExtraError("export to Parquet", "parquet") from None
    types = {TIMESTAMP: pyarrow.timestamp("ms", tz="UTC"), DURATION: pyarrow.float64()}
    names = [*layout.columns, "spans"]
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in names])
    waiting: list[list[Any]] = []

    def write_group() -> None:
        columns = [list(column) for column in zip(*waiting, strict=True)]
        writer.write_table(pyarrow.table(columns, schema=schema))
        waiting.clear()

    def write(traces: Sequence[Trace]) -> None:
        waiting.extend([*layout.row(trace), _spans(trace)] for trace in traces)
        if len(waiting) >= _ROWS_IN_GROUP:
            write_group()

    with writing.ParquetWriter(path, schema) as writer:
        yield write
        if waiting:
            write_group()


def _spans(trace: Trace) -> str:
    return orjson.dumps([span.to_dict() for span in trace.data.spans]).decode()


def _harmless(text: str) -> str:
    if not _FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def _iso(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(ms)
