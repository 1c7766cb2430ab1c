"""The files that commands write: traces as JSON lines, CSV or Parquet, replaced atomically."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from stat import S_IFDIR, S_IFMT, S_IFREG, S_IMODE
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from .._permissions import make_private
from .._records import NOT_PAIRS, trace_record
from .._sanitize import visible, visible_json
from ..exceptions import MissingExtraError, WherefromError
from ..model import Trace

if TYPE_CHECKING:
    from ..stores import Store

Write = Callable[[Sequence[Trace]], None]


class Format(StrEnum):
    """The file formats."""

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
_ROWS_IN_GROUP: Final = 5_000  # a row group is written at once, so it has to fit into memory

MOST_KEYS: Final = 200  # spreadsheets and data frames become slow with more columns

HTTP_STATUS: Final = "http_status"
TIMESTAMP: Final = "timestamp"  # in ms since the epoch
DURATION: Final = "execution_time_ms"
_FIXED: Final = (
    "trace_id", "experiment", TIMESTAMP, DURATION, "status", HTTP_STATUS, "name", "client_request_id",
    "session_id", "user", "request_preview", "response_preview",
)  # fmt: skip
_OTHER: Final = "other"


class OutputError(WherefromError, OSError):
    """A file that cannot or must not be written."""


@contextmanager
def replacing(path: Path, store: Store) -> Iterator[Path]:
    """A path to write to, which replaces ``path`` if the block succeeds; a pipe is written to directly.

    Raises:
        OutputError: it cannot be written, or it is the store that is read.
    """
    shown, target = visible(path), path.absolute().resolve()
    if store.path is not None and target == store.path.resolve():
        raise OutputError(f"{shown} is the store itself: name another file")
    try:
        kind = S_IFMT(target.stat().st_mode)
    except OSError:  # there is none, or there cannot be one: the first write says why
        kind = S_IFREG
    if kind == S_IFDIR:
        raise OutputError(f"{shown} is a directory: name a file in it")
    is_special = kind != S_IFREG
    part = target if is_special else target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        if not is_special:
            part.unlink(missing_ok=True)
            make_private(part)
        yield part
        if not is_special:
            if target.exists():
                part.chmod(S_IMODE(target.stat().st_mode))
            part.replace(target)
    except OSError as error:
        raise OutputError(f"{shown} cannot be written: {error.strerror or error}") from error
    finally:
        if not is_special:
            with suppress(OSError):
                part.unlink()


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


def format_of(path: Path) -> Format | None:
    """The format for the extension of a file."""
    return _ENDINGS.get(path.suffix.lower())


def json_lines(stream: TextIO) -> Write:
    """One trace a line, as MLflow's trace JSON, with all its spans."""

    def write(traces: Sequence[Trace]) -> None:
        stream.writelines(visible_json(trace.to_json()) + "\n" for trace in traces)

    return write


def comma_separated(stream: TextIO, layout: Layout, *, is_terminal: bool = False) -> Write:
    """One trace a row, without its spans; on a terminal without control characters.

    Text that a spreadsheet would read as a formula gets an apostrophe: a client may send ``=HYPERLINK(...)``
    as its user id.
    """
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([_harmless(name) for name in layout.columns])
    when = layout.columns.index(TIMESTAMP)

    def write(traces: Sequence[Trace]) -> None:
        for trace in traces:
            row = layout.row(trace)
            row[when] = _iso(row[when])
            cells = [_harmless(value) if isinstance(value, str) else value for value in row]
            rows.writerow([visible("" if cell is None else cell) for cell in cells] if is_terminal else cells)

    return write


@contextmanager
def parquet(path: Path, layout: Layout) -> Iterator[Write]:
    """The rows of the CSV with unchanged values, and the spans of each trace as JSON.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        pyarrow, writing = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise MissingExtraError("export to Parquet", "parquet") from None
    types = {TIMESTAMP: pyarrow.timestamp("ms", tz="UTC"), DURATION: pyarrow.float64()}
    types[HTTP_STATUS] = pyarrow.int64()
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
