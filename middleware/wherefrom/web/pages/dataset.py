"""Datasets: traces as JSON lines, for fine-tuning and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...analysis.datasets import BATCH, make_lines, read_batch
from ...analysis.scope import find_window
from ...exceptions import TraceNotFoundError
from ..page import Page, Reader, no_view
from ..parameters import DatasetQuery

_SECONDS: Final = 10.0


def read_dataset(reader: Reader, query: DatasetQuery, place: Any) -> tuple[bytes, Any]:
    """Some records, and the place of the next ones: among the chosen traces, or in the time range."""
    if query.trace:
        if place is None and (missing := _missing(reader, query.trace)) is not None:
            raise TraceNotFoundError(f"no trace has the id {missing!r}")
        begin = place or 0
        end = begin + BATCH
        traces = reader.snapshot.read(reader.snapshot.find(query.trace[begin:end]))
        lines = b"".join(make_lines(traces, query.format))
        return lines, end if end < len(query.trace) else None
    window, after = place or (find_window(reader.snapshot, query.since, query.until), None)
    batch = read_batch(reader.snapshot, window.limit(reader.selection), query.format, after)
    return batch.lines, None if batch.after is None else (window, batch.after)


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
)
