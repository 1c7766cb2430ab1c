"""A stretch of time, and a filter kept within it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from ..exceptions import FilterError
from ..query.fields import Operator, find_field
from ..query.parser import parse_filter
from ..query.tree import And, Compare, Node
from ..query.values import to_moment
from ..stores import Store
from ..stores.opening import locate
from ..stores.sqlite.catalog import Catalog
from ..stores.sqlite.conditions import Comparer
from ..stores.sqlite.expressions import Condition, register
from ..stores.sqlite.plan import make_plan
from ..stores.sqlite.reader import snapshot
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


def find_window(inside: Scope, since: str | None, until: str | None, now_ms: int) -> Window:
    """The window that is asked for, as a filter spells moments: ``2h ago``, an ISO date, ms.

    Without ``since`` it is a day long. Without either it ends now; or with the newest trace, where the day
    up to now has none.

    Raises:
        FilterError: a moment cannot be read, or the window ends before it begins.
    """
    end = now_ms + 1 if until is None else _moment("until", until, now_ms)
    begin = end - DAY_MS if since is None else _moment("since", since, now_ms)
    if begin >= end:
        raise FilterError("the time range is empty: since takes a moment before until")
    if since is None and until is None and (newest := _newest(inside)) is not None and newest < begin:
        return Window(newest + 1 - DAY_MS, newest + 1, is_moved=True)
    return Window(begin, end)


def _moment(name: str, text: str, now_ms: int) -> int:
    try:
        moment = round(to_moment(text, now_ms))
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{name}: {error}") from None
    return min(max(moment, -_FURTHEST), _FURTHEST)


_FURTHEST: Final = 2**53
"""Numbers up to here are the same in JSON and JavaScript."""


def _newest(inside: Scope) -> int | None:
    """When the newest trace came in; clocks that run ahead do not count as news."""
    newest: int | None = inside.connection.scalar(select(func.max(traces.c.request_time)))
    return newest


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

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All that a trace has to meet."""
        if self.experiments is None:
            return self.filter
        inside = self.catalog.dialect.plain(traces.c.experiment_id).in_(self.experiments)
        return inside, *self.filter


@contextmanager
def scope(store: Store | str | None, filter_string: str | None, experiment: str | None) -> Iterator[Scope]:
    """The traces of ``store`` (by default the one in the settings) that pass the filter.

    Raises:
        FilterError: the filter cannot be read.
        StoreError: the store cannot be opened or read.
    """
    with ExitStack() as stack:
        opened = _open(store, stack)
        connection = stack.enter_context(snapshot(opened.engine, prepare=register))
        catalog = Catalog(connection)
        comparer = Comparer(catalog, now_ms=time.time_ns() // 1_000_000)
        plan = make_plan(parse_filter(filter_string, catalog.spelled_keys), catalog, comparer)
        experiments = _experiments(catalog, experiment)
        is_empty = plan.is_empty or experiments == ()
        yield Scope(connection, catalog, comparer, experiments, tuple(plan.conditions(comparer)), is_empty)


def _experiments(catalog: Catalog, name: str | None) -> tuple[int, ...] | None:
    """Ids of the experiments; ``None`` where those are all there are."""
    if name is None:
        return None
    ids, is_all = catalog.experiment_ids([name])
    return None if ids and is_all else tuple(ids)


def _open(store: Store | str | None, stack: ExitStack) -> Store:
    if store is not None and not isinstance(store, str):
        return store
    opened = locate(store)
    stack.callback(opened.close)
    return opened
