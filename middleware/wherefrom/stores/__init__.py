"""Stores: where traces are written and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ..exceptions import StoreError
from ..model import Trace
from ..process import ProcessReport

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Store", "open_store"]


class Store(Protocol):
    """A sink that can be read."""

    @property
    def engine(self) -> Engine:
        """A SQLAlchemy engine to read with."""

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces in one transaction; one that is there already gains the spans it lacked."""

    def begin(self) -> AbstractContextManager[Connection]:
        """A SQLAlchemy connection inside a write transaction."""

    def report(self, report: ProcessReport) -> None:
        """Keep what a process says of itself in the place of what it said last."""

    def delete(self, trace_ids: Sequence[str]) -> int:
        """Delete the traces with these ids, as ``prune`` does; how many there were."""

    def prune(self, before_ms: int, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Delete traces that started before this time (ms since the epoch); how many there were.

        They go in short transactions with pauses between, in which others write. ``on_progress`` is called
        after each, with how many have gone.
        """

    def close(self) -> None:
        """Give back files and connections."""


def open_store(url: str, *, retention_days: float | None = None) -> Store:
    """Open the store at ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    The file is made when the first trace is written or the store is first read.

    Raises:
        StoreError: the URL is of another kind.
    """
    scheme, separator, path = url.partition(":///")
    if scheme == "sqlite" and separator and path:
        from .sqlite.store import SQLiteStore

        return SQLiteStore(path, retention_days=retention_days)
    raise StoreError(f"{url!r} is not a store that can be opened here: it takes sqlite:///file.db")
