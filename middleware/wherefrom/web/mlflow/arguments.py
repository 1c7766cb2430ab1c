"""What a request asks with: the parameters of a GET, or the JSON object of any other, each of its type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.datastructures import QueryParams

from .errors import INVALID, RestError

MAX_BODY_BYTES: Final = 1_000_000

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_SHOWN: Final = 60


class Arguments:
    """Named values; a getter gives ``None``, or no values, for one that is absent.

    Raises:
        RestError: from each getter, where the value is of another type.
    """

    def __init__(self, given: Mapping[str, Any], path: Mapping[str, str]) -> None:
        self._given = given
        self._path = path

    @classmethod
    def of_query(cls, query: QueryParams, path: Mapping[str, str]) -> Arguments:
        """Those of a GET; a name that comes once may be meant as a list."""
        return cls({name: _Several(query.getlist(name)) for name in query}, path)

    @classmethod
    def of_body(cls, body: bytes, path: Mapping[str, str]) -> Arguments:
        """Those of a JSON body.

        Raises:
            RestError: it is no JSON object.
        """
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RestError(INVALID, f"the body is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise RestError(INVALID, f"the body takes a JSON object, not {_shown(given)}")
        return cls(given, path)

    def in_path(self, name: str) -> str:
        """A part of the path."""
        return self._path[name]

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._one(name)
        if value is not None and not isinstance(value, str):
            raise _mistyped(name, "a string", value)
        return value

    def required_text(self, name: str) -> str:
        """A string that is not empty."""
        if not (value := self.text(name)):
            raise _missing(name)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        values = self.items(name)
        for value in values:
            if not isinstance(value, str):
                raise _mistyped(name, "a list of strings", value)
        return values

    def required_texts(self, name: str, most: int) -> list[str]:
        """A list of strings, at least one and at most so many."""
        values = self.texts(name)
        if not values:
            raise _missing(name)
        if len(values) > most:
            raise RestError(INVALID, f"{name} takes at most {most:,} values, not {len(values):,}")
        return values

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self._given.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _mistyped(name, "a list", value)
        return value

    def integer(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to ``most``, perhaps written as a string, as protobuf's JSON has it."""
        value = self._one(name)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if type(value) is not int or not 1 <= value <= most:
            raise _mistyped(name, f"a number from 1 to {most:,}", value)
        return value

    def is_one_of(self, name: str, values: Sequence[Any]) -> bool:
        """Whether it is one of these values."""
        return self._one(name) in values

    def _one(self, name: str) -> Any:
        value = self._given.get(name)
        return value[0] if isinstance(value, _Several) else value


class _Several(list[str]):
    """The values of a parameter of a query."""


def _missing(name: str) -> RestError:
    return RestError(INVALID, f"Missing value for required parameter '{name}'.")


def _mistyped(name: str, takes: str, value: Any) -> RestError:
    return RestError(INVALID, f"{name} takes {takes}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
