"""The Trace page: one request, its metadata and failures, and its spans as a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ... import keys
from ...analysis.description import Failure, Group, describe, failures_of, tags_of
from ...analysis.listing import read_neighbours
from ...analysis.model_calls import ModelCalls, calls_of_trace
from ...analysis.scope import DAY_MS
from ...analysis.services import Service, services_in
from ...analysis.span_tree import SpanTree
from ...client import TraceClient
from ...exceptions import InvalidTraceError, TraceNotFoundError
from ...messages.content import Conversation
from ...messages.conversation import CONVERSING, main_span, read_span
from ...messages.totals import MODEL_CALLS
from ...model import Span, SpanType, Trace
from ...stores import Store
from ...stores.base import TraceKey
from ..links import commit_url, to_curl
from ..page import Action, Page, Reader
from ..parameters import SpanQuery, SpansQuery, TraceQuery
from ..spans import (
    WINDOW,
    SpanDetail,
    SpanRow,
    SpanWindow,
    listed_spans,
    span_detail,
    span_rows,
    span_window,
    window_page,
)
from .feedback import FeedbackRow, feedback_rows

_FEW_SPANS: Final = 60  # whose messages the JSON has
_MOST_IN_FULL: Final = 300  # of a trace of more spans, only some are read in full
_MOST_FAILED: Final = 200
_MOST_PARTS: Final = 200
_MOST_CALLS: Final = 200
_MOST_UNCOUNTED_CALLS: Final = 1_000  # of a trace that did not record its tokens


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One exception, and the names of the spans that it left, the innermost first, which is ``span_id``.

    ``related`` lists the members of a group and the causes: ``caused by KeyError: 'x'``.
    """

    kind: str
    message: str
    stack: str
    span_id: str
    spans: tuple[str, ...]
    related: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceView:
    """A trace in full; ``request_time`` in ms since the epoch, ``duration_ns`` ``None`` while it runs.

    ``commit_url`` is the page of the commit on its host. ``curl`` is a command that repeats the request, as
    far as it was recorded. ``since`` and ``until`` are the day around a trace that is older than a day, in ms
    since the epoch: there similar traces are found. ``conversation`` is that of the span
    ``conversation_span``, and ``conversations`` are those of the other spans, by id, if the trace has few.
    """

    trace_id: str
    experiment: str
    name: str | None
    state: str
    outcome: str | None
    request_time: int
    duration_ns: int | None
    first_byte_ms: float | None
    longest_gap_ms: float | None
    request_id: str | None
    session: str | None
    user: str | None
    version: str | None
    request_preview: str | None
    response_preview: str | None
    groups: tuple[Group, ...]
    metadata: dict[str, str]
    tags: dict[str, str]
    failures: tuple[FailureRow, ...]
    spans: tuple[SpanRow, ...]
    commit_url: str | None
    curl: str | None
    since: int | None
    until: int | None
    calls: ModelCalls
    conversation: Conversation | None
    conversation_span: str | None
    conversations: dict[str, Conversation]
    services: tuple[Service, ...]
    feedback: tuple[FeedbackRow, ...]


@dataclass(frozen=True, slots=True)
class TracePage:
    """What the page of a trace shows: ``trace`` without its spans, a page of those, and one in detail.

    ``main`` is the span whose conversation stands for the trace. ``unknown_span`` is the id that was asked
    for, if the trace has no such span.
    """

    trace: TraceView
    main: Span | None
    window: SpanWindow
    detail: SpanDetail | None
    unknown_span: str | None

    @property
    def first_byte(self) -> float | None:
        """The place of the first byte in the waterfall, in thousandths."""
        if self.trace.first_byte_ms is None:
            return None
        return round(min(1000 * self.trace.first_byte_ms * 1e6 / self.window.whole_ns, 1000), 2)


def view_trace(reader: Reader, query: SpansQuery) -> TraceView:
    """One trace with the spans that the query asks for, in full."""
    trace = _read(reader, query)
    tree = SpanTree(trace.data.spans, services_in(trace)[1])
    known = _conversations(trace.data.spans)
    rows = span_rows(tree, listed_spans(tree, replace(query, fold=())))
    return _view(reader, trace, known, tuple(rows))


def view_page(reader: Reader, query: SpansQuery) -> TracePage:
    """One trace, a page of its spans, and the span asked for: else where its error began, or its root."""
    key, trace = _read_outline(reader, query)
    tree = SpanTree(trace.data.spans, services_in(trace)[1])
    chosen = tree.index(query.span)
    unknown = query.span if chosen is None else None
    if chosen is None:
        chosen = tree.origin() or (0 if tree.places else None)
    listed = listed_spans(tree, query, chosen)
    page = window_page(listed, query, chosen)
    full = _read_spans(reader, key, _ids_in_full(trace, tree, chosen))
    trace.data.spans = [full.get(span.span_id, span) for span in trace.data.spans]
    shown = [tree.places[at].span.span_id for at in listed[(page - 1) * WINDOW : page * WINDOW]]
    rest = [span_id for span_id in shown if span_id not in full]
    more = {span.span_id: span for span in reader.snapshot.spans(key, rest, include_values=False)}
    view = _view(reader, trace, _conversations(list(full.values())), ())
    return TracePage(
        trace=view,
        main=full.get(view.conversation_span or ""),
        window=span_window(tree, listed, page, query, chosen, full | more),
        detail=None if chosen is None else _detail(reader, trace, tree, chosen, full),
        unknown_span=unknown,
    )


