"""Traces and experiments as MLflow's REST API has them, written and read.

``TraceInfoV3``, ``Trace`` and ``Experiment`` of MLflow's service.proto in the JSON mapping of protobuf;
``Span`` of OpenTelemetry's trace.proto, whose ids are base64 here, unlike in OTLP's own JSON.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from .. import keys
from ..exceptions import InvalidTraceError
from ..model import Span, SpanEvent, SpanStatus, SpanStatusCode, SpanType, Trace, TraceInfo, checks
from ..otel.protobuf import attributes_from_json, attributes_to_json

Message = dict[str, Any]

REQUEST_ID: Final = "wherefrom.request_id"
"""Metadata with a ``client_request_id`` that is too long for its column in MLflow's database."""

SERVER_TAGS: Final = frozenset({"mlflow.artifactLocation", keys.SPANS_LOCATION_TAG})
"""Tags that say where a server stores a trace; those of another server would make it unreadable."""

FINALIZED: Final = "mlflow.trace.infoFinalized"
"""Metadata that MLflow's server sets once it has the info of a trace."""

_OWN: Final = (keys.SPAN_TRACE_ID, keys.SPAN_TYPE, keys.SPAN_INPUTS, keys.SPAN_OUTPUTS)
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)

_FIXED64: Final = 1 << 64
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

# Every trace in MLflow's own store has these. By the tag, its client finds the spans.
_TAGS: Final = {keys.SPANS_LOCATION_TAG: "TRACKING_STORE"}
_METADATA: Final = {keys.SCHEMA_VERSION: "3"}


def read_info(message: Mapping[str, Any], experiment: str) -> TraceInfo:
    """Read a ``TraceInfoV3``, without what the server adds: the place of the trace and that it is complete.

    Raises:
        InvalidTraceError: a field is missing or malformed.
    """
    info = TraceInfo.from_dict(dict(message))
    info.experiment = experiment
    info.trace_metadata.pop(FINALIZED, None)
    if (request_id := info.trace_metadata.pop(REQUEST_ID, None)) is not None:
        info.client_request_id = request_id
    info.tags = {key: value for key, value in info.tags.items() if key not in SERVER_TAGS}
    return info


def read_span(message: Mapping[str, Any], trace_id: str) -> Span:
    """Read a ``Span``. A server is untrusted input: each field is checked as in ``Span.from_dict``.

    Raises:
        InvalidTraceError: a field is missing or malformed.
    """
    try:
        attributes = _attributes(message)
        status = checks.mapping("status", message.get("status"))
        code = checks.text("the code of a status", status.get("code") or "UNSET")
        parent = message.get("parent_span_id")
        return Span(
            trace_id=trace_id,
            span_id=checks.identifier("span_id", _hex(message["span_id"])),
            parent_id=checks.identifier("parent_span_id", _hex(parent)) if parent else None,
            name=checks.text("name", message.get("name", "")),
            span_type=checks.text("type", attributes.get(keys.SPAN_TYPE) or SpanType.UNKNOWN),
            start_time_ns=_nanoseconds("start_time_unix_nano", message["start_time_unix_nano"]),
            end_time_ns=_nanoseconds("end_time_unix_nano", message.get("end_time_unix_nano") or 0) or None,
            status=SpanStatus(
                SpanStatusCode(code.removeprefix("STATUS_CODE_")),
                checks.text("the message of a status", status.get("message") or ""),
            ),
            inputs=attributes.get(keys.SPAN_INPUTS),
            outputs=attributes.get(keys.SPAN_OUTPUTS),
            attributes={key: value for key, value in attributes.items() if key not in _OWN},
            events=[_read_event(event) for event in checks.listed("events", message.get("events"))],
            links=[_read_link(link) for link in checks.listed("links", message.get("links"))],
        )
    except InvalidTraceError as error:
        raise InvalidTraceError(f"not a span of MLflow's REST API: {error}") from error
    except _UNREADABLE as error:
        raise InvalidTraceError(f"not a span of MLflow's REST API: {error!r}") from error


def read_stored_span(data: Mapping[str, Any], trace_id: str) -> Span:
    """Read a span from the file in which MLflow stored traces before it used its database.

    Raises:
        InvalidTraceError: a field is missing or malformed.
    """
    span = Span.from_dict(_from_mlflow_2(data) if "context" in data else dict(data))
    span.trace_id = trace_id
    return span


def _from_mlflow_2(data: Mapping[str, Any]) -> dict[str, Any]:
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


