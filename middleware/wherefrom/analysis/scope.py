"""Which traces an analysis is about: a store, a filter and an experiment, seen at one moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from ..exceptions import StoreError
from ..query.catalog import Catalog
from ..query.compare import Comparer
from ..query.dialects import Condition
from ..query.functions import register
from ..query.parser import parse_filter
from ..query.plan import make_plan
from ..settings import Settings
from ..stores import Store, open_store
from ..stores.reader import snapshot
from ..stores.schema import traces


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
    url = store or Settings().store
    if url == "none":
        raise StoreError("no traces are kept: WHEREFROM_STORE is none")
    opened = open_store(url)
    stack.callback(opened.close)
    return opened
