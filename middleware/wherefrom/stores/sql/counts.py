"""Counts over traces: by source, by value, over time, by session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, product
from operator import add
from typing import Any, Final

import orjson
from sqlalchemy import (
    Connection,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    select,
)

from ... import keys
from ..._buckets import NOTHING
from ...model import TraceState
from ...query.fields import Family, Field, stored_key
from ..base import (
    SourceRow,
    Tokens,
    ValueCounts,
)
from .conditions import Comparer
from .durations import by_bucket
from .expressions import Condition, Expression, collected, is_true
from .hours import Hours
from .index_scan import LAST_TIME
from .plan import Plan, inside
from .reader import read_batches, sources_by_id
from .rollups import Stretch, is_of_sources
from .schema import column_of, rollups, sources, traces
from .ways import Part, Subset, Ways, by_source, parts_of

_BATCH: Final = 500  # ids in one parameter, or rows; a deadline interrupts between batches
_TIME: Final = traces.c.request_time
_IS_ERROR: Final = traces.c.state == TraceState.ERROR.value
_ERRORS: Final = func.count().filter(_IS_ERROR)


# By value

_Buckets = dict[str, int]
"""Traces by bucket, as in the JSON of a rollup."""


@dataclass(slots=True)
class _Totals:
    """Sums the counts of one value over several sources or parts."""

    traces: int = 0
    errors: int = 0
    times: list[int] = field(default_factory=list)
    counted: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    """By bucket, the traces that succeeded and that failed, of those counted one by one."""
    rolled_up: tuple[_Buckets, _Buckets] = field(default_factory=lambda: ({}, {}))
    tokens: Tokens | None = None

    def add(self, first: int, last: int, codes: Iterable[int]) -> None:
        self.times += first, last
        for code, number in Counter(codes).items():
            bucket, failed = divmod(code, 2)
            self.traces += number
            self.errors += number * failed
            if bucket != _UNTIMED:
                self.counted[failed][bucket] += number

    def add_hours(self, hours: Hours, sign: int = 1) -> None:
        self.traces += sign * sum(hours.traces)
        self.errors += sign * sum(hours.errors)
        self.times += min(hours.first), max(hours.last)
        timed, failed = by_bucket(hours.durations), by_bucket(hours.failed)
        for counts, found in ((self.counted[0], timed - failed), (self.counted[1], failed)):
            for bucket, number in found.items():
                counts[bucket] += sign * number

    def add_rollup(
        self,
        count: int,
        errors: int,
        first: int,
        last: int,
        succeeded: str | bytes,
        failed: str | bytes,
        *tokens: int,
    ) -> None:
        self.traces += count
        self.errors += errors
        self.times += first, last
        for counts, text in zip(self.rolled_up, (succeeded, failed), strict=True):
            _add_buckets(counts, text)
        if tokens and tokens[0]:
            self.add_tokens(Tokens(*tokens))

    def by_outcome(self) -> tuple[Counter[int], Counter[int]]:
        """By bucket, the traces that succeeded and that failed."""
        for counts, rolled_up in zip(self.counted, self.rolled_up, strict=True):
            counts.update({int(bucket): number for bucket, number in rolled_up.items()})
            rolled_up.clear()
        return +self.counted[0], +self.counted[1]

    def by_bucket(self) -> Iterator[tuple[int | None, int, int]]:
        """Bucket, traces and errors for each bucket, and for traces without a duration."""
        succeeded, failed = self.by_outcome()
        yield from ((bucket, number, 0) for bucket, number in succeeded.items())
        yield from ((bucket, number, number) for bucket, number in failed.items())
        if untimed := self.traces - succeeded.total() - failed.total():
            yield None, untimed, self.errors - failed.total()

    def add_tokens(self, tokens: Tokens, sign: int = 1) -> None:
        if sign < 0:
            tokens = Tokens(-tokens.traces, -tokens.input, -tokens.output, -tokens.total)
        self.tokens = tokens if self.tokens is None else self.tokens + tokens


def _add_buckets(counts: _Buckets, text: str | bytes) -> None:
    # There may be hundreds of thousands: a Counter's own addition takes twice as long, and numbers as keys.
    get = counts.get
    for bucket, number in orjson.loads(text).items():
        counts[bucket] = get(bucket, 0) + number


_ROLLED_UP_TOKENS: Final = (
    rollups.c.token_traces,
    rollups.c.input_tokens,
    rollups.c.output_tokens,
    rollups.c.total_tokens,
)


def count_groups(
    comparer: Comparer, ways: Ways, by: Field, *, with_tokens: bool = False, in_hours: bool = False
) -> list[ValueCounts]:
    """The traces of a plan, grouped by their value of a field.

    ``in_hours``: traces that are counted one by one are read by hour if the field is one of sources.
    """
    of_sources = by_source(by, comparer) if in_hours else None
    # A rollup does not say when the first trace failed, nor with how many tokens. When the first of some was
    # is looked up by source.
    if ways.subset is Subset.FAILED or (ways.is_difference and of_sources is None):
        ways = Ways(ways.one_by_one)
    parts = parts_of(by, comparer) if of_sources is None else [of_sources]
    found: dict[str | None, _Totals] = {}
    left = _count_rollups(comparer, ways, parts, found, with_tokens=with_tokens)
    for sign, of, stretches in ways.signed():
        if of_sources is not None:
            for hours in of.hours(stretches, comparer):
                left.update(_count_hours(of_sources, hours, found, sign))
        for part, conditions in product(parts, [each for _, each in of.conditions(stretches, comparer)]):
            if of_sources is None:
                _count_traces(comparer, part, conditions, found)
            if with_tokens:
                _count_tokens(comparer, part, conditions, found, sign)
    if ways.is_difference and of_sources is not None:
        ids = [id_ for id_, number in left.items() if number > 0]
        _find_times(comparer, ways.one_by_one.scan(comparer), of_sources, ids, found)
    return [
        ValueCounts(
            value,
            totals.traces,
            totals.errors,
            min(totals.times),
            max(totals.times),
            *totals.by_outcome(),
            totals.tokens if totals.tokens and totals.tokens.traces else None,
        )
        for value, totals in found.items()
        if totals.traces and totals.times
    ]


def _count_rollups(
    comparer: Comparer,
    ways: Ways,
    parts: Iterable[Part],
    found: dict[str | None, _Totals],
    *,
    with_tokens: bool,
) -> Counter[Any]:
    """Add the traces of rollups to what was found, by value; how many by group."""
    left = Counter[Any]()
    for part in parts:
        rows = [*ways.rollups(part, comparer, *ways.counted, *(_ROLLED_UP_TOKENS if with_tokens else ()))]
        if ways.buckets is not None:
            rows = [*_within(rows, *ways.buckets)]
        for value, row in part.name(rows):
            found.setdefault(value, _Totals()).add_rollup(*row)
        left.update(_numbers(rows))
    return left


def _within(rows: Iterable[Sequence[Any]], first: int, last: int) -> Iterator[Sequence[Any]]:
    """Of rollups, the traces with a duration in these buckets."""
    buckets = frozenset(map(str, range(first, last + 1)))
    for group, _, _, *seen, succeeded, failed in rows:
        kept: list[_Buckets] = [
            {bucket: number for bucket, number in orjson.loads(text).items() if bucket in buckets}
            for text in (succeeded, failed)
        ]
        numbers = [sum(each.values()) for each in kept]
        yield group, sum(numbers), numbers[1], *seen, *map(orjson.dumps, kept)


def _numbers(rows: Iterable[Sequence[Any]], sign: int = 1) -> Counter[Any]:
    """The traces of each group."""
    found = Counter[Any]()
    for group, number, *_ in rows:
        found[group] += sign * number
    return found


def _count_hours(part: Part, hours: Hours, found: dict[str | None, _Totals], sign: int) -> Counter[int]:
    """Add traces to what was found, by the value of their source, or subtract them; how many by source."""
    for value, (own,) in part.name(hours.by_source()):
        found.setdefault(value, _Totals()).add_hours(own, sign)
    return _numbers(zip(hours.sources, hours.traces, strict=True), sign)


def _count_traces(
    comparer: Comparer, part: Part, conditions: tuple[Condition, ...], found: dict[str | None, _Totals]
) -> None:
    """Add the traces of a part to what was found, by value."""
    each = part.select(_TIME, traces.c.state, traces.c.duration_bucket).where(*conditions).subquery().c
    query = select(each.value, *_counted(each.request_time, each.state, each.duration_bucket))
    for value, row in part.name(comparer.connection.execute(query.group_by(each.value))):
        found.setdefault(value, _Totals()).add(*row)


def _count_tokens(
    comparer: Comparer,
    part: Part,
    conditions: tuple[Condition, ...],
    found: dict[str | None, _Totals],
    sign: int,
) -> None:
    usage = cast(comparer.dialect.pair(traces.c.metadata, keys.TOKEN_USAGE), Text)
    each = part.select(usage.label("usage")).where(*conditions).subquery().c
    query = select(each.value, collected(each.usage).filter(each.usage.is_not(None)))
    for value, (texts,) in part.name(comparer.connection.execute(query.group_by(each.value))):
        for tokens in filter(None, map(read_tokens, texts or ())):
            found[value].add_tokens(tokens, sign)


def _find_times(
    comparer: Comparer, plan: Plan, part: Part, ids: Sequence[int], found: Mapping[str | None, _Totals]
) -> None:
    """Set the first and the last time of each value, whose traces are those of some sources."""
    for totals in found.values():
        totals.times.clear()
    conditions = tuple(plan.conditions(comparer))
    for start in range(0, len(ids), _BATCH):
        query = _ends_of(ids[start : start + _BATCH], *conditions)
        for value, times in part.name(comparer.connection.execute(query)):
            found[value].times += [time for time in times if time is not None]


_UNTIMED: Final = NOTHING - 1


def _counted(time: Expression, state: Expression, bucket: Expression) -> tuple[Expression, ...]:
    """The first and the last time of a group, and outcome and bucket of each trace as one number.

    Each further aggregate would cost a tenth of the time.
    """
    even = func.coalesce(bucket, _UNTIMED) * 2
    code = case((state == TraceState.ERROR.value, even + 1), else_=even)
    return func.min(time), func.max(time), collected(code)


MOST_TOKENS: Final = 1 << 40
"""Larger counts are not tokens, and would overflow a sum of 64 bits."""


def read_tokens(text: str) -> Tokens | None:
    """The tokens that a trace recorded as JSON; ``None`` for anything but an object of numbers."""
    try:
        use = orjson.loads(text)
    except ValueError:
        return None
    if not isinstance(use, dict):
        return None
    counts = [use.get(f"{kind}_tokens") for kind in ("input", "output", "total")]
    if not all(count is None or _is_count(count) for count in counts):
        return None
    return Tokens(1, *(int(count or 0) for count in counts))


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -MOST_TOKENS <= value <= MOST_TOKENS


@dataclass(frozen=True, slots=True)
class _KeyCount:
    """The traces by their own value of a key, and those that lack it by their source."""

    key: str
    by_value: Counter[Any]
    by_source: Counter[int] = field(default_factory=Counter)

    def add(
        self,
        pairs: Iterable[Mapping[str, str]] | None,
        sources: Sequence[int],
        numbers: Iterable[int] | None,
    ) -> None:
        """Add a trace for each of ``sources``, with its own ``pairs``; without pairs, ``numbers`` of them."""
        if pairs is None:
            _add_each(self.by_source, sources, numbers)
            return
        values = [own.get(self.key) for own in pairs]
        self.by_value.update(values)
        if self.by_value.pop(None, 0):
            self.by_source.update(compress(sources, [value is None for value in values]))

    def add_sources(self, connection: Connection) -> None:
        """Count the values of the sources too."""
        for id_, source in sources_by_id(connection, {*self.by_source}).items():
            if self.key in source.pairs:
                self.by_value[source.pairs[self.key]] += self.by_source[id_]


def count_values(
    comparer: Comparer, where: Iterable[Sequence[Condition]], fields: Sequence[Field]
) -> list[Counter[str]]:
    """For each field of a trace, the number of traces with each value; ``where`` has conditions of batches.

    Python parses the JSON of a trace once; SQLite would parse it once for each key.
    """
    counts = [Counter[Any]() for _ in fields]
    in_json: dict[Family, list[_KeyCount]] = {Family.METADATA: [], Family.TAG: []}
    others: list[tuple[Field, Counter[Any]]] = []
    for of, count in zip(fields, counts, strict=True):
        if column_of(of) is None and of.constant is None and of.family in in_json:
            in_json[of.family].append(_KeyCount(stored_key(of), count))
        else:
            others.append((of, count))
    texts = {}
    if not all(is_of_sources(one.key, comparer.catalog) for one in in_json[Family.METADATA]):
        texts[Family.METADATA] = traces.c.metadata
    if in_json[Family.TAG]:
        texts[Family.TAG] = traces.c.tags
    each = select(traces.c.source_id, *texts.values(), *(comparer.value(of) for of, _ in others))
    for rows in _read_grouped(comparer.connection, each, where if fields else (), is_grouped=not texts):
        source_ids, *columns = zip(*rows, strict=True)
        numbers = None if texts else columns.pop()
        for family, keyed in in_json.items():
            pairs = list(map(orjson.loads, columns.pop(0))) if family in texts else None
            for one in keyed:
                one.add(pairs, source_ids, numbers)
        for (_, count), values in zip(others, columns, strict=True):
            _add_each(count, values, numbers)
    for one in in_json[Family.METADATA]:
        one.add_sources(comparer.connection)
    return [_named(count) for count in counts]


def _add_each(count: Counter[Any], values: Iterable[Any], numbers: Iterable[int] | None) -> None:
    """Add each value as often as its number says, or once."""
    if numbers is None:
        count.update(values)  # in C
        return
    for value, number in zip(values, numbers, strict=True):
        count[value] += number


def _named(count: Counter[Any]) -> Counter[str]:
    named = Counter[str]()
    for value, number in count.items():
        if value is not None:
            named[str(value)] += number
    return named


def _read_grouped(
    connection: Connection, each: Select[Any], where: Iterable[Sequence[Condition]], *, is_grouped: bool
) -> Iterator[list[Sequence[Any]]]:
    """The rows of a query in batches, or, grouped, the different rows and the number of each."""
    for conditions in where:
        query = each.where(*conditions)
        if is_grouped:
            columns = query.subquery().c
            query = select(*columns, func.count()).group_by(*columns)
        yield from read_batches(connection, query, _BATCH)


def count_all_values(
    comparer: Comparer, all_ways: Sequence[Ways], fields: Sequence[Field]
) -> list[Counter[str]]:
    """For each field, with its ways to count the same traces, the number of traces with each value.

    Those that are counted one by one are read once for all fields.
    """
    counts = [Counter[str]() for _ in fields]
    together: dict[tuple[Stretch, ...], list[int]] = {}
    for place, (ways, of) in enumerate(zip(all_ways, fields, strict=True)):
        together.setdefault(tuple(ways.cover.stretches), []).append(place)
        for part in parts_of(of, comparer) if ways.cover.is_used else ():
            for value, (number,) in part.name(ways.rollups(part, comparer, ways.number)):
                if value is not None:
                    counts[place][str(value)] += number
    for places in together.values():
        where = all_ways[places[0]].conditions(comparer)
        for place, found in zip(
            places, count_values(comparer, where, [fields[at] for at in places]), strict=True
        ):
            counts[place] += found
    return counts


# Over time


def count(comparer: Comparer, ways: Ways) -> int:
    """The number of traces in a plan."""
    total = sum(row[1] for row in ways.rollups(Part(traces.c.source_id), comparer, ways.number))
    for conditions in ways.conditions(comparer):
        query = select(func.count()).select_from(traces).where(*conditions)
        total += comparer.connection.scalar(query) or 0
    return int(total)


def count_between(
    comparer: Comparer, plan: Plan, edges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield traces and errors of a plan within each ``(from, before)``, counted lazily."""
    within = *plan.conditions(comparer), bindparam("begin") <= _TIME, bindparam("end") > _TIME
    counted = select(func.count()).select_from(traces).where(*within)
    statements: list[Select[Any]] = [counted.add_columns(_ERRORS)]
    if plan.entries is None and is_true(plan.rest):
        # Without a filter each count reads an index only.
        statements = [counted, counted.where(_IS_ERROR)]
    for begin, end in edges:
        if plan.is_empty:
            yield 0, 0
            continue
        times = {"begin": begin, "end": end}
        rows = [comparer.connection.execute(statement, times).one() for statement in statements]
        count, errors = (number for row in rows for number in row)
        yield count, errors


