"""Facets: the frequent values of fields among the traces of a list, with counts and filters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import Final

from .. import keys
from ..query import format_filter
from ..query.edit import excluded, selected, toggled, with_values, without_values
from ..query.fields import FEEDBACK, METADATA, TAG, Field, find_field, with_key
from ..query.order import NEWEST_FIRST
from ..query.tree import Node, format_field
from ..stores import Selection, Snapshot
from ..stores.base import Page
from .scope import Window

MOST_TRACES: Final = 2_000
"""The newest traces that are counted where counting all would take too long."""
MOST_COUNTED: Final = 200_000
MOST_OWN: Final = 100_000  # keys of traces are read from the JSON of each
MOST_READ: Final = 20_000  # fields of spans are read trace by trace
TIME_TO_COUNT_S: Final = 1.0  # the page gives each part 2 s
MOST_VALUES: Final = 8  # a facet fits beside the list
_MOST_FLAGS: Final = 10
_MOST_OWN: Final = 5
_MOST_FEEDBACK: Final = 5
_MOST_TRIED: Final = 40
_MOST_DIFFERENT: Final = 50  # more values are ids rather than kinds
_LONGEST: Final = 400  # characters of a filter: three links for each value would make up most of the page
_FIXED: Final[tuple[tuple[str, Field], ...]] = (
    ("State", find_field(None, "status")),
    ("Route", find_field(None, "name")),
    ("HTTP status", find_field(None, "http_status")),
    ("Error type", find_field(None, "error_type")),
    ("Model", find_field(None, "model")),
    ("Version", with_key(METADATA, keys.APP_VERSION)),
    ("Environment", with_key(METADATA, keys.ENVIRONMENT)),
    ("Region", with_key(METADATA, keys.REGION)),
    ("Deployment", with_key(METADATA, keys.DEPLOYMENT_ID)),
)
_TENANTS: Final = ("tenant_id", "tenant")
_NOT_OWN: Final = "mlflow.", "service.", "wherefrom.", keys.FEATURE_FLAG_PREFIX


@dataclass(frozen=True, slots=True)
class FacetValue:
    """One value and its number of traces.

    ``filter`` is the filter after a click on it; ``only`` selects this value alone, ``exclude`` all others.
    The latter two are ``None`` for long filters.
    """

    value: str
    traces: int
    is_selected: bool
    filter: str
    only: str | None
    exclude: str | None


@dataclass(frozen=True, slots=True)
class Facet:
    """One field with its title and its name in a filter; ``others`` is the number of values not listed.

    ``is_whole``: every trace that matches was counted, not only the newest.
    """

    title: str
    field: str
    values: tuple[FacetValue, ...]
    others: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Facets:
    """The facets of ``traces`` traces that match; ``is_whole`` says whether all facets count all of them.

    Facets that do not are counted over the ``newest``. A facet ignores its own values in the filter, so that
    another value can be chosen.
    """

    facets: tuple[Facet, ...]
    traces: int
    newest: int
    is_whole: bool


def read_facets(
    snapshot: Snapshot, selection: Selection, window: Window, *, clock: Callable[[], float] = time.monotonic
) -> Facets:
    """The facets of the traces of a selection within a time range."""
    within = window.limit(selection)
    page = snapshot.search(within, NEWEST_FIRST, MOST_TRACES)
    is_few = page.after is None
    total = len(page.keys) if is_few else snapshot.count(within)
    own, sampled = _own_keys(snapshot, page)
    fields = _fields(snapshot, own)
    own_fields = {field for _, field in own}
    deadline = clock() + TIME_TO_COUNT_S
    chosen = {field: values for field in fields.values() if (values := selected(selection.tree, field))}
    whole: dict[Field, Counter[str]] = {}

    def count_all(some: Selection, fields: Sequence[Field], amount: int) -> None:
        counted = [field for field in fields if amount <= _most(field, own_fields)]
        if counted and clock() <= deadline:
            whole.update(zip(counted, snapshot.count_all_values(some, counted), strict=True))

    if not is_few:
        count_all(within, [field for field in fields.values() if field not in chosen], total)
    for field in chosen:
        others = window.limit(replace(selection, tree=without_values(selection.tree, field)))
        count_all(others, [field], snapshot.count(others))
        if field not in whole:
            newest = snapshot.search(others, NEWEST_FIRST, MOST_TRACES)
            (sampled[field],) = snapshot.count_values(newest.keys, [field])
    missing = [field for field in fields.values() if field not in whole and field not in sampled]
    sampled.update(zip(missing, snapshot.count_values(page.keys, missing), strict=True))
    facets = (
        _facet(
            title,
            field,
            whole[field] if field in whole else sampled[field],
            selection.tree,
            chosen.get(field, ()),
            is_whole=field in whole or (is_few and field not in chosen),
        )
        for title, field in fields.items()
    )
    found = tuple(facet for facet in facets if facet is not None)
    return Facets(found, total, len(page.keys), all(facet.is_whole for facet in found))


@dataclass(frozen=True, slots=True)
class Split:
    """One field with its title and its name in a filter."""

    title: str
    field: str


def read_splits(snapshot: Snapshot, selection: Selection, window: Window) -> list[Split]:
    """The fields of which the newest traces of a selection within a time range have values."""
    page = snapshot.search(window.limit(selection), NEWEST_FIRST, MOST_TRACES)
    own, sampled = _own_keys(snapshot, page)
    fields = _fields(snapshot, own)
    missing = [field for field in fields.values() if field not in sampled]
    sampled.update(zip(missing, snapshot.count_values(page.keys, missing), strict=True))
    return [Split(title, format_field(field)) for title, field in fields.items() if sampled[field]]


def _fields(snapshot: Snapshot, own: Iterable[tuple[str, Field]]) -> dict[str, Field]:
    return dict((*_FIXED, *_feedback(snapshot), *_flags(snapshot), *own))


def _most(field: Field, own: Collection[Field]) -> int:
    if field.attributes:
        return MOST_READ
    return MOST_OWN if field in own else MOST_COUNTED


def _flags(snapshot: Snapshot) -> Iterator[tuple[str, Field]]:
    """The first few feature flags that traces carry, by name."""
    names = [key for key in snapshot.keys(METADATA.name) if key.startswith(keys.FEATURE_FLAG_PREFIX)]
    for name in names[:_MOST_FLAGS]:
        yield f"Flag {name.removeprefix(keys.FEATURE_FLAG_PREFIX)}", with_key(METADATA, name)


def _feedback(snapshot: Snapshot) -> Iterator[tuple[str, Field]]:
    """The first few names of feedback."""
    for name in snapshot.keys(FEEDBACK.name)[:_MOST_FEEDBACK]:
        yield f"Feedback {name}", with_key(FEEDBACK, name)


def _own_keys(snapshot: Snapshot, page: Page) -> tuple[list[tuple[str, Field]], dict[Field, Counter[str]]]:
    """The tenant, and the keys of the app and the tags that most of the newest traces share few values of.

    The latter with the counts of these traces.
    """
    known = {METADATA: snapshot.keys(METADATA.name), TAG: snapshot.keys(TAG.name)}
    tenants = [key for key in _TENANTS if key in known[METADATA]][:1]
    taken = {*keys.SOURCE_KEYS, keys.SESSION, keys.USER, *tenants}
    tried = [
        with_key(family, key)
        for family, names in known.items()
        for key in names
        if key not in taken and not key.startswith(_NOT_OWN)
    ][:_MOST_TRIED]
    counted = zip(tried, snapshot.count_values(page.keys, tried), strict=True)
    kinds = [(field, counts) for field, counts in counted if 1 < len(counts) <= _MOST_DIFFERENT]
    kinds.sort(key=lambda one: -one[1].total())
    found = dict(kinds[:_MOST_OWN])
    titled = [("Tenant", with_key(METADATA, key)) for key in tenants]
    return [*titled, *((field.label, field) for field in found)], found


def _facet(
    title: str,
    field: Field,
    counts: Counter[str],
    tree: Node | None,
    chosen: Sequence[str],
    *,
    is_whole: bool,
) -> Facet | None:
    frequent = nsmallest(MOST_VALUES, counts.items(), key=lambda one: (-one[1], one[0]))
    shown = dict(frequent) | {value: counts[value] for value in chosen}
    if not shown:
        return None
    values = tuple(_values(field, shown.items(), tree, chosen))
    return Facet(title, format_field(field), values, len(counts.keys() - shown.keys()), is_whole)


def _values(
    field: Field, shown: Iterable[tuple[str, int]], tree: Node | None, chosen: Sequence[str]
) -> Iterator[FacetValue]:
    for value, count in shown:
        after = _text(toggled(tree, field, value))
        others: list[str | None] = [None, None]
        if len(after) <= _LONGEST:
            others = [_text(with_values(tree, field, (value,))), _text(excluded(tree, field, value))]
        yield FacetValue(value, count, value in chosen, after, *others)


def _text(tree: Node | None) -> str:
    return "" if tree is None else format_filter(tree)
