"""Traces and experiments as MLflow's protobuf messages, in protobuf's JSON mapping.

``TraceInfoV3``, ``Trace`` and ``Experiment`` of MLflow's service.proto; ``Span`` of OpenTelemetry's
trace.proto, whose ids are base64 here, unlike in OTLP's own JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from ... import keys
from ..._capture.values import to_json
from ...client import KnownExperiment
from ...model import Span, SpanEvent, Trace, TraceInfo

Message = dict[str, Any]

# Google's Timestamp ends with the year 9999; OTLP's times are unsigned.
_LATEST_MS: Final = 253_402_300_799_999
_FIXED64: Final = 1 << 64
_INT64: Final = 1 << 63
_TRACE_ID: Final = 16  # bytes
_SPAN_ID: Final = 8
# Python's protobuf reads messages in messages 100 deep, and each object of a value is three: beyond, as text.
_MAX_DEPTH: Final = 24
_SCALARS: Final = {str: "string_value", int: "int_value", float: "double_value", bool: "bool_value"}
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

# What every trace has in MLflow's own store. By the first of them its client knows whom to ask for spans.
_TAGS: Final = {keys.SPANS_LOCATION_TAG: "TRACKING_STORE"}
_METADATA: Final = {keys.SCHEMA_VERSION: "3"}


def experiment_message(experiment: KnownExperiment) -> Message:
    """An ``Experiment``; artifacts have no place here, so that their location is empty."""
    return {
        "experiment_id": str(experiment.id),
        "name": experiment.name,
        "artifact_location": "",
        "lifecycle_stage": "active",
    }


def info_message(info: TraceInfo, experiment_id: str) -> Message:
    """A ``TraceInfoV3``."""
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
    }
    return message | {name: value for name, value in optional.items() if value is not None}


def trace_message(trace: Trace, experiment_id: str) -> Message:
    """A ``Trace``."""
    return {
        "trace_info": info_message(trace.info, experiment_id),
        "spans": [_span(span) for span in trace.data.spans],
    }


def _timestamp(ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, 0), _LATEST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(ms: int | None) -> str | None:
    if ms is None:
        return None
    seconds, rest = divmod(abs(ms), 1000)
    return f"{'-' if ms < 0 else ''}{seconds}.{rest:03}s"


def _span(span: Span) -> Message:
    message: Message = {
        "trace_id": _bytes(span.trace_id.removeprefix("tr-"), _TRACE_ID),
        "span_id": _bytes(span.span_id, _SPAN_ID),
        "name": span.name,
        "start_time_unix_nano": _fixed64(span.start_time_ns),
        "attributes": _attributes(_told(span)),
        "status": {"code": f"STATUS_CODE_{span.status.code}", "message": span.status.description},
    }
    if span.parent_id:
        message["parent_span_id"] = _bytes(span.parent_id, _SPAN_ID)
    if span.end_time_ns is not None:
        message["end_time_unix_nano"] = _fixed64(span.end_time_ns)
    if span.events:
        message["events"] = [_event(event) for event in span.events]
    if span.links:
        message["links"] = list(_links(span.links))
    return message


def _told(span: Span) -> Message:
    """The attributes; the trace's id is not among them, as the client of MLflow puts it there itself."""
    told = span.all_attributes()
    del told[keys.SPAN_TRACE_ID]
    return told


def _event(event: SpanEvent) -> Message:
    return {
        "name": event.name,
        "time_unix_nano": _fixed64(event.timestamp),
        "attributes": _attributes(event.attributes),
    }


def _links(links: Iterable[Mapping[str, Any]]) -> Iterable[Message]:
    for link in links:
        yield {
            "trace_id": _bytes(str(link.get("trace_id", "")).removeprefix("tr-"), _TRACE_ID),
            "span_id": _bytes(str(link.get("span_id", "")), _SPAN_ID),
            "attributes": _attributes(link.get("attributes") or {}),
        }


def _attributes(pairs: Mapping[str, Any]) -> list[Message]:
    return [{"key": key, "value": _any_value(value, _MAX_DEPTH)} for key, value in pairs.items()]


def _any_value(value: Any, depth: int) -> Message:
    """An ``AnyValue``; ``None`` is the one that holds nothing."""
    kind = type(value)
    if kind is list or kind is dict:
        return _container(value, depth) if depth else {"string_value": to_json(value)}
    if kind is int and not -_INT64 <= value < _INT64:
        return {"string_value": str(value)}
    if value is None:
        return {}
    return {_SCALARS[kind]: value} if kind in _SCALARS else {"string_value": str(value)}


def _container(value: list[Any] | dict[str, Any], depth: int) -> Message:
    if isinstance(value, list):
        return {"array_value": {"values": [_any_value(item, depth - 1) for item in value]}}
    pairs = [{"key": key, "value": _any_value(item, depth - 1)} for key, item in value.items()]
    return {"kvlist_value": {"values": pairs}}


def _fixed64(ns: int) -> int:
    return min(max(ns, 0), _FIXED64 - 1)


def _bytes(text: str, size: int) -> str:
    """An id as base64; a digest of one that is not hex, empty or too long, over which a client breaks."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if not 0 < len(raw) <= size:
        raw = blake2b(text.encode("utf-8", "replace"), digest_size=size).digest()
    return b64encode(raw).decode()
