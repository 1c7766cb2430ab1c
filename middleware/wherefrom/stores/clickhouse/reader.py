"""Traces from their rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from ... import keys
from ...model import Span, SpanEvent, SpanStatus, SpanStatusCode, Trace, TraceData, TraceInfo, TraceState
from ...model.record import SPAN_FIELDS
from ...process import ProcessReport, Stats
from ..base import TraceRow
from .rows import Row, pairs_of, to_source

# What a page of traces shows is read without what their inputs and outputs say.
SPAN_READ: Final = ("trace_id", *SPAN_FIELDS)
OUTLINE_READ: Final = SPAN_READ[: SPAN_READ.index("inputs")]

_NONE: Final[Mapping[str, str]] = {}


def to_trace(row: Row, tags: dict[str, str], spans: Iterable[Sequence[Any]]) -> Trace:
    """The trace of a row; ``tags`` are those it has now, with its name."""
    duration_us = row["duration_us"]
    source = to_source(row["source"])
    info = TraceInfo(
        trace_id=row["trace_id"],
        experiment=row["experiment"],
        request_time=row["request_time"],
        execution_duration=None if duration_us is None else duration_us // 1000,
        state=TraceState(row["state"]),
        client_request_id=row["client_request_id"],
        request_preview=row["request_preview"],
        response_preview=row["response_preview"],
        trace_metadata=source.pairs | pairs_of(row),
        tags=tags,
        source=source,
    )
    return Trace(info, TraceData([to_span(*span) for span in spans]))


_STATUS: Final = re.compile(r"[1-9][0-9]{2}", re.ASCII)


def to_trace_row(row: Row, tags: dict[str, str], outcome: str | None, status: str) -> TraceRow:
    """The trace of a row without its spans."""
    duration_us = row["duration_us"]
    metadata = to_source(row["source"]).pairs | pairs_of(row)
    return TraceRow(
        trace_id=row["trace_id"],
        experiment=row["experiment"],
        request_time=row["request_time"],
        duration_ms=None if duration_us is None else duration_us / 1000,
        state=row["state"],
        name=tags.pop(keys.TRACE_NAME_TAG, None),
        outcome=outcome,
        http_status=int(status) if _STATUS.fullmatch(status) else None,
        request_id=row["client_request_id"],
        session=metadata.pop(keys.SESSION, None),
        user=metadata.pop(keys.USER, None),
        request_preview=row["request_preview"],
        response_preview=row["response_preview"],
        metadata=metadata,
        tags=tags,
    )


def to_span(
    trace_id: str, span_id: str, parent_id: str | None, name: str, span_type: str, code: str, message: str,
    start: int, end: int | None, inputs: str | None = None, outputs: str | None = None,
    attributes: Mapping[str, str] = _NONE, events: str | None = None, links: str | None = None,
) -> Span:  # fmt: skip
    """The span of the columns ``SPAN_READ``, or of the ``OUTLINE_READ`` among them."""
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        span_type=span_type,
        start_time_ns=start,
        end_time_ns=end,
        status=SpanStatus(SpanStatusCode(code), message),
        inputs=None if inputs is None else orjson.loads(inputs),
        outputs=None if outputs is None else orjson.loads(outputs),
        attributes={key: orjson.loads(value) for key, value in attributes.items()},
        events=[] if events is None else list(map(_to_event, orjson.loads(events))),
        links=[] if links is None else orjson.loads(links),
    )


def _to_event(written: Mapping[str, Any]) -> SpanEvent:
    return SpanEvent(written["name"], written["time_unix_nano"], written["attributes"])


def to_report(host: str, pid: int, started: int, reported: int, text: str) -> ProcessReport:
    """The report of a row."""
    rest: dict[str, Any] = orjson.loads(text)
    stats = Stats(**rest["stats"])
    return ProcessReport(host, pid, started, reported, stats, rest["queues"], rest["retention_days"])
