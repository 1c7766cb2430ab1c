"""Traces as rows of a table: what is known of each without its spans, a page at a time, forth and back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import and_, or_, select

from ..exceptions import FilterError
from ..model import TraceInfo
from ..query import Query, format_filter, search
from ..query.fields import Operator
from ..query.order import Key, parse_order
from ..query.parser import parse_filter
from ..query.tree import And, Compare
from ..stores import Store
from ..stores.sqlite.schema import experiments, sources, spans, traces
from ..stores.sqlite.search import decode_token, encode_token
from .scope import Scope, Window, find_window, scope

OUTCOME: Final = "wherefrom.outcome"
_BATCH: Final = 500

ORDERS: Final = {
    "newest": (),
    "oldest": ("timestamp ASC",),
    "slowest": ("execution_time DESC",),
    "fastest": ("execution_time ASC",),
}
"""The orders of a listing, as ``order_by`` takes them."""
_BY_TIME: Final = frozenset({"newest", "oldest"})


@dataclass(frozen=True, slots=True)
class Listed:
    """One trace; ``request_time`` in ms since the epoch, ``duration_ms`` ``None`` while it runs."""

    trace_id: str
    experiment: str
    request_time: int
    duration_ms: float | None
    state: str
    name: str | None
    outcome: str | None
    request_id: str | None
    session: str | None
    user: str | None
    request_preview: str | None
    response_preview: str | None
    metadata: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of traces, the tokens of the pages next to it, and the window that was looked at."""

    traces: tuple[Listed, ...]
    next_page: str | None
    previous_page: str | None
    window: Window


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list; ``since`` and ``until`` as ``find_window`` takes them, ``order`` one of ``ORDERS``.

    ``page`` is a token of a listing in the same order: what follows it, or with ``is_back`` what precedes.
    """

    filter_string: str | None = None
    since: str | None = None
    until: str | None = None
    order: str = "newest"
    size: int = 50
    page: str | None = None
    is_back: bool = False


def list_traces(
    wanted: Wanted, *, experiment: str | None = None, store: Store | str | None = None
) -> Listing:
    """A page of the traces that pass a filter within a window.

    Raises:
        FilterError: the filter, a moment, the order or the token cannot be used.
    """
    order = _order(wanted)
    now_ms = time.time_ns() // 1_000_000
    with scope(store, None, experiment) as inside:
        window = find_window(inside, wanted.since, wanted.until, now_ms)
        tree = window.around(parse_filter(wanted.filter_string, inside.catalog.spelled_keys))
        if wanted.is_back and wanted.page:
            tree = And((tree, _near(order, wanted.page)))
        names = None if experiment is None else [experiment]
        page = search(
            inside.connection,
            Query(format_filter(tree), names, _spelled(order), wanted.size, wanted.page),
            now_ms,
        )
        rows = read_listed(inside, page.ids[::-1] if wanted.is_back else page.ids)
    return _paged(wanted, order, rows, page.token, window)


def check_wanted(
    wanted: Wanted, *, experiment: str | None = None, store: Store | str | None = None
) -> Window:
    """The window of what is wanted, and no search for it yet.

    Raises:
        FilterError: the filter, a moment, the order or the token cannot be used.
    """
    order = _order(wanted)
    if wanted.page:
        decode_token(wanted.page, order)
    with scope(store, wanted.filter_string, experiment) as inside:
        return find_window(inside, wanted.since, wanted.until, time.time_ns() // 1_000_000)


def read_listed(inside: Scope, ids: Sequence[int]) -> list[Listed]:
    """The traces with these row ids, in the order of the ids."""
    found: dict[int, Listed] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        outcomes = _outcomes(inside, batch)
        rows = inside.connection.execute(_ROWS.where(traces.c.id.in_(batch)))
        found.update((row[0], _to_listed(row[1:], outcomes.get(row[0]))) for row in rows)
    return [found[id_] for id_ in ids if id_ in found]


_ROWS: Final = (
    select(
        traces.c.id,
        traces.c.trace_id,
        experiments.c.name,
        traces.c.request_time,
        traces.c.duration_us,
        traces.c.state,
        traces.c.name,
        traces.c.client_request_id,
        traces.c.session_id,
        traces.c.user_id,
        traces.c.request_preview,
        traces.c.response_preview,
        sources.c.metadata,
        traces.c.metadata,
        traces.c.tags,
    )
    .join_from(traces, experiments)
    .join(sources, sources.c.id == traces.c.source_id)
)


def _to_listed(row: Sequence[Any], outcome: str | None) -> Listed:
    trace_id, experiment, request_time, duration_us, state, name, *others, of_source, own, tags = row
    request_id, session, user, request_preview, response_preview = others
    return Listed(
        trace_id=trace_id,
        experiment=experiment,
        request_time=request_time,
        duration_ms=None if duration_us is None else duration_us / 1000,
        state=state,
        name=name,
        outcome=outcome,
        request_id=request_id,
        session=session,
        user=user,
        request_preview=request_preview,
        response_preview=response_preview,
        metadata=of_source | own,
        tags=tags,
    )


def _outcomes(inside: Scope, ids: Sequence[int]) -> dict[int, str]:
    """How each request ended, which its root span tells."""
    outcome = inside.catalog.dialect.pair(spans.c.attributes, OUTCOME)
    query = select(spans.c.trace, outcome).where(spans.c.trace.in_(ids), outcome.is_not(None))
    return {row[0]: row[1] for row in inside.connection.execute(query)}


def _order(wanted: Wanted) -> tuple[Key, ...]:
    if wanted.order not in ORDERS:
        raise FilterError(f"order takes one of {', '.join(ORDERS)}, not {wanted.order!r}")
    order = parse_order(ORDERS[wanted.order])
    return _reversed(order) if wanted.is_back else order


def _reversed(order: tuple[Key, ...]) -> tuple[Key, ...]:
    return tuple(replace(key, descending=not key.descending) for key in order)


def _spelled(order: tuple[Key, ...]) -> list[str]:
    return [f"{key.field.sort_names[0]} {'DESC' if key.descending else 'ASC'}" for key in order]


def _near(order: tuple[Key, ...], token: str) -> Compare:
    """What the token implies, in a form for which the index on time serves: no index runs backwards."""
    moment = decode_token(token, order)[0]
    return Compare(order[0].field, Operator.LE if order[0].descending else Operator.GE, moment)


def _paged(
    wanted: Wanted, order: tuple[Key, ...], rows: list[Listed], token: str | None, window: Window
) -> Listing:
    forth = _reversed(order) if wanted.is_back else order
    following = preceding = None
    if rows and (token or wanted.is_back):
        following = encode_token(forth, _place(forth, rows[-1]))
    # Traces that still run have no duration, and come last in both directions: there is no way back.
    if rows and wanted.order in _BY_TIME and (token if wanted.is_back else wanted.page):
        preceding = encode_token(_reversed(forth), _place(forth, rows[0]))
    return Listing(tuple(rows), following, preceding, window)


def _place(order: tuple[Key, ...], row: Listed) -> list[Any]:
    duration = None if row.duration_ms is None else int(row.duration_ms)
    known = {"timestamp": row.request_time, "request_id": row.trace_id, "execution_time": duration}
    return [known[key.field.name] for key in order]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Ids of traces; ``None`` where there is none."""

    older: str | None
    newer: str | None


def find_neighbours(info: TraceInfo, *, store: Store | str | None = None) -> Neighbours:
    """What came in just before and just after a trace, in its experiment."""
    with scope(store, None, info.experiment) as inside:
        return Neighbours(_next(inside, info, is_older=True), _next(inside, info, is_older=False))


def _next(inside: Scope, info: TraceInfo, *, is_older: bool) -> str | None:
    # Of one millisecond the lower id is the newer, as in a search for the newest.
    time, id_ = traces.c.request_time, traces.c.trace_id
    moment, own = info.request_time, info.trace_id
    if is_older:
        beyond = time <= moment, or_(time < moment, and_(time == moment, id_ > own))
        order = time.desc(), id_.asc()
    else:
        beyond = time >= moment, or_(time > moment, and_(time == moment, id_ < own))
        order = time.asc(), id_.desc()
    query = select(id_).where(*inside.conditions, *beyond).order_by(*order).limit(1)
    found: str | None = inside.connection.scalar(query)
    return found
