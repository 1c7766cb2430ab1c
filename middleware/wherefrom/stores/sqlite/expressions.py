"""SQL functions for SQLite, where its own fall short: patterns, numbers in text, JSON under any key."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    not_,
    or_,
    true,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import False_, True_, UnaryExpression

from ...query.like import compile_like
from ...query.regex import compile_pattern
from ...query.values import to_number
from ..deadline import current_deadline
from .known_keys import is_plain

LIKE_FUNCTION: Final = "wherefrom_like"
RLIKE_FUNCTION: Final = "wherefrom_rlike"
NUMBER_FUNCTION: Final = "wherefrom_number"
VALUE_FUNCTION: Final = "wherefrom_value"


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the functions."""
    connection.create_function(LIKE_FUNCTION, 3, _like, deterministic=True)
    connection.create_function(RLIKE_FUNCTION, 2, _rlike, deterministic=True)
    connection.create_function(NUMBER_FUNCTION, 1, _number, deterministic=True)
    connection.create_function(VALUE_FUNCTION, 2, _value, deterministic=True)


def _check_deadline(seconds: float = 0) -> None:
    if (deadline := current_deadline()) is not None:
        deadline.check(seconds)


def _like(pattern: str, text: object, ignores_case: int) -> bool | None:
    if text is None:
        return None
    return compile_like(pattern, ignores_case=bool(ignores_case), check=_check_deadline)(str(text))


def _rlike(pattern: str, text: object) -> bool | None:
    if text is None:
        return None
    return compile_pattern(pattern, None if current_deadline() is None else _check_deadline)(str(text))


def _number(text: object) -> float | None:
    return to_number(str(text)) if text is not None else None


def _value(json_text: str, key: str) -> str | None:
    value = orjson.loads(json_text).get(key)
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


Expression = ColumnElement[Any]
Condition = ColumnElement[bool]

_PLUS: Final[operators.custom_op[Any]] = operators.custom_op("+")
WILDCARD: Final = re.compile("[%_]")
"""What stands for other text in a pattern of ``LIKE``."""
AFTER_ALL_TEXT: Final = b""
"""SQLite sorts bytes after all text."""
_WITHOUT_NEXT: Final = "\ud7ff\U0010ffff"
_MAX_NATIVE: Final = 50
"""SQLite compares a pattern with each place of a text: a second for 1 MB and 500 characters."""
_GLOB: Final = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})


class Hint(NamedTuple):
    """What is certain of a value: it starts with ``start`` (``whole``: equals it) and contains ``inside``."""

    start: str
    inside: str = ""
    whole: bool = False


def to_glob(pattern: str) -> str:
    """A pattern of ``LIKE`` as a pattern of SQLite's ``GLOB``."""
    return pattern.translate(_GLOB)


def starting_alike(pattern: str) -> tuple[str, str | bytes]:
    """The half-open range of all text with the literal prefix of a ``LIKE`` pattern."""
    start = WILDCARD.split(pattern, maxsplit=1)[0].rstrip(_WITHOUT_NEXT)
    return start, start[:-1] + chr(ord(start[-1]) + 1) if start else AFTER_ALL_TEXT


def matches_glob(text: Expression, glob: Expression | str) -> Condition:
    """Whether a text matches a pattern of ``GLOB``."""
    return text.bool_op("GLOB")(glob)


def plain(column: Expression) -> Expression:
    """The column as an expression that no index serves: the plan of the search chooses the index.

    Unary plus changes no value, and SQLite's planner does not use indexes under it.
    """
    return UnaryExpression(column, operator=_PLUS, type_=column.type)


def pair(column: Expression, key: str, hint: Hint | None = None) -> Expression:
    """The text under ``key`` in a JSON object of strings; it may be NULL if it contradicts the hint.

    Parsing JSON dominates the cost, so rows whose text cannot contain the pair are skipped first.
    """
    written = [_written(key) + ":"]
    if hint is not None:
        written[0] += _written(hint.start) if hint.whole else _written(hint.start)[:-1]
        written += [_written(hint.inside)[1:-1]] if hint.inside else []
    there = and_(*(func.instr(column, text) > 0 for text in written))
    if not is_plain(key) or (hint is not None and "\0" in hint.start):
        return case((there, _bound_value(column, key)))
    return case((there, func.json_extract(column, f'$."{key}"')))


def attribute(column: Expression, key: str) -> Expression:
    """The JSON value under ``key`` as text: a string unchanged, any other value as JSON.

    ``json_extract`` returns 1 for true, so booleans are recognised by their type.
    """
    if not is_plain(key):
        return _bound_value(column, key)
    path = f'$."{key}"'
    kind, value = func.json_type(column, path), func.json_extract(column, path)
    return case((kind == "true", "true"), (kind == "false", "false"), else_=cast(value, Text()))


def like(text: Expression, pattern: str) -> Condition:
    """``LIKE`` where case matters, which SQLite's own does not mind; nothing escapes ``%`` and ``_``."""
    if len(pattern) > _MAX_NATIVE:
        return _long_like(text, pattern, ignores_case=False)
    return matches_glob(text, to_glob(pattern))


def ilike(text: Expression, pattern: str) -> Condition:
    """``LIKE`` where the case of ASCII letters does not matter: SQLite's own."""
    if len(pattern) > _MAX_NATIVE:
        return _long_like(text, pattern, ignores_case=True)
    return text.like(pattern)


def _long_like(text: Expression, pattern: str, *, ignores_case: bool) -> Condition:
    return getattr(func, LIKE_FUNCTION)(pattern, text, ignores_case, type_=Boolean())  # type: ignore[no-any-return]


def rlike(text: Expression, pattern: str) -> Condition:
    """Whether the regular expression matches anywhere in ``text``."""
    return getattr(func, RLIKE_FUNCTION)(pattern, text, type_=Boolean())  # type: ignore[no-any-return]


def to_number_of(text: Expression) -> Expression:
    """``text`` as a number, NULL if it is none."""
    return getattr(func, NUMBER_FUNCTION)(text, type_=Double())  # type: ignore[no-any-return]


def _written(text: str) -> str:
    """The text as JSON in the store: compact, with no unnecessary escapes."""
    return orjson.dumps(text).decode()


def _bound_value(column: Expression, key: str) -> Expression:
    """The text of the value under any key, read by Python: SQLite's JSON functions stop at NUL."""
    return getattr(func, VALUE_FUNCTION)(column, key, type_=Text())  # type: ignore[no-any-return]


TRUE: Final[Condition] = true()
FALSE: Final[Condition] = false()


def all_of(parts: Iterable[Condition]) -> Condition:
    """The conjunction of the conditions; TRUE without any."""
    kept = [part for part in parts if not is_true(part)]
    if any(is_false(part) for part in kept):
        return FALSE
    return and_(*kept) if kept else TRUE


def any_of(parts: Iterable[Condition]) -> Condition:
    """The disjunction of the conditions; FALSE without any."""
    kept = [part for part in parts if not is_false(part)]
    if any(is_true(part) for part in kept):
        return TRUE
    return or_(*kept) if kept else FALSE


def opposite(condition: Condition) -> Condition:
    """True where the condition is false or NULL."""
    if is_true(condition):
        return FALSE
    return TRUE if is_false(condition) else not_(func.coalesce(condition, FALSE))


def is_true(condition: Condition) -> bool:
    """Whether the condition is the constant TRUE."""
    return isinstance(condition, True_)


def is_false(condition: Condition) -> bool:
    """Whether the condition is the constant FALSE."""
    return isinstance(condition, False_)
