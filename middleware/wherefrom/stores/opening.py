"""Which store is meant, and opening it for reading without creating or changing a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..exceptions import StoreError
from . import Store, open_store


def locate(url: str | None) -> Store:
    """The store at this URL, by default the one in the settings; no file is touched yet.

    Raises:
        StoreError: the URL names none.
    """
    from ..settings import Settings

    url = url or Settings().store
    try:
        return open_store(url)
    except StoreError as error:
        if "://" in url or url == "none":
            raise
        raise StoreError(f"{error} (did you mean sqlite:///{url}?)") from None


@contextmanager
def existing(url: str | None) -> Iterator[Store]:
    """The store at this URL, or the one in the settings, which must exist.

    Raises:
        StoreError: there is none, or the file belongs to another program.
    """
    store = locate(url)
    if (missing := store.missing()) is not None:
        raise StoreError(missing)
    try:
        yield store
    finally:
        store.close()
