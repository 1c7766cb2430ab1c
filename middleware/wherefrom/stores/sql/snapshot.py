"""What the snapshots of all stores in SQL have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from sqlalchemy import Column, and_, bindparam, func, or_, select

from ..._clock import wall_ns
from ...model import Assessment, Span, Trace, TraceInfo
from ...process import ProcessReport
from ...query.fields import Family, Field, Operator, stored_key
from ...query.order import Key
from ...query.tree import Compare
from ..base import BlockAmount, BlockColumns, Page, Selection, SessionRow, SourceRow, TraceRow, ValueCounts
from . import counts, sessions
from .blocks import Blocks
from .conditions import Catalog, Comparer, Compiler
from .expressions import TRUE, Condition, texts_of
from .known_keys import OTHERS
from .plan import Plan, inside, make_plan
from .reader import (
    Prepared,
    read_assessments,
    read_errors,
    read_outline,
    read_reports,
    read_rows,
    read_spans,
    read_traces,
)
from .rollups import ask, kept_bounds
from .schema import DAY_MS, column_of, known_keys, spans, traces
from .search import search
from .types import json_parameter
from .ways import Ways, find_difference, find_ways

_BATCH: Final = 500
_NEWEST: Final = 2_000  # traces whose values are offered: read in a few ms
_BY_TRACE_ID: Final = Prepared(
    select(traces.c.trace_id, traces.c.id).where(traces.c.trace_id.in_(texts_of(bindparam("ids"))))
)
_KEYS: Final = Prepared(
    select(known_keys.c.key)
    .where(known_keys.c.family == bindparam("family"), known_keys.c.key != OTHERS)
    .order_by(known_keys.c.key)
)

_MOST_PASSED: Final = 10_000


class SQLSnapshot:
    """Reads on one connection, within its transaction. A store adds its state and its changes."""

    span_place: ClassVar[Column[Any]] = spans.c.id
    """An indexed column by which spans are in the order of storing."""

    def __init__(self, catalog: Catalog) -> None:
        self.connection = catalog.connection
        self.now_ms = wall_ns() // 1_000_000
        self.catalog = catalog
        self.comparer = Comparer(self.catalog, self.now_ms)
        self._plans: dict[Selection, Plan] = {}

    # Keys, values and state

    def keys(self, family: str) -> list[str]:
        """The keys that traces carry, sorted."""
        return _KEYS.values(self.connection, {"family": family})

    def spelled_keys(self) -> Iterator[str]:
        """Every key that traces carry, as in a filter, for hints and completion."""
        return self.catalog.spelled_keys()

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key."""
        return self.catalog.has_key(family, key)

    def values(self, field: Field, limit: int) -> list[str]:
        """The values of a field in the newest traces and in all sources, the most frequent first."""
        place = self.span_place if field.family is Family.SPAN else traces.c.id
        newest = select(func.max(place)).scalar_subquery() - _NEWEST
        value = self.comparer.value(field)
        found = Counter(self.connection.scalars(select(value).where(place > newest)))
        if field.family is Family.METADATA and column_of(field) is None:
            found.update(self.catalog.source_values(stored_key(field)).values())
        return [str(value) for value, _ in found.most_common() if value][:limit]

    def experiments(self) -> list[tuple[int, str]]:
        """Ids and names of all experiments."""
        return self.catalog.experiments()

    def processes(self) -> list[ProcessReport]:
        """The last report of each process that writes to this store, the newest first."""
        return read_reports(self.connection)

    # Traces

    def search(
        self, selection: Selection, order: tuple[Key, ...], limit: int, after: Sequence[Any] | None = None
    ) -> Page:
        """At most ``limit`` traces of the selection in an order, starting after the sort values ``after``."""
        return search(self._plan(selection), self.comparer, order, limit, after)

    def find(self, trace_ids: Sequence[str]) -> list[int]:
        """The keys of the traces with these ids, in the same order; missing traces are left out."""
        found: dict[str, int] = {}
        for start in range(0, len(trace_ids), _BATCH):
            listed = json_parameter(trace_ids[start : start + _BATCH])
            found.update(_BY_TRACE_ID.rows(self.connection, {"ids": listed}))
        return [found[trace_id] for trace_id in dict.fromkeys(trace_ids) if trace_id in found]

    def read(self, keys: Sequence[int], *, include_spans: bool = True) -> list[Trace]:
        """The traces, in the order of the keys."""
        catalog = self.catalog
        return read_traces(
            self.connection, catalog.dialect, keys, catalog.sources_by_id, include_spans=include_spans
        )

    def outline(self, key: int) -> list[Span]:
        """The spans of a trace by their start, without what they hold."""
        return read_outline(self.connection, key)

    def spans(self, key: int, span_ids: Sequence[str], *, include_values: bool = True) -> list[Span]:
        """The spans of a trace with these ids, by their start; missing spans are left out."""
        return read_spans(self.connection, key, span_ids, include_values=include_values)

    def rows(self, keys: Sequence[int]) -> list[TraceRow]:
        """The traces without their spans, in the order of the keys."""
        return read_rows(self.connection, self.catalog.dialect, keys, self.catalog.sources_by_id)

    def errors(self, keys: Sequence[int]) -> dict[str, str]:
        """The status message of the first failed span, by trace id."""
        return read_errors(self.connection, keys)

    def assessments(self, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
        """The feedback and expectations of traces, which need not be stored yet; the oldest first."""
        return read_assessments(self.connection, trace_ids)

    def neighbours(self, info: TraceInfo) -> tuple[str | None, str | None]:
        """The ids of the previous and the next trace in the same experiment, among the 10,000 nearest."""
        return self._nearest(info, is_older=True), self._nearest(info, is_older=False)

    def _nearest(self, info: TraceInfo, *, is_older: bool) -> str | None:
        # Within one millisecond the lower id is the newer one, as in a search for the newest.
        time, id_ = traces.c.request_time, traces.c.trace_id
        moment, own = info.request_time, info.trace_id
        if is_older:
            where = time <= moment, or_(time < moment, and_(time == moment, id_ > own))
        else:
            where = time >= moment, or_(time > moment, and_(time == moment, id_ < own))

        def in_order(columns: Any) -> tuple[Any, Any]:
            time, id_ = columns.request_time, columns.trace_id
            return (time.desc(), id_.asc()) if is_older else (time.asc(), id_.desc())

        # No index has the experiments: one of few traces among many would cost a look at all of them.
        for limit in (100, _MOST_PASSED):
            near = select(id_, time, traces.c.experiment_id).where(*where).order_by(*in_order(traces.c))
            found = near.limit(limit).subquery()
            query = select(found.c.trace_id).where(inside((info.experiment,), self.catalog, found))
            if (nearest := self.connection.scalar(query.order_by(*in_order(found.c)).limit(1))) is not None:
                return str(nearest)
        return None

    # Counts

    def count_values(self, keys: Sequence[int], fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of these traces with each value."""
        batches = ([traces.c.id.in_(keys[at : at + _BATCH])] for at in range(0, len(keys), _BATCH))
        return counts.count_values(self.comparer, batches, fields)

    def count_all_values(self, selection: Selection, fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of traces of the selection with each value."""
        ways = [self._ways(selection, field, with_pruned=False) for field in fields]
        return counts.count_all_values(self.comparer, ways, fields)

    def count(self, selection: Selection) -> int:
        """The number of traces in the selection."""
        return counts.count(self.comparer, self._ways(selection, with_pruned=False))

    def bounds(self, selection: Selection, *, with_pruned: bool = False) -> tuple[int, int] | None:
        """The first and last request time of the selection in ms since the epoch, ``None`` if it is empty.

        ``with_pruned``: also of traces that have been pruned, if rollups can count them.
        """
        question = ask(selection, (), self.comparer) if with_pruned else None
        found = [self._bounds(selection), None if question is None else kept_bounds(question, self.comparer)]
        ends = [end for bounds in found if bounds is not None for end in bounds]
        return (min(ends), max(ends)) if ends else None

    def _bounds(self, selection: Selection) -> tuple[int, int] | None:
        plan = self._plan(selection)
        if plan.is_empty:
            return None
        if plan.entries is not None and plan.entries.is_listable:
            related = plan.related(plan.entries.index.time, self.comparer)
            first, last = plan.entries.ends(self.connection, (*related, plan.rest))
        else:
            # One look-up for each end of the index: min and max in one query would scan all of it.
            time, conditions = traces.c.request_time, tuple(plan.conditions(self.comparer))
            first, last = (
                self.connection.scalar(select(end(time)).where(*conditions)) for end in (func.min, func.max)
            )
        return None if first is None or last is None else (first, last)

    def first_seen(
        self, by: Field, values: Sequence[str], experiments: tuple[str, ...] | None
    ) -> dict[str, int]:
        """The first request time of all traces with each of these values of a field, be they pruned."""
        found = counts.first_seen(self.comparer, by, values, experiments)
        if found is not None:
            return found
        selections = {value: Selection(Compare(by, Operator.EQ, value), experiments) for value in values}
        ends = {value: self.bounds(one, with_pruned=True) for value, one in selections.items()}
        return {value: bounds[0] for value, bounds in ends.items() if bounds is not None}

    def groups(
        self, selection: Selection, by: Field, *, with_tokens: bool = False, before_blocks: bool = False
    ) -> list[ValueCounts]:
        """The traces of the selection, grouped by their value of a field.

        ``before_blocks``: their blocks are asked for next, so what is counted one by one is read for both.
        """
        ways = self._ways(selection, by)
        if ways.question is None:
            asked = selection, self._plan, [by], self.comparer
            ways = find_difference(*asked, with_tokens=with_tokens) or ways
        in_hours = before_blocks or ways.is_difference
        return counts.count_groups(self.comparer, ways, by, with_tokens=with_tokens, in_hours=in_hours)

    def block_columns(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int
    ) -> Iterator[BlockColumns]:
        """The traces by value, stratum, process and step of ``width_ms``; a block may come in several parts.

        Traces that have been pruned are among them if blocks of their hours are kept, and the step is made up
        of such blocks: see ``STRETCH_MS``.
        """
        return self._blocks(selection, by, stratum, width_ms, by_difference=True).columns()

    def amounts(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int, measures: Sequence[str]
    ) -> Iterator[BlockAmount]:
        """Tokens, cost and feedback by block; feedback only of traces that are not pruned."""
        # The sums of squares of those left would not be exact.
        return self._blocks(selection, by, stratum, width_ms).amounts(measures)

    def counts(self, selection: Selection, edges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield traces and errors within each ``(from, before)`` of ``edges``, counted lazily."""
        return counts.count_between(self.comparer, self._plan(selection), edges)

    def counts_by(
        self, selection: Selection, by: Field, width_ms: int, *, with_pruned: bool = True
    ) -> Iterator[tuple[str | None, int, int, int]]:
        """Value, start, traces and errors for each value of a field and each step of ``width_ms``.

        Without ``with_pruned``, only of the traces that there are.
        """
        ways = self._ways(selection, by, width_ms, with_pruned=with_pruned)
        return counts.count_steps(self.comparer, ways, by, width_ms)

    def buckets_by(
        self, selection: Selection, by: Field, width_ms: int
    ) -> Iterator[tuple[str | None, int, int | None, int, int]]:
        """Value, start, bucket, traces and errors, for each value, step of ``width_ms`` and bucket."""
        return counts.count_buckets(self.comparer, self._ways(selection, by, width_ms), by, width_ms)

    def sources(self, selection: Selection, limit: int | None = None) -> list[SourceRow]:
        """The sources with traces in the selection, the one with the latest trace first.

        Only the ``limit`` sources that were stored last are considered.
        """
        return counts.count_sources(self.comparer, self._ways(selection), limit)

    def sessions(
        self, selection: Selection, limit: int, after: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Sessions with a trace in the selection, the latest first; all traces of a session are counted."""
        return sessions.find_sessions(self.comparer, self._plan(selection), selection, limit, after)

    def session(self, session_id: str, experiments: tuple[str, ...] | None) -> SessionRow | None:
        """One session; ``None`` if no trace has it."""
        return next(sessions.read_sessions(self.comparer, [session_id], experiments), None)

    def _ways(
        self,
        selection: Selection,
        by: Field | None = None,
        width_ms: int = DAY_MS,
        *,
        with_pruned: bool = True,
    ) -> Ways:
        fields = () if by is None else (by,)
        return find_ways(selection, self._plan, fields, self.comparer, width_ms, with_pruned=with_pruned)

    def _blocks(
        self,
        selection: Selection,
        by: Field,
        stratum: Field | None,
        width_ms: int,
        *,
        by_difference: bool = False,
    ) -> Blocks:
        fields = [by] if stratum is None else [by, stratum]
        asked = selection, self._plan, fields, self.comparer, width_ms
        ways = find_ways(*asked, in_blocks=True)
        if by_difference and ways.question is None:
            ways = find_difference(*asked, in_blocks=True) or ways
        return Blocks(self.comparer, ways, by, stratum, width_ms)

    def _plan(self, selection: Selection) -> Plan:
        """The plan of a selection, cached for all queries of the snapshot."""
        if selection not in self._plans:
            self._plans[selection] = make_plan(selection, self.catalog, self.comparer)
        return self._plans[selection]

    def conditions(self, selection: Selection) -> tuple[Condition, ...]:
        """The conditions of a selection, without an index."""
        tree = selection.tree
        passes = TRUE if tree is None else Compiler(self.comparer).compile(tree)
        return inside(selection.experiments, self.catalog), passes
