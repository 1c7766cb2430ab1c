"""Which values the newest matching traces have, how many of each, and what a click on one asks for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from .. import keys
from ..model import SpanStatusCode, TraceState
from ..query import Query, format_filter, search
from ..query.edit import selected, toggled, without_values
from ..query.fields import METADATA, Family, Field, Type, find_field, stored_key, with_key
from ..query.parser import parse_filter
from ..query.tree import Node, format_field
from ..stores import Store
from ..stores.sqlite.schema import known_keys, sources, spans, traces
from .scope import Scope, Window, find_window, scope

MOST_TRACES: Final = 2_000
MOST_VALUES: Final = 8
_BATCH: Final = 500
_MOST_FLAGS: Final = 10
_STATE: Final = find_field(None, "status")
_NAME: Final = find_field(None, "name")
_FIXED: Final[tuple[tuple[str, Field], ...]] = (
    ("State", _STATE),
    ("Route", _NAME),
    ("Version", with_key(METADATA, keys.APP_VERSION)),
    ("Environment", with_key(METADATA, keys.ENVIRONMENT)),
    ("Region", with_key(METADATA, keys.REGION)),
    ("Deployment", with_key(METADATA, keys.DEPLOYMENT_ID)),
)


@dataclass(frozen=True, slots=True)
class FacetValue:
    """One value, and how many traces have it; ``filter`` is what the filter becomes by a click on it."""

    value: str
    traces: int
    is_selected: bool
    filter: str


@dataclass(frozen=True, slots=True)
class Facet:
    """One field by its title and as a filter spells it; ``others`` values are not listed."""

    title: str
    field: str
    values: tuple[FacetValue, ...]
    others: int


@dataclass(frozen=True, slots=True)
class Facets:
    """Counted over ``traces``, the newest that match; ``is_whole`` says whether those are all.

    What a facet's own values would exclude is counted in it too, so that another can be chosen.
    """

    facets: tuple[Facet, ...]
    traces: int
    is_whole: bool


Row = dict[str, str]
"""The values of one trace, by the fields of facets as a filter spells them."""


def count_facets(
    filter_string: str | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Facets:
    """The facets of the traces that pass a filter within a window, as ``find_window`` takes it.

    Raises:
        FilterError: the filter or a moment cannot be read.
    """
    now_ms = time.time_ns() // 1_000_000
    with scope(store, None, experiment) as inside:
        tree = parse_filter(filter_string, inside.catalog.spelled_keys)
        counting = _Counting(inside, experiment, find_window(inside, since, until, now_ms), now_ms)
        rows, is_whole = counting.rows(tree)
        found = []
        for title, field in (*_FIXED, *_flags(inside)):
            chosen = selected(tree, field)
            own = counting.rows(without_values(tree, field))[0] if chosen else rows
            if (facet := _facet(title, field, own, tree, chosen)) is not None:
                found.append(facet)
    return Facets(tuple(found), len(rows), is_whole)


class _Counting:
    """Reads what the newest traces have."""

    def __init__(self, inside: Scope, experiment: str | None, window: Window, now_ms: int) -> None:
        self._inside = inside
        self._experiments = None if experiment is None else [experiment]
        self._window = window
        self._now_ms = now_ms
        self._sources: dict[int, dict[str, str]] = {}

    def rows(self, tree: Node | None) -> tuple[list[Row], bool]:
        """The newest traces that pass, and whether they are all."""
        text = format_filter(self._window.around(tree))
        query = Query(text, self._experiments, max_results=MOST_TRACES)
        page = search(self._inside.connection, query, self._now_ms)
        found = [
            row for at in range(0, len(page.ids), _BATCH) for row in self._read(page.ids[at : at + _BATCH])
        ]
        return found, page.token is None

    def _read(self, ids: Sequence[int]) -> Iterator[Row]:
        query = select(traces.c.source_id, traces.c.state, traces.c.name, traces.c.metadata)
        rows = self._inside.connection.execute(query.where(traces.c.id.in_(ids))).all()
        self._learn({row[0] for row in rows})
        for source_id, state, name, own in rows:
            known = {**self._sources[source_id], **{f"metadata.{key}": value for key, value in own.items()}}
            known[_STATE.label] = state
            if name is not None:
                known[_NAME.label] = name
            yield known

    def _learn(self, ids: set[int]) -> None:
        missing = ids - self._sources.keys()
        for id_, pairs in self._inside.connection.execute(
            select(sources.c.id, sources.c.metadata).where(sources.c.id.in_(missing))
        ):
            self._sources[id_] = {f"metadata.{key}": value for key, value in pairs.items()}


def _flags(inside: Scope) -> Iterator[tuple[str, Field]]:
    """Feature flags that traces tell of, the first few by name."""
    key = known_keys.c.key
    begins = key.startswith(keys.FEATURE_FLAG_PREFIX, autoescape=True)
    query = select(key).where(known_keys.c.family == METADATA.name, begins).order_by(key)
    for name in inside.connection.scalars(query.limit(_MOST_FLAGS)):
        yield f"Flag {name.removeprefix(keys.FEATURE_FLAG_PREFIX)}", with_key(METADATA, name)


def _facet(
    title: str, field: Field, rows: Sequence[Row], tree: Node | None, chosen: tuple[str, ...]
) -> Facet | None:
    counts = Counter(row[field.label] for row in rows if field.label in row)
    shown = dict(counts.most_common(MOST_VALUES)) | {value: counts[value] for value in chosen}
    if not shown:
        return None
    values = (_value(field, value, count, tree, chosen) for value, count in shown.items())
    return Facet(title, format_field(field), tuple(values), len(counts.keys() - shown.keys()))


def _value(field: Field, value: str, count: int, tree: Node | None, chosen: tuple[str, ...]) -> FacetValue:
    after = toggled(tree, field, value)
    return FacetValue(value, count, value in chosen, "" if after is None else format_filter(after))


_NEWEST: Final = 2_000
_MOST: Final = 50
_TIMES: Final = ("30m ago", "1h ago", "24h ago", "7d ago", "today", "yesterday")
_DURATIONS: Final = ("100ms", "500ms", "1s", "10s")
_FIXED_VALUES: Final = {"status": TraceState, "span.status": SpanStatusCode}
"""Fields of which all values are known, whether traces have them or not."""


class KnownValues:
    """Keys and values that the newest traces, and all sources, have; ``allows`` says which may be offered."""

    def __init__(self, scope: Scope, allows: Callable[[str], object]) -> None:
        self._scope = scope
        self._allows = allows

    def spelled_keys(self) -> Sequence[str]:
        """Keys of metadata, tags and span attributes, as a filter spells them."""
        return list(self._scope.catalog.spelled_keys())

    def values(self, field: Field) -> Sequence[str]:
        """Values for the field, the most frequent first, without quotes."""
        if field.type is Type.TIME:
            return _TIMES
        if field.type is Type.DURATION:
            return _DURATIONS
        fixed = [value.value for value in _FIXED_VALUES.get(field.name, ())]
        return list(dict.fromkeys([*fixed, *self._seen(field)]))

    def _seen(self, field: Field) -> Iterator[str]:
        table = spans if field.family is Family.SPAN else traces
        newest = select(func.max(table.c.id)).scalar_subquery() - _NEWEST
        value = self._scope.comparer.value(field)
        found = Counter(self._scope.connection.scalars(select(value).where(table.c.id > newest)))
        if field.family is Family.METADATA and field.column is None:
            of_source = self._scope.catalog.dialect.pair(sources.c.metadata, stored_key(field))
            found.update(self._scope.connection.scalars(select(of_source)))
        return (value for value, _ in found.most_common(_MOST) if value and self._allows(str(value)))
