"""Assessments of traces: feedback of people, models and programs, and expectations, as MLflow has them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, Final
from uuid import uuid4

from .. import keys
from .._capture.values import clean_text, cut, safe_repr
from .._clock import wall_ns
from ..exceptions import InvalidTraceError
from . import checks
from .times import from_rfc3339, to_rfc3339

MAX_RATIONALE: Final = 10_000
MAX_VALUE: Final = 100_000
"""Characters of a value as JSON, at most."""
_HEX_ID: Final = re.compile(r"(?:tr-)?([0-9a-f]{32})", re.IGNORECASE | re.ASCII)
_MAX_DEPTH: Final = 20
_MAX_INTEGER: Final = 2**63
_JSON: Final = "JSON_FORMAT"
_TAKES: Final = "true or false, a number, text, or a list or an object of those"


class AssessmentKind(StrEnum):
    """What an assessment says: how good something was, or what would have been right."""

    FEEDBACK = "feedback"
    EXPECTATION = "expectation"


class SourceType(StrEnum):
    """Who assesses."""

    HUMAN = "HUMAN"
    LLM_JUDGE = "LLM_JUDGE"
    CODE = "CODE"
    SOURCE_TYPE_UNSPECIFIED = "SOURCE_TYPE_UNSPECIFIED"


@dataclass(frozen=True, slots=True)
class AssessmentSource:
    """Who assesses: ``source_id`` is a user, a model or a program."""

    source_type: SourceType = SourceType.CODE
    source_id: str | None = "default"


@dataclass(frozen=True, slots=True)
class AssessmentError:
    """Why there is no value, such as the failure of a judge."""

    error_code: str
    error_message: str | None = None
    stack_trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One assessment of a trace, or of the span ``span_id`` of it.

    ``value`` is JSON data; times are in ms since the epoch. ``rationale`` is the comment. One that
    ``overrides`` another makes it invalid: ``valid`` is false then, and filters do not find it.
    """

    trace_id: str
    name: str
    value: Any
    kind: AssessmentKind = AssessmentKind.FEEDBACK
    source: AssessmentSource = AssessmentSource()
    span_id: str | None = None
    rationale: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    error: AssessmentError | None = None
    create_time_ms: int = 0
    last_update_time_ms: int = 0
    assessment_id: str = ""
    overrides: str | None = None
    valid: bool = True

    @property
    def json(self) -> str:
        """The value as JSON, as MLflow's filters compare it."""
        return json.dumps(self.value, ensure_ascii=False)

    @property
    def text(self) -> str:
        """The value as text: a string as it is, any other value as JSON."""
        return self.value if isinstance(self.value, str) else self.json

    @property
    def number(self) -> float | None:
        """The value if it is a number, for the relations ``<``, ``<=``, ``>=`` and ``>``."""
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        return float(self.value) if is_number else None

    @property
    def covers_session(self) -> bool:
        """Whether it holds for all traces of the session of its trace."""
        return keys.SESSION in self.metadata

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes, about."""
        return 1_000 + len(self.json) + len(self.rationale or "")

    def order(self) -> tuple[int, str]:
        """The place among those of a trace: the oldest comes first."""
        return self.create_time_ms, self.assessment_id

    def to_dict(self) -> dict[str, Any]:
        """The assessment as in MLflow's trace JSON and REST API; absent fields are left out."""
        value: dict[str, Any] = {"value": self.value}
        if self.kind is AssessmentKind.EXPECTATION and isinstance(self.value, (dict, list)):
            value = {"serialized_value": {"serialization_format": _JSON, "value": self.json}}
        if self.error is not None:
            pairs = (
                ("error_code", self.error.error_code),
                ("error_message", self.error.error_message),
                ("stack_trace", self.error.stack_trace),
            )
            value["error"] = {name: text for name, text in pairs if text is not None}
        source: dict[str, Any] = {"source_type": self.source.source_type.value}
        if self.source.source_id is not None:
            source["source_id"] = self.source.source_id
        data = {
            "assessment_id": self.assessment_id or None,
            "assessment_name": self.name,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "source": source,
            "create_time": to_rfc3339(self.create_time_ms),
            "last_update_time": to_rfc3339(self.last_update_time_ms),
            self.kind.value: value,
            "rationale": self.rationale,
            "metadata": self.metadata or None,
            "overrides": self.overrides,
            "valid": self.valid,
        }
        return {name: item for name, item in data.items() if item is not None}

    @classmethod
    def from_dict(cls, data: Any, trace_id: str | None = None) -> Assessment:
        """Read one from MLflow's JSON, of the trace ``trace_id`` if that is given.

        One without id or time gets those of a new one.

        Raises:
            InvalidTraceError: something in ``data`` is missing or malformed.
        """
        data = checks.mapping("an assessment", data)
        kind = next((kind for kind in AssessmentKind if data.get(kind) is not None), None)
        if kind is None:
            raise InvalidTraceError("an assessment takes one of feedback and expectation")
        created = _time_of("create_time", data, now_ms())
        return new_assessment(
            data.get("trace_id") if trace_id is None else trace_id,
            data.get("assessment_name"),
            read_value(kind, data[kind]),
            kind=kind,
            source=data.get("source"),
            span_id=data.get("span_id") or None,
            rationale=data.get("rationale") or None,
            metadata=data.get("metadata"),
            error=read_error(data[kind]),
            overrides=data.get("overrides") or None,
            valid=data.get("valid", True) is not False,
            assessment_id=data.get("assessment_id") or None,
            create_time_ms=created,
            last_update_time_ms=_time_of("last_update_time", data, created),
        )


