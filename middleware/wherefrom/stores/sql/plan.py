"""The plan of a search: the index that finds the traces, and the conditions to test on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Any, Final, NamedTuple, TypeGuard

from sqlalchemy import Column, Connection, FromClause, bindparam, func, select

from ...model import TraceState
from ...query.fields import ASSESSED, Family, Operator, find_field, stored_key
from ...query.tree import And, Compare, Node, flatten
from ..base import Selection
from .conditions import Catalog, Comparer, Compiler, KnownKey, SourceIds, speaks_of_spans
from .expressions import FALSE, TRUE, Condition, Expression, all_of, is_false, is_true, opposite
from .index_scan import (
    FIRST_TIME,
    LAST_TIME,
    NAMES,
    PAIRS,
    SOURCES_IN_STATE,
    Entries,
    Index,
    listed_like,
    listed_values,
    on_column,
)
from .known_keys import ANY, lists_key, lists_value
from .reader import Prepared
from .schema import column_of, trace_values, traces


def find_entries(node: Compare, catalog: Catalog, comparer: Comparer) -> Entries | None:
    """The index entries of the traces for which a condition holds; ``None`` if no index has them."""
    if node.operator is Operator.IS_NULL:
        return None
    if column_of(node.field) is traces.c.name:
        return _entries(NAMES, node, catalog, comparer)
    key = _listed_key(node, catalog)
    if key is None or not _is_decided_by_traces(node, comparer):
        return None
    return _entries(PAIRS, node, catalog, comparer, key)


def invert(node: Node, catalog: Catalog, comparer: Comparer) -> Compare | None:
    """The condition that lists the values of all traces for which another condition does not hold.

    ``None`` if no index has them all: each trace has to have a value of its own, and none of its source.
    """
    if not isinstance(node, Compare) or (key := _listed_key(node, catalog)) is None or key.unlisted:
        return None
    if node.field.family is Family.METADATA and catalog.source_values(stored_key(node.field)):
        return None
    if _COUNT_KEY.values(catalog.connection, {"key": key.id}) != _COUNT.values(catalog.connection):
        return None
    values = listed_values(
        catalog.connection,
        PAIRS,
        lambda value: opposite(comparer.holds(value, node)),
        catalog.dialect,
        key.id,
    )
    return None if values is None else Compare(node.field, Operator.IN, tuple(values))


_COUNT: Final = Prepared(select(func.count()).select_from(traces))
_COUNT_KEY: Final = Prepared(
    select(func.count()).select_from(trace_values).where(trace_values.c.key == bindparam("key"))
)


def _listed_key(node: Compare, catalog: Catalog) -> KnownKey | None:
    field = node.field
    if field.family not in {Family.METADATA, Family.TAG} or column_of(field) is not None or field.constant:
        return None
    key = stored_key(field)
    known = catalog.known_key(field.family, key) if lists_key(key) else None
    return None if known is None or known.unlisted == ANY else known


def _is_decided_by_traces(node: Compare, comparer: Comparer) -> bool:
    """Whether the condition depends on a trace's own pairs only, and holds for no pair of a source."""
    if node.field.family is Family.TAG:
        return True
    decided = comparer.by_source(node)
    return decided is not None and not decided.holding


def _entries(
    index: Index, node: Compare, catalog: Catalog, comparer: Comparer, key: KnownKey | None = None
) -> Entries | None:
    part = None if key is None else key.id
    wanted = _wanted(node)
    if wanted is not None and all(map(lists_value, wanted)):
        return Entries(index, wanted, part)
    if key is not None and key.unlisted:
        return None
    if node.operator is Operator.LIKE and isinstance(node.value, str):
        values = listed_like(catalog.connection, index, node.value, catalog.dialect, part)
    else:
        values = listed_values(
            catalog.connection, index, lambda value: comparer.holds(value, node), catalog.dialect, part
        )
    return None if values is None else Entries(index, values, part)


def _wanted(node: Compare) -> list[str] | None:
    match node.operator, node.value:
        case Operator.EQ, str(text):
            return [text]
        case Operator.IN, tuple(texts):
            return list(dict.fromkeys(texts))
    return None


_MAX_SOURCES: Final = 64  # of more, an index scan for each costs more than it saves
_MAX_TRIED: Final = 16  # each attempt costs a query
RARE: Final = 100_000
"""Fewer traces than this are all read, if need be, sooner than the whole table."""
_MOST_ASSESSED: Final = 1_000
_IDENTIFYING: Final = (
    traces.c.trace_id,
    traces.c.client_request_id,
    traces.c.session_id,
    traces.c.user_id,
)
_STATES: Final = frozenset(state.value for state in TraceState)
_COMMON: Final = TraceState.OK.value