def objects(message: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of a message; the JSON mapping omits an empty list."""
    found = message.get(key) if isinstance(message, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def id_of(info: Any) -> str:
    """The trace id of a ``TraceInfoV3``."""
    return str(info.get("trace_id")) if isinstance(info, dict) else ""


def metadata_of(info: Any) -> Mapping[str, Any]:
    """The metadata of a ``TraceInfoV3``."""
    return mapping_in(info, "trace_metadata")


def mapping_in(message: Any, key: str) -> Mapping[str, Any]:
    """An object in a message; empty if there is none."""
    found = message.get(key) if isinstance(message, dict) else None
    return found if isinstance(found, dict) else {}


def span_id_of(span: Mapping[str, Any]) -> str | None:
    """The id of a ``Span`` in hex; ``None`` if it has none."""
    try:
        return _hex(span["span_id"])
    except _UNREADABLE:
        return None


def _read_event(message: Mapping[str, Any]) -> SpanEvent:
    return SpanEvent(
        checks.text("the name of an event", message.get("name", "")),
        _nanoseconds("time_unix_nano", message.get("time_unix_nano", 0)),
        _attributes(message),
    )


def _read_link(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": checks.identifier("trace_id of a link", f"tr-{_hex(message['trace_id'])}"),
        "span_id": checks.identifier("span_id of a link", _hex(message["span_id"])),
        "attributes": _attributes(message),
    }


def _attributes(message: Mapping[str, Any]) -> dict[str, Any]:
    return checks.attributes("attributes", attributes_from_json(message.get("attributes")))


def _nanoseconds(what: str, value: Any) -> int:
    return checks.whole_number(what, value, checks.LATEST_NS)


def _hex(text: str) -> str:
    return b64decode(text, validate=True).hex()


def _base64(hex_id: str) -> str:
    return b64encode(bytes.fromhex(hex_id.removeprefix("0x"))).decode()


def info_message(info: TraceInfo, experiment_id: str) -> Message:
    """Return a ``TraceInfoV3``."""
    message: Message = {
        "trace_id": info.trace_id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": experiment_id},
        },
        "request_time": _timestamp(info.request_time),
        "state": info.state.value,
        "trace_metadata": _METADATA | info.trace_metadata,
        "tags": info.tags | _TAGS,
    }
    optional = {
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "execution_duration": _duration(info.execution_duration),
        "assessments": [one.to_dict() for one in info.assessments] or None,
    }
    return message | {name: value for name, value in optional.items() if value is not None}


def trace_message(trace: Trace, experiment_id: str) -> Message:
    """Return a ``Trace``."""
    return {
        "trace_info": info_message(trace.info, experiment_id),
        "spans": [_span_message(span) for span in trace.data.spans],
    }


def _span_message(span: Span) -> Message:
    attributes = span.all_attributes()
    del attributes[keys.SPAN_TRACE_ID]  # MLflow's client adds the trace's id itself
    message: Message = {
        "trace_id": _id_message(span.trace_id.removeprefix("tr-"), _TRACE_ID_BYTES),
        "span_id": _id_message(span.span_id, _SPAN_ID_BYTES),
        "name": span.name,
        "start_time_unix_nano": _fixed64(span.start_time_ns),
        "attributes": attributes_to_json(attributes),
        "status": {"code": f"STATUS_CODE_{span.status.code}", "message": span.status.description},
    }
    if span.parent_id:
        message["parent_span_id"] = _id_message(span.parent_id, _SPAN_ID_BYTES)
    if span.end_time_ns is not None:
        message["end_time_unix_nano"] = _fixed64(span.end_time_ns)
    if span.events:
        message["events"] = [
            {
                "name": event.name,
                "time_unix_nano": _fixed64(event.timestamp),
                "attributes": attributes_to_json(event.attributes),
            }
            for event in span.events
        ]
    if span.links:
        message["links"] = [
            {
                "trace_id": _id_message(str(link.get("trace_id", "")).removeprefix("tr-"), _TRACE_ID_BYTES),
                "span_id": _id_message(str(link.get("span_id", "")), _SPAN_ID_BYTES),
                "attributes": attributes_to_json(link.get("attributes") or {}),
            }
            for link in span.links
        ]
    return message


def _timestamp(ms: int) -> str:
    # Google's Timestamp ends with the year 9999.
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, 0), checks.LATEST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(ms: int | None) -> str | None:
    if ms is None:
        return None
    seconds, rest = divmod(abs(ms), 1000)
    return f"{'-' if ms < 0 else ''}{seconds}.{rest:03}s"


def _fixed64(ns: int) -> int:
    return min(max(ns, 0), _FIXED64 - 1)


def _id_message(text: str, size: int) -> str:
    """An id as base64. One that is not hex, empty or too long breaks MLflow's client: it becomes a digest."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if not 0 < len(raw) <= size:
        raw = blake2b(text.encode("utf-8", "replace"), digest_size=size).digest()
    return b64encode(raw).decode()
