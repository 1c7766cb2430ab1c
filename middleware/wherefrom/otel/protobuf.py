"""Protobuf and OTLP's ``AnyValue``, written and read without a library.

``AnyValue`` has two forms: binary, which OTLP sends, and the JSON mapping of proto3, which MLflow's REST API
uses. Field numbers are those of ``opentelemetry/proto/common/v1``.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from struct import pack
from typing import Any, Final

from .._capture.values import clean_text, plain, to_json

_INT64: Final = 1 << 63
_MASK: Final = (1 << 64) - 1
_CONTAINERS: Final = frozenset({dict, list, tuple})

_MAX_KEYS: Final = 1000
_MAX_VALUES: Final = 64  # cached for each key; ids and times never repeat
_MAX_LENGTH: Final = 500  # longer values seldom repeat

# Python's protobuf parses messages nested up to 100 deep, and each object in a value is three messages.
_MAX_DEPTH: Final = 24
_SCALARS: Final = {str: "string_value", int: "int_value", float: "double_value", bool: "bool_value"}
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def varint(value: int) -> bytes:
    """An unsigned integer in base 128."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(tag: int, data: bytes) -> bytes:
    """A length-delimited field; ``tag`` is its number << 3 | 2."""
    return bytes((tag,)) + varint(len(data)) + data


def repeated(tag: bytes, items: list[bytes]) -> bytes:
    """A field for each item; an item starts with its length."""
    return tag + tag.join(items) if items else b""


def text(value: Any) -> bytes:
    """Text as UTF-8."""
    try:
        return str.encode(value)
    except (UnicodeEncodeError, TypeError):  # a lone surrogate, or not a string
        return clean_text(value).encode()


def read_fields(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message by number; the last one wins where a number repeats.

    Raises:
        ValueError: ``data`` is not a protobuf message.
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


class Values(dict[Any, bytes]):
    """``values[value]`` is the encoded value; the first 64 short ones are cached.

    All values must be of one type, because 1 and True are the same key of a dict. Call ``encode`` for values
    that do not repeat.
    """

    __slots__ = ("_room", "encode")

    encode: Callable[[Any], bytes]

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self.encode = encode
        self._room = _MAX_VALUES

    def __missing__(self, value: Any) -> bytes:
        encoded = self.encode(value)
        if self._room and len(encoded) < _MAX_LENGTH:
            self._room -= 1
            self[value] = encoded
        return encoded


class Table(dict[str, Values]):
    """``table[key][value]`` is an encoded attribute; ``encoder(key)`` returns the function that encodes it.

    Most attributes of requests repeat (method, route, status, host, agent), and a lookup costs a quarter of
    encoding one.
    """

    __slots__ = ("_encoder",)

    _encoder: Callable[[str], Callable[[Any], bytes]]

    def __init__(self, encoder: Callable[[str], Callable[[Any], bytes]]) -> None:
        super().__init__()
        self._encoder = encoder

    def __missing__(self, key: str) -> Values:
        values = Values(self._encoder(key))
        if len(self) >= _MAX_KEYS:  # an application that makes up keys must not grow the table for ever
            self.clear()
        self[key] = values
        return values


class AttributeEncoder:
    """Encodes attributes. An encoded attribute is a ``KeyValue`` message after its length."""

    def __init__(self) -> None:
        self.strings = Table(_string_attribute)
        self.integers = Table(_integer_attribute)
        self.names = Values(text)

    def attributes(self, pairs: Mapping[str, Any], into: list[bytes] | None = None) -> list[bytes]:
        """Encode each pair; the result is appended to ``into`` if given."""
        encoded: list[bytes] = [] if into is None else into
        strings, before = self.strings, len(encoded)
        try:
            for key, value in pairs.items():  # a comprehension costs 0.2 µs more (Python 3.11)
                if type(value) is str:
                    encoded.append(strings[key][value])
                elif type(value) is int:
                    encoded.append(self.integers[key][value])
                else:
                    encoded.append(self.attribute(key, value))
        except RecursionError:
            raise
        except RuntimeError:  # the application added an attribute during the iteration
            del encoded[before:]
            return self.attributes(dict(pairs), encoded)
        return encoded

    def attribute(self, key: str, value: Any) -> bytes:
        """Encode any value; one without a form in OTLP becomes what JSON makes of it."""
        try:
            encoded = self._any_value(plain(value, is_json=False) if type(value) in _CONTAINERS else value)
        except RecursionError:
            encoded = self._any_value(to_json(value))
        return _key_value(self.names[key], encoded)

    def _any_value(self, value: Any) -> bytes:
        """An ``AnyValue``; an empty one stands for ``None``."""
        kind = type(value)
        if kind is str:
            return field(0x0A, text(value))
        if kind is dict:
            return field(0x32, repeated(b"\x0a", self.attributes(value)))
        if kind is list or kind is tuple:
            return field(0x2A, b"".join([field(0x0A, self._any_value(item)) for item in value]))
        if (encode := _ENCODE.get(kind)) is not None:
            return encode(value)
        return self._any_value(plain(value))  # an enum, a NumPy number, any object


def _string_attribute(key: str) -> Callable[[Any], bytes]:
    name = text(key)
    return lambda value: _key_value(name, field(0x0A, text(value)))


def _integer_attribute(key: str) -> Callable[[Any], bytes]:
    name = text(key)
    return lambda value: _key_value(name, _integer(value))


def _key_value(key: bytes, value: bytes) -> bytes:
    """A ``KeyValue`` after its length; the tag before it depends on the message that it is part of."""
    data = field(0x0A, key) + field(0x12, value)
    return varint(len(data)) + data


def _integer(value: int) -> bytes:
    if -_INT64 <= value < _INT64:
        return b"\x18" + varint(value & _MASK)
    return field(0x0A, str(value).encode())


_ENCODE: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"",
    bool: lambda value: b"\x10\x01" if value else b"\x10\x00",
    int: _integer,
    float: lambda value: b"\x21" + pack("<d", value),
    bytes: lambda value: field(0x3A, value),
}


