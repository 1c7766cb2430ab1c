"""Connections: for writing, for reading at one moment, with deadlines; and the errors of the driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ...exceptions import QueryTimeoutError, StoreError, StoreUnavailableError
from ..deadline import Deadline, current_deadline
from .address import Address
from .catalog import BEGIN, PREPARE, Facts
from .text import translate

_CONNECT_TIMEOUT_S: Final = 10
_AGAIN_S: Final = 0.05
_CANCEL_TIMEOUT_S: Final = 5.0
_NEVER: Final = 2**31
_TO_READ: Final[LiteralString] = f"""
SET jit = off; SET idle_in_transaction_session_timeout = 0;
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
{PREPARE}
"""
_KEEPALIVES: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}

# Whatever PGCLIENTENCODING says: any text can be written.
_TEXT: Final = {"client_encoding": "UTF8"}


def connect(address: Address) -> psycopg.Connection[Any]:
    """Open a connection for writing, in which each statement commits on its own."""
    given = psycopg.conninfo.conninfo_to_dict(address.conninfo)
    options: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "wherefrom"}
    # A server that vanished is noticed after half a minute; a writer that vanished lets go of its locks.
    options |= _KEEPALIVES | {"tcp_user_timeout": 30_000}
    connection = psycopg.connect(address.conninfo, autocommit=True, **(options | given | _TEXT))
    try:
        translate(connection)
        connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.execute("SET statement_timeout = 0")
        if address.schema is not None:
            # Nothing else: where this schema has no tables, those of another store are not to be found.
            path = sql.SQL("SET search_path = {}").format(sql.Identifier(address.schema))
            connection.execute(path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(address: Address) -> psycopg.Connection[Any]:
    """Open a connection whose transactions see one moment each and change nothing: see ``snapshot``."""
    connection = connect(address)
    try:
        # First: what follows waits for whoever changes the tables.
        timeout = sql.SQL("SET statement_timeout = {}").format(sql.Literal(int(address.timeout_s * 1000)))
        connection.execute(timeout)
        connection.execute(_TO_READ)
        # Only statements for which one plan serves all parameters are prepared.
        connection.prepare_threshold = _NEVER
    except BaseException:
        connection.close()
        raise
    return connection


_TEMPORARY: Final = (
    errors.ReadOnlySqlTransaction,
    # As of a process that was suspended.
    errors.IdleInTransactionSessionTimeout,
    psycopg.OperationalError,
    PoolTimeoutError,
)


def store_error(error: BaseException | None, address: Address, *, is_bounded: bool = False) -> StoreError:
    """The error of Wherefrom for an error of the driver.

    ``is_bounded``: the statement has the timeout of the address.
    """
    reason = address.without_secrets(error)
    if isinstance(error, errors.QueryCanceled):
        # By its class: the server may speak any language.
        if is_bounded and address.timeout_s:
            return QueryTimeoutError(
                f"this took longer than {address.timeout_s:g} s: narrow the time range or the filter"
            )
        return StoreError(f"{address.place}: {reason}")
    if isinstance(error, _TEMPORARY):
        return StoreUnavailableError(f"{address.place} cannot be reached now: {reason}")
    return StoreError(f"{address.place}: {reason}")


@contextmanager
def mapped_errors(address: Address, *, is_bounded: bool = False) -> Iterator[None]:
    """Raise errors of the driver as ``store_error`` has them."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, psycopg.Error) as error:
        # ``from None``: the driver's own error may show the password.
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise store_error(cause, address, is_bounded=is_bounded) from None


@contextmanager
def snapshot(engine: Engine, address: Address) -> Iterator[tuple[Connection, Facts]]:
    """A connection for reading, all statements of which see the same moment, and facts for a catalog.

    Raises:
        QueryTimeoutError: the deadline has passed.
        QueryCancelledError: the deadline was cancelled.
        StoreUnavailableError: the server cannot be reached.
        StoreError: the store cannot be read.
    """
    deadline = current_deadline()

    def bounded() -> AbstractContextManager[None]:
        return nullcontext() if deadline is None else until(deadline, connection)

    with mapped_errors(address, is_bounded=True), engine.connect() as connection:
        with bounded():
            facts = _begin(connection)
        try:
            with bounded():  # anew, as it may be another connection
                yield connection, facts
        except KeyboardInterrupt:
            _cancel(_driver(connection))
            raise
        finally:
            _end(connection)


def _begin(connection: Connection) -> Facts:
    """Begin the transaction; on another connection, if the server has closed this one meanwhile.

    A connection that has failed is not used again: the rollback would forget what is prepared in it.
    """
    try:
        return _facts(connection)
    except psycopg.OperationalError:
        was_closed = _driver(connection).closed
        connection.invalidate()
        if not was_closed:
            raise
    except BaseException:
        connection.invalidate()
        raise
    try:
        return _facts(connection)
    except BaseException:
        connection.invalidate()
        raise


def _facts(connection: Connection) -> Facts:
    cursor = _driver(connection).execute(BEGIN)
    cursor.nextset()
    return cursor.fetchone()  # type: ignore[no-any-return]


def _end(connection: Connection) -> None:
    """End the transaction, and keep the connection if all is well with it."""
    if connection.invalidated:
        return
    try:
        if _driver(connection).info.transaction_status == TransactionStatus.INTRANS:
            _driver(connection).commit()  # after a rollback, the driver would prepare all statements again
            return
    except psycopg.Error:
        pass  # all answers are there
    connection.invalidate()


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


@contextmanager
def until(deadline: Deadline, connection: Connection) -> Iterator[None]:
    """Cancel the statements of the block at the deadline."""
    left = threading.Event()
    driver = _driver(connection)

    def interrupt() -> None:
        # Repeated: one that comes between two statements has no effect.
        def cancel() -> None:
            while not left.is_set():
                _cancel(driver)
                left.wait(_AGAIN_S)

        threading.Thread(target=cancel, name="wherefrom-cancel", daemon=True).start()

    try:
        with deadline.interrupting(interrupt):
            yield
    except (StoreError, DBAPIError, psycopg.Error):
        deadline.check()
        raise
    finally:
        left.set()
        if deadline.is_over and not connection.invalidated:
            connection.invalidate()  # a cancellation may still be on its way


def _cancel(driver: Any) -> None:
    with suppress(psycopg.Error):  # the server is gone, and the statement with it
        driver.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
