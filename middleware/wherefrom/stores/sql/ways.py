"""How the traces of a selection are counted: by rollups where they can, otherwise one by one.

Rollups answer a filter that they do not know as well if most traces pass: from all counts those of the traces
that do not pass are subtracted, which are counted one by one. Of those that failed, rollups have the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any, Final

import orjson
from sqlalchemy import Select, Text, func, literal, select

from ...model import TraceState
from ...query.fields import Family, Field, Operator, find_field, stored_key
from ...query.tree import And, Compare, Node, Not, flatten
from ..base import Selection
from .conditions import MAX_SOURCES, Comparer, Compiler
from .expressions import Condition, Expression, integers_of
from .plan import Plan, states_of
from .rollups import Cover, Question, Stretch, ask, find_cover, is_of_sources, read_rollups
from .schema import DAY_MS, column_of, rollups, sources, traces


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the traces: the expression to group by, and the value of each group.

    Without ``labels`` a group is its value. Groups without a label belong to another part.
    """

    group: Expression
    conditions: tuple[Condition, ...] = ()
    labels: Mapping[int, str | None] | None = None

    def select(self, *columns: Expression) -> Select[Any]:
        """``value`` and the columns for each trace of this part."""
        return select(self.group.label("value"), *columns).select_from(traces).where(*self.conditions)

    def name(self, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[str | None, Sequence[Any]]]:
        """Each row's value, ``None`` if it has none, and the columns after its group."""
        for row in rows:
            if self.labels is None:
                yield row[0], row[1:]
            elif row[0] in self.labels:
                yield self.labels[row[0]], row[1:]


def parts_of(by: Field, comparer: Comparer) -> list[Part]:
    """All traces by a field, in parts that do not overlap.

    A trace has a pair of its own only if its source lacks the key: sources come first, because they are few.
    """
    if by.family is not Family.METADATA or column_of(by) is not None or by.constant is not None:
        return [Part(comparer.value(by))]
    key = stored_key(by)
    of_source = comparer.dialect.pair(sources.c.metadata, key)
    values = _by_source(of_source, comparer)
    labels = {id_: value for id_, value in values.items() if value is not None}
    parts = []
    if labels:
        # Implied by the labels. Stated, it lets SQLite use the index over source and time for a time range.
        stated = (traces.c.source_id.in_(sorted(labels)),) if len(labels) <= MAX_SOURCES else ()
        parts.append(Part(traces.c.source_id, stated, labels))
    if len(labels) < len(values):
        outside = comparer.dialect.plain(traces.c.source_id).in_(
            select(sources.c.id).where(of_source.is_(None))
        )
        parts.append(Part(comparer.dialect.pair(traces.c.metadata, key), (outside,) if labels else ()))
    return parts


def by_source(by: Field, comparer: Comparer) -> Part | None:
    """All traces by a field that rollups know, if it is one of sources alone; otherwise ``None``."""
    is_metadata = by.family is Family.METADATA and column_of(by) is None and by.constant is None
    if not is_metadata or not is_of_sources(key := stored_key(by), comparer.catalog):
        return None
    return Part(traces.c.source_id, (), _by_source(comparer.dialect.pair(sources.c.metadata, key), comparer))


def _by_source(value: Expression, comparer: Comparer) -> dict[int, str | None]:
    return {row[0]: row[1] for row in comparer.connection.execute(select(sources.c.id, value))}


_ONE_BY_ONE: Final = Cover([], [], [], [(None, None)])
_STATUS: Final = find_field(None, "status")
_OK, _ERROR = TraceState.OK.value, TraceState.ERROR.value
_SAMPLE: Final = 300
_MOST: Final = 0.6  # of fewer, the traces that pass are counted sooner than those that do not


class Subset(Enum):
    """Which traces of a rollup are in a selection."""

    ALL = "all"
    FAILED = "failed"
    NOT_FAILED = "not failed"


@dataclass(frozen=True, slots=True)
class Ways:
    """How the traces of a plan are counted: by rollups where they can, otherwise one by one."""

    make_plan: Callable[[], Plan]
    """Called where traces are counted one by one: to choose an index takes queries."""
    question: Question | None = None
    cover: Cover = _ONE_BY_ONE
    subset: Subset = Subset.ALL
    is_difference: bool = False
    """Rollups count more traces than the selection has: those of ``make_rejected`` are to be subtracted."""
    make_rejected: Callable[[], Plan] | None = None
    """The plan of the traces to subtract; ``None`` if there are none in the subset."""

    @property
    def plan(self) -> Plan:
        """The plan of the traces."""
        return self.make_plan()

    @property
    def number(self) -> Expression:
        """The traces of a rollup."""
        errors = rollups.c.errors
        every = {
            Subset.ALL: rollups.c.traces,
            Subset.FAILED: errors,
            Subset.NOT_FAILED: rollups.c.traces - errors,
        }
        return every[self.subset]

    @property
    def counted(self) -> tuple[Expression, ...]:
        """What ``_Totals.add_rollup`` takes, without tokens."""
        seen = rollups.c.first_seen, rollups.c.last_seen
        succeeded = literal("{}") if self.subset is Subset.FAILED else rollups.c.succeeded
        if self.subset is Subset.NOT_FAILED:
            return self.number, literal(0), *seen, succeeded, literal("{}")
        return self.number, rollups.c.errors, *seen, succeeded, rollups.c.failed

    def conditions(self, comparer: Comparer) -> Iterator[tuple[Condition, ...]]:
        """The conditions on the traces of each stretch of time that are counted one by one."""
        return (conditions for _, conditions in _each_stretch(self.make_plan, self.cover.stretches, comparer))

    def rejected(self, comparer: Comparer) -> Iterator[tuple[Stretch, tuple[Condition, ...]]]:
        """Stretches of time, and the conditions on the traces to subtract from those in rollups."""
        if self.make_rejected is not None:
            yield from _each_stretch(self.make_rejected, _between(self.cover.stretches), comparer)

    def rollups(self, part: Part, comparer: Comparer, *columns: Expression) -> Iterator[Sequence[Any]]:
        """The group of a part and the columns, for each rollup."""
        if self.question is not None and self.cover.is_used:
            query = read_rollups(self.question, self.cover, part.group, part.conditions, *columns)
            if self.subset is not Subset.ALL:
                query = query.where(self.number > 0)
            yield from comparer.connection.execute(query)


