"""Which store is meant, and opening it for reading without creating or changing a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..exceptions import StoreError
from . import Store, open_store
from .sqlite.file import file_of, is_wherefrom_file, missing, not_ours


def locate(url: str | None) -> Store:
    """The store at this URL, by default the one in the settings; no file is touched yet.

    Raises:
        StoreError: the URL names none.
    """
    from ..settings import Settings

    url = url or Settings().store
    if url == "none":
        raise StoreError("no store to read: WHEREFROM_STORE is none")
    try:
        return open_store(url)
    except StoreError as error:
        if "://" in url:
            raise
        raise StoreError(f"{error} (did you mean sqlite:///{url}?)") from None


@contextmanager
def existing(url: str | None) -> Iterator[Store]:
    """The store at this URL, or the one in the settings, which must exist.

    Raises:
        StoreError: there is none, or the file belongs to another program.
    """
    store = locate(url)
    path = file_of(store)
    if path is not None and not path.exists():
        raise StoreError(missing(path))
    refuse_others(store)
    try:
        yield store
    finally:
        store.close()


def refuse_others(store: Store) -> None:
    """Check that nothing else made the file of an embedded store.

    Raises:
        StoreError: another program did.
    """
    path = file_of(store)
    if path is not None and path.exists() and not is_wherefrom_file(path):
        raise StoreError(not_ours(path))
