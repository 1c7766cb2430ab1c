"""Answers from rollups: counts of whole hours and days, which outlive the traces.

A rollup has the traces of one experiment and one source within an hour or a day; with details, those of one
name and one set of feature flags among them. So rollups answer a question whose filter and grouping concern
nothing but these. Blocks tell apart processes and stretches of time, but no flags. ``cover`` divides the time
range of such a question:

- whole days and hours whose traces are rolled up, or counted by block where the question is one of blocks,
- the remaining stretches of time, in which traces are counted one by one,
- the hours with counts that are kept of pruned traces, unless they are in the counts of a day.

Of an hour that a time range cuts, only traces that are still there can be counted.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Final

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    FromClause,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.sql import visitors

from ... import keys
from ...query.fields import Family, Field, stored_key
from ...query.tree import And, Compare, Node, conditions, flatten
from ..base import STRETCH_MS, Selection
from .conditions import Catalog, Comparer, Compiler
from .expressions import (
    TRUE,
    Condition,
    Expression,
    all_of,
    integers_of,
    json_elements,
    no_pairs,
    text_under,
)
from .known_keys import WHOLE, lists_key
from .plan import inside
from .reader import Prepared
from .schema import (
    DAY_MS,
    DETAILED,
    HOUR_MS,
    IN_BLOCKS,
    ROLLED_UP,
    block_days,
    blocks,
    column_of,
    rollup_periods,
    rollups,
    trace_values,
    traces,
)
from .types import json_parameter

Stretch = tuple[int | None, int | None]
"""A time range from the first to before the second, in ms since the epoch; ``None``: without an end."""

_MOST_STRETCHES: Final = 8  # each is a query
_MOST_GAPS: Final = 1_000
_PERIODS: Final = Prepared(
    select(rollup_periods.c.start, rollup_periods.c.state).where(
        rollup_periods.c.width == bindparam("width"), rollup_periods.c.state >= ROLLED_UP
    )
)
_KEPT_HOURS: Final = Prepared(
    select(rollups.c.start)
    .where(rollups.c.is_kept == 1, rollups.c.is_detailed == 0, rollups.c.width == HOUR_MS)
    .distinct()
)
_TRACES_WITHIN: Final = Prepared(
    select(traces.c.id)
    .where(traces.c.request_time >= bindparam("begin"), traces.c.request_time < bindparam("end"))
    .limit(1)
)
_OWN_VALUE: Final = Prepared(
    select(trace_values.c.key).where(trace_values.c.key == bindparam("key")).limit(1)
)


@dataclass(frozen=True, slots=True)
class Question:
    """A selection that rollups can count: its time range, and the other conditions, on traces."""

    since: float
    until: float
    condition: Condition
    least: int
    """The least state of a period whose counts answer it."""


def ask(
    selection: Selection, by: Sequence[Field], comparer: Comparer, *, in_blocks: bool = False
) -> Question | None:
    """The question for the traces of a selection, grouped by fields; ``None`` if rollups cannot answer it.

    ``in_blocks``: it is grouped by process and stretch of time too.
    """
    since, until = -inf, inf
    others: list[Node] = []
    for part in [] if selection.tree is None else flatten([selection.tree]):
        if not isinstance(part, Compare) or column_of(part.field) is not traces.c.request_time:
            others.append(part)
        elif (bound := comparer.bound(part)) is None:
            return None
        else:
            since, until = max(since, bound[0]), min(until, bound[1])
    fields = [*by, *(node.field for part in others for node in conditions(part))]
    details = [_needs_detail(field, comparer, in_blocks=in_blocks) for field in fields]
    if None in details:
        return None
    passes = Compiler(comparer).compile(And(tuple(others))) if others else TRUE
    condition = all_of([inside(selection.experiments, comparer.catalog), passes])
    return Question(
        since, until, condition, IN_BLOCKS if in_blocks else DETAILED if any(details) else ROLLED_UP
    )


def _needs_detail(field: Field, comparer: Comparer, *, in_blocks: bool) -> bool | None:
    """Whether the field is one of the details of a rollup; ``None`` if a rollup has not got it at all."""
    if field.constant is not None or field.name == "experiment_id":
        return False
    if column_of(field) is traces.c.name:
        return True
    if field.family is not Family.METADATA or column_of(field) is not None:
        return None
    key = stored_key(field)
    if key.startswith(keys.FEATURE_FLAG_PREFIX):
        return None if in_blocks else True
    return False if is_of_sources(key, comparer.catalog) else None


def is_of_sources(key: str, catalog: Catalog) -> bool:
    """Whether no trace has a pair of its own under the key."""
    if not catalog.has_key("metadata", key):
        return True
    everything = catalog.all_sources()
    if everything and everything == catalog.source_values(key).keys():
        return True
    known = catalog.known_key("metadata", key) if lists_key(key) else None
    if known is None or known.unlisted != WHOLE:
        return False
    return not _OWN_VALUE.rows(catalog.connection, {"key": known.id})


def _columns_of(table: FromClause) -> dict[Any, Any]:
    names = ("name", "source_id", "experiment_id")
    return {traces: table} | {traces.c[name]: table.c[name] for name in names}


_OF_ROLLUPS: Final = _columns_of(rollups) | {traces.c.metadata: rollups.c.flags}
# No part of a trace's own metadata that a question of blocks concerns is there.
_OF_BLOCKS: Final = _columns_of(blocks) | {traces.c.metadata: no_pairs()}


def _routes() -> Subquery:
    element = json_elements(bindparam("routes")).table_valued(column("value", Text())).c.value
    numbers = ("place", "experiment_id", "source_id")
    columns = [cast(text_under(element, name), BigInteger).label(name) for name in numbers]
    return select(*columns, text_under(element, "name").label("name")).subquery("routes")


_ROUTES: Final = _routes()
_OF_ROUTES: Final = _columns_of(_ROUTES) | {traces.c.metadata: no_pairs()}


def on_rollups(expression: Expression) -> Expression:
    """An expression on traces as one on rollups: of their own metadata, flags are all that it concerns."""
    return _on(_OF_ROLLUPS, expression)


def _on(columns: Mapping[Any, Any], expression: Expression) -> Expression:
    def replace(part: Any, **_: Any) -> Any:
        return columns.get(part)

    return visitors.replacement_traverse(expression, _NO_OPTIONS, typing.cast("Any", replace))


_NO_OPTIONS: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Cover:
    """What answers a question: starts of days, of hours and of hours with kept counts; stretches of time."""

    days: list[int]
    hours: list[int]
    kept: list[int]
    stretches: Sequence[Stretch]

    @property
    def is_used(self) -> bool:
        """Whether any rollup is."""
        return bool(self.days or self.hours or self.kept)


def find_cover(question: Question, comparer: Comparer, width: int, *, with_pruned: bool) -> Cover:
    """The cover of a question by periods, or in blocks, that make up ``width``."""
    connection, in_blocks = comparer.connection, question.least == IN_BLOCKS

    def is_whole(start: int, width: int) -> bool:
        return question.since <= start and start + width <= question.until

    def read(unit: int) -> list[int]:
        rows = _PERIODS.rows(connection, {"width": unit})
        return sorted(start for start, state in rows if state >= question.least and is_whole(start, unit))

    if width % (STRETCH_MS if in_blocks else HOUR_MS):
        return Cover([], [], [], [_stretch(question.since, question.until)])
    days = read(DAY_MS) if width % (HOUR_MS if in_blocks else DAY_MS) == 0 else []
    all_kept = _KEPT_HOURS.values(connection)
    if not with_pruned:
        of_pruned = {start // DAY_MS * DAY_MS for start in all_kept}
        days, all_kept = [start for start in days if start not in of_pruned], []
    in_days = frozenset(days)
    hours = [start for start in read(HOUR_MS) if start // DAY_MS * DAY_MS not in in_days]
    kept = [
        start for start in all_kept if is_whole(start, HOUR_MS) and start // DAY_MS * DAY_MS not in in_days
    ]
    covered = sorted([*((start, start + DAY_MS) for start in days), *((at, at + HOUR_MS) for at in hours)])
    ends = [question.since, *(end for period in covered for end in period), question.until]
    gaps = [(begin, end) for begin, end in list(pairwise(ends))[::2] if begin < end]
    if len(gaps) <= _MOST_GAPS:
        stretches = [gap for gap in gaps if _has_traces(gap, connection)]
        if len(stretches) <= _MOST_STRETCHES:
            return Cover(days, hours, kept, [_stretch(*gap) for gap in stretches])
    # All traces are counted; of days only what is kept, by hour.
    kept = [start for start in all_kept if is_whole(start, HOUR_MS)]
    return Cover([], [], kept, [_stretch(question.since, question.until)])


def _stretch(begin: float, end: float) -> Stretch:
    return (None if begin == -inf else int(begin), None if end == inf else int(end))


def _has_traces(gap: tuple[float, float], connection: Any) -> bool:
    begin, end = max(gap[0], -(1 << 63)), min(gap[1], (1 << 63) - 1)
    return bool(_TRACES_WITHIN.rows(connection, {"begin": int(begin), "end": int(end)}))


def read_rollups(
    question: Question, cover: Cover, group: Expression, where: Sequence[Condition], *columns: Expression
) -> Select[Any]:
    """``group`` and the columns of each rollup in a cover; ``group`` and ``where`` are of traces."""
    return select(on_rollups(group).label("value"), *columns).where(
        _covered(cover), _of_level(question), *map(on_rollups, where)
    )


def read_blocks(
    question: Question,
    cover: Cover,
    group: Expression,
    where: Sequence[Condition],
    stratum: Expression,
    width: int,
    counted: Sequence[Column[Any]],
) -> Select[Any]:
    """The blocks of the hours in a cover: ``group``, step, stratum, process and the columns ``counted``."""
    on_group, on_stratum, *conditions = (
        _on(_OF_BLOCKS, each) for each in (group, stratum, question.condition, *where)
    )
    columns = blocks.c.start // width, on_stratum, blocks.c.process, *counted
    query = select(on_group.label("value"), *columns)
    return query.where(
        or_(
            *(
                and_(blocks.c.is_kept == is_kept, blocks.c.hour.in_(_listed(hours)))
                for is_kept, hours in ((0, cover.hours), (1, cover.kept))
                if hours
            )
        ),
        *conditions,
    )


def read_block_days(cover: Cover, columns: Sequence[Column[Any]]) -> Select[Any]:
    """The blocks of the days in a cover: experiment, source, number, key, other columns."""
    of = block_days.c
    key = of.experiment_id, of.source_id, of.blocks, of.starts, of.names, of.processes
    return select(*key, *columns).where(of.start.in_(_listed(cover.days)))


def read_routes(
    question: Question,
    routes: Sequence[tuple[int, int, str | None]],
    group: Expression,
    where: Sequence[Condition],
    stratum: Expression,
) -> Select[Any]:
    """``group``, place and stratum of those routes for which the conditions hold.

    A route is an experiment, a source and a name.
    """
    listed = [
        {"place": place, "experiment_id": experiment, "source_id": source, "name": name}
        for place, (experiment, source, name) in enumerate(routes)
    ]
    on_group, on_stratum, *conditions = (
        _on(_OF_ROUTES, each) for each in (group, stratum, question.condition, *where)
    )
    query = select(on_group.label("value"), _ROUTES.c.place, on_stratum).where(*conditions)
    return query.params(routes=json_parameter(listed))


def _covered(cover: Cover) -> Condition:
    return or_(
        *(
            and_(rollups.c.is_kept == is_kept, rollups.c.width == width, rollups.c.start.in_(_listed(starts)))
            for is_kept, width, starts in (
                (0, DAY_MS, cover.days),
                (0, HOUR_MS, cover.hours),
                (1, HOUR_MS, cover.kept),
            )
            if starts
        )
    )


def _of_level(question: Question) -> Condition:
    return and_(rollups.c.is_detailed == int(question.least >= DETAILED), on_rollups(question.condition))


def _listed(numbers: Sequence[int]) -> Select[Any]:
    return integers_of(literal(orjson.dumps(numbers).decode(), Text()))


def kept_bounds(question: Question, comparer: Comparer) -> tuple[int, int] | None:
    """The first and last request time of the pruned traces of a question, in ms since the epoch."""
    start = rollups.c.start
    where = [rollups.c.is_kept == 1, rollups.c.width == HOUR_MS, _of_level(question)]
    if question.since > -inf:
        where.append(start >= int(question.since))
    if question.until < inf:
        where.append(start <= int(question.until) - HOUR_MS)
    ends = []
    for seen, order in (
        (func.min(rollups.c.first_seen), start.asc()),
        (func.max(rollups.c.last_seen), start.desc()),
    ):
        outermost = select(start).where(*where).order_by(order).limit(1).scalar_subquery()
        ends.append(comparer.connection.scalar(select(seen).where(*where, start == outermost)))
    return None if ends[0] is None else (ends[0], ends[1])
