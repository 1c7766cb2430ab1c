"""How the traces of a selection are counted: by rollups where they can, otherwise one by one.

Rollups answer a filter that they do not know as well if most traces pass: from all counts those of the traces
that do not pass are subtracted, which are counted one by one. Of those that failed, rollups have the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import Any, Final

import orjson
from sqlalchemy import Select, Text, func, literal, select

from ... import keys
from ..._buckets import NOTHING, bucket_of
from ...model import TraceState
from ...query.fields import Family, Field, Operator, find_field, stored_key
from ...query.tree import And, Compare, Node, Not, flatten
from ..base import Selection
from .conditions import MAX_SOURCES, Comparer, Compiler
from .expressions import TRUE, Condition, Expression, all_of, integers_of
from .hours import Hours, hours_of, read_hours
from .plan import Plan, inside, invert, states_of
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
        parts.append(Part(traces.c.source_id, tuple(_of_sources(labels)), labels))
    if len(labels) < len(values):
        outside = comparer.dialect.plain(traces.c.source_id).in_(
            select(sources.c.id).where(of_source.is_(None))
        )
        parts.append(Part(comparer.dialect.pair(traces.c.metadata, key), (outside,) if labels else ()))
    return parts


def by_source(by: Field, comparer: Comparer) -> Part | None:
    """All traces by a field that rollups know, if it is one of sources alone; otherwise ``None``."""
    if by.family is not Family.METADATA or column_of(by) is not None or by.constant is not None:
        return None
    key = stored_key(by)
    # Rollups have the flags of pruned traces too.
    if key.startswith(keys.FEATURE_FLAG_PREFIX) or not is_of_sources(key, comparer.catalog):
        return None
    return Part(traces.c.source_id, (), _by_source(comparer.dialect.pair(sources.c.metadata, key), comparer))


def _of_sources(ids: Collection[int] | None) -> Iterator[Condition]:
    """That traces have one of these sources, if these are few.

    Where labels imply it, it still lets SQLite use the index over source and time for a time range.
    """
    if ids is not None and len(ids) <= MAX_SOURCES:
        yield traces.c.source_id.in_(sorted(ids))


def _by_source(value: Expression, comparer: Comparer) -> dict[int, str | None]:
    return {row[0]: row[1] for row in comparer.connection.execute(select(sources.c.id, value))}


_NO_ROLLUPS: Final = Cover([], [], [], [(None, None)])
_STATUS: Final = find_field(None, "status")
_DURATION: Final = find_field(None, "execution_time")
_LAST: Final = bucket_of(1 << 63)
_OK, _ERROR = TraceState.OK.value, TraceState.ERROR.value
_SAMPLE: Final = 300
_MOST: Final = 0.6  # of fewer, the traces that pass are counted sooner than those that do not
_SOME: Final = 0.1  # of fewer among all, the traces that pass are counted sooner than rollups are read
_UNEVEN: Final = 40_503


Range = tuple[int, int]
"""The first and the last of some buckets."""


class Subset(Enum):
    """Which traces of a rollup are in a selection."""

    ALL = "all"
    FAILED = "failed"
    NOT_FAILED = "not failed"


@dataclass(frozen=True, slots=True)
class OneByOne:
    """Traces that are counted one by one. Their plan is made when it is needed, as that takes queries."""

    selection: Selection
    make_plan: Callable[[Selection], Plan]
    buckets: Range | None = None
    """Only traces with a duration in these buckets."""

    @property
    def plan(self) -> Plan:
        """The plan of the traces."""
        return self.make_plan(self.selection)

    def scan(self, comparer: Comparer) -> Plan:
        """The plan that finds the first trace soonest if most traces pass: one after the other, by time."""
        tree, catalog = self.selection.tree, comparer.catalog
        passes = TRUE if tree is None else Compiler(comparer).compile(tree)
        rest = all_of([inside(self.selection.experiments, catalog), passes])
        return replace(self.plan, entries=None, rest=rest)

    def conditions(
        self, stretches: Sequence[Stretch], comparer: Comparer
    ) -> Iterator[tuple[Stretch, tuple[Condition, ...]]]:
        """Each stretch of time, and the conditions on the traces in it."""
        within = () if self.buckets is None else (traces.c.duration_bucket.between(*self.buckets),)
        for begin, end in stretches:
            if not (plan := self.plan).is_empty:
                yield (begin, end), (*within, *plan.within(begin, end).conditions(comparer))

    def hours(self, stretches: Sequence[Stretch], comparer: Comparer) -> Iterator[Hours]:
        """The traces in each stretch by hour. The snapshot keeps them for the next question.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        for stretch, conditions in self.conditions(stretches, comparer):
            key = self.selection, self.buckets, stretch
            if key not in comparer.hours:
                within = () if stretch == (None, None) else _of_sources(comparer.catalog.all_sources())
                comparer.hours[key] = read_hours(
                    comparer.connection, *conditions, *hours_of(*stretch), *within
                )
            if (found := comparer.hours[key]) is not None:
                yield found


