"""Searches, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ... import keys
from ...query.fields import Operator, Type
from ...query.order import Key, is_by_time
from ...query.tree import Compare, Node, flatten
from ..base import Selection
from .conditions import Query, all_of, any_of
from .rows import READ_COLUMNS

if TYPE_CHECKING:
    from .snapshot import ClickHouseSnapshot

_EXPECTED: Final = (4, 100)
"""The width of windows, in how many pages are expected in them."""
_SPARE: Final = 20
"""So many more rows than asked for are looked for, in case that some were replaced."""

_STEP: Final = 1_000
"""So many rows are looked up at once: servers refuse values of more than 128 KiB."""


def search(
    snapshot: ClickHouseSnapshot,
    selection: Selection,
    order: tuple[Key, ...],
    limit: int,
    after: Sequence[Any] | None,
    *,
    with_rows: bool = False,
) -> list[list[Any]]:
    """At most ``limit`` rows: experiment, time and id of a trace, then the values of the sort keys.

    ``with_rows``: the snapshot gets the whole rows of these traces too.

    To merge replaced rows away (``FINAL``) is most of the work of a search. So rows are looked for among all,
    and those that are found are looked up again, merged: what still is as it was found is the answer. Only if
    that does not fill the page, the search begins anew with merged rows.
    """
    wanted = limit + _SPARE
    found: list[list[Any]] = []
    for window in _windows(snapshot, selection, order, wanted, after):
        found = _search(snapshot, selection, order, wanted, after, exact=False, window=window)
        if len(found) == wanted:
            break
    if not found:
        return []
    places = list(dict.fromkeys(tuple(row[:3]) for row in found))
    columns, width = READ_COLUMNS if with_rows else (), len(found[0])
    rows = [
        row
        for start in range(0, len(places), _STEP)
        for row in _search(
            snapshot, selection, order, wanted, after, places=places[start : start + _STEP], columns=columns
        )
    ]
    if with_rows:
        snapshot.remember(dict(zip(columns, row[width:], strict=True)) for row in rows)
    merged = {tuple(row[:width]) for row in rows}
    kept = [list(row) for row in dict.fromkeys(map(tuple, found)) if row in merged]
    if len(kept) >= limit or len(found) < wanted:
        return kept[:limit]
    return _search(snapshot, selection, order, limit, after)


def _search(
    snapshot: ClickHouseSnapshot,
    selection: Selection,
    order: tuple[Key, ...],
    limit: int,
    after: Sequence[Any] | None,
    *,
    exact: bool = True,
    places: Sequence[Any] | None = None,
    window: tuple[int, int] | None = None,
    columns: Sequence[str] = (),
) -> list[list[Any]]:
    query = snapshot.query(exact=exact)
    sorted_by = [query.value(key.field) for key in order]
    conditions = [] if after is None else [_beyond(query, order, sorted_by, after)]
    if window is not None:
        first, last = map(query.number, window)
        conditions.append(f"t.request_time BETWEEN {first} AND {last}")
        query.look_near(f"(SELECT trace_id FROM traces WHERE request_time BETWEEN {first} AND {last})")
    if places is not None:
        listed = query.bind(places, "Array(Tuple(String, Int64, String))")
        conditions.append(f"(t.experiment, t.request_time, t.trace_id) IN {listed}")
        query.look_near(query.texts(place[2] for place in places))
    within = snapshot.within(query, selection, *conditions)
    ordered = [
        f"{column} {_direction(key)}{' NULLS LAST' if key.field.nullable else ''}"
        for key, column in zip(order, sorted_by, strict=True)
    ]
    is_whole = not exact and window is None and is_by_time(order) and not _is_of_few(selection.tree)
    if is_whole and len(snapshot.experiment_names(selection.experiments or ())) == 1:
        # In the order of the table, which is read until the page is full, and is not sorted.
        ordered.insert(0, f"t.experiment {_direction(order[0])}")
    read = [*sorted_by, *(f"t.{column}" for column in columns)]
    return snapshot.run(
        query,
        f"SELECT t.experiment, t.request_time, t.trace_id, {', '.join(read)} FROM {query.traces}"
        f" WHERE {within} ORDER BY {', '.join(ordered)} LIMIT {int(limit)}",
    )


def _direction(key: Key) -> str:
    return "DESC" if key.descending else "ASC"


_OF_FEW: Final = frozenset({keys.SESSION, keys.USER, "session_id", "user", "client_request_id"})
"""Keys and fields with an index, of which most values are of few traces."""


def _windows(
    snapshot: ClickHouseSnapshot,
    selection: Selection,
    order: tuple[Key, ...],
    wanted: int,
    after: Sequence[Any] | None,
) -> Iterator[tuple[int, int] | None]:
    """The times to look in, one after the other: ``None`` is any time.

    Common matches are among the newest traces, which are in few parts of the table.
    """
    if is_by_time(order) and snapshot.whole is not None and not _is_of_few(selection.tree):
        first, last, count = snapshot.whole
        share = (last - first) * wanted / count
        begin = after[0] if after is not None else last if order[0].descending else first
        for width in (int(share * many) for many in _EXPECTED):
            if width < last - first:
                yield (begin - width, begin) if order[0].descending else (begin, begin + width)
    yield None


def _is_of_few(tree: Node | None) -> bool:
    return any(
        isinstance(part, Compare)
        and part.operator is Operator.EQ
        and (part.field.key or part.field.name) in _OF_FEW
        for part in flatten([] if tree is None else [tree])
    )


def _beyond(query: Query, order: Sequence[Key], columns: Sequence[str], values: Sequence[Any]) -> str:
    """The condition for rows after one with these sort values."""
    alternatives = []
    equal: list[str] = []
    for key, column, value in zip(order, columns, values, strict=True):
        if value is None:
            equal.append(f"isNull({column})")
            continue
        bound = query.number(value) if key.field.type in {Type.TIME, Type.DURATION} else query.bind(value)
        later = f"{column} {'<' if key.descending else '>'} {bound}"
        if key.field.nullable:
            later = f"({later} OR isNull({column}))"
        alternatives.append(all_of([*equal, later]))
        equal.append(f"{column} = {bound}")
    return any_of(alternatives)
