"""Identifiers: W3C trace and span ids, and UUIDv7 request ids."""

from __future__ import annotations

from random import Random

from .process import process

# A generator of our own: after an app's random.seed(), two workers would generate the same ids.
_random = Random()  # noqa: S311 - ids are names, not secrets
_bits = _random.getrandbits
process.on_fork(in_child=_random.seed)

_LOW_62 = (1 << 62) - 1


def new_random() -> tuple[int, int, int]:
    """The random bits of a trace id, 24 and 56, and of a span id, 63 and never all zero.

    A trace id has 48 bits of the time in ms before them. So ids sort by time, an index over them grows at its
    end, and the right-most 56 bits are random as W3C Trace Context level 2 asks of the random flag. Each part
    is an integer that JSON and SQLite read exactly.
    """
    return _bits(24), _bits(56), _bits(63) or 1


def format_ids(started_ns: int, random_24: int, random_56: int, random_63: int) -> tuple[str, str]:
    """A trace id (``"tr-"`` + 32 hex) and a span id (16 hex) of a time in ns and of ``new_random``."""
    return f"tr-{started_ns // 1_000_000:012x}{random_24:06x}{random_56:014x}", f"{random_63:016x}"


def new_span_id() -> str:
    """16 hex, never all zero."""
    return (_bits(64) or 1).to_bytes(8, "big").hex()


def new_request_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) of the time in ms."""
    bits = _bits(74)
    value = now_ms << 80 | 0x7 << 76 | bits >> 62 << 64 | 0b10 << 62 | bits & _LOW_62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
