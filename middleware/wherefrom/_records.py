"""Results as flat records for data frames, and as HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from html import escape
from typing import Any, ClassVar, Final

from . import keys
from ._sanitize import visible
from ._units import spoken_utc
from .model import Trace

_MOST_ROWS: Final = 50  # a notebook cell stays readable; ``records`` has all
_MOST_COLUMNS: Final = 12
_MOST_TEXT: Final = 80
# Metadata and tags with a field of their own, or the same on all traces.
NOT_PAIRS: Final = frozenset({keys.SESSION, keys.USER, keys.TRACE_NAME_TAG, keys.SCHEMA_VERSION})
_TIMES: Final = frozenset({"timestamp", "request_time", "first_seen", "last_seen", "start"})

Record = dict[str, Any]
"""Column to value: text, a number, a boolean, ``None``, or a list of these."""


class DatasetFormat(StrEnum):
    """The forms of records: OpenAI's for fine-tuning with chats, and MLflow's for evaluation."""

    OPENAI = "openai"
    MLFLOW = "mlflow"


class Tabular:
    """A result that data frames and notebooks can show."""

    __slots__ = ()

    _columns: ClassVar[tuple[str, ...]] = ()
    """The columns of the HTML table; by default the first that are not empty."""

    def _rows(self) -> Iterable[object]:
        raise NotImplementedError

    def records(self) -> list[Record]:
        """The rows as flat dicts with the same keys, for ``pandas.DataFrame`` or ``polars.DataFrame``."""
        found = [flat_record(row) for row in self._rows()]
        names = dict.fromkeys(name for record in found for name in record)
        return [{name: record.get(name) for name in names} for record in found]

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``; times are datetimes in UTC.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas as pd

        frame = pd.DataFrame(self.records(), columns=self._names())
        for name in filter(_is_time, frame.columns):
            frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
        return frame

    def to_polars(self) -> Any:
        """The rows as a ``polars.DataFrame``; times are datetimes in UTC.

        Raises:
            ModuleNotFoundError: polars is not installed.
        """
        import polars as pl

        frame = pl.DataFrame(self.records(), schema=self._names(), infer_schema_length=None)
        times = [
            pl.from_epoch(pl.col(name).cast(pl.Int64), "ms").dt.replace_time_zone("UTC")
            for name in frame.columns
            if _is_time(name)
        ]
        return frame.with_columns(times)

    def _names(self) -> list[str] | None:
        """The columns of a frame without rows; ``None`` if there are rows, which have the columns."""
        return None if any(True for _ in self._rows()) else list(self._columns)

    def _repr_html_(self) -> str:
        records = self.records()
        used = [name for name in (records[0] if records else ()) if _is_used(records, name)]
        shown = [name for name in self._columns if name in used] or used[:_MOST_COLUMNS]
        lines = [_row("th", shown)]
        lines += (
            _row("td", [_text(name, record[name]) for name in shown]) for record in records[:_MOST_ROWS]
        )
        note = f"{type(self).__name__}: {len(records):,} rows, {len(used)} columns"
        return f"<table><caption>{note}</caption>{''.join(lines)}</table>"


def flat_record(row: object) -> Record:
    """The fields of a row; those of nested objects are named with dots."""
    return trace_record(row) if isinstance(row, Trace) else dict(_flat("", row))


def trace_record(trace: Trace) -> Record:
    """A trace without its spans, its fields named as in a filter; times in ms since the epoch."""
    info, took = trace.info, trace.duration_ns
    record = {
        "trace_id": info.trace_id,
        "experiment": info.experiment,
        "timestamp": info.request_time,
        "execution_time_ms": None if took is None else round(took / 1e6, 3),
        "status": info.state.value,
        "http_status": http_status(trace),
        "name": info.name,
        "client_request_id": info.client_request_id,
        "session_id": info.trace_metadata.get(keys.SESSION),
        "user": info.trace_metadata.get(keys.USER),
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
    }
    for family, pairs in (("metadata", info.trace_metadata), ("tag", info.tags)):
        record |= {f"{family}.{key}": value for key, value in pairs.items() if key not in NOT_PAIRS}
    return record


def http_status(trace: Trace) -> int | None:
    """The status of the response; ``None`` without one."""
    ids = {span.span_id for span in trace.data.spans}
    root = next((span for span in trace.data.spans if span.parent_id not in ids), None)
    status = None if root is None else root.attributes.get("http.response.status_code")
    return status if type(status) is int else None


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    below = f"{name}." if name else ""
    if is_dataclass(value):
        for field in fields(value):
            yield from _flat(below + field.name, getattr(value, field.name))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for field_name in value._fields:
            yield from _flat(below + field_name, getattr(value, field_name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{below}{key}", inner)
    elif isinstance(value, Enum):
        yield name, value.value
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def _is_used(records: list[Record], name: str) -> bool:
    return any(record[name] not in (None, "", []) for record in records)


def _is_time(name: str) -> bool:
    return name.rpartition(".")[2] in _TIMES and not name.startswith(("metadata.", "tag."))


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and _is_time(name):
        return spoken_utc(value)
    text = f"{value:.4g}" if isinstance(value, float) else visible(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _row(kind: str, texts: Iterable[str]) -> str:
    cells = (f"<{kind}>{escape(text)}</{kind}>" for text in texts)
    return f"<tr>{''.join(cells)}</tr>"
