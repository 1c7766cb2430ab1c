"""The files that commands write: traces as JSON lines, CSV or Parquet, replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from stat import S_IFDIR, S_IFMT, S_IFREG, S_IMODE
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson

from .._csv import DURATION, HTTP_STATUS, TIMESTAMP, Layout, Write
from .._permissions import make_private
from .._sanitize import visible, visible_json
from ..exceptions import MissingExtraError, WherefromError
from ..model import Trace

if TYPE_CHECKING:
    from ..stores import Store


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
_ROWS_IN_GROUP: Final = 5_000  # a row group is written at once, so it has to fit into memory


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


def format_of(path: Path) -> Format | None:
    """The format for the extension of a file."""
    return _ENDINGS.get(path.suffix.lower())


def json_lines(stream: TextIO) -> Write:
    """One trace a line, as MLflow's trace JSON, with all its spans."""

    def write(traces: Sequence[Trace]) -> None:
        stream.writelines(visible_json(trace.to_json()) + "\n" for trace in traces)

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