def attributes_to_json(pairs: Mapping[str, Any], depth: int = _MAX_DEPTH) -> list[dict[str, Any]]:
    """Attributes as a list of ``KeyValue`` in the JSON mapping; values deeper than 24 become JSON text."""
    return [{"key": key, "value": _value_to_json(value, depth)} for key, value in pairs.items()]


def _value_to_json(value: Any, depth: int) -> dict[str, Any]:
    kind = type(value)
    if kind is list or kind is dict:
        if not depth:
            return {"string_value": to_json(value)}
        if kind is dict:
            return {"kvlist_value": {"values": attributes_to_json(value, depth - 1)}}
        return {"array_value": {"values": [_value_to_json(item, depth - 1) for item in value]}}
    if kind is int and not -_INT64 <= value < _INT64:
        return {"string_value": str(value)}
    if value is None:
        return {}
    if kind is float and not math.isfinite(value):  # JSON has no number for these
        value = _NOT_FINITE[str(value)]
    return {_SCALARS[kind]: value} if kind in _SCALARS else {"string_value": str(value)}


def attributes_from_json(pairs: Any) -> dict[str, Any]:
    """Attributes read from a list of ``KeyValue`` in the JSON mapping.

    Raises:
        TypeError, ValueError, AttributeError: it is not such a list.
    """
    return {str(pair.get("key", "")): _value_from_json(pair.get("value") or {}) for pair in pairs or ()}


def _value_from_json(message: Mapping[str, Any]) -> Any:
    for kind, value in message.items():
        if kind == "array_value":
            return [_value_from_json(item) for item in value.get("values") or ()]
        if kind == "kvlist_value":
            return attributes_from_json(value.get("values"))
        if kind == "int_value":  # the JSON mapping writes 64-bit integers as text
            return int(value)
        if kind == "double_value":  # stored values are JSON: "Infinity" and "NaN" stay text, as when recorded
            return number if math.isfinite(number := float(value)) else str(value)
        return value
    return None
