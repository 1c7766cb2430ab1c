"""How to search: by which index, one value of it after the other, and what is left to test on each row.

Most searches want the newest few. Every index of ``traces`` but the unique one is a column and then the
time, so for one value of the column it yields the newest first, and the search stops when it has enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeGuard

from sqlalchemy import Column

from ..model import TraceState
from ..stores.schema import traces
from .catalog import Catalog, SourceIds
from .compare import Comparer
from .compile import Compiler, flatten
from .dialects import Condition
from .fields import Family, Operator
from .logic import TRUE, is_false
from .tree import And, Compare, Node

_MAX_SOURCES: Final = 64
_IDENTIFYING: Final = (
    traces.c.trace_id,
    traces.c.client_request_id,
    traces.c.session_id,
    traces.c.user_id,
)
_STATES: Final = frozenset(state.value for state in TraceState)
_COMMON: Final = TraceState.OK.value


class Way(NamedTuple):
    """An index to go by: its column, the values to look up, and the parts of the filter not yet answered."""

    column: Column[Any]
    values: Sequence[Any]
    parts: list[Node]


@dataclass(frozen=True, slots=True)
class Plan:
    """``column`` has one of ``values``, the time is within ``bounds``, and ``rest`` holds."""

    rest: Condition = TRUE
    column: Column[Any] | None = None
    values: Sequence[Any] = ()
    bounds: Sequence[Condition] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no trace can match."""
        return is_false(self.rest) or (self.column is not None and not self.values)


def make_plan(tree: Node | None, catalog: Catalog, comparer: Comparer) -> Plan:
    """The plan for a filter."""
    if tree is None:
        return Plan()
    parts = flatten([tree])
    bounds = [bound for part in parts if (bound := _bound(part, comparer)) is not None]
    way = _by_identity(parts, comparer) or _by_source(parts, catalog, comparer) or _by_state(parts)
    compiler = Compiler(comparer)
    if way is None:
        return Plan(compiler.compile(tree), bounds=bounds)
    return Plan(compiler.compile(And(tuple(way.parts))), way.column, way.values, bounds)


def _by_identity(parts: list[Node], comparer: Comparer) -> Way | None:
    """One id, session or user, or a list of them."""
    for column in _IDENTIFYING:
        for part in parts:
            if _is_on(part, column) and (values := _listed(part)):
                return Way(column, comparer.storable(values), _without(parts, [part]))
    return None


def _by_source(parts: list[Node], catalog: Catalog, comparer: Comparer) -> Way | None:
    """The few sources whose traces can match, by all that is asked of metadata."""
    everything = catalog.all_sources()
    if everything is None:
        return None
    candidates: SourceIds = everything
    answered: list[Node] = []
    for part in parts:
        if _is_on_metadata(part) and (split := comparer.by_source(part)) is not None:
            candidates &= split.holding | split.lacking
            if not split.lacking:
                answered.append(part)
    if candidates == everything or len(candidates) > _MAX_SOURCES:
        return None
    return Way(traces.c.source_id, sorted(candidates), _without(parts, answered))


def _by_state(parts: list[Node]) -> Way | None:
    """A rare state; OK is so common that its index saves nothing."""
    for part in parts:
        if _is_on(part, traces.c.state) and (states := _states(part)) is not None and _COMMON not in states:
            return Way(traces.c.state, sorted(states), _without(parts, [part]))
    return None


def _bound(part: Node, comparer: Comparer) -> Condition | None:
    if not _is_on(part, traces.c.request_time) or part.operator is Operator.NE:
        return None
    return comparer.related(traces.c.request_time, part)


def _is_on(part: Node, column: Column[Any]) -> TypeGuard[Compare]:
    return isinstance(part, Compare) and part.field.column is column


def _is_on_metadata(part: Node) -> TypeGuard[Compare]:
    if not isinstance(part, Compare) or part.field.family is not Family.METADATA:
        return False
    return part.field.column is None and part.field.constant is None


def _listed(part: Compare) -> tuple[str, ...]:
    match part.operator, part.value:
        case Operator.EQ, str(value):
            return (value,)
        case Operator.IN, tuple(values):
            return values
    return ()


def _states(part: Compare) -> frozenset[str] | None:
    match part.operator, part.value:
        case Operator.NE, str(value):
            return _STATES - {value}
        case Operator.NOT_IN, tuple(values):
            return _STATES - set(values)
    return _STATES & set(values) if (values := _listed(part)) else None


def _without(parts: list[Node], answered: list[Node]) -> list[Node]:
    return [part for part in parts if not any(part is other for other in answered)]