def find_ways(
    selection: Selection,
    make_plan: Callable[[Selection], Plan],
    by: Sequence[Field],
    comparer: Comparer,
    width_ms: int = DAY_MS,
    *,
    in_blocks: bool = False,
    with_pruned: bool = True,
) -> Ways:
    """The ways for a selection; periods of ``width_ms`` are made up of whole rollups.

    If the filter asks for failed traces, pruned ones are left out: of these, a rollup does not say when.
    """
    others = None if in_blocks else _without_errors(selection)
    question = ask(others or selection, by, comparer, in_blocks=in_blocks)
    if question is None:
        return Ways(partial(make_plan, selection))
    cover = find_cover(question, comparer, width_ms, with_pruned=with_pruned and others is None)
    subset = Subset.ALL if others is None else Subset.FAILED
    return Ways(partial(make_plan, selection), question, cover, subset)


def find_difference(
    selection: Selection,
    make_plan: Callable[[Selection], Plan],
    by: Sequence[Field],
    comparer: Comparer,
    width_ms: int = DAY_MS,
    *,
    in_blocks: bool = False,
    by_outcome: bool = True,
) -> Ways | None:
    """The ways for a selection whose filter rollups do not know, if most of the traces in them pass it.

    Pruned traces are left out. ``by_outcome``: failed traces are counted apart from the others.
    """
    parts = [] if selection.tree is None else flatten([selection.tree])
    known = [part for part in parts if ask(replace(selection, tree=part), (), comparer, in_blocks=in_blocks)]
    others = tuple(part for part in parts if part not in known)
    question = ask(replace(selection, tree=And(tuple(known))), by, comparer, in_blocks=in_blocks)
    if question is None or not others:
        return None
    cover = find_cover(question, comparer, width_ms, with_pruned=False)
    if not cover.is_used:
        return None
    subset = Subset.ALL
    rejected: Node | None = Not(And(others))
    states = [states for part in others if (states := states_of(part)) is not None]
    if len(states) == len(others):
        passing = frozenset.intersection(*states)
        if _OK not in passing:
            return None
        left_out = {state.value for state in TraceState} - passing
        if by_outcome and _ERROR in left_out:
            left_out, subset = left_out - {_ERROR}, Subset.NOT_FAILED
        rejected = Compare(_STATUS, Operator.IN, tuple(sorted(left_out))) if left_out else None
    else:
        plan = make_plan(replace(selection, tree=And(others)))
        if plan.entries is not None or plan.has_spans or not _do_most_pass(others, comparer):
            return None
    make_rejected = None
    if rejected is not None:
        make_rejected = partial(make_plan, replace(selection, tree=And((*known, rejected))))
    return Ways(
        partial(make_plan, selection),
        question,
        cover,
        subset,
        is_difference=True,
        make_rejected=make_rejected,
    )


def _do_most_pass(parts: tuple[Node, ...], comparer: Comparer) -> bool:
    """Whether most of some traces pass, which are spread over all by their ids."""
    connection, id_ = comparer.connection, traces.c.id
    first, last = (connection.scalar(select(end(id_))) for end in (func.min, func.max))
    if first is None or last is None:
        return False
    some = [*range(first, last + 1, (last - first) // _SAMPLE + 1)]
    chosen = id_.in_(integers_of(literal(orjson.dumps(some).decode(), Text())))
    passes = Compiler(comparer).compile(And(parts))
    query = select(func.count(), func.count().filter(passes)).select_from(traces).where(chosen)
    number, passing = connection.execute(query).one()
    return bool(passing >= _MOST * number > 0)


def _each_stretch(
    make_plan: Callable[[], Plan], stretches: Sequence[Stretch], comparer: Comparer
) -> Iterator[tuple[Stretch, tuple[Condition, ...]]]:
    """Each stretch of time, and the conditions on the traces of a plan in it."""
    for begin, end in stretches:
        if not (plan := make_plan()).is_empty:
            yield (begin, end), tuple(plan.within(begin, end).conditions(comparer))


def _between(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The time before, between and after stretches of time."""
    found: list[Stretch] = []
    begin = None
    for start, end in stretches:
        if start is not None:
            found.append((begin, start))
        begin = end
    if not stretches or begin is not None:
        found.append((begin, None))
    return found


def _without_errors(selection: Selection) -> Selection | None:
    """The selection without the condition that traces have failed; ``None`` if the filter has none."""
    parts = [] if selection.tree is None else flatten([selection.tree])
    others = [part for part in parts if states_of(part) != frozenset({_ERROR})]
    if len(others) == len(parts):
        return None
    return replace(selection, tree=And(tuple(others)) if others else None)
