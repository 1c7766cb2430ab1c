"""The Traces page: list, histogram and facets, live changes, and completion of filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...analysis.facets import Facets, Split, read_facets, read_splits
from ...analysis.listing import ListQuery, check_query, read_listing
from ...analysis.misses import Miss, explain
from ...analysis.scope import Window, find_window
from ...analysis.tail import read_changes
from ...analysis.timeline import Histogram, Trends, read_histogram, read_trends
from ...exceptions import FilterError, QueryTimeoutError
from ...model import TraceState
from ...query import format_filter
from ...query.completion import offers, start_of_last
from ...query.edit import excluded, toggled, with_values
from ...query.fields import Operator, find_field
from ...query.forgiving import single_word
from ...query.order import NEWEST_FIRST
from ...query.parser import parse_field
from ...query.tree import Compare
from ...stores import Selection
from ...stores.base import TraceRow
from ..page import Page, Reader, no_view
from ..parameters import (
    ChangesQuery,
    CompletionQuery,
    RangeQuery,
    ToggleQuery,
    TracesQuery,
    TrendsQuery,
    choices,
    columns_of,
)
from ..rendering import condition

_MOST_OFFERS: Final = 30
_MOST_EXPERIMENTS: Final = 50
_MOST_VALUE: Final = 200  # longer values would fill the list of completions


@dataclass(frozen=True, slots=True)
class EarlyView:
    """What is known before the traces are read: the time range, and the cursor for changes from now on.

    ``experiments`` are the names of the newest ones.
    """

    since: int
    until: int
    is_moved: bool
    cursor: str
    experiments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TracesView:
    """A page of traces; ``next_page`` and ``previous_page`` are values of ``after`` and ``before``.

    ``since`` and ``until`` are the time range, in ms since the epoch. ``is_moved``: the last day had no
    traces, so the range ends with the newest trace. ``p95_ms`` is of the durations on this page. ``cursor``
    is for ``/changes``. ``errors`` has the message of the first failed span, by trace id.
    """

    traces: tuple[TraceRow, ...]
    next_page: str | None
    previous_page: str | None
    since: int
    until: int
    is_moved: bool
    is_store_empty: bool
    p95_ms: float | None
    cursor: str
    errors: dict[str, str]


@dataclass(frozen=True, slots=True)
class ChangesView:
    """Traces stored since a cursor, the newest first, and the cursor for the next request.

    ``errors`` has the message of the first failed span, by trace id.
    """

    traces: tuple[TraceRow, ...]
    cursor: str
    p95_ms: float | None
    errors: dict[str, str]


@dataclass(frozen=True, slots=True)
class Completion:
    """A suggestion: ``text`` is the whole filter, ``label`` the part that it adds, ``help`` its meaning."""

    text: str
    label: str
    help: str


@dataclass(frozen=True, slots=True)
class Completions:
    """The suggestions for a filter."""

    offers: tuple[Completion, ...]


def view_early(reader: Reader, query: TracesQuery) -> EarlyView:
    """The time range; checks the query without searching."""
    _ = reader.selection  # an invalid filter is reported beside its field, not as an error page
    window = check_query(reader.snapshot, _list_query(query))
    newest = sorted(reader.snapshot.experiments(), reverse=True)[:_MOST_EXPERIMENTS]
    names = tuple(sorted(name for _, name in newest if len(name) <= _MOST_VALUE))
    return EarlyView(window.since, window.until, window.is_moved, reader.snapshot.cursor(), names)


def view_traces(reader: Reader, query: TracesQuery) -> TracesView:
    """A page of traces."""
    found = read_listing(reader.snapshot, reader.selection, _list_query(query))
    return TracesView(
        traces=found.traces,
        next_page=found.next_page,
        previous_page=found.previous_page,
        since=found.window.since,
        until=found.window.until,
        is_moved=found.window.is_moved,
        is_store_empty=not found.traces and reader.snapshot.bounds(Selection()) is None,
        p95_ms=_p95([row.duration_ms for row in found.traces if row.duration_ms is not None]),
        cursor=reader.snapshot.cursor(),
        errors=_errors(reader, found.traces),
    )


def _errors(reader: Reader, rows: Sequence[TraceRow]) -> dict[str, str]:
    failed = [row.trace_id for row in rows if row.state == TraceState.ERROR]
    return reader.snapshot.errors(reader.snapshot.find(failed))


def view_histogram(reader: Reader, query: RangeQuery) -> Histogram:
    """Requests and errors over the time range."""
    return read_histogram(reader.snapshot, reader.selection, _window(reader, query))


def view_trends(reader: Reader, query: TrendsQuery | TracesQuery) -> Trends:
    """Requests, errors and durations over the time range."""
    return read_trends(reader.snapshot, reader.selection, _window(reader, query), query.split)


def view_facets(reader: Reader, query: RangeQuery) -> Facets:
    """The most frequent values of the traces in the range."""
    return read_facets(reader.snapshot, reader.selection, _window(reader, query))


def view_splits(reader: Reader, query: RangeQuery) -> list[Split]:
    """The fields by which values over time can be split."""
    return read_splits(reader.snapshot, reader.selection, _window(reader, query))


def view_changes(reader: Reader, query: ChangesQuery) -> ChangesView:
    """The traces of the time range stored since a cursor."""
    within = _window(reader, query).limit(reader.selection)
    found = read_changes(reader.snapshot, within, query.cursor)
    return ChangesView(found.traces[::-1], found.cursor, query.p95_ms, _errors(reader, found.traces))


@dataclass(frozen=True, slots=True)
class WhyView:
    """Why no trace matches, if a part of the filter is to blame; ``latest`` is the newest match ever."""

    misses: tuple[Miss, ...]
    latest: int | None


def view_why(reader: Reader, query: RangeQuery) -> WhyView:
    """Why the filter finds nothing in the time range."""
    selection = reader.selection
    misses = explain(reader.snapshot, selection, _window(reader, query).limit(selection))
    ends = None if misses or selection.tree is None else reader.snapshot.bounds(selection)
    return WhyView(tuple(misses), ends and ends[1])


@dataclass(frozen=True, slots=True)
class ToggledView:
    """The filter with one value more or less; empty if it selects every trace."""

    filter: str


def view_toggled(reader: Reader, query: ToggleQuery) -> ToggledView:
    """The filter after a click on a value of a facet."""
    field, before = parse_field(query.field), reader.selection.tree
    match query.way:
        case "only":
            tree = with_values(before, field, (query.value,))
        case "not":
            tree = excluded(before, field, query.value)
        case _:
            tree = toggled(before, field, query.value)
    return ToggledView("" if tree is None else format_filter(tree))


def view_completions(reader: Reader, query: CompletionQuery) -> Completions:
    """The completions of a filter that is being typed."""
    text = query.text or ""
    start = start_of_last(text)
    found = offers(text, reader.snapshot, lambda value: len(value) <= _MOST_VALUE, inside=True)
    return Completions(
        tuple(Completion(offer, offer[start:].strip(), meaning) for offer, meaning in found[:_MOST_OFFERS])
    )


def open_by_id(reader: Reader, query: TracesQuery) -> tuple[str, dict[str, str]] | None:
    """The page of the trace, the session or the user whose id is all that was typed into the filter."""
    try:
        return _find_by_id(reader, query)
    except QueryTimeoutError:
        return None  # the list has a deadline of its own


def _find_by_id(reader: Reader, query: TracesQuery) -> tuple[str, dict[str, str]] | None:
    try:
        word = single_word(reader.selection.tree)
    except FilterError:
        return None  # the page shows it beside its field
    if word is None or query.after or query.before:
        return None
    snapshot, experiments = reader.snapshot, reader.selection.experiments

    def having(field: str) -> list[TraceRow]:
        wanted = Selection(Compare(find_field(None, field), Operator.EQ, word), experiments)
        return snapshot.rows(snapshot.search(wanted, NEWEST_FIRST, 1).keys)

    hex_id = f"tr-{word.lower().removeprefix('tr-')}"
    if rows := snapshot.rows(snapshot.find([word, hex_id])[:1]) or having("client_request_id"):
        return f"/traces/{rows[0].trace_id}", {}
    if snapshot.session(word, experiments) is not None:
        return "/session", {"id": word}
    if having("user"):
        kept = {name: value for name in ("since", "until") if (value := getattr(query, name))}
        return "/traces", {"filter": condition("user", word), **kept}
    return None


def _list_query(query: TracesQuery) -> ListQuery:
    return ListQuery(
        since=query.since,
        until=query.until,
        order=query.order,
        size=query.size,
        page=query.before or query.after,
        is_back=query.before is not None,
    )


def _window(reader: Reader, query: RangeQuery) -> Window:
    return find_window(reader.snapshot, query.since, query.until)


def _columns(query: TracesQuery | ChangesQuery) -> dict[str, Any]:
    return {"columns": columns_of(query.columns), "choices": list(choices(query.columns))}


def _p95(durations: list[float]) -> float | None:
    """The smallest duration that 95 % do not exceed."""
    return sorted(durations)[-(-len(durations) * 95 // 100) - 1] if durations else None


PAGES: Final = (
    Page(
        path="/traces",
        title="Traces",
        view=view_traces,
        early=view_early,
        answer=TracesView,
        template="traces.html",
        summary="Traces that pass a filter within a time range.",
        query=TracesQuery,
        parts={"histogram": view_histogram, "facets": view_facets, "trends": view_trends, "why": view_why},
        context=_columns,
        shows_failures=True,
        opens=open_by_id,
    ),
    Page(
        path="/histogram",
        view=view_histogram,
        answer=Histogram,
        summary="Requests and errors over a time range.",
        query=RangeQuery,
    ),
    Page(
        path="/trends",
        view=view_trends,
        early=no_view,
        answer=Trends,
        template="trends_page.html",
        parts={"splits": view_splits},
        summary="Requests, error rates and durations over a time range, of all traces or by value.",
        query=TrendsQuery,
    ),
    Page(
        path="/facets",
        view=view_facets,
        answer=Facets,
        summary="The most frequent values of the traces in a time range, with counts and filters.",
        query=RangeQuery,
    ),
    Page(
        path="/changes",
        view=view_changes,
        answer=ChangesView,
        template="changes.html",
        summary="Traces stored since a cursor.",
        query=ChangesQuery,
        context=_columns,
    ),
    Page(
        path="/why",
        view=view_why,
        answer=WhyView,
        summary="Why a filter finds nothing in a time range: what is wrong with which part.",
        query=RangeQuery,
    ),
    Page(
        path="/toggle",
        view=view_toggled,
        answer=ToggledView,
        summary="A filter with one value of a field added, or removed if it was there.",
        query=ToggleQuery,
    ),
    Page(
        path="/complete",
        view=view_completions,
        answer=Completions,
        summary="Suggestions for a filter that is being typed.",
        query=CompletionQuery,
    ),
)
