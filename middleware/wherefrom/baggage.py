"""Baggage: what the caller's application sends along with a request, for ours to read and pass on.

Follows W3C Baggage (https://www.w3.org/TR/baggage/), whose sections the docstrings name. Values are a
client's own words, decoded: check them before you store or print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from .propagation import Headers

__all__ = ["BaggageMember", "format_baggage", "parse_baggage"]

_OWS: Final = " \t"
_MAX_MEMBERS: Final = 64
_MAX_BYTES: Final = 8192

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OCTETS: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_UNENCODED: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"
"""The punctuation that a value may hold as it is: every baggage-octet but the percent sign."""


@dataclass(slots=True, frozen=True)
class BaggageMember:
    """One entry of baggage, decoded; a property without a value has ``None`` (§list-member)."""

    key: str
    value: str
    properties: tuple[tuple[str, str | None], ...] = ()


def parse_baggage(headers: Headers) -> tuple[BaggageMember, ...]:
    """Read every ``baggage`` header as one list, in order, repeated keys included (§Definition).

    Members that break the grammar are passed over. At most 64 members and 8192 bytes are taken: the first
    ones that fit, each whole or not at all (§Limits).
    """
    values = [value for name, value in headers if len(name) == 7 and name.lower() == b"baggage"]
    if not values:
        return ()
    texts = (text.strip(_OWS) for text in b",".join(values).decode("latin-1").split(","))
    read = ((text, member) for text in texts if (member := _parse_member(text)) is not None)
    return tuple(member for _, member in _within_limits(read))


def format_baggage(members: Iterable[BaggageMember]) -> str:
    """Write a ``baggage`` header, percent-encoding only what must be (§value).

    Members whose key, or a property's key, is not a token are left out, and so are those past the limits
    of ``parse_baggage``.
    """
    written = ((text, member) for member in members if (text := _format_member(member)) is not None)
    return ",".join(text for text, _ in _within_limits(written))


def _within_limits(members: Iterable[tuple[str, BaggageMember]]) -> Iterator[tuple[str, BaggageMember]]:
    count = total = 0
    for text, member in members:
        size = len(text) + (1 if count else 0)
        if total + size <= _MAX_BYTES:
            yield text, member
            total += size
            count += 1
            if count == _MAX_MEMBERS:
                return


def _parse_member(text: str) -> BaggageMember | None:
    first, *rest = text.split(";")
    pair = _parse_pair(first)
    if pair is None or pair[1] is None:
        return None
    properties = [_parse_pair(part) for part in rest if part.strip(_OWS)]
    valid = tuple(item for item in properties if item is not None)
    return BaggageMember(pair[0], pair[1], valid) if len(valid) == len(properties) else None


def _parse_pair(text: str) -> tuple[str, str | None] | None:
    key, equals, value = text.partition("=")
    key, value = key.strip(_OWS), value.strip(_OWS)
    if not _TOKEN.fullmatch(key) or not _OCTETS.fullmatch(value):
        return None
    return key, unquote(value) if equals else None


def _format_member(member: BaggageMember) -> str | None:
    pairs: tuple[tuple[str, str | None], ...] = ((member.key, member.value), *member.properties)
    if not all(_TOKEN.fullmatch(key) for key, _ in pairs):
        return None
    return ";".join(key if value is None else f"{key}={_encode(value)}" for key, value in pairs)


def _encode(value: str) -> str:
    return quote(value, safe=_UNENCODED, errors="replace")