def read_abridged(reader: Reader, trace_id: str) -> tuple[Trace, dict[str, Conversation]]:
    """A trace, and the conversations of its spans by id.

    Of a trace with many spans, only those that tell of it as a whole are read in full.
    """
    key, trace = _read_outline(reader, SpansQuery(trace_id=trace_id))
    full = _read_spans(reader, key, _ids_in_full(trace, SpanTree(trace.data.spans), None))
    trace.data.spans = [full.get(span.span_id, span) for span in trace.data.spans]
    return trace, _conversations(list(full.values()))


def view_span_detail(reader: Reader, query: SpanQuery) -> SpanDetail:
    """One span of a trace as its page shows it."""
    key, trace = _read_outline(reader, query)
    tree = SpanTree(trace.data.spans, services_in(trace)[1])
    index = _index_of(tree, query)
    return _detail(reader, trace, tree, index, _read_spans(reader, key, [query.span_id]))


def view_span(reader: Reader, query: SpanQuery) -> SpanRow:
    """One span of a trace, with values in full."""
    key, trace = _read_outline(reader, query)
    index = _index_of(SpanTree(trace.data.spans), query)
    full = _read_spans(reader, key, [query.span_id])
    tree = SpanTree([full.get(span.span_id, span) for span in trace.data.spans], services_in(trace)[1])
    return span_rows(tree, [index])[0]


def _index_of(tree: SpanTree, query: SpanQuery) -> int:
    index = tree.index(query.span_id)
    if index is None:
        raise TraceNotFoundError(f"trace {query.trace_id} has no span {query.span_id!r}")
    return index


def _detail(reader: Reader, trace: Trace, tree: SpanTree, index: int, full: Mapping[str, Span]) -> SpanDetail:
    span = tree.places[index].span
    return span_detail(full.get(span.span_id, span), tree, index, *_day_around(reader, trace))


def _ids_in_full(trace: Trace, tree: SpanTree, chosen: int | None) -> list[str]:
    """The spans that tell of the trace as a whole, and the chosen one.

    Those are roots, failed spans and model calls, the outermost first; of a small trace all.
    """
    places = tree.places
    if len(places) <= _MOST_IN_FULL:
        return [place.span.span_id for place in places]
    is_counted = keys.TOKEN_USAGE in trace.info.trace_metadata
    calls = [at for at, place in enumerate(places) if place.span.span_type in CONVERSING | MODEL_CALLS]
    calls.sort(key=lambda at: (places[at].depth, -places[at].span.start_time_ns))
    roots = [at for at, place in enumerate(places) if place.parent is None]
    wanted = [*roots[:1], *tree.errors[:_MOST_FAILED]]
    wanted += calls[: _MOST_CALLS if is_counted else _MOST_UNCOUNTED_CALLS]
    if chosen is not None:
        wanted.append(chosen)
    return [places[at].span.span_id for at in dict.fromkeys(wanted)]


def _read_outline(reader: Reader, query: TraceQuery) -> tuple[TraceKey, Trace]:
    """The key of a trace, and the trace with its spans in outline."""
    trace = _read(reader, query, include_spans=False)
    (key,) = reader.snapshot.find([query.trace_id])
    spans = reader.snapshot.outline(key)
    # The attributes of the spans with which other services continued the trace name these: mostly requests.
    inner = [span for span in spans if span.parent_id is not None]
    inner.sort(key=lambda span: span.span_type != SpanType.SERVER)
    parts = [span.span_id for span in inner[:_MOST_PARTS]]
    read = reader.snapshot.spans(key, parts, include_values=False) if parts else ()
    known = {span.span_id: span for span in read}
    trace.data.spans = [known.get(span.span_id, span) for span in spans]
    return key, trace


def _read_spans(reader: Reader, key: TraceKey, span_ids: Sequence[str]) -> dict[str, Span]:
    return {span.span_id: span for span in reader.snapshot.spans(key, span_ids)}


def _conversations(spans: Sequence[Span]) -> dict[str, Conversation]:
    return {span.span_id: one for span in spans if (one := read_span(span)) is not None}