def new_assessment(
    trace_id: object,
    name: object,
    value: object,
    *,
    kind: AssessmentKind = AssessmentKind.FEEDBACK,
    source: object = None,
    span_id: object = None,
    rationale: object = None,
    metadata: object = None,
    error: AssessmentError | None = None,
    overrides: object = None,
    valid: bool = True,
    assessment_id: object = None,
    create_time_ms: int | None = None,
    last_update_time_ms: int | None = None,
) -> Assessment:
    """An assessment of checked parts, with a new id and the time of now, if none are given.

    ``source`` is an ``AssessmentSource``, that of MLflow, its JSON, or a type such as ``"HUMAN"``; without
    one, feedback is from a program and an expectation from a person. Text that cannot be encoded is replaced,
    and a rationale has at most 10,000 characters.

    Raises:
        InvalidTraceError: a part cannot be used; the message names it and what it takes.
    """
    created = now_ms() if create_time_ms is None else create_time_ms
    return Assessment(
        trace_id=checks.identifier("trace_id", trace_id),
        name=checks.identifier("the name of feedback", name),
        value=_checked_value(value),
        kind=kind,
        source=_source_of(source, kind),
        span_id=None if span_id is None else checks.identifier("span_id", span_id),
        rationale=None if rationale is None else cut(checks.text("a comment", rationale), MAX_RATIONALE),
        metadata=checks.strings("metadata", metadata),
        error=error,
        create_time_ms=created,
        last_update_time_ms=created if last_update_time_ms is None else last_update_time_ms,
        assessment_id=(
            f"a-{uuid4().hex}" if assessment_id is None else checks.identifier("assessment_id", assessment_id)
        ),
        overrides=None if overrides is None else checks.identifier("overrides", overrides),
        valid=valid,
    )


def new_feedback(
    trace_id: object,
    name: object,
    value: object,
    *,
    span_id: object = None,
    comment: object = None,
    source: object = None,
) -> Assessment:
    """Feedback on a trace, whose id may lack its ``tr-``, as in logs of OpenTelemetry.

    Raises:
        InvalidTraceError: a part cannot be used; the message names it and what it takes.
    """
    if value is None:
        raise InvalidTraceError(f"the value of feedback takes {_TAKES}, not None")
    if isinstance(trace_id, str) and (digits := _HEX_ID.fullmatch(trace_id)):
        trace_id = f"tr-{digits[1].lower()}"
    return new_assessment(trace_id, name, value, span_id=span_id, rationale=comment, source=source)


def now_ms() -> int:
    """The time in ms since the epoch."""
    return wall_ns() // 1_000_000


def read_value(kind: AssessmentKind, data: object) -> Any:
    """The value in the ``feedback`` or ``expectation`` of MLflow's JSON.

    Raises:
        InvalidTraceError: it is malformed.
    """
    given = checks.mapping(kind.value, data)
    if (serialized := given.get("serialized_value")) is None:
        return given.get("value")
    text = checks.text("serialized_value", checks.mapping("serialized_value", serialized).get("value"))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidTraceError("serialized_value takes a value in JSON") from None


def read_error(data: object) -> AssessmentError | None:
    """The error in the ``feedback`` of MLflow's JSON.

    Raises:
        InvalidTraceError: it is malformed.
    """
    found = checks.mapping("error", checks.mapping("feedback", data).get("error"))
    if not found:
        return None
    return AssessmentError(
        checks.text("error_code", found.get("error_code", "")),
        checks.optional_text("error_message", found.get("error_message")),
        checks.optional_text("stack_trace", found.get("stack_trace")),
    )


def _time_of(name: str, data: Mapping[Any, Any], default: int) -> int:
    try:
        return default if data.get(name) is None else from_rfc3339(name, data[name])
    except (ValueError, OverflowError):
        raise InvalidTraceError(f"{name} takes a time such as 2025-01-31T08:00:00Z") from None


def _checked_value(value: object) -> Any:
    checked = _json_data(value, _MAX_DEPTH)
    length = len(json.dumps(checked, ensure_ascii=False))
    if length > MAX_VALUE:
        raise InvalidTraceError(f"a value takes at most {MAX_VALUE:,} characters of JSON, not {length:,}")
    return checked


def _json_data(value: object, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return clean_text(str(value))
        case int() if abs(value) < _MAX_INTEGER:
            return int(value)
        case float() if isfinite(value):
            return float(value)
        case list() | tuple() if depth:
            return [_json_data(item, depth - 1) for item in value]
        case dict() if depth and all(isinstance(key, str) for key in value):
            return {clean_text(key): _json_data(item, depth - 1) for key, item in value.items()}
    raise InvalidTraceError(f"the value of feedback takes {_TAKES}, not {cut(safe_repr(value), 60)}")


def _source_of(source: object, kind: AssessmentKind) -> AssessmentSource:
    if source is None:
        is_feedback = kind is AssessmentKind.FEEDBACK
        return AssessmentSource(SourceType.CODE if is_feedback else SourceType.HUMAN)
    given: Any = source
    if isinstance(source, Mapping):
        type_, id_ = source.get("source_type", SourceType.SOURCE_TYPE_UNSPECIFIED), source.get("source_id")
    elif isinstance(source, str):
        type_, id_ = source, "default"
    else:
        type_, id_ = getattr(given, "source_type", None), getattr(given, "source_id", None)
    name = type_.upper() if isinstance(type_, str) else ""
    name = "LLM_JUDGE" if name == "AI_JUDGE" else name  # as MLflow called it before
    if name not in SourceType.__members__:
        raise InvalidTraceError(
            f"source takes HUMAN, LLM_JUDGE or CODE, or an AssessmentSource, not {cut(safe_repr(source), 60)}"
        )
    return AssessmentSource(
        SourceType[name], None if id_ is None else checks.identifier("the id of a source", id_)
    )
