"""Which store a command reads, and opening it without making or changing a file that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..exceptions import StoreError
from ..stores.sqlite.file import file_of, is_wherefrom_file, missing, not_ours

if TYPE_CHECKING:
    from ..stores import Store

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store to read, such as sqlite:///wherefrom.db; by default the setting WHEREFROM_STORE.",
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
        StoreError: there is none, or it is not one of Wherefrom's.
    """
    store = unopened(url)
    if (path := file_of(store)) is not None:
        if not path.exists():
            raise StoreError(missing(path))
        if not is_wherefrom_file(path):
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
        raise StoreError("no traces are kept here: WHEREFROM_STORE is none")
    from ..stores import open_store

    try:
        return open_store(url)
    except StoreError as error:
        if "://" in url:
            raise
        raise StoreError(f"{error} (did you mean sqlite:///{url}?)") from None
