"""Which store a command reads, and opening it without making or changing a file that is not ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..exceptions import StoreError

if TYPE_CHECKING:
    from ..stores import Store

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store to read, such as sqlite:///whence.db; by default the setting WHENCE_STORE.",
        show_default=False,
    ),
]


def store_url(ctx: typer.Context, given: str | None) -> str:
    """The store that the command, then the program, then the settings name."""
    if chosen := given or ctx.obj:
        return str(chosen)
    from ..settings import Settings

    return Settings().store


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store at this URL, which is there.

    Raises:
        StoreError: there is none, or it is not one of Whence's.
    """
    store = unopened(url)
    if (path := file_of(store)) is not None:
        if not path.exists():
            raise StoreError(missing(path))
        if not is_whence_file(path):
            raise StoreError(not_ours(path))
    try:
        yield store
    finally:
        store.close()


def unopened(url: str) -> Store:
    """The store at this URL; no file is touched yet.

    Raises:
        StoreError: the URL names none.
    """
    if url == "none":
        raise StoreError("no traces are kept here: WHENCE_STORE is none")
    from ..stores import open_store

    try:
        return open_store(url)
    except StoreError as error:
        if "://" in url:
            raise
        raise StoreError(f"{error} (did you mean sqlite:///{url}?)") from None


def file_of(store: Store) -> Path | None:
    """The file that an embedded store is kept in."""
    from ..stores.sqlite import SQLiteStore

    return store.path if isinstance(store, SQLiteStore) else None


def not_ours(path: Path) -> str:
    """The sentence for a file that something else made."""
    return f"{path} is an SQLite file, but not a store of Whence"


def missing(path: Path) -> str:
    """The sentence for a file that is not there."""
    return (
        f"there is no store at {path}: it is made when an app records its first trace;"
        " if yours keeps them elsewhere, name that place with WHENCE_STORE or --store"
    )


def connect(path: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """A connection to a file that exists; it is neither made nor given tables."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)


def is_whence_file(path: Path) -> bool:
    """Whether a SQLite file holds our tables, or nothing yet.

    Raises:
        StoreError: it cannot be read as SQLite.
    """
    try:
        with closing(connect(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a store: {error}") from error
    return not tables or "schema_version" in tables