class Way(NamedTuple):
    """An index look-up, and the parts of the filter that it does not answer."""

    entries: Entries
    parts: list[Node]


_TIME: Final = find_field(None, "timestamp")
_LOWER: Final = (Operator.GT, Operator.GE)
_UPPER: Final = (Operator.LT, Operator.LE)


@dataclass(frozen=True, slots=True)
class Plan:
    """A trace matches if it is among the ``entries``, its time is within ``bounds``, and ``rest`` holds."""

    rest: Condition = TRUE
    entries: Entries | None = None
    bounds: Sequence[Compare] = ()
    has_spans: bool = False
    """Whether ``rest`` has a condition on a span."""

    @property
    def is_empty(self) -> bool:
        """Whether no trace can match."""
        return is_false(self.rest) or (self.entries is not None and not self.entries.values)

    def within(self, begin: int | None, end: int | None) -> Plan:
        """This plan for a stretch of its time, whose ends are in the place of its own bounds."""
        # Of two bounds on one side, SQLite may search its index by the wider one.
        bounds = list(self.bounds)
        for value, operator, replaced in ((begin, Operator.GE, _LOWER), (end, Operator.LT, _UPPER)):
            if value is not None:
                bounds = [bound for bound in bounds if bound.operator not in replaced]
                bounds.append(Compare(_TIME, operator, value))
        return replace(self, bounds=bounds)

    def conditions(self, comparer: Comparer) -> Iterator[Condition]:
        """All conditions on a trace."""
        if self.entries is not None:
            yield self.entries.condition(self.related(self.entries.index.time, comparer))
        # Beside bounds on the entries, SQLite might search by time instead; PostgreSQL knows better.
        has_bounds = self.entries is not None and self.entries.index.join
        time = traces.c.request_time
        yield from self.related(comparer.dialect.plain(time) if has_bounds else time, comparer)
        if not is_true(self.rest):
            yield self.rest

    def related(self, time: Expression, comparer: Comparer) -> list[Condition]:
        """The bounds as conditions on a column that has the request time."""
        return [comparer.related(time, bound) for bound in self.bounds]


def make_plan(selection: Selection, catalog: Catalog, comparer: Comparer) -> Plan:
    """The plan for a selection."""
    plan = _plan_filter(selection.tree, catalog, comparer)
    return replace(plan, rest=all_of([inside(selection.experiments, catalog), plan.rest]))


def inside(names: tuple[str, ...] | None, catalog: Catalog, table: FromClause = traces) -> Condition:
    """The condition for these experiments; ``table`` is ``traces`` or an alias of it."""
    if names is None:
        return TRUE
    ids, is_all = catalog.experiment_ids(names)
    if is_all:
        return TRUE
    return catalog.dialect.plain(table.c.experiment_id).in_(ids) if ids else FALSE


def _plan_filter(tree: Node | None, catalog: Catalog, comparer: Comparer) -> Plan:
    if tree is None:
        return Plan()
    every = flatten([tree])
    stated = [part for part in every if _is_bound(part)]
    parts = _without(every, stated)
    bounds = [bound for bound in stated if not _holds_always(bound, catalog, comparer)]
    way = _find_way(parts, _range(bounds, comparer), catalog, comparer)
    entries, rest = (None, parts) if way is None else way
    condition = Compiler(comparer).compile(And(tuple(rest))) if rest else TRUE
    return Plan(condition, entries, bounds, any(map(speaks_of_spans, rest)))


def _holds_always(bound: Compare, catalog: Catalog, comparer: Comparer) -> bool:
    """Whether no trace is outside the bound: by its index on time, SQLite would look up each of them."""
    times, ends = catalog.times(), comparer.bound(bound)
    return times is not None and ends is not None and ends[0] <= times[0] and times[1] < ends[1]


def _range(bounds: Sequence[Compare], comparer: Comparer) -> tuple[int, int]:
    """The first and the last time within the bounds."""
    ends = [end for bound in bounds if (end := comparer.bound(bound)) is not None]
    low, high = max((end[0] for end in ends), default=-inf), min((end[1] for end in ends), default=inf)
    return int(max(low, FIRST_TIME)), int(min(high - 1, LAST_TIME))


