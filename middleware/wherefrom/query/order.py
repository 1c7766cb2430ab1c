"""``order_by``: which fields, in which direction. NULL comes last in both; ties go newest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..exceptions import FilterError
from .errors import did_you_mean
from .fields import EXPERIMENT, RUN_ID, TRACE_FIELDS, Family, Field, Type
from .parser import KnownKeys, Name, Parser, read

MAX_KEYS: Final = 20

_SORTABLE: Final = {name: field for field in (*TRACE_FIELDS, RUN_ID, EXPERIMENT) for name in field.sort_names}
_PREFIXES: Final = frozenset({None, "attribute", "attributes", "trace"})


@dataclass(frozen=True, slots=True)
class Key:
    """One field to order by."""

    field: Field
    descending: bool = False


NEWEST_FIRST: Final = (Key(_SORTABLE["timestamp"], descending=True), Key(_SORTABLE["request_id"]))


def parse_order(items: Sequence[str] | None, known_keys: KnownKeys = tuple) -> tuple[Key, ...]:
    """Items such as ``"execution_time_ms DESC"`` as keys; after them the newest come first.

    Raises:
        FilterError: an item cannot be read or ordered by, or a field comes twice.
    """
    order: list[Key] = []
    for item in order_items(items):
        key = read(item, known_keys, _item)
        if key.field in {other.field for other in order}:
            raise FilterError(f"order_by names {key.field.label} twice")
        order.append(key)
    if len(order) > MAX_KEYS:
        raise FilterError(f"order_by takes at most {MAX_KEYS} fields")
    given = {key.field for key in order}
    return (*order, *(key for key in NEWEST_FIRST if key.field not in given))


def order_items(items: object) -> list[Any]:
    """The items of an ``order_by``.

    Raises:
        FilterError: it is no list.
    """
    if isinstance(items, str) or not isinstance(items, Iterable):
        if items is None:
            return []
        raise FilterError(f"order_by takes a list: [{items!r}]")
    return list(items)


def is_by_time(order: tuple[Key, ...]) -> bool:
    """Whether the order is that of an index on time."""
    return order[0].field == NEWEST_FIRST[0].field and order[1:] == NEWEST_FIRST[1:]


def _item(parser: Parser) -> Key:
    """``item := name ["ASC" | "DESC"] END``."""
    field = _sortable(parser, parser.name())
    descending = parser.accept_word("DESC")
    if not descending:
        parser.accept_word("ASC")
    parser.end("expected ASC, DESC or nothing more")
    return Key(field, descending)


def _sortable(parser: Parser, name: Name) -> Field:
    if name.family in _PREFIXES:
        if name.key in _SORTABLE:
            return _SORTABLE[name.key]
        near = did_you_mean(name.key, list(_SORTABLE))
        raise parser.error(f"cannot order by {name.key!r}{near}", name.token)
    field = parser.find(name)
    if field.family not in {Family.METADATA, Family.TAG} or field.type is not Type.ANY:
        raise parser.error(f"cannot order by {field.label}", name.token)
    return field
