"""Opens the configured store, without creating or changing a file before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._sanitize import without_secrets
from ..exceptions import MissingExtraError, StoreError
from ..settings import Settings
from .base import Health, Store


def open_store(url: str, *, retention_days: float | None = None, max_store_mb: float | None = None) -> Store:
    """Open the store at a URL.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://host/database``,
    ``clickhouse://user:password@host:8123/database`` or, on ClickHouse's engine in this process,
    ``chdb:///folder``. The file or the tables are created when the first trace is written. Only SQLite
    uses ``max_store_mb``.

    Raises:
        StoreError: the URL is not that of a store.
        MissingExtraError: the driver is not installed.
    """
    if url == "none":
        raise StoreError("no traces are stored: WHEREFROM_STORE is none")
    scheme, separator, path = url.partition(":///")
    if scheme == "sqlite" and separator and path:
        from .sqlite.store import SQLiteStore  # importing SQLAlchemy is slow

        return SQLiteStore(path, retention_days=retention_days, max_store_mb=max_store_mb)
    if url.partition("://")[0] in {"postgresql", "postgres"}:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("a store in PostgreSQL", "postgres") from error
        from .postgresql.store import PostgreSQLStore

        return PostgreSQLStore(url, retention_days=retention_days)
    if url.partition("://")[0] in {"clickhouse", "chdb"}:
        from .clickhouse.store import ClickHouseStore

        return ClickHouseStore(url, retention_days=retention_days)
    raise StoreError(
        f"{without_secrets(repr(url))} is not a store that can be opened here: it takes sqlite:///file.db,"
        " postgresql://host/database, clickhouse://host:8123/database or chdb:///folder"
    )


def locate(store: Store | str | None, *, max_store_mb: float | None = None) -> Store:
    """The store itself, or the one at a URL, by default that of the settings. Opens no file.

    Raises:
        StoreError: the URL is not that of a store.
    """
    if store is not None and not isinstance(store, str):
        return store
    url = store or Settings().store
    try:
        return open_store(url, max_store_mb=max_store_mb)
    except StoreError as error:
        if "://" in url or url == "none":
            raise
        raise StoreError(f"{error} (did you mean sqlite:///{url}?)") from None


def statements(url: str | None) -> list[str]:
    """The statements that make the tables of a ClickHouse store; no connection is opened.

    Raises:
        StoreError: the store makes its tables itself, of which nothing is to be seen in a URL.
    """
    store = locate(url)
    ddl = getattr(store, "ddl", None)
    if ddl is None:
        raise StoreError(f"{store.url} makes its tables itself: only those of clickhouse:// are printed")
    return list(ddl())


def examine(url: str, *, max_store_mb: float | None = None) -> Health:
    """The health of the store at this URL, without creating, migrating or changing it."""
    if url == "none":
        return Health(url)
    try:
        health = locate(url, max_store_mb=max_store_mb).health()
    except StoreError as error:
        return Health(without_secrets(url), problems=[without_secrets(str(error))])
    health.url = without_secrets(url)
    return health


@contextmanager
def resolve(store: Store | str | None) -> Iterator[Store]:
    """The store itself, or the one at a URL, by default that of the settings, closed after the block.

    Raises:
        StoreError: the URL is not that of a store.
    """
    opened = locate(store)
    try:
        yield opened
    finally:
        if opened is not store:
            opened.close()


@contextmanager
def existing(url: str | None) -> Iterator[Store]:
    """The store at this URL, or that of the settings; it must exist.

    Raises:
        StoreError: there is none, or the file belongs to another program.
    """
    with resolve(url) as store:
        if (missing := store.missing()) is not None:
            raise StoreError(missing)
        yield store
