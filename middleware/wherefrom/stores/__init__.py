"""Stores: where traces are written and read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..exceptions import StoreError
from ..settings import Settings
from .base import Selection, Snapshot, Store

__all__ = ["Selection", "Snapshot", "Store", "open_store", "resolve"]


def open_store(url: str, *, retention_days: float | None = None) -> Store:
    """Open the store at ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    The file is made when the first trace is written or the store is first read.

    Raises:
        StoreError: the URL names no store, or one of another kind.
    """
    if url == "none":
        raise StoreError("no traces are stored: WHEREFROM_STORE is none")
    scheme, separator, path = url.partition(":///")
    if scheme == "sqlite" and separator and path:
        from .sqlite.store import SQLiteStore

        return SQLiteStore(path, retention_days=retention_days)
    raise StoreError(f"{url!r} is not a store that can be opened here: it takes sqlite:///file.db")


@contextmanager
def resolve(store: Store | str | None) -> Iterator[Store]:
    """The store that is meant: a store, one at a URL, or by default the one that ``Settings`` names.

    What was opened for the block is closed at its end.

    Raises:
        StoreError: the URL names no store.
    """
    if store is not None and not isinstance(store, str):
        yield store
        return
    opened = open_store(store or Settings().store)
    try:
        yield opened
    finally:
        opened.close()
