"""The SQL of SQLite, with functions where its own fall short: patterns, numbers, JSON under any key."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import orjson
from sqlalchemy import BindParameter, Boolean, Connection, Double, Text, and_, case, cast, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from ...query.like import compile_like
from ...query.regex import compile_pattern
from ...query.values import to_number
from ..base import CODE
from ..deadline import check_deadline, current_deadline
from ..sql.expressions import (
    TRUE,
    Condition,
    Expression,
    Hint,
    alone,
    collected,
    joined_lines,
    json_elements,
    no_pairs,
    text_under,
    unindexed,
)
from ..sql.known_keys import is_plain
from ..sql.schema import spans, traces

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


def _like(pattern: str, text: object, ignores_case: int) -> bool | None:
    if text is None:
        return None
    return compile_like(pattern, ignores_case=bool(ignores_case), check=check_deadline)(str(text))


def _rlike(pattern: str, text: object) -> bool | None:
    if text is None:
        return None
    return compile_pattern(pattern, None if current_deadline() is None else check_deadline)(str(text))


def _number(text: object) -> float | None:
    return to_number(str(text)) if text is not None else None


def _value(json_text: str, key: str) -> str | None:
    value = orjson.loads(json_text).get(key)
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


_PLUS: Final[operators.custom_op[Any]] = operators.custom_op("+")
_MAX_NATIVE: Final = 50
"""SQLite compares a pattern with each place of a text: a second for 1 MB and 500 characters."""
_GLOB: Final = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})


@compiles(json_elements, "sqlite")
def _elements(element: json_elements, compiler: Any, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


@compiles(collected, "sqlite")
def _collected(element: collected, compiler: Any, **kw: Any) -> str:
    return f"json_group_array({compiler.process(element.clauses, **kw)})"


@compiles(alone, "sqlite")
def _alone(element: alone, compiler: Any, **kw: Any) -> str:
    # In two thirds of the time that characters take.
    return f"json_group_array({compiler.process(element.clauses, **kw)} + {CODE + 1})"


@compiles(text_under, "sqlite")
def _text_under(element: text_under, compiler: Any, **kw: Any) -> str:
    return f"{VALUE_FUNCTION}({compiler.process(element.clauses, **kw)})"


@compiles(joined_lines, "sqlite")
def _joined_lines(element: joined_lines, compiler: Any, **kw: Any) -> str:
    parts = (f"coalesce(CAST({compiler.process(part, **kw)} AS TEXT), '')" for part in element.clauses)
    return f"({' || char(10) || '.join(parts)})"


@compiles(no_pairs, "sqlite")
def _no_pairs(_element: no_pairs, _compiler: Any, **_kw: Any) -> str:
    return "'{}'"


@compiles(unindexed, "sqlite")
def _unindexed(element: unindexed, compiler: Any, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} || '')"


class SQLiteDialect:
    """The SQL of SQLite."""

    after_all_text = b""
    """SQLite sorts bytes after all text."""

    def probes(self, *, has_spans: bool) -> int:  # noqa: ARG002 - of the protocol
        """Both: to read a few of the newest traces costs little."""
        return 2

    def at_once(self, connection: Connection) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Nothing: a statement is a call of a function here."""
        return nullcontext()

    def plain(self, column: Expression) -> Expression:
        """The column as an expression that no index serves: the plan of the search chooses the index.

        Unary plus changes no value, and SQLite's planner does not use indexes under it.
        """
        return UnaryExpression(column, operator=_PLUS, type_=column.type)

    def pair(self, column: Expression, key: str, hint: Hint | None = None) -> Expression:
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

    def attribute(self, column: Expression, key: str) -> Expression:
        """The JSON value under ``key`` as text: a string unchanged, any other value as JSON.

        ``json_extract`` returns 1 for true, so booleans are recognised by their type. JSON that cannot have
        the key is not parsed, as in ``pair``.
        """
        if not is_plain(key):
            return _bound_value(column, key)
        path = f'$."{key}"'
        kind, value = func.json_type(column, path), func.json_extract(column, path)
        text = case((kind == "true", "true"), (kind == "false", "false"), else_=cast(value, Text()))
        return case((func.instr(column, _written(key)) > 0, text))

    def of_trace(self) -> Condition:
        """The condition for a span of the trace."""
        return spans.c.trace == traces.c.id

    def may_have(self, key: str, hint: Hint | None) -> Condition:  # noqa: ARG002
        """Nothing that helps: no index is on the text of spans."""
        return TRUE

    def at(self, column: Expression, path: BindParameter[Any]) -> Expression:
        """The text at a path in a JSON object of strings."""
        return func.json_extract(column, path)

    def path(self, key: str) -> str | None:
        """The path of a key for ``at``; ``None`` if it has none."""
        return f'$."{key}"' if is_plain(key) else None

    def like(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where case matters, which SQLite's own does not mind; nothing escapes ``%`` and ``_``."""
        if len(pattern) > _MAX_NATIVE:
            return _long_like(text, pattern, ignores_case=False)
        return text.bool_op("GLOB")(self.pattern(pattern))

    def ilike(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where the case of ASCII letters does not matter: SQLite's own."""
        if len(pattern) > _MAX_NATIVE:
            return _long_like(text, pattern, ignores_case=True)
        return text.like(pattern)

    def rlike(self, text: Expression, pattern: str) -> Condition:
        """Whether the regular expression matches anywhere in ``text``."""
        return getattr(func, RLIKE_FUNCTION)(pattern, text, type_=Boolean())  # type: ignore[no-any-return]

    def matches(self, text: Expression, pattern: BindParameter[Any]) -> Condition:
        """``LIKE`` where case matters, with a pattern of ``pattern``."""
        return text.bool_op("GLOB")(pattern)

    def pattern(self, like: str) -> str:
        """A pattern of ``LIKE`` as a pattern of SQLite's ``GLOB``."""
        return like.translate(_GLOB)

    def to_number_of(self, text: Expression) -> Expression:
        """``text`` as a number, NULL if it is none."""
        return getattr(func, NUMBER_FUNCTION)(text, type_=Double())  # type: ignore[no-any-return]

    def number_in(self, text: Expression, name: str) -> Expression:
        """The number under ``name`` in a JSON object that is text; NULL if there is none, or no such JSON."""
        path = f'$."{name}"'
        is_number = func.json_type(text, path).in_(("integer", "real"))
        return case((func.json_valid(text), case((is_number, cast(func.json_extract(text, path), Double())))))


SQLITE: Final = SQLiteDialect()


def _long_like(text: Expression, pattern: str, *, ignores_case: bool) -> Condition:
    return getattr(func, LIKE_FUNCTION)(pattern, text, ignores_case, type_=Boolean())  # type: ignore[no-any-return]


def _written(text: str) -> str:
    """The text as JSON in the store: compact, with no unnecessary escapes."""
    return orjson.dumps(text).decode()


def _bound_value(column: Expression, key: str) -> Expression:
    """The text of the value under any key, read by Python: SQLite's JSON functions stop at NUL."""
    return getattr(func, VALUE_FUNCTION)(column, key, type_=Text())  # type: ignore[no-any-return]
