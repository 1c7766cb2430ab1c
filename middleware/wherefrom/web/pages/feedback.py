"""Feedback on the Trace page: what was given, the form for more, and the JSON API for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...client import TraceClient
from ...exceptions import InvalidTraceError
from ...model import Assessment, AssessmentKind, AssessmentSource, SourceType
from ...query.errors import did_you_mean
from ...query.values import to_number
from ...stores import Store
from ..page import Action
from ..parameters import ParameterError, TraceQuery

_VERDICTS: Final = {"good": True, "bad": False}
_FIELDS: Final = ("name", "value", "span_id", "comment", "source")


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """Feedback, or an expectation, on a trace or on its span ``span_id``; ``time`` in ms since the epoch.

    ``value`` is JSON data, ``text`` the same as text. ``source`` is HUMAN, LLM_JUDGE or CODE, ``by`` a user,
    a model or a program. One that is not ``valid`` was overridden.
    """

    assessment_id: str
    kind: str
    name: str
    value: Any
    text: str
    comment: str | None
    error: str | None
    source: str
    by: str | None
    span_id: str | None
    time: int
    valid: bool


def feedback_rows(assessments: list[Assessment]) -> Iterator[FeedbackRow]:
    """The rows, in the same order."""
    for one in assessments:
        error = None if one.error is None else one.error.error_message or one.error.error_code
        yield FeedbackRow(
            one.assessment_id,
            one.kind.value,
            one.name,
            one.value,
            one.text,
            one.rationale,
            error,
            one.source.source_type.value,
            one.source.source_id,
            one.span_id,
            one.last_update_time_ms,
            one.valid,
        )


def submit(store: Store, query: TraceQuery, form: Mapping[str, str]) -> str:
    """Store or remove feedback, and show the trace again.

    What a person says again of the same name and span takes the place of what they said before.
    """
    client, trace_id = TraceClient(store), query.trace_id
    try:
        if form.get("change") == "remove":
            client.delete_assessment(trace_id, form.get("id", ""))
        else:
            _submit(client, trace_id, form)
    except InvalidTraceError as error:
        raise ParameterError(str(error)) from None
    return f"/traces/{trace_id}"


def _submit(client: TraceClient, trace_id: str, form: Mapping[str, str]) -> None:
    value, comment = _value(form), form.get("comment", "").strip() or None
    name, span_id = form.get("name", "").strip(), form.get("span_id") or None
    source = AssessmentSource(SourceType.HUMAN, form.get("by", "").strip() or "default")
    for one in client.get_assessments([trace_id]).get(trace_id, ()):
        same = (one.kind, one.valid, one.name, one.span_id, one.source)
        if same == (AssessmentKind.FEEDBACK, True, name, span_id, source):
            changes = {"value": value, "rationale": comment or one.rationale}
            client.update_assessment(trace_id, one.assessment_id, **changes)
            return
    client.log_feedback(trace_id, name, value, span_id=span_id, comment=comment, source=source)


def _value(form: Mapping[str, str]) -> bool | float | str:
    """The thumb, or the score or text: what is a number is stored as one."""
    if (verdict := form.get("verdict")) in _VERDICTS:
        return _VERDICTS[verdict]
    text = form.get("value", "").strip()
    if not text:
        raise ParameterError("value: expected a score or text, or one of the thumbs")
    number = to_number(text)
    if number is None:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def assess(store: Store, trace_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Store feedback from JSON; return it as in MLflow's trace JSON.

    Raises:
        ParameterError: a field is unknown, or cannot be used.
    """
    for name in given:
        if name not in _FIELDS:
            raise ParameterError(f"unknown field {name[:60]!r}{did_you_mean(name, list(_FIELDS))}")
    arguments = {"name": None, "value": None} | dict(given)
    try:
        return TraceClient(store).log_feedback(trace_id, **arguments).to_dict()
    except InvalidTraceError as error:
        raise ParameterError(str(error)) from None


ACTIONS: Final = (Action(path="/traces/{trace_id}/feedback", act=submit, query=TraceQuery),)
