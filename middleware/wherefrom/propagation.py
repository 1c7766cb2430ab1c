"""Trace context of the caller: reading and writing its headers, and whose context to trust.

Follows W3C Trace Context Level 2 (https://www.w3.org/TR/trace-context-2/); docstrings name its sections.
Headers are untrusted input: reading them raises nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

__all__ = [
    "TRACEPARENT_LENGTH",
    "Headers",
    "SpanContext",
    "TraceStateMembers",
    "TrustedNetworks",
    "extract",
    "format_traceparent",
    "format_tracestate",
    "parse_traceparent",
    "parse_tracestate",
    "with_member",
]

Headers: TypeAlias = Iterable[Sequence[bytes]]
"""ASGI headers: pairs of name and value, as tuples or lists."""

TraceStateMembers: TypeAlias = tuple[tuple[str, str], ...]
"""The keys and values of a ``tracestate``, the tracing system that wrote last first."""

_SAMPLED: Final = 0x01
_RANDOM: Final = 0x02

TRACEPARENT_LENGTH: Final = 55
"""The length of a ``traceparent`` of version 00."""

_MAX_MEMBERS: Final = 32
_MAX_LENGTH: Final = 512
_LARGE_MEMBER: Final = 128
_MAX_HOST_LENGTH: Final = 64  # an IPv6 address with a zone is shorter
_CACHED_HOSTS: Final = 1024  # clients choose their addresses, so the cache is bounded

_TRACEPARENT: Final = re.compile(
    r"""
    [ \t]*
    (?! ff | 00-.{52}- )        # version ff is forbidden; in version 00 nothing follows the flags
    [0-9a-f]{2}
    - (?!0{32}) ([0-9a-f]{32})
    - (?!0{16}) ([0-9a-f]{16})
    - ([0-9a-f]{2})
    (?: -.* | [ \t]* )
    """,
    re.VERBOSE | re.DOTALL,
)
_MEMBER: Final = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})"
    r"="
    r"([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)


@dataclass(slots=True, frozen=True)
class SpanContext:
    """The caller's place in a trace: its ids, its flags and its ``tracestate`` (§3.2.2).

    ``flags`` holds only the bits that version 00 defines, ``sampled`` and ``random``.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    tracestate: TraceStateMembers = ()

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded the trace (§3.2.2.5.1)."""
        return bool(self.flags & _SAMPLED)

    @property
    def random(self) -> bool:
        """Whether the right-most 7 bytes of the trace id are random; carried on unchanged (§3.2.2.5.2)."""
        return bool(self.flags & _RANDOM)


def extract(headers: Headers) -> SpanContext | None:
    """The trace context in a request's headers; ``None``: start a new trace (Processing Model).

    Two ``traceparent`` headers, even equal ones, count as none. ``tracestate`` is read only with a valid
    ``traceparent``; an invalid one is ignored.
    """
    parent: bytes | None = None
    states: list[bytes] = []
    for name, value in headers:
        size = len(name)
        if size == 11 and name.lower() == b"traceparent":
            if parent is not None:
                return None
            parent = value
        elif size == 10 and name.lower() == b"tracestate":
            states.append(value)
    context = None if parent is None else parse_traceparent(parent)
    if context is None or not states:
        return context
    return SpanContext(context.trace_id, context.span_id, context.flags, parse_tracestate(*states))


def parse_traceparent(value: bytes) -> SpanContext | None:
    """Read a ``traceparent`` of version 00, or of a later one as far as 00 goes (§3.2.2, §3.2.4)."""
    match = _TRACEPARENT.fullmatch(value.decode("latin-1"))
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return SpanContext(trace_id, span_id, int(flags, 16) & (_SAMPLED | _RANDOM))


def parse_tracestate(*values: bytes) -> TraceStateMembers:
    """Read one or more ``tracestate`` headers as one list (§3.3, list and list-members).

    Empty members are skipped. A malformed member or a 33rd one discards the whole list. Of a repeated key the
    left-most one is used, which its system wrote last.
    """
    members: dict[str, str] = {}
    for text in b",".join(values).decode("latin-1").split(","):
        member = text.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None or len(members) == _MAX_MEMBERS:
            return ()
        members.setdefault(match[1], match[2])
    return tuple(members.items())


def format_traceparent(trace_id: str, span_id: str, sampled: bool, random: bool) -> str:
    """Write a ``traceparent`` of version 00, every undefined flag zero (§3.2.2, §3.2.2.5.3)."""
    return f"00-{trace_id}-{span_id}-0{sampled * _SAMPLED + random * _RANDOM}"


def format_tracestate(members: TraceStateMembers) -> str:
    """Write a ``tracestate`` of at most 32 members and 512 characters (§3.3, tracestate Limits).

    ``members`` are results of ``parse_tracestate`` and ``with_member``. If they are too long, whole members
    are removed: first the right-most of those over 128 characters, then the right-most.
    """
    return ",".join(f"{key}={value}" for key, value in _within_limits(members))


def with_member(members: TraceStateMembers, key: str, value: str) -> TraceStateMembers:
    """``members`` with ``key`` set to ``value`` and moved to the front, within the limits (§3.5).

    Raises:
        ValueError: ``key`` or ``value`` is invalid in a ``tracestate``.
    """
    if not _MEMBER.fullmatch(f"{key}={value}"):
        raise ValueError(f"not a key and value for tracestate: {key!r}, {value!r}")
    return _within_limits(((key, value), *(member for member in members if member[0] != key)))


def _within_limits(members: TraceStateMembers) -> TraceStateMembers:
    kept = list(members[:_MAX_MEMBERS])
    sizes = [len(key) + 1 + len(value) for key, value in kept]
    while sum(sizes) + len(sizes) - 1 > _MAX_LENGTH:
        large = [index for index, size in enumerate(sizes) if size > _LARGE_MEMBER]
        index = large[-1] if large else len(sizes) - 1
        del kept[index], sizes[index]
    return tuple(kept)


class TrustedNetworks:
    """Decides whether a client's trace context is joined (Security Considerations).

    ``networks`` is a comma-separated list of addresses and networks, ``"10.0.0.0/8, ::1"``; an empty one
    trusts every client. With a list, a client without an IP address is not trusted. That includes clients on
    a unix socket (host ``None`` or ``""``), which the permissions of the socket protect: use an empty list
    there. An IPv4 client of a dual-stack socket (``::ffff:10.0.0.1``) counts as IPv4.

    Raises:
        ValueError: an entry is not an address or network; the message has it.
    """

    def __init__(self, networks: str = "") -> None:
        entries = networks.split(",") if networks.strip() else []
        try:
            self._networks = [ip_network(entry.strip()) for entry in entries]
        except ValueError as error:
            raise ValueError(f"{error}; write networks and addresses as in 10.0.0.0/8, ::1") from error
        self._is_inside = lru_cache(maxsize=_CACHED_HOSTS)(self._find)

    def __call__(self, client_host: str | None) -> bool:
        """Whether the trace context of a client at ``client_host`` may be joined."""
        if not self._networks:
            return True
        # The address may come from a proxy's header: values that are none must not fill the cache.
        if not client_host or len(client_host) > _MAX_HOST_LENGTH:
            return False
        return self._is_inside(client_host)

    def _find(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


__all__ = ["BaggageMember", "format_baggage", "parse_baggage"]

_OWS: Final = " \t"
_MAX_BAGGAGE_MEMBERS: Final = 64
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
    """Read all ``baggage`` headers as one list, in order, with repeated keys (§Definition).

    Malformed members are skipped. At most 64 members and 8192 bytes are read, in order and each as a whole
    (§Limits).
    """
    values = [value for name, value in headers if len(name) == 7 and name.lower() == b"baggage"]
    if not values:
        return ()
    texts = (text.strip(_OWS) for text in b",".join(values).decode("latin-1").split(","))
    read = ((text, member) for text in texts if (member := _parse_member(text)) is not None)
    return tuple(member for _, member in _members_within_limits(read))


def format_baggage(members: Iterable[BaggageMember]) -> str:
    """Write a ``baggage`` header, with the necessary percent-encoding only (§value).

    Members are left out if their key, or a property's key, is not a token, or if they exceed the limits of
    ``parse_baggage``.
    """
    written = ((text, member) for member in members if (text := _format_member(member)) is not None)
    return ",".join(text for text, _ in _members_within_limits(written))


def _members_within_limits(
    members: Iterable[tuple[str, BaggageMember]],
) -> Iterator[tuple[str, BaggageMember]]:
    count = total = 0
    for text, member in members:
        size = len(text) + (1 if count else 0)
        if total + size <= _MAX_BYTES:
            yield text, member
            total += size
            count += 1
            if count == _MAX_BAGGAGE_MEMBERS:
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
    return ";".join(
        key if value is None else f"{key}={quote(value, safe=_UNENCODED, errors='replace')}"
        for key, value in pairs
    )
