"""The Traces page: what came in, the newest first, and how to find the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ...analysis.api import count_over_time
from ...analysis.facets import Facets, count_facets
from ...analysis.listing import ORDERS, ListQuery, check_query, list_traces
from ...analysis.tail import changes
from ...analysis.timeline import Histogram
from ...query.completion import offers, start_of_last
from ...stores.base import TraceRow
from ..columns import COLUMNS, choices, columns_of
from ..page import Page, Reader
from ..parameters import FILTER, RANGE, Kind, Parameter, Parameters, offered_ranges

_SIZE: Final = 50
_MOST_OFFERS: Final = 30
_MOST_VALUE: Final = 200


@dataclass(frozen=True, slots=True)
class AskedView:
    """The time range that is looked at, and where to ask for news from: known before the traces are."""

    since: int
    until: int
    is_moved: bool
    mark: str


@dataclass(frozen=True, slots=True)
class TracesView:
    """A page of traces; ``next_page`` goes into ``after``, ``previous_page`` into ``before``.

    ``since`` and ``until`` are the time range that was looked at, in ms since the epoch; ``is_moved`` says
    that it ends with the newest trace, as the last day had none. ``p95_ms`` is of the durations on this
    page. ``mark`` is where to ask for news from.
    """

    traces: tuple[TraceRow, ...]
    next_page: str | None
    previous_page: str | None
    since: int
    until: int
    is_moved: bool
    is_store_empty: bool
    p95_ms: float | None
    mark: str


@dataclass(frozen=True, slots=True)
class NewsView:
    """Traces that have come since a mark, the newest first, and the mark to ask with next."""

    traces: tuple[TraceRow, ...]
    mark: str
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a filter may become; ``label`` is what would be new, ``help`` what that means."""

    text: str
    label: str
    help: str


@dataclass(frozen=True, slots=True)
class Completions:
    """What may come next."""

    offers: tuple[Completion, ...]


def view_asked(reader: Reader, query: Parameters) -> AskedView:
    """What was asked for, before it is searched for."""
    window = check_query(_wanted(query), experiment=reader.experiment, store=reader.store)
    return AskedView(window.since, window.until, window.is_moved, _mark(reader))


def view_traces(reader: Reader, query: Parameters) -> TracesView:
    """The traces that were asked for."""
    # Before the list is read: what is stored in between is then in both, rather than in neither.
    mark = _mark(reader)
    found = list_traces(_wanted(query), experiment=reader.experiment, store=reader.store)
    return TracesView(
        traces=found.traces,
        next_page=found.next_page,
        previous_page=found.previous_page,
        since=found.window.since,
        until=found.window.until,
        is_moved=found.window.is_moved,
        is_store_empty=not found.traces and not _holds_any(reader),
        p95_ms=_p95([row.duration_ms for row in found.traces if row.duration_ms is not None]),
        mark=mark,
    )


def view_histogram(reader: Reader, query: Parameters) -> Histogram:
    """Requests and errors over the time range."""
    return count_over_time(**_range(query), experiment=reader.experiment, store=reader.store)


def view_facets(reader: Reader, query: Parameters) -> Facets:
    """What the traces found have in common."""
    return count_facets(**_range(query), experiment=reader.experiment, store=reader.store)


def view_news(reader: Reader, query: Parameters) -> NewsView:
    """What has come since."""
    mark, filter_string = query.text("mark"), query.text("filter")
    found = changes(mark, filter_string, experiment=reader.experiment, store=reader.store)
    return NewsView(found.traces[::-1], found.cursor, query["p95_ms"])


def view_completions(reader: Reader, query: Parameters) -> Completions:
    """What may come next in a filter that is being typed."""
    text = query.text("text") or ""
    start = start_of_last(text)
    with reader.store.snapshot() as snapshot:
        found = offers(text, snapshot, lambda value: len(value) <= _MOST_VALUE)
    return Completions(
        tuple(Completion(offer, offer[start:].strip(), meaning) for offer, meaning in found[:_MOST_OFFERS])
    )


def _wanted(query: Parameters) -> ListQuery:
    before = query.text("before")
    return ListQuery(
        **_range(query),
        order=query["order"],
        size=query["size"],
        page=before or query.text("after"),
        is_back=before is not None,
    )


def _mark(reader: Reader) -> str:
    return changes(store=reader.store).cursor


def _holds_any(reader: Reader) -> bool:
    return bool(reader.client.search_traces(max_results=1, include_spans=False))


def _range(query: Parameters) -> dict[str, Any]:
    names = {"filter": "filter_string", "since": "since", "until": "until"}
    return {argument: query.text(name) for name, argument in names.items()}


def _context(query: Parameters) -> dict[str, Any]:
    """What the table is made of besides the traces."""
    return {
        "columns": columns_of(query["columns"]),
        "choices": list(choices(query["columns"])),
        "ranges": offered_ranges(query),
    }


def _columns(query: Parameters) -> dict[str, Any]:
    return {"columns": columns_of(query["columns"])}


def _p95(durations: list[float]) -> float | None:
    """The least duration that 95 % do not exceed."""
    return sorted(durations)[-(-len(durations) * 95 // 100) - 1] if durations else None


_LISTED: Final = (
    *RANGE,
    Parameter("order", "Which come first.", default="newest", choices=tuple(ORDERS)),
    Parameter("size", "How many.", Kind.INTEGER, _SIZE, least=1, most=500),
    Parameter("after", "The page after this: the `next_page` of the one before."),
    Parameter("before", "The page before this: a `previous_page`."),
    COLUMNS,
    Parameter("live", "Whether the page shows traces as they come.", Kind.FLAG, False),
)

PAGES: Final = (
    Page(
        path="/traces",
        title="Traces",
        view=view_traces,
        early=view_asked,
        answer=TracesView,
        template="traces.html",
        summary="The traces that pass a filter within a time range.",
        parameters=_LISTED,
        parts={"histogram": view_histogram, "facets": view_facets},
        context=_context,
        shows_failures=True,
    ),
    Page(
        path="/histogram",
        view=view_histogram,
        answer=Histogram,
        summary="Requests and errors over a time range.",
        parameters=RANGE,
    ),
    Page(
        path="/facets",
        view=view_facets,
        answer=Facets,
        summary="Values that the newest traces of a time range have, counted, and the filters they lead to.",
        parameters=RANGE,
    ),
    Page(
        path="/news",
        view=view_news,
        answer=NewsView,
        template="news.html",
        summary="Traces that have been stored since a mark.",
        parameters=(
            FILTER,
            Parameter("mark", "What the last answer gave; without one the answer is the mark of now."),
            Parameter("p95_ms", "What bars of durations are drawn against.", Kind.NUMBER, least=0),
            COLUMNS,
        ),
        context=_columns,
    ),
    Page(
        path="/complete",
        view=view_completions,
        answer=Completions,
        summary="What may come next in a filter that is being typed.",
        parameters=(Parameter("text", "The filter up to where it is typed."),),
    ),
)
