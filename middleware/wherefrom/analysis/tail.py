"""Traces in the order in which they were stored, which differs from the order of their start times."""

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

_FIRST_BATCH: Final = 50
_BATCH: Final = 500
_BATCH_BYTES: Final = 8_000_000
_MOST_CHANGES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the traces, and the share of the store that has been read: 0 to 1."""

    traces: list[Trace]
    done: float


def in_steps(store: Store, filter_string: str | None = None, experiment: str | None = None) -> Iterator[Step]:
    """Yield all matching traces that are stored now in the order of storing, a batch at a time.

    A batch takes about 8 MB of memory: its size follows from that of the traces before. Each step has its
    own snapshot: a long one would prevent the WAL from being checkpointed.

    Raises:
        FilterError: the filter is invalid.
    """
    with opened(store, filter_string) as (snapshot, _):
        cursor, end = None, snapshot.cursor()
    done, size = 0.0, min(_FIRST_BATCH, _BATCH)
    while done < 1:
        with opened(store, filter_string, experiment) as (snapshot, selection):
            changes = snapshot.changes(cursor, selection, size, until=end)
            step = Step(snapshot.read(changes.keys), changes.done)
        cursor, done = changes.cursor, changes.done
        yield step
        if step.traces:
            fit = len(step.traces) * _BATCH_BYTES // sum(trace.memory() for trace in step.traces)
            size = min(max(fit, 1), 2 * size, _BATCH)


class Follower:
    """Follows the matching traces of a store, and remembers which have been seen.

    The file of an embedded store may be created later, or be replaced: then all its traces are new.
    """

    def __init__(self, store: Store, filter_string: str | None = None, experiment: str | None = None) -> None:
        self._store = store
        self._filter = filter_string
        self._experiment = experiment
        self._cursor: str | None = None

    def last(self, count: int) -> list[Trace]:
        """The newest stored traces, the oldest first; all others that are stored count as seen.

        Raises:
            FilterError: the filter is invalid.
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
        """Traces stored since the last call, in the order of storing; at most 1,000 at once.

        Raises:
            FilterError: the filter has an unknown field.
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
    """Traces stored since a cursor, in the order of storing, and the ``cursor`` for the next call."""

    traces: tuple[TraceRow, ...]
    cursor: str


def read_changes(snapshot: Snapshot, selection: Selection, cursor: str | None) -> Changes:
    """The traces of a selection stored since the cursor; without one, no traces and the current cursor.

    At most 1,000 traces are returned; the rest follows with the next cursor.

    Raises:
        FilterError: the cursor is invalid.
    """
    if cursor is None:
        return Changes((), snapshot.cursor())
    found = snapshot.changes(cursor, selection, _MOST_CHANGES)
    return Changes(tuple(snapshot.rows(found.keys)), found.cursor)
