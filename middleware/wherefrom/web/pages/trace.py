"""The Trace page: one request, its metadata and failures, and its spans as a waterfall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ... import keys
from ...analysis.description import (
    Branch,
    Failure,
    Group,
    branches_of,
    describe,
    failures_of,
    own_times,
    tags_of,
)
from ...analysis.listing import read_neighbours
from ...analysis.model_calls import ModelCalls, calls_of_trace
from ...analysis.scope import DAY_MS
from ...client import TraceClient
from ...exceptions import InvalidTraceError, TraceNotFoundError
from ...messages.content import Conversation
from ...messages.conversation import main_span, read_span
from ...model import Span, SpanEvent, Trace
from ...stores import Store
from ..links import commit_url, to_curl
from ..page import Action, Page, Reader
from ..parameters import SpanQuery, TraceQuery

_MOST_PIECES: Final = 60  # a bar is some hundred pixels wide
_FEW_SPANS: Final = 60
_LONG: Final = 4_000  # characters of a value, if there are few spans
_SHORT: Final = 600  # characters of a value, so that a page of many spans stays small


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the trace, in thousandths of its duration."""

    begin: float
    length: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event, ``at_ns`` after the start of the trace; ``place`` is in thousandths of the trace."""

    name: str
    at_ns: int
    place: float
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span; ``depth`` is 0 for a root, and ``start_ns`` is relative to the start of the trace.

    ``duration_ns`` is ``None`` while it runs. ``own_ns`` is its own time, in which no child ran. ``bar`` is
    the span's part of the trace, and ``own`` the parts of its own time.
    """

    span_id: str
    parent_id: str | None
    depth: int
    name: str
    type: str
    status: str
    status_message: str
    start_ns: int
    duration_ns: int | None
    own_ns: int
    bar: Stretch
    own: tuple[Stretch, ...]
    inputs: Any
    outputs: Any
    attributes: dict[str, Any]
    events: tuple[EventRow, ...]
    links: tuple[dict[str, Any], ...]


def span_rows(spans: Sequence[Span]) -> Iterator[SpanRow]:
    """The rows, in the order of the tree."""
    if not spans:
        return
    scale = _Scale(spans)
    children: dict[str, list[Span]] = {}
    for span in spans:
        if span.parent_id is not None:
            children.setdefault(span.parent_id, []).append(span)
    for branch in branches_of(spans):
        yield _row(branch, children.get(branch.span.span_id, ()), scale)


class _Scale:
    """From the first start to the last end of the spans, in thousandths."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.begin = min(span.start_time_ns for span in spans)
        self.end = max(max(span.start_time_ns, span.end_time_ns or 0) for span in spans)
        self._whole = max(self.end - self.begin, 1)

    def place(self, moment_ns: int) -> float:
        share = (moment_ns - self.begin) / self._whole
        return round(1000 * min(max(share, 0), 1), 2)

    def stretch(self, begin_ns: int, end_ns: int) -> Stretch:
        begin = self.place(begin_ns)
        return Stretch(begin, round(max(self.place(end_ns) - begin, 0), 2))


def _row(branch: Branch, children: Sequence[Span], scale: _Scale) -> SpanRow:
    span = branch.span
    own = own_times(span, children, scale.end)
    end = scale.end if span.end_time_ns is None else span.end_time_ns
    return SpanRow(
        span_id=span.span_id,
        parent_id=span.parent_id,
        depth=branch.depth,
        name=span.name,
        type=span.span_type,
        status=span.status.code.value,
        status_message=span.status.description,
        start_ns=span.start_time_ns - scale.begin,
        duration_ns=None if span.end_time_ns is None else span.end_time_ns - span.start_time_ns,
        own_ns=sum(over - begin for begin, over in own),
        bar=scale.stretch(span.start_time_ns, end),
        own=tuple(scale.stretch(begin, over) for begin, over in own[:_MOST_PIECES]),
        inputs=span.inputs,
        outputs=span.outputs,
        attributes=span.attributes,
        events=tuple(_event(event, scale) for event in span.events),
        links=tuple(span.links),
    )


def _event(event: SpanEvent, scale: _Scale) -> EventRow:
    return EventRow(event.name, event.timestamp - scale.begin, scale.place(event.timestamp), event.attributes)


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One exception, and the names of the spans that it left, the innermost first.

    ``related`` lists the members of a group and the causes: ``caused by KeyError: 'x'``.
    """

    kind: str
    message: str
    stack: str
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

    @property
    def whole_ns(self) -> int:
        """The duration of the whole waterfall, at least 1."""
        return max((span.start_ns + (span.duration_ns or 0) for span in self.spans), default=0) or 1

    @property
    def first_byte(self) -> float | None:
        """The place of the first byte in the waterfall, in thousandths."""
        if self.first_byte_ms is None:
            return None
        return round(min(1000 * self.first_byte_ms * 1e6 / self.whole_ns, 1000), 2)

    @property
    def is_small(self) -> bool:
        """Whether there are few spans, so that each can be shown in detail."""
        return len(self.spans) <= _FEW_SPANS

    @property
    def most(self) -> int:
        """The number of characters of each value on the page: fewer if there are many spans."""
        return _LONG if len(self.spans) <= _FEW_SPANS else _SHORT


def view_trace(reader: Reader, query: TraceQuery) -> TraceView:
    """One trace."""
    trace = _read(reader, query)
    info, metadata = trace.info, trace.info.trace_metadata
    attributes = {} if trace.root is None else trace.root.attributes
    spans = trace.data.spans
    known = {span.span_id: one for span in spans if (one := read_span(span)) is not None}
    main = main_span(spans, known)
    around: tuple[int, int] | None = None
    if info.request_time < reader.snapshot.now_ms - DAY_MS:
        around = info.request_time - DAY_MS // 2, info.request_time + DAY_MS // 2
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
        groups=tuple(group for group in describe(trace) if group.pairs),
        metadata=metadata,
        tags=tags_of(trace),
        failures=tuple(
            FailureRow(one.kind, one.message, one.stack, tuple(one.spans), tuple(_related(one)))
            for one in failures_of(trace.data.spans)
        ),
        spans=tuple(span_rows(trace.data.spans)),
        commit_url=commit_url(metadata.get(keys.GIT_REPO_URL), metadata.get(keys.GIT_COMMIT)),
        curl=to_curl(trace),
        since=around and around[0],
        until=around and around[1],
        calls=calls_of_trace(trace, known),
        conversation=known.pop(main, None) if main else None,
        conversation_span=main,
        conversations=known if len(spans) <= _FEW_SPANS else {},
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


def view_span(reader: Reader, query: SpanQuery) -> SpanRow:
    """One span of a trace, with values in full."""
    trace = _read(reader, query)
    for row in span_rows(trace.data.spans):
        if row.span_id == query.span_id:
            return row
    raise TraceNotFoundError(f"trace {trace.info.trace_id} has no span {query.span_id!r}")


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
        answer=TraceView,
        template="trace.html",
        summary="One trace with its spans.",
        query=TraceQuery,
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
        answer=SpanRow,
        summary="One span of a trace, with values in full.",
        query=SpanQuery,
    ),
)
ACTIONS: Final = (Action(path="/traces/{trace_id}/tags", act=set_tag, query=TraceQuery),)
