"""OTLP in binary protobuf, written and read without a library.

Field numbers are those of ``opentelemetry/proto`` 1.x: ``common``, ``resource``, ``trace`` and
``collector/trace/v1``. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from struct import pack
from typing import Any, Final

from .._capture.values import clean_text, plain, to_json
from ..model import OK, Span, SpanEvent, SpanStatus
from . import facts
from .encoding import CONTAINERS, PART, SCOPE_NAME, STATUS_CODES, Encoding, check_ids, usable_links
from .table import Table, Values

_INT64: Final = 1 << 63
_MASK: Final = (1 << 64) - 1

# Span.flags and Link.flags are fixed32
_SPAN_FLAGS: Final = b"\x85\x01"
_LINK_FLAGS: Final = b"\x35"
_STATUS_OK: Final = b"\x7a\x02\x18\x01"


class ProtobufEncoding(Encoding[bytes]):
    """OTLP in binary protobuf. An encoded attribute is a ``KeyValue`` after its length."""

    content_type = "application/x-protobuf"

    def __init__(self, scope_version: str, *, for_mlflow: bool = False) -> None:
        super().__init__(Table(_string_attribute), Table(_integer_attribute), for_mlflow=for_mlflow)
        self._names = Values(_text)
        self._scope = _field(0x0A, _field(0x0A, _text(SCOPE_NAME)) + _field(0x12, _text(scope_version)))

    def attribute(self, key: str, value: Any) -> bytes:
        """A ``KeyValue`` of any value, after its length."""
        try:
            encoded = self._any_value(plain(value, is_json=False) if type(value) in CONTAINERS else value)
        except RecursionError:
            encoded = self._any_value(to_json(value))
        return _key_value(self._names[key], encoded)

    def span(self, span: Span, end_time_ns: int, flags: int, attributes: list[bytes]) -> bytes:
        """A ``Span``, as a field of ``ScopeSpans``."""
        trace_id, parent_id = span.trace_id.removeprefix("tr-"), span.parent_id
        check_ids(span, trace_id)
        kind = facts.KINDS.get(span.span_type, facts.INTERNAL)
        attributes = self.attributes(span.attributes, attributes) + self.mlflow_attributes(span, kind)
        parts = [
            b"\x0a\x10" + bytes.fromhex(trace_id),
            b"\x12\x08" + bytes.fromhex(span.span_id),
            b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"",
            _field(0x2A, self._names[span.name]),
            b"\x30" + _varint(kind),
            b"\x39" + pack("<Q", span.start_time_ns),
            b"\x41" + pack("<Q", end_time_ns),
            _repeated(b"\x4a", attributes),
            *[_field(0x5A, self._event(event)) for event in span.events.copy()],
            self._links(span) if span.links else b"",
            _STATUS_OK if span.status is OK else _field(0x7A, _status(span.status)),
            _SPAN_FLAGS + pack("<I", flags),
        ]
        return _field(0x12, b"".join(parts))

    def resource(self, attributes: Mapping[str, Any]) -> bytes:
        """The ``Resource`` of a ``ResourceSpans``."""
        return _field(0x0A, _repeated(b"\x0a", self.attributes(attributes)))

    def request(self, groups: Iterable[tuple[bytes, Sequence[bytes]]]) -> Iterator[bytes]:
        """An ``ExportTraceServiceRequest``, in parts."""
        for resource, spans in groups:
            size = len(self._scope) + sum(map(len, spans))
            head = resource + b"\x12" + _varint(size)  # ResourceSpans.scope_spans
            yield b"\x0a" + _varint(len(head) + size) + head + self._scope
            for start in range(0, len(spans), PART):
                yield b"".join(spans[start : start + PART])

    def _event(self, event: SpanEvent) -> bytes:
        attributes = _repeated(b"\x1a", self.attributes(event.attributes))
        return b"\x09" + pack("<Q", event.timestamp) + _field(0x12, self._names[event.name]) + attributes

    def _links(self, span: Span) -> bytes:
        links, dropped = usable_links(span)
        parts = [
            _field(
                0x6A,
                b"\x0a\x10"
                + bytes.fromhex(trace_id)
                + b"\x12\x08"
                + bytes.fromhex(span_id)
                + _repeated(b"\x22", self.attributes(attributes))
                + _LINK_FLAGS
                + pack("<I", facts.REMOTE_PARENT),
            )
            for trace_id, span_id, attributes in links
        ]
        return b"".join(parts) + (b"\x70" + _varint(dropped) if dropped else b"")

    def _any_value(self, value: Any) -> bytes:
        """An ``AnyValue``; ``None`` is the one that holds nothing."""
        kind = type(value)
        if kind is str:
            return _field(0x0A, _text(value))
        if kind is dict:
            return _field(0x32, _repeated(b"\x0a", self.attributes(value)))
        if kind is list or kind is tuple:
            return _field(0x2A, b"".join([_field(0x0A, self._any_value(item)) for item in value]))
        if value is None:
            return b""
        scalar = _scalar(value)
        # Else an enum, a number of numpy's, any object: as JSON has it.
        return self._any_value(plain(value)) if scalar is None else scalar


def read_fields(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message by number, the last where one repeats: what is needed to read an answer.

    Raises:
        ValueError: this is not a protobuf message.
    """
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire_type = tag & 7
        value: int | bytes
        if wire_type == 0:
            value, at = _read_varint(data, at)
        else:
            if wire_type == 2:
                size, at = _read_varint(data, at)
            else:
                size = {1: 8, 5: 4}[wire_type] if wire_type in {1, 5} else len(data)
            value, at = data[at : at + size], at + size
        fields[tag >> 3] = value
    if at != len(data):
        raise ValueError("the message is cut off")
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not a varint")


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(tag: int, data: bytes) -> bytes:
    """A length-delimited field; ``tag`` is its number << 3 | 2."""
    return bytes((tag,)) + _varint(len(data)) + data


def _repeated(tag: bytes, items: list[bytes]) -> bytes:
    return tag + tag.join(items) if items else b""


def _text(value: Any) -> bytes:
    try:
        return str.encode(value)
    except (UnicodeEncodeError, TypeError):  # a lone surrogate, or no text at all
        return clean_text(value).encode()


def _status(status: SpanStatus) -> bytes:
    message = _field(0x12, _text(status.description)) if status.description else b""
    return message + b"\x18" + _varint(STATUS_CODES[status.code])


def _string_attribute(key: str) -> Callable[[Any], bytes]:
    name = _text(key)
    return lambda value: _key_value(name, _field(0x0A, _text(value)))


def _integer_attribute(key: str) -> Callable[[Any], bytes]:
    name = _text(key)
    return lambda value: _key_value(name, _integer(value))


def _key_value(key: bytes, value: bytes) -> bytes:
    """A ``KeyValue`` after its length: what it is a field of differs."""
    data = _field(0x0A, key) + _field(0x12, value)
    return _varint(len(data)) + data


def _scalar(value: Any) -> bytes | None:
    kind = type(value)
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int:
        return _integer(value)
    if kind is float:
        return b"\x21" + pack("<d", value)
    if kind is bytes:
        return _field(0x3A, value)
    return None


def _integer(value: int) -> bytes:
    if -_INT64 <= value < _INT64:
        return b"\x18" + _varint(value & _MASK)
    return _field(0x0A, str(value).encode())
