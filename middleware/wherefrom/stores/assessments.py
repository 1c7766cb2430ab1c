"""Assessments as rows: the columns that filters compare, and the rest as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from ..model import Assessment, AssessmentError, AssessmentKind, AssessmentSource, SourceType, Trace

COLUMNS: Final = (
    "trace_id", "assessment_id", "kind", "name", "value", "text", "number", "valid", "covers_session",
    "created", "content",
)  # fmt: skip
"""``value`` is JSON, ``text`` is ``Assessment.text``, and ``created`` is in ms since the epoch."""
_KEPT: Final = ("span_id", "rationale", "metadata", "overrides", "last_update_time_ms")


def assessments_of(traces: Iterable[Trace]) -> list[Assessment]:
    """The assessments of some traces."""
    return [one for trace in traces for one in trace.info.assessments]


def to_row(one: Assessment) -> tuple[Any, ...]:
    """The values of ``COLUMNS``."""
    content: dict[str, Any] = {name: getattr(one, name) for name in _KEPT}
    content["source"] = (one.source.source_type, one.source.source_id)
    if one.error is not None:
        content["error"] = (one.error.error_code, one.error.error_message, one.error.stack_trace)
    return (
        one.trace_id,
        one.assessment_id,
        one.kind.value,
        one.name,
        one.json,
        one.text,
        one.number,
        int(one.valid),
        int(one.covers_session),
        one.create_time_ms,
        orjson.dumps(content).decode(),
    )


READ: Final = ("trace_id", "assessment_id", "kind", "name", "value", "valid", "created", "content")
"""What ``from_row`` takes."""


def from_row(row: Sequence[Any]) -> Assessment:
    """The assessment with these values of ``READ``."""
    trace_id, assessment_id, kind, name, value, valid, created, text = row
    content: dict[str, Any] = orjson.loads(text)
    source_type, source_id = content.pop("source")
    error = content.pop("error", None)
    return Assessment(
        trace_id=trace_id,
        assessment_id=assessment_id,
        kind=AssessmentKind(kind),
        name=name,
        value=orjson.loads(value),
        valid=bool(valid),
        create_time_ms=created,
        source=AssessmentSource(SourceType(source_type), source_id),
        error=None if error is None else AssessmentError(*error),
        **content,
    )
