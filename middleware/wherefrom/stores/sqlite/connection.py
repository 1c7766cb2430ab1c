"""Reading connections: a snapshot, its deadline, and the errors of the driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...exceptions import StoreError, StoreUnavailableError
from ..deadline import Deadline, current_deadline

_PREPARED: Final = "wherefrom.prepared"
_INTERRUPTED: Final = "wherefrom_interrupted"


def store_error(error: BaseException | None) -> StoreError:
    """The error of Wherefrom for an error of the driver."""
    # SQLite also raises OperationalError for an invalid statement, such as one on a missing table.
    of_the_statement = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if isinstance(error, sqlite3.OperationalError) and not of_the_statement:
        return StoreUnavailableError(f"the store cannot be reached now: {error}")
    return StoreError(f"the store cannot be read: {error}")


@contextmanager
def snapshot(engine: Engine, prepare: Callable[[Any], None]) -> Iterator[Connection]:
    """A connection for reading: all its statements see the same moment, and it blocks no writer.

    ``prepare`` is called with each new SQLite connection. Within a ``Deadline``, statements are interrupted
    when it passes.

    Raises:
        QueryTimeoutError: the deadline has passed.
        QueryCancelledError: the deadline was cancelled.
        StoreUnavailableError: the store is locked or out of reach.
        StoreError: the store cannot be read.
    """
    with mapped_errors(), engine.connect() as connection:
        driver = connection.connection
        if _PREPARED not in driver.info:
            prepare(driver.dbapi_connection)
            driver.info[_PREPARED] = True
        driver.cursor().execute("BEGIN")
        deadline = current_deadline()
        try:
            with nullcontext() if deadline is None else until(deadline, connection):
                yield connection
        finally:
            # SQLAlchemy itself drops the connection of a query that Ctrl-C ends.
            if not connection.invalidated and connection.info.pop(_INTERRUPTED, False):
                connection.invalidate()  # the pool's rollback could be interrupted too


@contextmanager
def until(deadline: Deadline, connection: Connection) -> Iterator[None]:
    """Interrupt the statements of the block at the deadline."""
    driver: Any = connection.connection.dbapi_connection
    # SQLite forgets an interrupt as soon as no statement is active, and one that comes between two statements
    # would be lost. This one stays active to the end, so the interrupt reaches every later statement.
    active = driver.execute("SELECT 1")
    try:
        with deadline.interrupting(driver.interrupt):
            yield
    except (StoreError, DBAPIError, sqlite3.Error):
        deadline.check()
        raise
    finally:
        with suppress(sqlite3.ProgrammingError):  # SQLAlchemy has closed a connection that Ctrl-C came in
            active.close()
        if deadline.is_over and not connection.invalidated:
            connection.info[_INTERRUPTED] = True


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise errors of the driver as errors of Wherefrom."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise store_error(error.orig if isinstance(error, DBAPIError) else error) from error
