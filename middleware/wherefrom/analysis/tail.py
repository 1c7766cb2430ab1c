"""Traces in the order in which they were stored, which is not the order in which they started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..model import Trace
from ..query.order import NEWEST_FIRST
from ..query.parser import parse_filter
from ..stores import Selection, Snapshot, Store
from ..stores.base import TraceRow
from .scope import opened

_BATCH: Final = 500
_MOST_CHANGES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the traces, and how much of the store has been looked through: 0 to 1."""

    traces: list[Trace]
    done: float


def in_steps(store: Store, filter_string: str | None = None, experiment: str | None = None) -> Iterator[Step]:
    """All traces that pass and are stored now, the first stored first, never many of them at once.

    Each step is a snapshot of its own: a long one would keep the store from tidying up after writers.

    Raises:
        FilterError: the filter cannot be read.
    """
    with opened(store, filter_string) as (snapshot, _):
        cursor, end = None, snapshot.cursor()
    done = 0.0
    while done < 1:
        with opened(store, filter_string, experiment) as (snapshot, selection):
            changes = snapshot.changes(cursor, selection, _BATCH, until=end)
            step = Step(snapshot.read(changes.keys), changes.done)
        cursor, done = changes.cursor, changes.done
        yield step


class Follower:
    """Knows which traces of a store have been seen, of those that pass a filter.

    The file of an embedded store may come later, or be replaced by another: its traces are new then.
    """

    def __init__(self, store: Store, filter_string: str | None = None, experiment: str | None = None) -> None:
        self._store = store
        self._filter = filter_string
        self._experiment = experiment
        self._cursor: str | None = None

    def last(self, count: int) -> list[Trace]:
        """The newest of those that are stored already, the oldest first; the others count as seen.

        Raises:
            FilterError: the filter cannot be read.
            StoreError: the file is not a store.
        """
        if self._store.missing() is not None:
            parse_filter(self._filter)
            return []
        with opened(self._store, self._filter, self._experiment) as (snapshot, selection):
            self._cursor = snapshot.cursor()
            if not count:
                return []
            return snapshot.read(snapshot.search(selection, NEWEST_FIRST, count).keys[::-1])

    def new(self) -> list[Trace]:
        """Traces that were stored since, the first stored first; where there are many at once, not all.

        Raises:
            FilterError: the filter names what the store does not know.
            StoreError: the file is not a store.
        """
        if self._store.missing() is not None:
            return []
        with opened(self._store, self._filter, self._experiment) as (snapshot, selection):
            changes = snapshot.changes(self._cursor, selection, _MOST_CHANGES)
            self._cursor = changes.cursor
            return snapshot.read(changes.keys)


@dataclass(frozen=True, slots=True)
class Changes:
    """Traces that were stored since a ``cursor``, the first stored first, and the cursor to ask with next."""

    traces: tuple[TraceRow, ...]
    cursor: str


def read_changes(snapshot: Snapshot, selection: Selection, cursor: str | None) -> Changes:
    """The traces of a selection stored since the cursor; without one none, and where the store ends now.

    If there are many at once, the rest comes with the next cursor.

    Raises:
        FilterError: the cursor cannot be read.
    """
    if cursor is None:
        return Changes((), snapshot.cursor())
    found = snapshot.changes(cursor, selection, _MOST_CHANGES)
    return Changes(tuple(snapshot.rows(found.keys)), found.cursor)
