"""Traces as MLflow's server answers them, read back into ours."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from ... import keys
from ...exceptions import InvalidTraceError
from ...model import Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType, TraceInfo
from .start_trace import FINALIZED, OF_THE_SERVER, REQUEST_ID

_OWN: Final = (keys.SPAN_TRACE_ID, keys.SPAN_TYPE, keys.SPAN_INPUTS, keys.SPAN_OUTPUTS)
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def read_info(answer: Mapping[str, Any], experiment: str) -> TraceInfo:
    """A trace's info without what the server adds to each: where it keeps it, and that it is complete.

    Raises:
        InvalidTraceError: something in it is missing or malformed.
    """
    info = TraceInfo.from_dict(dict(answer))
    info.experiment = experiment
    info.trace_metadata.pop(FINALIZED, None)
    if (whole := info.trace_metadata.pop(REQUEST_ID, None)) is not None:
        info.client_request_id = whole
    info.tags = {key: value for key, value in info.tags.items() if key not in OF_THE_SERVER}
    return info


def read_span(answer: Mapping[str, Any], trace_id: str) -> Span:
    """A span in the JSON of OTLP's protobuf, ids in base64 and names as in the schema.

    Raises:
        InvalidTraceError: something in it is missing or malformed.
    """
    try:
        attributes = _pairs(answer.get("attributes"))
        status = answer.get("status") or {}
        code = str(status.get("code", "UNSET")).removeprefix("STATUS_CODE_")
        parent = answer.get("parent_span_id")
        return Span(
            trace_id=trace_id,
            span_id=_hex(answer["span_id"]),
            parent_id=_hex(parent) if parent else None,
            name=str(answer.get("name", "")),
            span_type=str(attributes.get(keys.SPAN_TYPE) or SpanType.UNKNOWN),
            start_time_ns=int(answer["start_time_unix_nano"]),
            end_time_ns=int(answer.get("end_time_unix_nano") or 0) or None,
            status=SpanStatus(SpanStatusCode(code), status.get("message") or ""),
            inputs=attributes.get(keys.SPAN_INPUTS),
            outputs=attributes.get(keys.SPAN_OUTPUTS),
            attributes={key: value for key, value in attributes.items() if key not in _OWN},
            events=[_event(event) for event in answer.get("events") or ()],
            links=[_link(link) for link in answer.get("links") or ()],
        )
    except _UNREADABLE as error:
        raise InvalidTraceError(f"not a span as MLflow answers it: {error!r}") from error


def read_stored_span(data: Mapping[str, Any], trace_id: str) -> Span:
    """A span in the file that MLflow kept traces in before it kept them in its database.

    Raises:
        InvalidTraceError: something in it is missing or malformed.
    """
    span = Span.from_dict(_as_now(data) if "context" in data else dict(data))
    span.trace_id = trace_id
    return span


def objects(answer: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of an answer; an empty list is left out of it."""
    found = answer.get(key) if isinstance(answer, dict) else None
    return [each for each in found or () if isinstance(each, dict)]


def id_of(info: Any) -> str:
    """The trace id in what is told of a trace."""
    return str(info.get("trace_id")) if isinstance(info, dict) else ""


def span_id_of(span: Mapping[str, Any]) -> str | None:
    """The id of a span; ``None`` when it has none."""
    try:
        return _hex(span["span_id"])
    except _UNREADABLE:
        return None


def _as_now(data: Mapping[str, Any]) -> dict[str, Any]:
    """MLflow 2's form of a span in that of today."""
    try:
        return {
            **data,
            "trace_id": _base64(data["context"]["trace_id"]),
            "span_id": _base64(data["context"]["span_id"]),
            "parent_span_id": _base64(data["parent_id"]) if data.get("parent_id") else None,
            "start_time_unix_nano": data["start_time"],
            "end_time_unix_nano": data.get("end_time"),
            "status": {"code": data.get("status_code", "UNSET"), "message": data.get("status_message")},
            "events": [{**event, "time_unix_nano": event["timestamp"]} for event in data.get("events") or ()],
        }
    except _UNREADABLE as error:
        raise InvalidTraceError(f"not a span of MLflow 2: {error!r}") from error


def _event(answer: Mapping[str, Any]) -> SpanEvent:
    moment = int(answer.get("time_unix_nano", 0))
    return SpanEvent(str(answer.get("name", "")), moment, _pairs(answer.get("attributes")))


def _link(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": f"tr-{_hex(answer['trace_id'])}",
        "span_id": _hex(answer["span_id"]),
        "attributes": _pairs(answer.get("attributes")),
    }


def _pairs(answer: Any) -> dict[str, Any]:
    return {str(pair.get("key", "")): _value(pair.get("value") or {}) for pair in answer or ()}


def _value(answer: Mapping[str, Any]) -> Any:
    """What an ``AnyValue`` holds; one that is empty holds ``None``."""
    for kind, held in answer.items():
        if kind == "array_value":
            return [_value(item) for item in held.get("values") or ()]
        if kind == "kvlist_value":
            return _pairs(held.get("values"))
        if kind == "int_value":
            return int(held)
        return float(held) if kind == "double_value" else held
    return None


def _hex(text: str) -> str:
    return b64decode(text, validate=True).hex()


def _base64(hex_id: str) -> str:
    return b64encode(bytes.fromhex(hex_id.removeprefix("0x"))).decode()
