"""SQL functions for SQLite, where its own fall short: RLIKE, numbers in text, JSON under any key."""

from __future__ import annotations

from typing import Any, Final

import orjson

from .literals import to_number
from .regex import compile_pattern

RLIKE_FUNCTION: Final = "wherefrom_rlike"
NUMBER_FUNCTION: Final = "wherefrom_number"
VALUE_FUNCTION: Final = "wherefrom_value"


def register(dbapi_connection: Any) -> None:
    """Give a ``sqlite3.Connection`` the functions; a connection of another kind is left as it is."""
    create_function = getattr(dbapi_connection, "create_function", None)
    if create_function is not None:
        create_function(RLIKE_FUNCTION, 2, _rlike, deterministic=True)
        create_function(NUMBER_FUNCTION, 1, _number, deterministic=True)
        create_function(VALUE_FUNCTION, 2, _value, deterministic=True)


def _rlike(pattern: str, text: object) -> bool | None:
    return compile_pattern(pattern)(str(text)) if text is not None else None


def _number(text: object) -> float | None:
    return to_number(str(text)) if text is not None else None


def _value(json_text: str, key: str) -> str | None:
    value = orjson.loads(json_text).get(key)
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
