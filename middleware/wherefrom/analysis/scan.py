"""Traces in the order in which they were stored, which is not the order in which they started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, select

from ..model import Trace
from ..query.compile import Compiler
from ..query.dialects import Condition
from ..query.logic import TRUE
from ..query.parser import parse_filter
from ..stores import Store
from ..stores.reader import read_traces
from ..stores.schema import traces
from .scope import Scope, scope

# Row ids looked through in one transaction: a long one would keep the store from tidying up after writers.
STRETCH: Final = 20_000
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """Which traces of a store: those that pass the filter, in the experiment; ``None`` asks for nothing."""

    store: Store
    filter_string: str | None = None
    experiment: str | None = None

    @contextmanager
    def opened(self) -> Iterator[tuple[Scope, Condition]]:
        """A connection that sees one moment, and what the filter asks of a trace, with no index named.

        Raises:
            FilterError: the filter cannot be read.
        """
        with scope(self.store, None, self.experiment) as inside:
            tree = parse_filter(self.filter_string, inside.catalog.spelled_keys)
            yield inside, TRUE if tree is None else Compiler(inside.comparer).compile(tree)


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the traces, and how much of the store has been looked through: 0 to 1."""

    traces: list[Trace]
    done: float


def in_steps(selection: Selection) -> Iterator[Step]:
    """All traces selected that are there now, the first stored first, never many of them at once.

    Raises:
        FilterError: the filter cannot be read.
    """
    with selection.opened() as (inside, _):
        first, last = inside.connection.execute(_ends()).one()
    if first is None:
        return
    position = first - 1
    while position < last:
        edge = min(position + STRETCH, last)
        with selection.opened() as (inside, condition):
            query = _passing(inside, condition).where(traces.c.id > position, traces.c.id <= edge)
            ids = list(inside.connection.scalars(query.limit(_BATCH)))
            found = read_traces(inside.connection, ids)
        position = ids[-1] if len(ids) == _BATCH else edge
        yield Step(found, (position - first + 1) / (last - first + 1))


def passing(inside: Scope, condition: Condition, ids: list[int]) -> list[Trace]:
    """Those of the traces with these row ids that are selected, the first stored first."""
    return read_traces(inside.connection, passing_ids(inside, condition, ids))


def passing_ids(inside: Scope, condition: Condition, ids: Sequence[int]) -> list[int]:
    """Those of these row ids whose traces are selected, the first stored first."""
    found: list[int] = []
    for start in range(0, len(ids), _BATCH):
        chosen = traces.c.id.in_(ids[start : start + _BATCH])
        found += inside.connection.scalars(_passing(inside, condition).where(chosen))
    return found


def _passing(inside: Scope, condition: Condition) -> Select[Any]:
    return select(traces.c.id).where(*inside.conditions, condition).order_by(traces.c.id)


def _ends() -> Select[Any]:
    # Two reads of the index's ends; min and max in one query would read all of it.
    return select(
        select(func.min(traces.c.id)).scalar_subquery(), select(func.max(traces.c.id)).scalar_subquery()
    )
