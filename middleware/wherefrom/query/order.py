"""``order_by`` and page tokens.

NULL comes last in both directions, and ties are ordered newest first. A token holds the sort values of the
last row of a page, so new traces do not shift pages (keyset pagination).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from .._records import Tabular
from ..exceptions import FilterError
from .errors import did_you_mean
from .fields import EXPERIMENT, RUN_ID, TRACE_FIELDS, Family, Field, Type
from .parser import KnownKeys, Name, Parser, read
from .values import is_storable

MAX_KEYS: Final = 20  # each key is a column to sort by

_SORTABLE: Final = {name: field for field in (*TRACE_FIELDS, RUN_ID, EXPERIMENT) for name in field.sort_names}
_PREFIXES: Final = frozenset({None, "attribute", "attributes", "trace"})


@dataclass(frozen=True, slots=True)
class Key:
    """One field of an order."""

    field: Field
    descending: bool = False


NEWEST_FIRST: Final = (Key(_SORTABLE["timestamp"], descending=True), Key(_SORTABLE["request_id"]))


def parse_order(items: Sequence[str] | None, known_keys: KnownKeys = tuple) -> tuple[Key, ...]:
    """Parse items such as ``"execution_time_ms DESC"``; the newest traces come first among equals.

    Raises:
        FilterError: an item is invalid, its field cannot be ordered by, or occurs twice.
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
        FilterError: it is not a list.
    """
    if isinstance(items, str) or not isinstance(items, Iterable):
        if items is None:
            return []
        raise FilterError(f"order_by takes a list: [{items!r}]")
    return list(items)


def is_by_time(order: tuple[Key, ...]) -> bool:
    """Whether an index on time has this order."""
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


_Item = TypeVar("_Item")

MAX_RESULTS: Final = 50_000  # MLflow's limit

_VERSION: Final = 1  # of the format of a token


class PagedList(list[_Item], Tabular):
    """A list with the ``token`` of the next page, ``None`` on the last page."""

    def __init__(self, items: Sequence[_Item], token: str | None) -> None:
        super().__init__(items)
        self.token = token

    def _rows(self) -> Iterable[object]:
        return self


def check_max_results(max_results: object) -> int:
    """Return ``max_results``.

    Raises:
        FilterError: it is not an integer from 1 to 50,000.
    """
    if (
        isinstance(max_results, bool)
        or not isinstance(max_results, int)
        or not 1 <= max_results <= MAX_RESULTS
    ):
        raise FilterError(f"max_results takes 1 to {MAX_RESULTS:,}, not {max_results!r}")
    return max_results


def encode_token(order: Sequence[Key], values: Sequence[Any]) -> str:
    """The token for the rows after one with these sort values."""
    return urlsafe_b64encode(orjson.dumps([_VERSION, _signature(order), list(values)])).decode()


def decode_token(token: str, order: Sequence[Key]) -> list[Any]:
    """The sort values in a token.

    Raises:
        FilterError: the token was not returned by a search in this order.
    """
    try:
        data = orjson.loads(urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, AttributeError) as error:
        raise FilterError("this page_token is not one that a search returned") from error
    if not isinstance(data, list) or len(data) != 3 or data[0] != _VERSION or not isinstance(data[2], list):
        raise FilterError("this page_token is not one that a search returned")
    if data[1] != _signature(order) or not _fits(order, data[2]):
        raise FilterError(
            "this page_token comes from a search in another order: use the order_by it came from"
        )
    values: list[Any] = data[2]
    return values


def _signature(order: Sequence[Key]) -> list[Any]:
    return [[key.field.label, key.descending] for key in order]


def _fits(order: Sequence[Key], values: list[Any]) -> bool:
    return len(values) == len(order) and all(
        _fits_key(key, value) for key, value in zip(order, values, strict=True)
    )


def _fits_key(key: Key, value: object) -> bool:
    if value is None:
        return key.field.nullable
    if key.field.type in {Type.TIME, Type.DURATION}:
        return is_storable(value)
    return isinstance(value, str)
