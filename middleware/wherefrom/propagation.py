"""The caller's trace context, read from and written to headers, and whose context to believe.

Follows W3C Trace Context Level 2 (https://www.w3.org/TR/trace-context-2/), whose sections the docstrings
name. Headers are what clients send: whatever they hold, reading them raises nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

__all__ = [
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

_MAX_MEMBERS: Final = 32
_MAX_LENGTH: Final = 512
_LARGE_MEMBER: Final = 128
_MAX_HOST_LENGTH: Final = 64
_CACHED_HOSTS: Final = 1024

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
    """The trace context in a request's headers; ``None`` means start a trace of your own (Processing Model).

    Two ``traceparent`` headers, even equal ones, are as none. A ``tracestate`` is read only beside a valid
    ``traceparent``, and an invalid one costs nothing but itself.
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

    Blank members are passed over. One malformed member or a 33rd discards all; of a repeated key the
    left-most counts, which its system wrote last.
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

    ``members`` are as ``parse_tracestate`` and ``with_member`` give them. Where they are too long, whole
    members go: first the right-most of those over 128 characters, then the right-most.
    """
    return ",".join(f"{key}={value}" for key, value in _within_limits(members))


def with_member(members: TraceStateMembers, key: str, value: str) -> TraceStateMembers:
    """``members`` with ``key`` set to ``value`` and moved to the front, within the limits (§3.5).

    Raises:
        ValueError: ``key`` or ``value`` cannot be written in a ``tracestate``.
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
    """Tells whether a client may have its trace context joined (Security Considerations).

    ``networks`` is a comma list of addresses and networks, ``"10.0.0.0/8, ::1"``; a blank one trusts every
    client. Otherwise a client without an IP address is in no network and is not trusted: so is one on a unix
    socket (host ``None`` or ``""``), where the permissions of the socket are the boundary and the list is
    best left blank. An IPv4 client of a dual-stack socket (``::ffff:10.0.0.1``) counts as IPv4.

    Raises:
        ValueError: an entry is not an address or network; the message names it.
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
        # A proxy's header may stand in for the address: what cannot be one must not fill the cache.
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
