"""Headers for outgoing requests: the place in the trace, baggage, and whose request it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .. import keys
from ..model import Span
from ..propagation import format_baggage, format_traceparent, format_tracestate
from .live import LiveTrace

__all__ = ["HEADER_VALUE", "accepted", "identity_headers", "trace_headers", "traceparent"]

SESSION_HEADER: Final = "X-Session-ID"
USER_HEADER: Final = "X-User-ID"

# What our own middleware would accept: at most 256 characters of latin-1, no controls, no space around it.
HEADER_VALUE: Final = re.compile(r"(?! )[\x20-\x7e\xa0-\xff]{1,256}(?<! )")


def traceparent(trace: LiveTrace, span: Span) -> str:
    """Return the ``traceparent`` for requests that ``span`` makes (Trace Context §3.2.2).

    Of a joined trace the random flag is the caller's (§3.2.2.5.2); the right-most 56 bits of our own trace
    ids are random.
    """
    random = trace.caller is None or trace.caller.random
    sampled = trace.recorder.sampler.tells(trace.info.trace_id, trace.caller_sampled)
    return format_traceparent(trace.info.trace_id.removeprefix("tr-"), span.span_id, sampled, random)


def trace_headers(trace: LiveTrace, span: Span) -> Iterator[tuple[str, str]]:
    """Yield ``traceparent``, ``tracestate`` and ``baggage`` for requests that ``span`` makes.

    A joined trace carries its caller's ``tracestate`` on unchanged (§3.5); one of our own starts without
    (§3.4, Restart trace).
    """
    yield "traceparent", traceparent(trace, span)
    if trace.caller is not None and (state := format_tracestate(trace.caller.tracestate)):
        yield "tracestate", state
    if trace.baggage and (baggage := format_baggage(trace.baggage)):
        yield "baggage", baggage


def identity_headers(trace: LiveTrace) -> Iterator[tuple[str, str]]:
    """Yield the ids of request, session and user, for trusted services.

    With ``user_hash_key`` the user is the hash. A value that is not valid in a header is left out.
    """
    info = trace.info
    for name, value in (
        (trace.recorder.request_id_header, info.client_request_id),
        (SESSION_HEADER, info.trace_metadata.get(keys.SESSION)),
        (USER_HEADER, info.trace_metadata.get(keys.USER)),
    ):
        if value and HEADER_VALUE.fullmatch(value):
            yield name, value


def accepted(raw: bytes | None) -> str | None:
    """Return the value of such a header, decoded as latin-1; ``None`` if it is not valid."""
    text = "" if raw is None else raw.decode("latin-1").strip(" \t")
    return text if HEADER_VALUE.fullmatch(text) else None
