"""Writes and reads the trace context in headers of any kind: of HTTP clients, queues and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TypeVar, overload

from .. import keys, propagation
from .._capture.values import clean_text
from ..model import SpanType
from ..model.record import links_to
from ..propagation import SpanContext, format_traceparent, parse_baggage
from .api import SpanBlock, current_span, current_trace, open_trace, start_span
from .inject import SESSION_HEADER, USER_HEADER, accepted, identity_headers, trace_headers
from .live import LiveTrace

_MAX_HEADERS: Final = 10_000
_REPLACED: Final = frozenset({"traceparent", "tracestate"})

Carrier = TypeVar("Carrier")
Pairs = list[tuple[bytes, bytes]]


@overload
def inject(headers: None = None, *, identity: bool = False) -> dict[str, str]: ...


@overload
def inject(headers: Carrier, *, identity: bool = False) -> Carrier: ...


def inject(headers: Any = None, *, identity: bool = False) -> Any:
    """Add the current span to the headers of a request or message, and return them.

    ``headers`` is changed in place: a mutable mapping, a multi-dict, or a list of pairs of name and value; by
    default a new dict. New pairs are text or bytes, as the existing ones are. ``traceparent`` and
    ``tracestate`` are replaced; ``baggage`` is added if there is none. With ``identity``, missing ids of
    request, session and user are added too: use it for receivers that you trust.

    Outside of a trace nothing is changed.

    >>> requests.get(url, headers=inject())

    Raises:
        TypeError: pairs cannot be added to ``headers``.
    """
    if headers is None:
        headers = {}
    write = _writer_for(headers)
    trace = current_trace()
    if trace is not None:
        added = dict(trace_headers(trace, current_span() or trace.root))
        if identity:
            added |= identity_headers(trace)
        write(headers, added)
    return headers


def extract(headers: Any) -> SpanContext | None:
    """Return the sender's span from the headers of a request or message; ``None`` if there is no valid one.

    ``headers`` are a mapping, a multi-dict or pairs of name and value, as text or bytes. They are untrusted
    input, whatever their type: nothing is raised.
    """
    return propagation.extract(_pairs(headers))


def start_trace(
    name: str,
    *,
    upstream: Any = None,
    join: bool | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: Mapping[str, Any] | None = None,
) -> SpanBlock:
    """Record a block of code as a trace of its own, such as a job from a queue.

    >>> with start_trace("resize", upstream=message.headers) as span:
    ...     resize(message)

    ``upstream`` are the headers of the message, as ``inject`` wrote them, or the result of ``extract``. By
    default ``WHEREFROM_UPSTREAM`` decides how they are used: ``link`` records the sender's span as a link,
    ``continue`` makes the block a part of the sender's trace, and ``ignore`` ignores it. ``join=True`` means
    ``continue``, and ``join=False`` means ``link``. The ids of request, session and user are recorded as
    from the headers of a request. If the sender's trace is the current one, the block is a span in it.

    ``span_type`` and ``attributes`` are those of the root span. An exception of the block is recorded and
    propagates.
    """
    pairs: Pairs = [] if isinstance(upstream, SpanContext) else _pairs(upstream)
    caller = upstream if isinstance(upstream, SpanContext) else propagation.extract(pairs)
    current = current_trace()
    if caller is not None and current is not None and current.ids[0] == f"tr-{caller.trace_id}":
        return start_span(name, span_type=span_type, attributes=attributes)
    trace = open_trace(name, span_type, caller, join)
    if trace.caller is not None:
        trace.baggage = parse_baggage(pairs)
    elif caller is not None and trace.recorder.upstream != "ignore":
        trace.root.links += links_to(format_traceparent(caller.trace_id, caller.span_id, False, False))
    _identify(trace, pairs)
    if attributes:
        trace.root.set_attributes(attributes)
    return SpanBlock(trace.root)


def _identify(trace: LiveTrace, pairs: Pairs) -> None:
    """Record the ids of request, session and user that came with a message; the first of each counts."""
    recorder = trace.recorder
    found = {name.lower(): value for name, value in reversed(pairs)}
    request_id, session, user = (
        accepted(found.get(header.lower().encode("latin-1")))
        for header in (recorder.request_id_header, SESSION_HEADER, USER_HEADER)
    )
    if request_id is not None:
        trace.info.client_request_id = request_id
    if session is not None:
        trace.add_metadata({keys.SESSION: session})
    if user is not None:
        trace.add_metadata({keys.USER: recorder.user(user)})


def _pairs(headers: Any) -> Pairs:
    """Return headers of any kind in the form of ASGI; invalid headers are omitted."""
    with suppress(Exception):  # untrusted input of any type
        return list(islice(_read(headers), _MAX_HEADERS))
    return []


def _read(headers: Any) -> Iterator[tuple[bytes, bytes]]:
    # Of the multi-dicts of Starlette and httpx, ``items`` joins or leaves out repeated headers.
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    for pair in headers if items is None else items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            continue
        name, value = _bytes(pair[0]), pair[1]
        for item in value if isinstance(value, (tuple, list)) else (value,):
            text = _bytes(item)
            if name is not None and text is not None:
                yield name, text


def _bytes(text: object) -> bytes | None:
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    return text.encode("utf-8", "replace") if isinstance(text, str) else None


def _name(key: object) -> str:
    name = _bytes(key)
    return "" if name is None else name.decode("latin-1").lower()


def _writer_for(headers: Any) -> Callable[[Any, Mapping[str, str]], None]:
    if isinstance(headers, MutableSequence) and not isinstance(headers, bytearray):
        return _extend
    if all(hasattr(headers, name) for name in ("keys", "__getitem__", "__setitem__", "__delitem__")):
        return _update
    raise TypeError(f"inject() takes a dict or a list of pairs to add to, not {clean_text(type(headers))}")


def _extend(headers: MutableSequence[Any], added: Mapping[str, str]) -> None:
    pairs = [pair for pair in headers if _is_pair(pair)]
    like = _alike((name for name, _ in pairs), (value for _, value in pairs))
    make = list if pairs and isinstance(pairs[0], list) else tuple
    present = {_name(name) for name, _ in pairs} - _REPLACED
    kept = [pair for pair in headers if not _is_pair(pair) or _name(pair[0]) not in _REPLACED]
    headers[:] = kept + [
        make(like(name, value)) for name, value in added.items() if name.lower() not in present
    ]


def _is_pair(item: object) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _update(headers: Any, added: Mapping[str, str]) -> None:
    names = list(headers.keys())
    like = _alike(names, (headers[name] for name in names))
    present = {_name(name) for name in names} - _REPLACED
    for name in names:
        if _name(name) in _REPLACED and name in headers:
            del headers[name]
    for name, value in added.items():
        if name.lower() not in present:
            key, text = like(name, value)
            headers[key] = text


def _alike(names: Iterable[object], values: Iterable[object]) -> Callable[[str, str], tuple[Any, Any]]:
    """Return a function that makes pairs of the same types as the existing ones; by default text."""
    has_bytes = [any(isinstance(item, bytes) for item in items) for items in (names, values)]

    def make(*pair: str) -> tuple[Any, Any]:
        name, value = (
            text.encode("latin-1") if is_bytes else text
            for text, is_bytes in zip(pair, has_bytes, strict=True)
        )
        return name, value

    return make