def count_steps(
    comparer: Comparer, ways: Ways, by: Field, width_ms: int
) -> Iterator[tuple[str | None, int, int, int]]:
    """Value, start, traces and errors for each value of a field and each step of ``width_ms``."""
    counted: dict[tuple[str | None, int], list[int]] = {}

    def count(part: Part, rows: Iterable[Sequence[Any]]) -> None:
        for value, (begin, *counts) in part.name(rows):
            known = counted.setdefault((value, begin), [0, 0])
            known[:] = map(add, known, counts)

    parts = parts_of(by, comparer)
    for part in parts:
        start = rollups.c.start - rollups.c.start % width_ms
        count(part, ways.rollups(part, comparer, start, ways.number, rollups.c.errors))
    for conditions in ways.conditions(comparer):
        for part in parts:
            begin = (_TIME - _TIME % width_ms).label("start")
            each = part.select(begin, traces.c.state).where(*conditions).subquery().c
            errors = func.count().filter(each.state == TraceState.ERROR.value)
            query = select(each.value, each.start, func.count(), errors).group_by(each.value, each.start)
            count(part, comparer.connection.execute(query))
    return ((value, begin, count, errors) for (value, begin), (count, errors) in counted.items())


def count_buckets(
    comparer: Comparer, ways: Ways, by: Field, width_ms: int
) -> Iterator[tuple[str | None, int, int | None, int, int]]:
    """Value, start, bucket, traces and errors for each value, step of ``width_ms`` and bucket."""
    parts = parts_of(by, comparer)
    merged: dict[tuple[str | None, int], _Totals] = {}
    for part in parts:
        start = rollups.c.start - rollups.c.start % width_ms
        for value, (begin, *row) in part.name(ways.rollups(part, comparer, start, *ways.counted)):
            merged.setdefault((value, begin), _Totals()).add_rollup(*row)
    for key, totals in merged.items():
        yield from ((*key, *each) for each in totals.by_bucket())
    for conditions in ways.conditions(comparer):
        for part in parts:
            step = (_TIME - _TIME % width_ms).label("step")
            each = part.select(step, traces.c.duration_bucket, traces.c.state).where(*conditions).subquery().c
            groups = each.value, each.step, each.duration_bucket
            errors = func.count().filter(each.state == TraceState.ERROR.value)
            rows = comparer.connection.execute(select(*groups, func.count(), errors).group_by(*groups))
            for value, (begin, bucket, count, failed) in part.name(rows):
                yield value, begin, bucket, count, failed


