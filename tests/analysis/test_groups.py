"""What PostgreSQL is asked, read from the statement: the store for it runs the rest."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import postgresql

from wherefrom.analysis.groups import Part, read_groups
from wherefrom.analysis.scope import Scope
from wherefrom.stores.sqlite.catalog import Catalog
from wherefrom.stores.sqlite.conditions import Comparer
from wherefrom.stores.sqlite.schema import traces


class Listening:
    """A connection to PostgreSQL that keeps what it is asked and finds nothing."""

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

    def __init__(self) -> None:
        self.asked: list[str] = []

    def execute(self, statement: Executable) -> list[Any]:
        self.asked.append(str(statement.compile(dialect=self.dialect)))  # type: ignore[attr-defined]
        return []


def test_postgresql_collects_durations_in_arrays() -> None:
    listening = Listening()
    catalog = Catalog(cast("Connection", listening))
    scope = Scope(cast("Connection", listening), catalog, Comparer(catalog, 0), None, (), is_empty=False)
    assert read_groups(scope, [Part(traces.c.name)]).found == []
    (asked,) = listening.asked
    assert "array_agg(each.duration_us) FILTER (WHERE each.duration_us IS NOT NULL AND" in asked
    assert asked.endswith("GROUP BY each.value")
