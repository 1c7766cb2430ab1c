"""The page of two traces side by side: their facts, spans and messages compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ... import keys
from ..._capture.values import cut, safe_repr
from ...analysis.description import describe
from ...analysis.model_calls import calls_of_trace
from ...analysis.scope import find_window
from ...analysis.services import services_in
from ...analysis.span_tree import SpanTree
from ...analysis.trace_pair import (
    FactPair,
    MessagePair,
    SpanPair,
    align_spans,
    conversation_to_compare,
    diff_messages,
    differing_facts,
    read_same_route,
    typical_pair,
)
from ...exceptions import TraceNotFoundError
from ...model import Trace
from ...query.fields import Operator, find_field
from ...query.order import NEWEST_FIRST
from ...query.tree import Compare
from ...stores import Selection
from ..page import Page, Reader, no_view
from ..parameters import ParameterError, TracePairQuery
from .trace import read_abridged

_PATH: Final = "/compare/traces"
_WINDOW: Final = 200  # pairs of spans on a page
_KEPT: Final = frozenset({"filter", "since", "until", "order"})
_REQUEST_ID: Final = find_field(None, "client_request_id")


@dataclass(frozen=True, slots=True)
class ComparedTrace:
    """One of the traces; ``request_time`` in ms since the epoch, ``duration_ns`` ``None`` while it runs."""

    trace_id: str
    name: str | None
    state: str
    request_time: int
    duration_ns: int | None
    version: str | None
    spans: int


@dataclass(frozen=True, slots=True)
class TracePairView:
    """Two traces: what differs between them.

    ``same_facts`` counts the facts that do not. ``spans`` is a page of all ``span_pairs`` pairs, of which
    ``only_a`` and ``only_b`` are in one trace. ``longest_ns`` is the longest duration of a span.
    """

    a: ComparedTrace
    b: ComparedTrace
    facts: tuple[FactPair, ...]
    same_facts: int
    messages: tuple[MessagePair, ...]
    spans: tuple[SpanPair, ...]
    span_pairs: int
    only_a: int
    only_b: int
    page: int
    pages: int
    longest_ns: int


def view_pair(reader: Reader, query: TracePairQuery) -> TracePairView:
    """Both traces."""
    ids = _ids(reader, query)
    (a, _), (b, _) = sides = [read_abridged(reader, trace_id) for trace_id in ids]
    pairs = align_spans(*(SpanTree(trace.data.spans, services_in(trace)[1]) for trace in (a, b)))
    took = [one.duration_ns or 0 for pair in pairs for one in (pair.a, pair.b) if one is not None]
    only = [
        sum(one is None for one in side) for side in ([pair.b for pair in pairs], [pair.a for pair in pairs])
    ]
    if query.order == "difference":
        pairs.sort(key=_by_difference)
    pages = max(-(-len(pairs) // _WINDOW), 1)
    page = min(query.page, pages)
    described = [(trace, list(describe(trace, calls_of_trace(trace, known)))) for trace, known in sides]
    facts, same = differing_facts(*described)
    return TracePairView(
        a=_compared(a),
        b=_compared(b),
        facts=tuple(facts),
        same_facts=same,
        messages=tuple(diff_messages(*(conversation_to_compare(*side) for side in sides))),
        spans=tuple(pairs[(page - 1) * _WINDOW : page * _WINDOW]),
        span_pairs=len(pairs),
        only_a=only[0],
        only_b=only[1],
        page=page,
        pages=pages,
        longest_ns=max(took, default=0),
    )


def _by_difference(pair: SpanPair) -> int:
    """The largest first; a span that only one trace has differs by all of its duration."""
    if pair.difference_ns is not None:
        return -abs(pair.difference_ns)
    return -max((one.duration_ns or 0 for one in (pair.a, pair.b) if one is not None), default=0)


def _compared(trace: Trace) -> ComparedTrace:
    info = trace.info
    return ComparedTrace(
        trace_id=info.trace_id,
        name=info.name,
        state=info.state.value,
        request_time=info.request_time,
        duration_ns=trace.duration_ns,
        version=info.trace_metadata.get(keys.APP_VERSION),
        spans=len(trace.data.spans),
    )


def open_pair(reader: Reader, query: TracePairQuery) -> tuple[str, dict[str, str]] | None:
    """The same page with the ids of both traces, where it was asked for by something else."""
    if not (query.trace or query.a or query.b or query.baseline or query.candidate):
        return None
    a, b = _ids(reader, query)
    if (a, b) == (query.a, query.b):
        return None
    kept = {name: values[0] for name, values in query.given.items() if name in _KEPT}
    return _PATH, {**kept, "a": a, "b": b}


def _ids(reader: Reader, query: TracePairQuery) -> tuple[str, str]:
    if query.trace:
        chosen = dict.fromkeys(_find(reader, one) for one in query.trace)
        if len(chosen) != 2:
            raise ParameterError(f"choose two traces to compare, not {len(chosen)}")
        rows = reader.snapshot.rows(reader.snapshot.find(list(chosen)))
        earlier, later = sorted(rows, key=lambda row: row.request_time)
        return earlier.trace_id, later.trace_id
    a, b = (None if text is None else _find(reader, text) for text in (query.a, query.b))
    if a is not None and b is not None:
        return a, b
    if a is not None or b is not None:
        (trace,) = reader.snapshot.read(reader.snapshot.find([a or b or ""]), include_spans=False)
        before, after = read_same_route(reader.snapshot, trace)
        a, b = a or before, b or after
        if a is None or b is None:
            which = "before" if a is None else "after"
            raise TraceNotFoundError(
                f"there is no trace of {cut(safe_repr(trace.info.name), 100)} {which} {trace.info.trace_id}"
            )
        return a, b
    if query.baseline is None or query.candidate is None:
        raise ParameterError("name two traces by a and b, or two values by baseline and candidate")
    window = find_window(reader.snapshot, query.since, query.until)
    return typical_pair(
        reader.snapshot, window.limit(reader.selection), query.by, query.baseline, query.candidate
    )


def _find(reader: Reader, text: str) -> str:
    """The id of a trace, by its id with or without ``tr-``, or by that of its request."""
    word = text.strip()
    snapshot = reader.snapshot
    keys_found = snapshot.find([word, f"tr-{word.lower().removeprefix('tr-')}"])[:1]
    if not keys_found:
        wanted = Selection(Compare(_REQUEST_ID, Operator.EQ, word))
        keys_found = snapshot.search(wanted, NEWEST_FIRST, 1).keys
    rows = snapshot.rows(keys_found)
    if not rows:
        raise TraceNotFoundError(f"no trace has the id {word!r}, and no request either")
    return rows[0].trace_id


PAGES: Final = (
    Page(
        path=_PATH,
        view=view_pair,
        early=no_view,
        answer=TracePairView,
        template="trace_pair.html",
        summary="Two traces side by side: what differs in their facts, their spans and their messages.",
        query=TracePairQuery,
        opens=open_pair,
    ),
)