# By source


def count_sources(comparer: Comparer, ways: Ways, limit: int | None) -> list[SourceRow]:
    """The sources with traces in a plan, the one with the latest trace first.

    Only the ``limit`` sources that were stored last are considered.
    """
    connection, found = comparer.connection, dict[int, _Totals]()
    query = select(sources.c.id).order_by(sources.c.id.desc()).limit(limit)
    newest = list(connection.scalars(query))
    chosen = frozenset(newest)
    for id_, *row in ways.rollups(Part(traces.c.source_id), comparer, *ways.counted):
        if id_ in chosen:
            found.setdefault(id_, _Totals()).add_rollup(*row)
    batches = [newest[start : start + _BATCH] for start in range(0, len(newest), _BATCH)]
    counted = _counted(_TIME, traces.c.state, traces.c.duration_bucket)
    for conditions in ways.conditions(comparer):
        for batch in batches:
            query = select(traces.c.source_id, *counted).where(traces.c.source_id.in_(batch), *conditions)
            for id_, *row in connection.execute(query.group_by(traces.c.source_id)):
                found.setdefault(id_, _Totals()).add(*row)
    rows: list[SourceRow] = []
    for batch in batches:
        ids = [id_ for id_ in batch if id_ in found]
        seen, pairs = _seen(comparer, ids), sources_by_id(connection, set(ids))
        for id_ in ids:
            totals = found[id_]
            succeeded, failed = totals.by_outcome()
            durations = succeeded + failed
            ends = min(seen[id_]), max(seen[id_])
            rows.append(SourceRow(id_, pairs[id_].pairs, totals.traces, totals.errors, *ends, durations))
    return sorted(rows, key=lambda row: row.last_seen, reverse=True)


