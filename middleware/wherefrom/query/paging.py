"""Page tokens: where the last page ended, as values of its order, so that new traces shift no page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import orjson

from ..exceptions import FilterError
from .fields import Type
from .order import Key
from .values import is_storable

_Item = TypeVar("_Item")

MAX_RESULTS: Final = 50_000

_VERSION: Final = 1


class PagedList(list[_Item]):
    """A list with the ``token`` for the next page, ``None`` on the last one."""

    def __init__(self, items: Sequence[_Item], token: str | None) -> None:
        super().__init__(items)
        self.token = token


def check_max_results(max_results: object) -> int:
    """``max_results`` if it is one.

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
    """The token for what comes after a row with these values of the order's keys."""
    return urlsafe_b64encode(orjson.dumps([_VERSION, _signature(order), list(values)])).decode()


def decode_token(token: str, order: Sequence[Key]) -> list[Any]:
    """The values in a token.

    Raises:
        FilterError: the token was not made by a search in this order.
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
