"""OTLP/JSON: the JSON mapping of proto3 as the OTLP specification changes it.

Ids are hex, not base64; enums are numbers; 64-bit integers are decimal strings; keys are lowerCamelCase.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from .._capture.values import clean_text, plain, to_json
from ..model import OK, Span, SpanEvent, SpanStatus
from . import facts
from .encoding import CONTAINERS, PART, SCOPE_NAME, STATUS_CODES, Encoding, check_ids, usable_links
from .table import Table, Values

_INT64: Final = 1 << 63
_NOT_FINITE: Final = {
    "nan": '{"doubleValue":"NaN"}',
    "inf": '{"doubleValue":"Infinity"}',
    "-inf": '{"doubleValue":"-Infinity"}',
}
_dumps = orjson.dumps
_kind = facts.KINDS.get
_INTERNAL: Final = facts.INTERNAL


class JsonEncoding(Encoding[str]):
    """OTLP/JSON, written as text: most of a request is repeated, and joining it costs less than a tree."""

    content_type = "application/json"

    def __init__(self, scope_version: str, *, for_mlflow: bool = False) -> None:
        super().__init__(Table(_string_attribute), Table(_integer_attribute), for_mlflow=for_mlflow)
        self._texts = Values(_text)
        self._scope = f'{{"name":"{SCOPE_NAME}","version":{_text(scope_version)}}}'

    def attribute(self, key: str, value: Any) -> str:
        """A ``KeyValue`` of any value."""
        try:
            kept = plain(value, is_json=False) if type(value) in CONTAINERS else value
            return f'{{"key":{self._texts[key]},"value":{self._any_value(kept)}}}'
        except RecursionError:
            return self.strings[key].encode(to_json(value))

    def span(self, span: Span, end_time_ns: int, flags: int, attributes: list[str]) -> str:
        """A ``Span``."""
        trace_id, parent_id = span.trace_id.removeprefix("tr-"), span.parent_id
        if type(span) is Span:  # from anywhere; a request's have ids that we made or read
            check_ids(span, trace_id)
        kind = _kind(span.span_type, _INTERNAL)
        self.attributes(span.attributes, attributes)
        if kind == _INTERNAL or self._for_mlflow or span.inputs is not None or span.outputs is not None:
            attributes += self.mlflow_attributes(span, kind)
        parent = f'"parentSpanId":"{parent_id}",' if parent_id else ""
        more = self._events_and_links(span) if span.events or span.links else ""
        status = '{"code":1}' if span.status is OK else _status(span.status)
        return (
            f'{{"traceId":"{trace_id}","spanId":"{span.span_id}",{parent}"flags":{flags},'
            f'"name":{self._texts[span.name]},"kind":{kind},'
            f'"startTimeUnixNano":"{span.start_time_ns}","endTimeUnixNano":"{end_time_ns}",'
            f'"attributes":[{",".join(attributes)}],{more}"status":{status}}}'
        )

    def resource(self, attributes: Mapping[str, Any]) -> str:
        """A ``ResourceSpans`` up to its spans."""
        pairs = ",".join(self.attributes(attributes))
        return f'{{"resource":{{"attributes":[{pairs}]}},"scopeSpans":[{{"scope":{self._scope},"spans":['

    def request(self, groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[bytes]:
        """An ``ExportTraceServiceRequest``, in parts."""
        lead = '{"resourceSpans":['
        for resource, spans in groups:
            lead += resource
            for start in range(0, len(spans), PART):
                yield f"{lead}{','.join(spans[start : start + PART])}".encode()
                lead = ","
            lead = "]}]},"
        yield b"]}]}]}"

    def _events_and_links(self, span: Span) -> str:
        events = ",".join([self._event(event) for event in span.events.copy()])
        links, dropped = usable_links(span)
        parts = [
            f'{{"traceId":"{trace_id}","spanId":"{span_id}",'
            f'"attributes":[{",".join(self.attributes(attributes))}],"flags":{facts.REMOTE_PARENT}}}'
            for trace_id, span_id, attributes in links
        ]
        count = f'"droppedLinksCount":{dropped},' if dropped else ""
        return f'"events":[{events}],"links":[{",".join(parts)}],{count}'

    def _event(self, event: SpanEvent) -> str:
        attributes = ",".join(self.attributes(event.attributes))
        return (
            f'{{"timeUnixNano":"{event.timestamp}","name":{self._texts[event.name]},'
            f'"attributes":[{attributes}]}}'
        )

    def _any_value(self, value: Any) -> str:
        """An ``AnyValue``; ``None`` is the one that holds nothing."""
        kind = type(value)
        if kind is str:
            return f'{{"stringValue":{_text(value)}}}'
        if kind is dict:
            return f'{{"kvlistValue":{{"values":[{",".join(self.attributes(value))}]}}}}'
        if kind is list or kind is tuple:
            return f'{{"arrayValue":{{"values":[{",".join([self._any_value(item) for item in value])}]}}}}'
        if value is None:
            return "{}"
        scalar = _scalar(value)
        # Else an enum, a number of numpy's, any object: as JSON has it.
        return self._any_value(plain(value)) if scalar is None else scalar


def _string_attribute(key: str) -> Callable[[Any], str]:
    head = f'{{"key":{_text(key)},"value":{{"stringValue":'

    def encode(value: Any) -> str:
        if isinstance(value, str):
            try:
                return f"{head}{_dumps(value).decode()}}}}}"
            except TypeError:  # a lone surrogate
                pass
        return f"{head}{_text(clean_text(value))}}}}}"

    return encode


def _integer_attribute(key: str) -> Callable[[Any], str]:
    head = f'{{"key":{_text(key)},"value":'
    return lambda value: f"{head}{_integer(value)}}}"


def _text(value: Any) -> str:
    """A JSON string."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate
        return orjson.dumps(clean_text(value)).decode()


def _status(status: SpanStatus) -> str:
    message = f',"message":{_text(status.description)}' if status.description else ""
    return f'{{"code":{STATUS_CODES[status.code]}{message}}}'


def _scalar(value: Any) -> str | None:
    kind = type(value)
    if kind is bool:
        return '{"boolValue":true}' if value else '{"boolValue":false}'
    if kind is int:
        return _integer(value)
    if kind is float:
        return f'{{"doubleValue":{value!r}}}' if math.isfinite(value) else _NOT_FINITE[str(value)]
    if kind is bytes:
        return f'{{"bytesValue":"{b64encode(value).decode()}"}}'
    return None


def _integer(value: int) -> str:
    return f'{{"{"intValue" if -_INT64 <= value < _INT64 else "stringValue"}":"{value}"}}'