def first_seen(
    comparer: Comparer, by: Field, values: Sequence[str], experiments: tuple[str, ...] | None
) -> dict[str, int] | None:
    """The first request time of all traces with each value, be they pruned; ``None`` if not by source."""
    if (part := by_source(by, comparer)) is None or part.labels is None:
        return None
    wanted, found = frozenset(values), dict[str, int]()
    own = {id_: value for id_, value in part.labels.items() if value is not None}
    ids = [id_ for id_, value in own.items() if value in wanted]
    for start in range(0, len(ids), _BATCH):
        for id_, times in _seen(comparer, ids[start : start + _BATCH], experiments).items():
            found[own[id_]] = min([*times, found.get(own[id_], LAST_TIME)])
    return {value: time for value, time in found.items() if time != LAST_TIME}


def _seen(
    comparer: Comparer, ids: Sequence[int], experiments: tuple[str, ...] | None = None
) -> Mapping[int, list[int]]:
    """The first and last request times of all traces of each source, be they pruned."""
    connection, catalog = comparer.connection, comparer.catalog
    of_pruned = select(rollups.c.source_id, func.min(rollups.c.first_seen), func.max(rollups.c.last_seen))
    of_pruned = of_pruned.where(
        rollups.c.is_kept == 1, rollups.c.is_detailed == 0, inside(experiments, catalog, rollups)
    )
    seen: dict[int, list[int]] = {id_: [] for id_ in ids}
    for query in (
        _ends_of(ids, inside(experiments, catalog)),
        of_pruned.where(rollups.c.source_id.in_(ids)).group_by(rollups.c.source_id),
    ):
        for id_, *times in connection.execute(query):
            seen[id_] += [time for time in times if time is not None]
    return seen


def _ends_of(ids: Sequence[int], *conditions: Condition) -> Select[Any]:
    """The first and the last time of those traces of each source for which the conditions hold.

    By two index look-ups for each source: min and max in one query would scan the whole index.
    """
    own = sources.alias("own_sources")
    where = traces.c.source_id == own.c.id, *conditions
    ends = (select(end(_TIME)).where(*where).correlate(own).scalar_subquery() for end in (func.min, func.max))
    return select(own.c.id, *ends).where(own.c.id.in_(ids))
