"""What PostgreSQL is asked, read from the statements: the store for it runs the whole suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import ColumnElement
from sqlalchemy.dialects import postgresql

from wherefrom.exceptions import MissingExtraError
from wherefrom.query.regex import compile_pattern
from wherefrom.stores.sqlite.expressions import Expression, PostgreSQL, register
from wherefrom.stores.sqlite.schema import traces


def values_with(_text: Expression, pattern: str) -> Sequence[str]:
    return [pattern.upper()]


def sql(expression: ColumnElement[Any]) -> tuple[str, list[Any]]:
    compiled = expression.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    return str(compiled), list(compiled.params.values())


POSTGRES = PostgreSQL(values_with)
NAME = traces.c.name


@pytest.mark.parametrize(
    ("expression", "text", "values"),
    [
        (POSTGRES.plain(NAME), "traces.name", []),
        (POSTGRES.pair(traces.c.tags, "a'b"), "traces.tags ->> ", ["a'b"]),
        (POSTGRES.attribute(traces.c.tags, "a\0b"), "traces.tags ->> ", ["a\ufffdb"]),
        (POSTGRES.like(NAME, "a%"), "traces.name LIKE ", ["a%"]),
        (POSTGRES.like(NAME, "a%"), "ESCAPE ''", ["a%"]),
        (POSTGRES.ilike(NAME, "a%"), 'traces.name COLLATE "C"', ["a%"]),
        (POSTGRES.rlike(NAME, "a+"), "traces.name = ANY (", [["A+"]]),
        (POSTGRES.number(NAME), "CAST(traces.name AS DOUBLE PRECISION)", None),
        (POSTGRES.binary(NAME), 'traces.name COLLATE "C"', []),
    ],
)
def test_postgresql(expression: ColumnElement[Any], text: str, values: list[Any] | None) -> None:
    statement, parameters = sql(expression)
    assert text in statement
    assert values is None or parameters == values


def test_a_driver_without_functions_is_left_as_it_is() -> None:
    register(object())


def test_without_re2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"RLIKE needs .* 'wherefrom\[regex\]'"):
        compile_pattern("never compiled before")
