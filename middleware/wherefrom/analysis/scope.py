"""The scope of a question: traces of a snapshot, a time range, and the field to group by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from .. import keys
from ..exceptions import FilterError
from ..query.errors import did_you_mean
from ..query.fields import (
    EXPERIMENT,
    METADATA,
    OPEN,
    RUN_ID,
    TAG,
    TRACE_FIELDS,
    Family,
    Field,
    Operator,
    Type,
    UnknownFieldError,
    find_field,
    with_key,
)
from ..query.parser import parse_filter
from ..query.tree import And, Compare, Node
from ..query.values import to_moment
from ..stores import Selection, Snapshot, Store, resolve

DAY_MS: Final = 86_400_000
_TIME: Final = find_field(None, "timestamp")
_FURTHEST: Final = 2**53
"""Numbers up to here are the same in JSON and JavaScript."""
_FIELDS: Final = {
    name: field for field in (*TRACE_FIELDS, RUN_ID, EXPERIMENT) for name in (field.name, *field.aliases)
} | {"experiment": EXPERIMENT}
_FAMILIES: Final = frozenset(
    name for field in OPEN for name in (field.name, *field.aliases)
) | {"attribute", "attributes", "trace", "span"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """A time range from ``since`` to before ``until``, in ms since the epoch.

    ``is_moved``: the last day has no traces, so the range is the day before the newest one.
    """

    since: int
    until: int
    is_moved: bool = False

    def around(self, tree: Node | None) -> Node:
        """The filter, restricted to the time range."""
        begun = Compare(_TIME, Operator.GE, self.since)
        over = Compare(_TIME, Operator.LT, self.until)
        return And((begun, over) if tree is None else (tree, begun, over))

    def limit(self, selection: Selection) -> Selection:
        """The selection, restricted to the time range."""
        return replace(selection, tree=self.around(selection.tree))


@contextmanager
def opened(
    store: Store | str | None, filter_string: str | None = None, experiment: str | None = None
) -> Iterator[tuple[Snapshot, Selection]]:
    """Open a snapshot of a store, by default that of the settings, and parse the filter.

    Raises:
        FilterError: the filter is invalid.
        StoreError: the store cannot be opened or read.
    """
    with resolve(store) as found, found.snapshot() as snapshot:
        yield snapshot, select(snapshot, filter_string, experiment)


def select(snapshot: Snapshot, filter_string: str | None, experiment: str | None = None) -> Selection:
    """The traces that match a filter, of one experiment or of all.

    Raises:
        FilterError: the filter is invalid.
    """
    tree = parse_filter(filter_string, snapshot.spelled_keys)
    return Selection(tree, None if experiment is None else (experiment,))


def find_window(snapshot: Snapshot, since: str | None, until: str | None) -> Window:
    """The time range from ``since`` to ``until``, as in a filter: ``2h ago``, an ISO date, or ms.

    Without ``since`` it is a day long. Without both it ends now, or at the newest trace if the last day has
    none. From 1970 on means from the first trace on.

    Raises:
        FilterError: a time is invalid, or the range is empty.
    """
    now_ms = snapshot.now_ms
    end = now_ms + 1 if until is None else _moment("until", until, now_ms)
    begin = end - DAY_MS if since is None else _moment("since", since, now_ms)
    if begin >= end:
        raise FilterError("the time range is empty: since takes a moment before until")
    if begin <= 0 and (ends := snapshot.bounds(Selection())) and ends[0] < end:
        begin = max(begin, ends[0])
    # A trace from the future, of a clock that runs ahead, does not move the range.
    ends = snapshot.bounds(Selection(), with_pruned=True) if since is None and until is None else None
    if ends is not None and ends[1] < begin:
        return Window(ends[1] + 1 - DAY_MS, ends[1] + 1, is_moved=True)
    return Window(begin, end)


def _moment(name: str, text: str, now_ms: int) -> int:
    try:
        moment = round(to_moment(text, now_ms))
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{name}: {error}") from None
    return min(max(moment, -_FURTHEST), _FURTHEST)


def limit_to(snapshot: Snapshot, selection: Selection, window: Window) -> Selection:
    """The selection, restricted to the time range; unchanged if all traces are within it."""
    ends = snapshot.bounds(Selection(), with_pruned=True)
    if ends is not None and window.since <= ends[0] and ends[1] < window.until:
        return selection  # saves a condition on each trace
    return window.limit(selection)


def find_grouping(by: str, snapshot: Snapshot) -> Field:
    """The field that ``by`` names: a field of traces, ``metadata.x``, ``tag.x``, or a name alone.

    A name alone is a field, else a metadata key, else a tag.

    Raises:
        FilterError: nothing has this name, or traces cannot be compared by it.
    """
    if not by.isprintable() and any("\ud800" <= char <= "\udfff" for char in by):
        raise FilterError(
            f"nothing is named {by!r}: it holds a lone surrogate, which no stored text can hold"
        )
    family, dot, key = by.partition(".")
    if dot and family in _FAMILIES:
        try:
            field = find_field(family, _unquoted(key))
        except UnknownFieldError as error:
            raise FilterError(str(error)) from None
    else:
        field = _FIELDS.get(by) or _find_key(_unquoted(by), snapshot)
    if field.family is Family.SPAN or field.type in {Type.TIME, Type.DURATION, Type.NUMBER}:
        raise FilterError(f"traces cannot be compared by {field.label}: traces do not share its values")
    return field


def _unquoted(key: str) -> str:
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == "`" else key


def _find_key(name: str, snapshot: Snapshot) -> Field:
    if name in keys.SOURCE_KEYS:
        return with_key(METADATA, name)
    families = {Family.METADATA: METADATA, Family.TAG: TAG}
    known = {family: snapshot.keys(family) for family in families}
    # A listed key precedes one that only may exist. An empty name is no key without its family.
    for has_key in (lambda family, key: key in known[family], snapshot.has_key):
        for family, field in families.items():
            if name and has_key(family, name):
                return with_key(field, name)
    listed = {key for found in known.values() for key in found}
    if not listed:
        return with_key(METADATA, name)
    raise FilterError(f"no trace carries {name!r}{did_you_mean(name, sorted({*listed, *_FIELDS}))}")