def _day_around(reader: Reader, trace: Trace) -> tuple[int, int] | tuple[None, None]:
    """The day around a trace that is older than a day, in ms since the epoch."""
    time = trace.info.request_time
    is_old = time < reader.snapshot.now_ms - DAY_MS
    return (time - DAY_MS // 2, time + DAY_MS // 2) if is_old else (None, None)


def _view(
    reader: Reader, trace: Trace, known: dict[str, Conversation], rows: tuple[SpanRow, ...]
) -> TraceView:
    """The facts of a trace; ``known`` are the conversations of its spans, by id."""
    info, metadata = trace.info, trace.info.trace_metadata
    attributes = {} if trace.root is None else trace.root.attributes
    spans = trace.data.spans
    main = main_span(spans, known)
    calls = calls_of_trace(trace, known)
    since, until = _day_around(reader, trace)
    return TraceView(
        trace_id=info.trace_id,
        experiment=info.experiment,
        name=info.name,
        state=info.state.value,
        outcome=_text(attributes, "wherefrom.outcome"),
        request_time=info.request_time,
        duration_ns=trace.duration_ns,
        first_byte_ms=_number(attributes, "wherefrom.time_to_first_byte_ms"),
        longest_gap_ms=_number(attributes, "wherefrom.response.longest_gap_ms"),
        request_id=info.client_request_id,
        session=metadata.get(keys.SESSION),
        user=metadata.get(keys.USER),
        version=metadata.get(keys.APP_VERSION),
        request_preview=info.request_preview,
        response_preview=info.response_preview,
        groups=tuple(group for group in describe(trace, calls) if group.pairs),
        metadata=metadata,
        tags=tags_of(trace),
        failures=tuple(
            FailureRow(one.kind, one.message, one.stack, one.origin, tuple(one.spans), tuple(_related(one)))
            for one in failures_of(spans)
        ),
        spans=rows,
        commit_url=commit_url(metadata.get(keys.GIT_REPO_URL), metadata.get(keys.GIT_COMMIT)),
        curl=to_curl(trace),
        since=since,
        until=until,
        calls=calls,
        conversation=known.get(main) if main else None,
        conversation_span=main,
        conversations={
            span_id: one for span_id, one in known.items() if span_id != main and len(spans) <= _FEW_SPANS
        },
        services=tuple(services_in(trace)[0]),
        feedback=tuple(feedback_rows(info.assessments)),
    )


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The ids of the previous and the next trace: of those in the filter and the time range, if given.

    Without both they are those in the experiment of the trace.
    """

    older: str | None
    newer: str | None


def view_neighbours(reader: Reader, query: TraceQuery) -> Neighbours:
    """The traces before and after a trace in the list that it is in."""
    info = _read(reader, query, include_spans=False).info
    if query.filter is None and query.since is None and query.until is None:
        return Neighbours(*reader.snapshot.neighbours(info))
    return Neighbours(*read_neighbours(reader.snapshot, reader.selection, info, query.since, query.until))


def _related(failure: Failure) -> list[str]:
    return [f"{other.relation} {other.title}" for other in failure.raised[1:]]


def _read(reader: Reader, query: TraceQuery, *, include_spans: bool = True) -> Trace:
    found = reader.snapshot.read(reader.snapshot.find([query.trace_id]), include_spans=include_spans)
    if not found:
        raise TraceNotFoundError(f"no trace has the id {query.trace_id!r}")
    return found[0]


def set_tag(store: Store, query: TraceQuery, form: Mapping[str, str]) -> str:
    """Set or remove a tag, and show the trace again."""
    client, trace_id, key = TraceClient(store), query.trace_id, form.get("key", "").strip()
    if not key:
        raise InvalidTraceError("a tag needs a key")
    if form.get("change") == "remove":
        client.delete_trace_tag(trace_id, key)
    else:
        client.set_trace_tag(trace_id, key, form.get("value", ""))
    return f"/traces/{trace_id}"


def _text(attributes: Mapping[str, Any], key: str) -> str | None:
    value = attributes.get(key)
    return value if isinstance(value, str) else None


def _number(attributes: Mapping[str, Any], key: str) -> float | None:
    value = attributes.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


PAGES: Final = (
    Page(
        path="/traces/{trace_id}",
        view=view_trace,
        early=view_page,
        answer=TraceView,
        template="trace.html",
        summary="One trace with its spans.",
        query=SpansQuery,
        parts={"near": view_neighbours},
    ),
    Page(
        path="/traces/{trace_id}/near",
        view=view_neighbours,
        answer=Neighbours,
        summary="The traces before and after a trace, within a filter and a time range.",
        query=TraceQuery,
    ),
    Page(
        path="/traces/{trace_id}/spans/{span_id}",
        view=view_span,
        early=view_span_detail,
        answer=SpanRow,
        template="span.html",
        summary="One span of a trace, with values in full.",
        query=SpanQuery,
    ),
)
ACTIONS: Final = (Action(path="/traces/{trace_id}/tags", act=set_tag, query=TraceQuery),)
