"""Statements that never change, compiled once and run by the driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Select

from ..exceptions import StoreError, StoreUnavailableError

_Compiled = tuple[str, list[str] | None, dict[str, Any]]
"""The text, the names of its parameters where they go by position, and the values of those that have one."""

_NO_VALUES: Final[Mapping[str, Any]] = {}


def store_error(error: BaseException | None, *, is_operational: bool) -> StoreError:
    """What to raise for an error of the driver; ``is_operational`` as DB-API 2.0 sorts them."""
    # SQLite also counts as operational what is wrong with the statement, such as a table that is gone.
    of_the_statement = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if is_operational and not of_the_statement:
        return StoreUnavailableError(f"the store cannot be reached now: {error}")
    return StoreError(f"the store cannot be read: {error}")


class Prepared:
    """One statement with bound parameters.

    SQLAlchemy takes some 100 µs to execute a statement, several times what SQLite takes to answer it. Here it
    is only asked, once for each dialect, how the statement is written; values come as the driver gives them.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[tuple[Any, ...]]:
        """All rows, read in the transaction of ``connection``; ``values`` are those of the parameters.

        Raises:
            StoreUnavailableError: the store is locked or out of reach.
            StoreError: the store cannot be read.
        """
        text, names, constants = self._compiled.get(connection.dialect.name) or self._compile(connection)
        all_values = {**constants, **values}
        given = all_values if names is None else [all_values[name] for name in names]
        driver: Any = connection.dialect.loaded_dbapi
        try:
            cursor: Any = connection.connection.cursor()
            found: list[tuple[Any, ...]] = cursor.execute(text, given).fetchall()
        except driver.Error as error:
            raise store_error(error, is_operational=isinstance(error, driver.OperationalError)) from error
        return found

    def values(self, connection: Connection, values: Mapping[str, Any] = _NO_VALUES) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.rows(connection, values)]

    def _compile(self, connection: Connection) -> _Compiled:
        compiled: Any = self._statement.compile(dialect=connection.dialect)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        made = self._compiled[connection.dialect.name] = str(compiled), compiled.positiontup, constants
        return made