@dataclass(frozen=True, slots=True)
class Ways:
    """How the traces of a plan are counted: by rollups where they can, otherwise one by one."""

    one_by_one: OneByOne
    question: Question | None = None
    cover: Cover = _NO_ROLLUPS
    subset: Subset = Subset.ALL
    is_difference: bool = False
    """Rollups count more traces than the selection has: the ``rejected`` are to be subtracted."""
    buckets: Range | None = None
    """Of rollups, the traces with a duration in these buckets are counted."""
    rejected: OneByOne | None = None
    """The traces to subtract; ``None`` if there are none in the subset."""

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
        return (conditions for _, conditions in self.one_by_one.conditions(self.cover.stretches, comparer))

    def signed(self) -> Iterator[tuple[int, OneByOne, Sequence[Stretch]]]:
        """What is counted one by one in which stretches of time: with -1, to be subtracted from rollups."""
        yield 1, self.one_by_one, self.cover.stretches
        if self.rejected is not None:
            yield -1, self.rejected, _between(self.cover.stretches)

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
        return Ways(OneByOne(selection, make_plan))
    cover = find_cover(question, comparer, width_ms, with_pruned=with_pruned and others is None)
    subset = Subset.ALL if others is None else Subset.FAILED
    return Ways(OneByOne(selection, make_plan), question, cover, subset)


def find_difference(
    selection: Selection,
    make_plan: Callable[[Selection], Plan],
    by: Sequence[Field],
    comparer: Comparer,
    width_ms: int = DAY_MS,
    *,
    in_blocks: bool = False,
    with_tokens: bool = False,
) -> Ways | None:
    """The ways for a selection whose filter rollups do not know, if most of their traces pass it.

    If the filter asks for durations, most of those in the buckets of these durations. Pruned traces are left
    out. ``with_tokens``: rollups know the tokens of all traces alone, and not by outcome or duration.
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
    subset, buckets = Subset.ALL, None
    rejected: Node | None = Not(And(others))
    states = [states for part in others if (states := states_of(part)) is not None]
    if len(states) == len(others):
        passing = frozenset.intersection(*states)
        if _OK not in passing:
            return None
        others_states = {state.value for state in TraceState} - passing
        if not with_tokens and _ERROR in others_states:
            others_states, subset = others_states - {_ERROR}, Subset.NOT_FAILED
        rejected = Compare(_STATUS, Operator.IN, tuple(sorted(others_states))) if others_states else None
    else:
        buckets = None if with_tokens else _find_buckets(others, comparer)
        if not _do_most_pass(others, buckets, comparer):
            return None
        listed = invert(others[0], comparer.catalog, comparer) if len(others) == 1 else None
        plan = make_plan(replace(selection, tree=And(others)))
        if listed is not None:
            rejected = listed
        elif plan.entries is not None or plan.has_spans:
            return None
    left_out = None if rejected is None else replace(selection, tree=And((*known, rejected)))
    return Ways(
        OneByOne(selection, make_plan),
        question,
        cover,
        subset,
        is_difference=True,
        buckets=buckets,
        rejected=None if left_out is None else OneByOne(left_out, make_plan, buckets),
    )


def _find_buckets(parts: Iterable[Node], comparer: Comparer) -> Range | None:
    """The buckets of the durations that may pass, and one more at each end: they may be rounded in two ways.

    ``None`` if no part asks for a duration.
    """
    bounds = [
        bound
        for part in parts
        if isinstance(part, Compare) and part.field == _DURATION
        if (bound := comparer.bound(part)) is not None
    ]
    if not bounds:
        return None
    low, high = (end(each) for end, each in zip((max, min), zip(*bounds, strict=True), strict=True))
    first = bucket_of(int(low) * 1000) - 1 if low > 0 else NOTHING
    return first, _LAST if high == inf else bucket_of(int(high) * 1000 - 1) + 1


def _do_most_pass(parts: tuple[Node, ...], buckets: Range | None, comparer: Comparer) -> bool:
    """Whether most of some traces pass, which are spread over all by their ids: of those in ``buckets``."""
    connection, id_ = comparer.connection, traces.c.id
    first, last = (connection.scalar(select(end(id_))) for end in (func.min, func.max))
    if first is None or last is None:
        return False
    step = (last - first) // _SAMPLE + 1
    # At uneven distances: what comes at every so many traces is not in all of them, or in none.
    some = [start + start * _UNEVEN % step for start in range(first, last + 1, step)]
    chosen = id_.in_(integers_of(literal(orjson.dumps(some).decode(), Text())))
    passes = Compiler(comparer).compile(And(parts))
    counted = TRUE if buckets is None else traces.c.duration_bucket.between(*buckets)
    each = (func.count(), func.count().filter(counted), func.count().filter(passes))
    number, within, passing = connection.execute(select(*each).select_from(traces).where(chosen)).one()
    return bool(passing > 0 and passing >= max(_MOST * within, _SOME * number))


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
