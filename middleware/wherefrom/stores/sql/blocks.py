"""Counts and amounts by block: of whole days and hours as rollups have them, of other traces one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Column, Select, case, func, literal, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from ... import keys
from ...model import TraceState
from ...query.fields import Family, Field
from ..base import COST, MOST, OF_FEEDBACK, TOKENS, BlockAmount, BlockColumns, Durations, Stratum, grouped
from .conditions import Comparer
from .durations import commas, joined, of_alone, of_codes, of_texts
from .expressions import Expression, alone, is_true
from .hours import Hours, hours_of, step_of
from .reader import read_batches
from .rollups import Stretch, read_block_days, read_blocks, read_routes
from .schema import HOUR_MS, HOUR_OF_TRACE, assessments, block_days, blocks, column_of, traces
from .ways import OneByOne, Part, Subset, Ways, by_source, parts_of

_Columns = tuple[Column[Any], ...]
_Row = tuple[str | None, Sequence[Any]]
"""The value of a block, and its other columns."""
_Rows = list[_Row]
_Key = tuple[list[Stratum | None], list[int], list[str], list[int]]
"""The first columns of ``BlockColumns``."""
_Route = tuple[int, int, str | None]
"""Experiment, source and name."""

_TIME: Final = traces.c.request_time
_ROWS: Final = 5_000  # of one batch: a deadline interrupts between batches
_DAYS: Final = 50  # each of one source, with thousands of blocks
_IN_BLOCKS: Final[_Columns] = (
    blocks.c.traces,
    blocks.c.errors,
    blocks.c.codes,
    blocks.c.failed_codes,
)
_IN_DAYS: Final[_Columns] = (
    block_days.c.traces,
    block_days.c.errors,
    *(block_days.c[f"{of}{name}"] for of in ("", "failed_") for name in Durations._fields),
)
_AMOUNTS_IN_BLOCKS: Final[_Columns] = (
    blocks.c.traces,
    blocks.c.token_sum,
    blocks.c.token_squares,
    blocks.c.priced,
    blocks.c.cost_sum,
    blocks.c.cost_squares,
)
_AMOUNTS_IN_DAYS: Final[_Columns] = (
    block_days.c.traces,
    block_days.c.token_sums,
    block_days.c.token_squares,
    block_days.c.priced,
    block_days.c.cost_sums,
    block_days.c.cost_squares,
)


class Blocks:
    """The traces of a plan by value of a field, stratum, process and step of ``width_ms``."""

    def __init__(
        self, comparer: Comparer, ways: Ways, by: Field, stratum: Field | None, width_ms: int
    ) -> None:
        self._comparer, self._ways, self._width_ms = comparer, ways, width_ms
        self._parts, self._stratum = parts_of(by, comparer), _stratum(stratum, comparer)
        has_hours = not width_ms % HOUR_MS and (stratum is None or self._stratum is traces.c.name)
        self._of_sources = by_source(by, comparer) if has_hours else None
        self._has_strata = stratum is not None
        self._routes: dict[_Route, Stratum | None] = {}

    def columns(self) -> Iterator[BlockColumns]:
        """Traces, errors and durations."""
        for key, columns in self._days(_IN_DAYS):
            durations = of_texts(*columns[2:6]), of_texts(*columns[6:])
            numbers = commas(columns[0]), commas(columns[1])
            yield from self._of_subset(BlockColumns(*key, *numbers, *durations))
        for rows in self._hours(_IN_BLOCKS):
            yield from self._of_subset(in_columns(rows, self._width_ms, of_codes))
        for sign, of, stretches in self._ways.signed():
            for batch in self._one_by_one(of, stretches):
                yield batch._replace(sign=sign)

    def _of_subset(self, batch: BlockColumns) -> Iterator[BlockColumns]:
        """The blocks of rollups, and those of the failed traces among them if these are to be subtracted."""
        yield batch._replace(buckets=self._ways.buckets)
        if self._ways.subset is Subset.NOT_FAILED:
            yield batch._replace(traces=batch.errors, durations=batch.failed, sign=-1)

    def _one_by_one(self, of: OneByOne, stretches: Sequence[Stretch]) -> Iterator[BlockColumns]:
        if self._of_sources is not None:
            for hours in of.hours(stretches, self._comparer):
                yield self._in_steps(hours, self._of_sources.labels or {})
            return
        step = HOUR_OF_TRACE if self._width_ms == HOUR_MS else _TIME // self._width_ms
        block = step.label("step"), self._stratum.label("stratum"), traces.c.process
        for stretch, conditions in of.conditions(stretches, self._comparer):
            within = *conditions, *hours_of(*stretch)
            for part in self._parts:
                query = part.select(*block, traces.c.state, traces.c.duration_bucket).where(*within)
                each = query.subquery().c
                key = each.value, each.step, each.stratum, each.process
                bucket, has_failed = each.duration_bucket, each.state == TraceState.ERROR.value
                durations, is_timed = alone(bucket), bucket.is_not(None)
                both = durations.filter(is_timed), durations.filter(is_timed, has_failed)
                errors = func.count().filter(has_failed)
                sums = func.count(), errors, *both
                for rows in self._read(part, select(*key, *sums).group_by(*key)):
                    yield in_columns(rows, self._width_ms, of_alone)

    def _in_steps(self, of: Hours, values: Mapping[int, str | None]) -> BlockColumns:
        """The traces by the values of their sources."""
        times = {hour: step_of(hour * HOUR_MS, self._width_ms) for hour in {*of.hours}}
        strata = [name or "" for name in of.names] if self._has_strata else [""] * len(of.names)
        return BlockColumns(
            *grouped(map(values.get, of.sources), strata),
            [process or "" for process in of.processes],
            [*map(times.__getitem__, of.hours)],
            [*of.traces],
            [*of.errors],
            of.durations,
            of.failed,
        )

    def amounts(self, measures: Sequence[str]) -> Iterator[BlockAmount]:
        """Tokens, cost and feedback."""
        start = (_TIME - _TIME % self._width_ms).label("step")
        block = self._stratum.label("stratum"), traces.c.process, start
        queries: list[tuple[Part, Select[Any]]] = []
        if {TOKENS, COST} & {*measures}:
            for value, place, sums in self._amounts():
                yield from read_amounts(value, (*place, TOKENS, *sums[:3], COST, *sums[3:]), measures)
            for conditions in self._ways.conditions(self._comparer):
                calls = (
                    _of_calls(part.select(*block).where(*conditions), self._comparer) for part in self._parts
                )
                queries += zip(self._parts, calls, strict=True)
        names = [one.removeprefix(OF_FEEDBACK) for one in measures if one.startswith(OF_FEEDBACK)]
        if names and not self._ways.one_by_one.plan.is_empty:
            # Of the traces that are there: people give feedback to those of any hour, at any time.
            conditions = tuple(self._ways.one_by_one.plan.conditions(self._comparer))
            given = (_of_feedback(part.select(*block).where(*conditions), names) for part in self._parts)
            queries += zip(self._parts, given, strict=True)
        for part, query in queries:
            for value, row in part.name(self._comparer.connection.execute(query)):
                yield from read_amounts(value, row, measures)

    def _amounts(self) -> Iterator[tuple[str | None, Sequence[Any], Sequence[Any]]]:
        """Value, the rest of the key, and the sums of each block of whole days and hours."""
        for (groups, *place), columns in self._days(_AMOUNTS_IN_DAYS):
            for at, process, time, *sums in zip(*place, *map(joined, columns), strict=True):
                if (group := groups[at]) is not None:
                    value, stratum = group
                    yield value, (stratum, process, time), sums
        for rows in self._hours(_AMOUNTS_IN_BLOCKS):
            for value, (step, stratum, process, *of_block) in rows:
                yield value, (stratum, process, step * self._width_ms), of_block

    def _days(self, columns: _Columns) -> Iterator[tuple[_Key, Sequence[Any]]]:
        """The blocks of whole days, some days at a time: their key, and the texts of the columns."""
        if self._ways.question is None or not self._ways.cover.days:
            return
        query = read_block_days(self._ways.cover, columns)
        for rows in read_batches(self._comparer.connection, query, _DAYS):
            experiments, sources, numbers, all_starts, all_names, all_processes, *others = zip(
                *rows, strict=True
            )
            names, ends = joined(all_names), accumulate(numbers)
            of_days = [
                ((experiment, source), names[end - number : end])
                for experiment, source, number, end in zip(experiments, sources, numbers, ends, strict=True)
            ]
            self._ask({(*ids, name) for ids, own in of_days for name in {*own}})
            groups: dict[Stratum | None, int] = {}
            of_groups: list[int] = []
            for ids, own in of_days:
                of_name = {
                    name: groups.setdefault(self._routes[(*ids, name)], len(groups)) for name in {*own}
                }
                of_groups += map(of_name.__getitem__, own)
            if groups.keys() == {None}:
                continue
            starts, processes = joined(all_starts), joined(all_processes)
            times = {start: step_of(start, self._width_ms) for start in {*starts}}
            known = {process: process or "" for process in {*processes}}
            of_times, of_processes = map(times.__getitem__, starts), map(known.__getitem__, processes)
            yield ([*groups], of_groups, [*of_processes], [*of_times]), others

    def _ask(self, routes: set[_Route]) -> None:
        """Find out the value and the stratum of routes, ``None`` for those that the question leaves out."""
        question, new = self._ways.question, [*(routes - self._routes.keys())]
        if question is None or not new:
            return
        self._routes |= dict.fromkeys(new)
        if self._of_sources is not None and is_true(question.condition):
            values = self._of_sources.labels or {}
            for route in new:
                _, source, name = route
                self._routes[route] = values.get(source), (name or "") if self._has_strata else ""
            return
        for part in self._parts:
            query = read_routes(question, new, part.group, part.conditions, self._stratum)
            for value, (place, stratum) in part.name(self._comparer.connection.execute(query)):
                self._routes[new[place]] = value, _text(stratum)

    def _hours(self, columns: _Columns) -> Iterator[_Rows]:
        """Step, stratum, process and the columns of each block of whole hours, by value."""
        question, cover = self._ways.question, self._ways.cover
        if question is not None and (cover.hours or cover.kept):
            for part in self._parts:
                group = part.group, part.conditions, self._stratum
                yield from self._read(part, read_blocks(question, cover, *group, self._width_ms, columns))

    def _read(self, part: Part, query: Select[Any]) -> Iterator[_Rows]:
        for batch in read_batches(self._comparer.connection, query, _ROWS):
            if rows := [*part.name(batch)]:
                yield rows


def in_columns(
    rows: Iterable[_Row], width_ms: int, durations: Callable[[Sequence[Any]], Durations]
) -> BlockColumns:
    """Blocks from rows: value, and step, stratum, process, traces, errors, durations, those of failed traces.

    Strata and processes may be ``None``. ``durations`` makes columns of durations.
    """
    values, others = zip(*rows, strict=True)
    steps, strata, processes, traces, errors, timed, failed = zip(*others, strict=True)
    key = *grouped(values, map(_text, strata)), [process or "" for process in processes]
    numbers = [*map(int, traces)], [*map(int, errors)]
    times = [step * width_ms for step in steps]
    return BlockColumns(*key, times, *numbers, durations(timed), durations(failed))


def _text(stratum: Any) -> str:
    return "" if stratum is None else str(stratum)


def _stratum(stratum: Field | None, comparer: Comparer) -> Expression:
    if stratum is None:
        return literal("")
    # The column itself, so that SQLite reads the groups from its index and sorts nothing.
    column = column_of(stratum)
    return traces.c.name if column is traces.c.name else comparer.value(stratum)


def read_amounts(value: str | None, row: Sequence[Any], measures: Sequence[str]) -> Iterator[BlockAmount]:
    """The sums in a row of stratum, process and step, and of a name and three sums for each measure."""
    name, process, step, *sums = row
    for at in range(0, len(sums), 4):
        measure, counted, total, squares = sums[at : at + 4]
        if counted and measure in measures:
            place = value, "" if name is None else str(name), process or "", step
            yield BlockAmount(measure, *place, counted, total or 0.0, squares or 0.0)


def _of_calls(of_block: Select[Any], comparer: Comparer) -> Select[Any]:
    """Tokens and cost: a trace without tokens has none and costs nothing, if it has no cost either."""
    own = comparer.dialect
    texts = (
        own.pair(traces.c.metadata, key).label(name)
        for name, key in ((TOKENS, keys.TOKEN_USAGE), (COST, keys.COST))
    )
    each = _once(of_block.add_columns(*texts))
    by_block = each.value, each.stratum, each.process, each.step
    numbers = (own.number_in(each[name], f"total_{name}").label(name) for name in (TOKENS, COST))
    each = _once(select(*by_block, *numbers))
    by_block = each.value, each.stratum, each.process, each.step
    tokens, cost = _bounded(each[TOKENS]), _bounded(each[COST])
    priced = func.count().filter(or_(cost.is_not(None), tokens.is_(None)))
    sums = [literal(TOKENS), func.count(), *_sums(tokens), literal(COST), priced, *_sums(cost)]
    return select(*by_block, *sums).group_by(*by_block)


def _of_feedback(of_block: Select[Any], names: Sequence[str]) -> Select[Any]:
    """Feedback, each for itself."""
    given = assessments.alias("given")
    number = case((given.c.value == "true", 1.0), (given.c.value == "false", 0.0), else_=given.c.number)
    found = of_block.join(given, given.c.trace_id == traces.c.trace_id).where(
        given.c.kind == Family.FEEDBACK.value, given.c.name.in_(names), given.c.valid == 1
    )
    found = found.add_columns((OF_FEEDBACK + given.c.name).label("measure"), number.label("number"))
    each = found.subquery().c
    by_block = each.value, each.stratum, each.process, each.step, each.measure
    amount = _bounded(each.number, -MOST)
    return select(*by_block, func.count(amount), *_sums(amount)).group_by(*by_block)


def _once(query: Select[Any]) -> ReadOnlyColumnCollection[str, Any]:
    """The columns of a subquery that stays one: in the outer query, each use would be computed anew."""
    return query.offset(0).subquery().c


def _bounded(number: Expression, least: float = 0) -> Expression:
    return case((number.between(least, MOST), number))


def _sums(number: Expression) -> tuple[Expression, Expression]:
    return func.sum(number), func.sum(number * number)
