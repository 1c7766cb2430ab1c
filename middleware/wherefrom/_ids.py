"""Identifiers: W3C trace and span ids, and UUIDv7 request ids."""

from __future__ import annotations

from random import Random

from .process import process

# Our own generator: an app that calls random.seed() must not make two workers hand out the same ids.
_random = Random()  # noqa: S311 - ids are names, not secrets
_bits = _random.getrandbits
process.on_fork(in_child=_random.seed)

_LOW_62 = (1 << 62) - 1


def new_ids(now_ms: int) -> tuple[str, str]:
    """A trace id and the id of its root span.

    The trace id is ``"tr-"`` + 32 hex: 48 bits of the time in ms, then 80 random bits. So ids sort by time,
    an index over them grows at its end, and the right-most 56 bits are random as W3C Trace Context level 2
    asks of the random flag.
    """
    text = (now_ms << 144 | _bits(144)).to_bytes(24, "big").hex()
    return "tr-" + text[:32], text[32:]


def new_span_id() -> str:
    """16 hex, never all zero."""
    return (_bits(64) or 1).to_bytes(8, "big").hex()


def new_request_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) of the time in ms."""
    bits = _bits(74)
    value = now_ms << 80 | 0x7 << 76 | bits >> 62 << 64 | 0b10 << 62 | bits & _LOW_62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
