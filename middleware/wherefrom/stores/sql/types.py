"""The types of columns."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator


class Json(TypeDecorator[Any]):
    """JSON in a column of text: SQLite's type JSON has NUMERIC affinity, and reads ``'1.0'`` as 1."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """The value as JSON."""
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """The value of the JSON."""
        return None if value is None else orjson.loads(value)


class JsonParameter(str):
    """JSON that a driver binds as text; a database that cannot hold some text in JSON translates it."""

    __slots__ = ()


def json_parameter(value: Any) -> JsonParameter:
    """The value as JSON to bind, as for a list of any length in one parameter."""
    return JsonParameter(orjson.dumps(value).decode())
