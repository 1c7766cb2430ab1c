"""Traces as files: datasets for fine-tuning and evaluation as JSON lines, and rows of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

from ..._csv import Layout, comma_separated
from ...analysis.datasets import BATCH, make_lines
from ...analysis.scope import find_window
from ...exceptions import TraceNotFoundError
from ...model import Trace
from ...query.order import NEWEST_FIRST
from ..page import Page, Reader, no_view
from ..parameters import DatasetQuery, ExportQuery

_SECONDS: Final = 10.0


def read_dataset(reader: Reader, query: DatasetQuery, place: Any) -> tuple[bytes, Any]:
    """Some records, and the place of the next ones: among the chosen traces, or in the time range."""
    traces, following = _read(reader, query, place)
    return b"".join(make_lines(traces, query.format)), following


def read_rows(reader: Reader, query: ExportQuery, place: Any) -> tuple[bytes, Any]:
    """Some rows, first their header, and the place of the next ones; all have the columns of the first."""
    layout, within = place or (Layout.of(*(reader.snapshot.keys(one) for one in ("metadata", "tag"))), None)
    traces, following = _read(reader, query, within)
    rows = StringIO(newline="")
    comma_separated(rows, layout, has_header=place is not None)(traces)
    return rows.getvalue().encode("utf-8", "replace"), None if following is None else (layout, following)


def _read(reader: Reader, query: ExportQuery, place: Any) -> tuple[list[Trace], Any]:
    snapshot = reader.snapshot
    if query.trace:
        if place is None and (missing := _missing(reader, query.trace)) is not None:
            raise TraceNotFoundError(f"no trace has the id {missing!r}")
        begin = place or 0
        end = begin + BATCH
        chosen = snapshot.read(snapshot.find(query.trace[begin:end]))
        return chosen, end if end < len(query.trace) else None
    window, after = place or (find_window(snapshot, query.since, query.until), None)
    page = snapshot.search(window.limit(reader.selection), NEWEST_FIRST, BATCH, after)
    return snapshot.read(page.keys), None if page.after is None else (window, page.after)


def _missing(reader: Reader, trace_ids: Sequence[str]) -> str | None:
    """The first of the ids that no trace has."""
    if len(reader.snapshot.find(trace_ids)) == len(set(trace_ids)):
        return None
    return next((one for one in trace_ids if not reader.snapshot.find([one])), None)


PAGES: Final = (
    Page(
        path="/api/dataset",
        view=no_view,
        batches=read_dataset,
        answer=str,
        summary="Traces as JSON lines, the newest first, or in the order of `trace`: the messages with the"
        " answer, for fine-tuning or evaluation. Traces without both are left out.",
        query=DatasetQuery,
        seconds=_SECONDS,
    ),
    Page(
        path="/api/traces",
        view=no_view,
        batches=read_rows,
        suffix="csv",
        answer=str,
        summary="Traces as CSV, without their spans: a row each, the newest first, or in the order of"
        " `trace`. The columns are those of `wherefrom export --to csv`.",
        query=ExportQuery,
        seconds=_SECONDS,
    ),
)
