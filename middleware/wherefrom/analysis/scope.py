"""What a question is asked of: a snapshot of a store, the traces that are meant, and a stretch of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from ..exceptions import FilterError
from ..query.fields import Operator, find_field
from ..query.parser import parse_filter
from ..query.tree import And, Compare, Node
from ..query.values import to_moment
from ..stores import Selection, Snapshot, Store, resolve
from ..stores.sqlite.catalog import Catalog
from ..stores.sqlite.conditions import Comparer
from ..stores.sqlite.expressions import Condition, plain
from ..stores.sqlite.plan import make_plan
from ..stores.sqlite.schema import traces

DAY_MS: Final = 86_400_000
_TIME: Final = find_field(None, "timestamp")


@dataclass(frozen=True, slots=True)
class Window:
    """From ``since`` to before ``until``, in ms since the epoch; ``is_moved``: the last day had nothing."""

    since: int
    until: int
    is_moved: bool = False

    def around(self, tree: Node | None) -> Node:
        """What the filter asks for, of what came in within the window."""
        begun = Compare(_TIME, Operator.GE, self.since)
        over = Compare(_TIME, Operator.LT, self.until)
        return And((begun, over) if tree is None else (tree, begun, over))

    def limit(self, selection: Selection) -> Selection:
        """What of the selection came in within the window."""
        return replace(selection, tree=self.around(selection.tree))


@contextmanager
def opened(
    store: Store | str | None, filter_string: str | None = None, experiment: str | None = None
) -> Iterator[tuple[Snapshot, Selection]]:
    """A snapshot of a store, by default the one that ``Settings`` names, and the traces that pass a filter.

    Raises:
        FilterError: the filter cannot be read.
        StoreError: the store cannot be opened or read.
    """
    with resolve(store) as found, found.snapshot() as snapshot:
        yield snapshot, select(snapshot, filter_string, experiment)


def select(snapshot: Snapshot, filter_string: str | None, experiment: str | None = None) -> Selection:
    """The traces that pass a filter, of an experiment or of all.

    Raises:
        FilterError: the filter cannot be read.
    """
    tree = parse_filter(filter_string, snapshot.spelled_keys)
    return Selection(tree, None if experiment is None else (experiment,))


def find_window(snapshot: Snapshot, since: str | None, until: str | None) -> Window:
    """The window that is asked for, as a filter spells moments: ``2h ago``, an ISO date, ms.

    Without ``since`` it is a day long. Without either it ends now; or with the newest trace, where the day
    up to now has none.

    Raises:
        FilterError: a moment cannot be read, or the window ends before it begins.
    """
    now_ms = snapshot.now_ms
    end = now_ms + 1 if until is None else _moment("until", until, now_ms)
    begin = end - DAY_MS if since is None else _moment("since", since, now_ms)
    if begin >= end:
        raise FilterError("the time range is empty: since takes a moment before until")
    # Clocks that run ahead do not count as recent.
    if since is None and until is None and (ends := snapshot.bounds(Selection())) and ends[1] < begin:
        return Window(ends[1] + 1 - DAY_MS, ends[1] + 1, is_moved=True)
    return Window(begin, end)


def _moment(name: str, text: str, now_ms: int) -> int:
    try:
        moment = round(to_moment(text, now_ms))
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{name}: {error}") from None
    return min(max(moment, -_FURTHEST), _FURTHEST)


_FURTHEST: Final = 2**53
"""Numbers up to here are the same in JSON and JavaScript."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A connection, the conditions of the ``filter`` on ``traces``, and the experiments they are in.

    ``experiments`` is ``None`` for all of them.
    """

    connection: Connection
    catalog: Catalog
    comparer: Comparer
    experiments: tuple[int, ...] | None
    filter: tuple[Condition, ...]
    is_empty: bool
    snapshot: Snapshot

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All that a trace has to meet."""
        if self.experiments is None:
            return self.filter
        inside = plain(traces.c.experiment_id).in_(self.experiments)
        return inside, *self.filter


@contextmanager
def scope(store: Store | str | None, filter_string: str | None, experiment: str | None) -> Iterator[Scope]:
    """The traces of ``store`` (by default the one in the settings) that pass the filter.

    Raises:
        FilterError: the filter cannot be read.
        StoreError: the store cannot be opened or read.
    """
    with opened(store, filter_string, experiment) as (snapshot, selection):
        inside: Any = snapshot
        plan = make_plan(replace(selection, experiments=None), inside.catalog, inside.comparer)
        experiments = _experiments(inside.catalog, experiment)
        is_empty = plan.is_empty or experiments == ()
        conditions = tuple(plan.conditions(inside.comparer))
        yield Scope(
            inside.connection, inside.catalog, inside.comparer, experiments, conditions, is_empty, snapshot
        )


def _experiments(catalog: Catalog, name: str | None) -> tuple[int, ...] | None:
    """Ids of the experiments; ``None`` where those are all there are."""
    if name is None:
        return None
    ids, is_all = catalog.experiment_ids([name])
    return None if ids and is_all else tuple(ids)
