"""The list of traces: pages forward and backward, and facets with the counts of the newest traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..exceptions import FilterError
from ..model import TraceInfo
from ..query.fields import Operator
from ..query.order import NEWEST_FIRST, Key, check_max_results, decode_token, encode_token, parse_order
from ..query.tree import And, Compare
from ..stores import Selection, Snapshot
from ..stores.base import TraceRow
from .scope import Window, find_window

ORDERS: Final = {
    "newest": (),
    "oldest": ("timestamp ASC",),
    "slowest": ("execution_time DESC",),
    "fastest": ("execution_time ASC",),
}
"""The orders of a listing, as ``order_by`` takes them."""
_BY_TIME: Final = frozenset({"newest", "oldest"})


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of traces, the tokens of the next and previous page, and the time range."""

    traces: tuple[TraceRow, ...]
    next_page: str | None
    previous_page: str | None
    window: Window


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A page to list; ``since`` and ``until`` are as in ``find_window``, ``order`` is one of ``ORDERS``.

    ``page`` is a token of a listing in the same order: the page after it, or with ``is_back`` the one before.
    """

    since: str | None = None
    until: str | None = None
    order: str = "newest"
    size: int = 50
    page: str | None = None
    is_back: bool = False


def check_query(snapshot: Snapshot, query: ListQuery) -> Window:
    """The time range of a query, without searching.

    Raises:
        FilterError: a time, the order or the token is invalid.
    """
    _place_of(query, _order(query))
    return find_window(snapshot, query.since, query.until)


def read_listing(snapshot: Snapshot, selection: Selection, query: ListQuery) -> Listing:
    """A page of the selection.

    Raises:
        FilterError: a time, the order, the size or the token is invalid.
    """
    order, limit = _order(query), check_max_results(query.size)
    after = _place_of(query, order)
    window = find_window(snapshot, query.since, query.until)
    within = window.limit(selection)
    if query.is_back and after is not None:
        within = replace(within, tree=And((window.around(selection.tree), _near(order, after))))
    page = snapshot.search(within, order, limit, after)
    rows = snapshot.rows(page.keys[::-1] if query.is_back else page.keys)
    forward = _reversed(order) if query.is_back else order
    following = preceding = None
    if rows and (page.after or query.is_back):
        following = encode_token(forward, _sort_values(forward, rows[-1]))
    # Only by time: traces that still run have no duration and come last in both directions.
    if rows and query.order in _BY_TIME and (page.after if query.is_back else query.page):
        preceding = encode_token(_reversed(forward), _sort_values(forward, rows[0]))
    return Listing(tuple(rows), following, preceding, window)


def read_neighbours(
    snapshot: Snapshot, selection: Selection, info: TraceInfo, since: str | None, until: str | None
) -> tuple[str | None, str | None]:
    """The ids of the previous and the next trace of the selection in the time range.

    Without ``since`` it begins with the first trace of the store.

    Raises:
        FilterError: a time is invalid, or the range is empty.
    """
    window = find_window(snapshot, since or "0", until)
    place = info.request_time, info.trace_id
    near = [
        snapshot.search(window.limit(selection), order, 1, [*place])
        for order in (NEWEST_FIRST, _reversed(NEWEST_FIRST))
    ]
    older, newer = (next((row.trace_id for row in snapshot.rows(page.keys)), None) for page in near)
    return older, newer


def _order(query: ListQuery) -> tuple[Key, ...]:
    if query.order not in ORDERS:
        raise FilterError(f"order takes one of {', '.join(ORDERS)}, not {query.order!r}")
    order = parse_order(ORDERS[query.order])
    return _reversed(order) if query.is_back else order


def _reversed(order: tuple[Key, ...]) -> tuple[Key, ...]:
    return tuple(replace(key, descending=not key.descending) for key in order)


def _place_of(query: ListQuery, order: tuple[Key, ...]) -> list[Any] | None:
    return decode_token(query.page, order) if query.page else None


def _near(order: tuple[Key, ...], after: Sequence[Any]) -> Compare:
    """A condition that the token implies, which the index on time serves."""
    return Compare(order[0].field, Operator.LE if order[0].descending else Operator.GE, after[0])


def _sort_values(order: tuple[Key, ...], row: TraceRow) -> list[Any]:
    duration = None if row.duration_ms is None else int(row.duration_ms)
    known = {"timestamp": row.request_time, "request_id": row.trace_id, "execution_time": duration}
    return [known[key.field.name] for key in order]