def _find_way(parts: list[Node], times: tuple[int, int], catalog: Catalog, comparer: Comparer) -> Way | None:
    if way := _by_identity(parts) or _by_assessment(parts, comparer):
        return way
    by_state = _by_state(parts)
    if by_state and not by_state.entries.values:
        return by_state
    by_value = list(_by_value(parts, catalog, comparer))
    if len(parts) == 1 and by_value:
        return by_value[0]  # it answers all of the filter, however many entries there are to count
    count, rarest = _rarest(by_value, times, catalog.connection)
    other = _by_source(parts, catalog, comparer) or by_state
    if rarest is None:
        return other
    if other is not None and other.entries.count(catalog.connection, count, times) < count:
        return other
    return rarest


def _by_identity(parts: list[Node]) -> Way | None:
    """Look up an id, session or user, or a list of them."""
    for column in _IDENTIFYING:
        for part in parts:
            if _is_on(part, column) and (values := _listed(part)):
                return Way(Entries(on_column(column), list(dict.fromkeys(values))), _without(parts, [part]))
    return None


def _by_assessment(parts: list[Node], comparer: Comparer) -> Way | None:
    """Look up the traces that have feedback for which a part of the filter holds, if they are few."""
    for part in parts:
        if isinstance(part, Compare) and part.field.family in ASSESSED:
            ids = comparer.assessed_traces(part, _MOST_ASSESSED)
            if ids is not None:
                return Way(Entries(on_column(traces.c.trace_id), ids), _without(parts, [part]))
    return None


def _by_value(parts: list[Node], catalog: Catalog, comparer: Comparer) -> Iterator[Way]:
    """Look up the values of a name, a tag or a trace's own metadata for which a part of the filter holds."""
    for part in islice((part for part in parts if isinstance(part, Compare)), _MAX_TRIED):
        if entries := find_entries(part, catalog, comparer):
            yield Way(entries, _without(parts, [part]))


def _rarest(ways: Sequence[Way], times: tuple[int, int], connection: Connection) -> tuple[int, Way | None]:
    """The way with the fewest entries, and their number; none if all have ``RARE`` or more."""
    count, rarest = RARE, None
    for way in ways:
        if (number := way.entries.count(connection, count, times)) < count:
            count, rarest = number, way
    if rarest is not None and not count:
        return 0, rarest._replace(entries=replace(rarest.entries, values=()))
    return count, rarest


def _by_source(parts: list[Node], catalog: Catalog, comparer: Comparer) -> Way | None:
    """Look up the sources whose traces can match all metadata conditions, if they are few."""
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
    others = _without(parts, answered)
    for part in others:
        if (states := states_of(part)) is not None and len(states) == 1:
            entries = Entries(SOURCES_IN_STATE, sorted(candidates), *states)
            return Way(entries, _without(others, [part]))
    return Way(Entries(on_column(traces.c.source_id), sorted(candidates)), others)


def _by_state(parts: list[Node]) -> Way | None:
    """Look up a rare state; OK is so common that its index saves nothing."""
    for part in parts:
        if (states := states_of(part)) is not None and _COMMON not in states:
            return Way(Entries(on_column(traces.c.state), sorted(states)), _without(parts, [part]))
    return None


def _is_bound(part: Node) -> TypeGuard[Compare]:
    return _is_on(part, traces.c.request_time) and part.operator is not Operator.NE


def _is_on(part: Node, column: Column[Any]) -> TypeGuard[Compare]:
    return isinstance(part, Compare) and column_of(part.field) is column


def _is_on_metadata(part: Node) -> TypeGuard[Compare]:
    if not isinstance(part, Compare) or part.field.family is not Family.METADATA:
        return False
    return column_of(part.field) is None and part.field.constant is None


def _listed(part: Compare) -> tuple[str, ...]:
    match part.operator, part.value:
        case Operator.EQ, str(value):
            return (value,)
        case Operator.IN, tuple(values):
            return values
    return ()


def states_of(part: Node) -> frozenset[str] | None:
    """The states of the traces for which a condition holds; ``None`` if it is not one that lists states."""
    if not _is_on(part, traces.c.state):
        return None
    match part.operator, part.value:
        case Operator.NE, str(value):
            return _STATES - {value}
        case Operator.NOT_IN, tuple(values):
            return _STATES - set(values)
    return _STATES & set(values) if (values := _listed(part)) else None


def _without(parts: list[Node], answered: Sequence[Node]) -> list[Node]:
    return [part for part in parts if not any(part is other for other in answered)]
