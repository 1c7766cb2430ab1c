"""Which values the newest matching traces have, how many of each, and what a click on one asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from .. import keys
from ..query import format_filter
from ..query.edit import selected, toggled, without_values
from ..query.fields import METADATA, Field, find_field, with_key
from ..query.order import NEWEST_FIRST
from ..query.tree import Node, format_field
from ..stores import Selection, Snapshot, Store
from ..stores.base import Page
from .scope import Window, find_window, opened

MOST_TRACES: Final = 2_000
MOST_VALUES: Final = 8
_MOST_FLAGS: Final = 10
_FIXED: Final[tuple[tuple[str, Field], ...]] = (
    ("State", find_field(None, "status")),
    ("Route", find_field(None, "name")),
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
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_facets(snapshot, selection, find_window(snapshot, since, until))


def read_facets(snapshot: Snapshot, selection: Selection, window: Window) -> Facets:
    """The facets of the traces of a selection within a window."""
    titles, fields = zip(*_FIXED, *_flags(snapshot), strict=True)
    page = _newest(snapshot, selection, window)
    counts = snapshot.count_values(page.keys, fields)
    found = []
    for title, field, count in zip(titles, fields, counts, strict=True):
        chosen = selected(selection.tree, field)
        if chosen:
            others = replace(selection, tree=without_values(selection.tree, field))
            (count,) = snapshot.count_values(_newest(snapshot, others, window).keys, [field])  # noqa: PLW2901
        if (facet := _facet(title, field, count, selection.tree, chosen)) is not None:
            found.append(facet)
    return Facets(tuple(found), len(page.keys), page.after is None)


def _newest(snapshot: Snapshot, selection: Selection, window: Window) -> Page:
    return snapshot.search(window.limit(selection), NEWEST_FIRST, MOST_TRACES)


def _flags(snapshot: Snapshot) -> Iterator[tuple[str, Field]]:
    """Feature flags that traces carry, the first few by name."""
    names = [key for key in snapshot.keys(METADATA.name) if key.startswith(keys.FEATURE_FLAG_PREFIX)]
    for name in names[:_MOST_FLAGS]:
        yield f"Flag {name.removeprefix(keys.FEATURE_FLAG_PREFIX)}", with_key(METADATA, name)


def _facet(
    title: str, field: Field, counts: Counter[str], tree: Node | None, chosen: tuple[str, ...]
) -> Facet | None:
    shown = dict(counts.most_common(MOST_VALUES)) | {value: counts[value] for value in chosen}
    if not shown:
        return None
    values = (_value(field, value, count, tree, chosen) for value, count in shown.items())
    return Facet(title, format_field(field), tuple(values), len(counts.keys() - shown.keys()))


def _value(field: Field, value: str, count: int, tree: Node | None, chosen: tuple[str, ...]) -> FacetValue:
    after = toggled(tree, field, value)
    return FacetValue(value, count, value in chosen, "" if after is None else format_filter(after))
