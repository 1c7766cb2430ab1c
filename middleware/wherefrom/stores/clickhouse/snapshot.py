"""The snapshot of a ClickHouse database: every query is bounded by the moment in which it was opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final, NamedTuple

import orjson

from ... import keys
from ...model import Assessment, Span, SpanStatusCode, Trace, TraceInfo
from ...process import ProcessReport
from ...query.fields import (
    EXPECTATION,
    FEEDBACK,
    METADATA,
    SPAN_ATTRIBUTE,
    TAG,
    Family,
    Field,
    stored_key,
    with_key,
)
from ...query.order import Key
from ...query.tree import format_field
from ..assessments import READ, from_row
from ..base import (
    BlockAmount,
    BlockColumns,
    Changes,
    Page,
    Selection,
    SessionRow,
    SourceRow,
    StoreState,
    TraceRow,
    ValueCounts,
)
from ..deadline import Deadline
from . import counts
from .conditions import Query, all_of
from .connection import Connection
from .moment import MOST_RECENT, SETTLED_NS, Cursor, Moment
from .reader import OUTLINE_READ, SPAN_READ, to_report, to_span, to_trace, to_trace_row
from .rows import READ_COLUMNS, Row
from .search import search
from .state import read_state
from .writer import MAX_KEYS, is_listed

_BATCH: Final = 500  # traces of one query; a deadline interrupts between batches
_NEWEST: Final = 2_000  # traces and spans whose values are offered
_FAMILIES: Final = {
    "metadata": METADATA,
    "tag": TAG,
    "span": SPAN_ATTRIBUTE,
    "feedback": FEEDBACK,
    "expectation": EXPECTATION,
}
_REPORTS_MS: Final = 7 * 86_400_000
_ASSESSMENT: Final = ", ".join("request_time" if name == "created" else name for name in READ)
_SETTLED: Final = f"toUnixTimestamp64Nano(now64(9)) - {SETTLED_NS}"
# What questions need to know first, in one statement: each costs some ms, however little it reads. As every
# part has a clock of its own, more stamps are listed than have not settled.
_FACTS: Final = (
    "SELECT toUnixTimestamp64Nano(now64(9)),"
    f" (SELECT arraySort(groupUniqArray(created)) FROM traces WHERE created > {_SETTLED} - 1000000000),"
    f" (SELECT 1 FROM traces WHERE created > {{last:UInt64}} AND created <= {_SETTLED} LIMIT 1),"
    " (SELECT (min(request_time), max(request_time), count()) FROM traces),"
    " (SELECT groupUniqArray(key) FROM tags),"
    " (SELECT count() FROM assessments)"
)


def _new_stamps(stamps: Sequence[int], before: Moment) -> set[int]:
    return {stamp for stamp in stamps if stamp > before.last} - {*before.recent}


class TracePlace(NamedTuple):
    """Where a trace is in the order of the table."""

    experiment: str
    request_time: int
    trace_id: str


class ClickHouseSnapshot:
    """Reads what had arrived when it was opened.

    ``store_id`` is that of the database, for cursors. ``names`` are experiments that are known to be there;
    more are added. ``before`` is the moment of an earlier snapshot.
    """

    def __init__(
        self, connection: Connection, store_id: int, names: set[str], before: Moment | None = None
    ) -> None:
        self._connection = connection
        self._store = store_id
        self._names = names
        self._found: dict[TracePlace, Row] = {}
        self._deadlines: list[Deadline] = []
        last = {"last": 2**63 if before is None else before.last}
        ((now_ns, stamps, is_later, whole, edited, assessed),) = self.ask(_FACTS, last)
        self.whole: tuple[int, int, int] | None = tuple(whole) if whole[2] else None
        """The first and the last time of all rows, and their number."""
        self._edited_tags, self._is_assessed = frozenset(edited), assessed > 0
        settled = now_ns - SETTLED_NS
        recent = [stamp for stamp in stamps if stamp > settled]
        # Cursors are short: of more inserts than that the older ones count as settled.
        if len(recent) > MOST_RECENT:
            settled = recent[-MOST_RECENT - 1]
        self.moment = Moment(settled, tuple(recent[-MOST_RECENT:]))
        # If nothing has arrived since the moment before, this one has its cursor.
        if before is not None and not is_later and not _new_stamps(stamps, before):
            self.moment = before
        self.now_ms = now_ns // 1_000_000
        self._now_ns = now_ns

    def ask(self, sql: str, values: Mapping[str, Any] | None = None) -> list[list[Any]]:
        """The rows of a query, by the deadlines of the snapshot."""
        return self._connection.rows(sql, values, self._deadlines)

    def run(self, query: Query, sql: str) -> list[list[Any]]:
        """The rows of a statement with what ``query`` has bound."""
        return self.ask(sql, query.values)

    def query(self, *, exact: bool = True) -> Query:
        """What a new statement of this snapshot is made of."""
        return Query(self.now_ms, self._edited_tags.__contains__, self._covers, exact=exact)

    def query_of_rollups(self) -> Query:
        """The same for a statement that reads rollups."""
        return Query(self.now_ms, self._edited_tags.__contains__, self._covers, of_rollups=True)

    def is_edited(self, tag: str) -> bool:
        """Whether a tag of some trace was edited."""
        return tag in self._edited_tags

    def within(self, query: Query, selection: Selection | None, *conditions: str) -> str:
        """The condition for the traces of the moment, and of a selection."""
        parts = [self._visible(query, self.moment), *conditions]
        if selection is not None:
            parts.append(self.inside(query, selection.experiments))
            if selection.tree is not None:
                parts.append(query.compile(selection.tree))
        return all_of(parts)

    def inside(self, query: Query, names: tuple[str, ...] | None) -> str:
        """The condition for experiments by name or, if none has the name, by id."""
        if names is None:
            return "1"
        found = self.experiment_names(names)
        return f"t.experiment IN {query.texts(found)}" if found else "0"

    def experiment_names(self, names: Sequence[str]) -> list[str]:
        """The experiments that are named so or, where none is, have that id."""
        if self._names.issuperset(names):
            return sorted({*names})
        by_name = {str(id_): name for id_, name in self._experiments}
        by_name |= {name: name for _, name in self._experiments}
        self._names.update(name for _, name in self._experiments)
        return sorted({by_name[name] for name in names if name in by_name})

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Give the queries in the block a deadline."""
        self._deadlines.append(deadline)
        try:
            yield
        finally:
            self._deadlines.remove(deadline)

    def _visible(self, query: Query, moment: Moment) -> str:
        settled = f"t.created <= {query.bind(moment.settled, 'UInt64')}"
        if not moment.recent:
            return settled
        return f"({settled} OR t.created IN {query.bind(moment.recent, 'Array(UInt64)')})"

    @cached_property
    def _covering(self) -> frozenset[tuple[str, str]]:
        """Kind and name of the assessments that hold for a whole session."""
        if not self._is_assessed:
            return frozenset()
        query = "SELECT DISTINCT kind, name FROM assessments FINAL WHERE covers_session AND valid"
        return frozenset((kind, name) for kind, name in self.ask(query))

    def _covers(self, field: Field) -> bool:
        return (field.family.value, stored_key(field)) in self._covering

    # Keys, values and state

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        rows = self.ask(
            "SELECT family, key FROM known_keys GROUP BY family, key HAVING min(created) <= {now:UInt64}"
            f" ORDER BY family, key LIMIT {MAX_KEYS} BY family",
            {"now": self._now_ns},
        )
        known: dict[str, list[str]] = {family: [] for family in _FAMILIES}
        for family, key in rows:
            known[family].append(key)
        return known

    def keys(self, family: str) -> list[str]:
        """The keys that traces carry, sorted."""
        return self._known[family]

    def spelled_keys(self) -> Iterator[str]:
        """Every key that traces carry, as in a filter, for hints and completion."""
        for family, names in self._known.items():
            yield from (format_field(with_key(_FAMILIES[family], key)) for key in names)

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key."""
        known = self._known[family]
        return not is_listed(key) or key in known or len(known) >= MAX_KEYS

    def values(self, field: Field, limit: int) -> list[str]:
        """The values of a field in the newest traces and in all sources, the most frequent first."""
        query = self.query()
        value = query.value(field)
        if field.family is Family.SPAN:
            newest = f"spans AS s FINAL ORDER BY s.request_time DESC LIMIT {_NEWEST}"
            if value.startswith("if("):  # an attribute
                newest = (
                    f"spans AS s FINAL WHERE isNotNull({value}) ORDER BY s.request_time DESC LIMIT {_NEWEST}"
                )
        else:
            within = self.within(query, None)
            newest = f"{query.traces} WHERE {within} ORDER BY t.request_time DESC LIMIT {_NEWEST}"
        found = Counter(value for (value,) in self.run(query, f"SELECT {value} FROM {newest}"))
        if field.family is Family.METADATA and field.key is not None and field.constant is None:
            for (text,) in self.ask("SELECT DISTINCT source FROM traces"):
                found.update([orjson.loads(text).get(field.key)])
        return [str(value) for value, _ in found.most_common() if value][:limit]

    @cached_property
    def _experiments(self) -> list[tuple[int, str]]:
        rows = self.ask(
            "SELECT name FROM experiments GROUP BY name HAVING min(created) <= {now:UInt64}"
            " ORDER BY min(created), name",
            {"now": self._now_ns},
        )
        return [(id_, name) for id_, (name,) in enumerate(rows, 1)]

    def experiments(self) -> list[tuple[int, str]]:
        """Ids and names of all experiments."""
        return self._experiments

    def state(self) -> StoreState:
        """Sizes and counts of the store."""
        return read_state(self.ask, self._connection.target, self._count_all())

    def _count_all(self) -> list[Any]:
        query = self.query()
        within = self.within(query, None)
        counted = "count(), uniqExact(source), min(request_time), max(request_time)"
        return self.run(query, f"SELECT {counted} FROM {query.traces} WHERE {within}")[0]

    def processes(self) -> list[ProcessReport]:
        """The last report of each process that writes to this store, the newest first."""
        rows = self.ask(
            "SELECT host, pid, started, reported, report FROM processes FINAL"
            f" WHERE reported >= (SELECT max(reported) FROM processes) - {_REPORTS_MS}"
            " ORDER BY reported DESC, started, host, pid"
        )
        return [to_report(*row) for row in rows]

    # Traces

    def search(
        self, selection: Selection, order: tuple[Key, ...], limit: int, after: Sequence[Any] | None = None
    ) -> Page:
        """At most ``limit`` traces of the selection in an order, starting after the sort values ``after``."""
        rows = search(self, selection, order, limit + 1, after, with_rows=limit < _BATCH)
        places = [TracePlace(*row[:3]) for row in rows[:limit]]
        return Page(places, list(rows[limit - 1][3:]) if len(rows) > limit else None)

    def remember(self, rows: Iterable[Row]) -> None:
        """Keep what a search has read, of the columns ``READ_COLUMNS``, for whoever reads its page next."""
        self._found = {_place(row): row for row in rows}

    def find(self, trace_ids: Sequence[str]) -> list[TracePlace]:
        """The keys of the traces with these ids, in the same order; missing traces are left out."""
        found: dict[str, TracePlace] = {}
        ids = list(dict.fromkeys(trace_ids))
        for start in range(0, len(ids), _BATCH):
            query = self.query()
            listed = query.texts(ids[start : start + _BATCH])
            places = f"SELECT experiment, request_time, trace_id FROM trace_ids WHERE trace_id IN {listed}"
            within = self.within(query, None, f"(t.experiment, t.request_time, t.trace_id) IN ({places})")
            rows = self.run(
                query, f"SELECT t.experiment, t.request_time, t.trace_id FROM {query.traces} WHERE {within}"
            )
            found.update((row[2], TracePlace(*row)) for row in rows)
        return [found[trace_id] for trace_id in ids if trace_id in found]

    def read(self, keys: Sequence[TracePlace], *, include_spans: bool = True) -> list[Trace]:
        """The traces, in the order of the keys."""
        found: list[Trace] = []
        for some, rows, tags in self._rows(keys):
            spans = self._spans(some) if include_spans else {}
            assessed = self.assessments(list(rows))
            for id_, row in rows.items():
                found.append(trace := to_trace(row, tags[id_], spans.get(id_, ())))
                trace.info.assessments = assessed.get(id_, [])
        return found

    def assessments(self, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
        """The feedback and expectations of traces, which need not be stored yet; the oldest first."""
        found: dict[str, list[Assessment]] = {}
        for start in range(0, len(trace_ids) if self._is_assessed else 0, _BATCH):
            rows = self.ask(
                f"SELECT {_ASSESSMENT} FROM assessments FINAL WHERE trace_id IN {{ids:Array(String)}}"
                " ORDER BY request_time, assessment_id",
                {"ids": list(trace_ids[start : start + _BATCH])},
            )
            for row in rows:
                found.setdefault(row[0], []).append(from_row(row))
        return found

    def outline(self, key: TracePlace) -> list[Span]:
        """The spans of a trace by their start, without what they hold."""
        return [to_span(*row) for row in self._of_spans([key], ", ".join(OUTLINE_READ))]

    def spans(self, key: TracePlace, span_ids: Sequence[str], *, include_values: bool = True) -> list[Span]:
        """The spans of a trace with these ids, by their start; missing spans are left out."""
        columns = [
            "NULL" if one in {"inputs", "outputs"} and not include_values else one for one in SPAN_READ
        ]
        found: list[Span] = []
        for start in range(0, len(span_ids), _BATCH):
            some = {"span_ids": list(span_ids[start : start + _BATCH])}
            listed = "span_id IN {span_ids:Array(String)}"
            found += (to_span(*row) for row in self._of_spans([key], ", ".join(columns), listed, some))
        return sorted(found, key=lambda span: span.start_time_ns)

    def rows(self, keys: Sequence[TracePlace]) -> list[TraceRow]:
        """The traces without their spans, in the order of the keys."""
        found: list[TraceRow] = []
        for some, rows, tags in self._rows(keys):
            answers = self._answers(some)
            found += (
                to_trace_row(row, tags[id_], *answers.get(id_, (None, ""))) for id_, row in rows.items()
            )
        return found

    def _answers(self, places: Sequence[TracePlace]) -> dict[str, tuple[str | None, str]]:
        """The outcome and the status of the response, by trace id: those of the root span."""
        columns = (
            "trace_id, span_id, parent_id, attributes['wherefrom.outcome'] AS outcome,"
            " attributes['http.response.status_code'] AS status"
        )
        spans = self._of_spans(places, columns, "(outcome != '' OR status != '')")
        inside = {(id_, span_id) for id_, span_id, *_ in spans}
        found: dict[str, tuple[str | None, str]] = {}
        for id_, _, parent_id, outcome, status in spans:
            if (id_, parent_id) not in inside:
                answer = (
                    orjson.loads(outcome) if outcome else None,
                    str(orjson.loads(status)) if status else "",
                )
                if parent_id is None:
                    found[id_] = answer
                found.setdefault(id_, answer)
        return found

    def errors(self, keys: Sequence[TracePlace]) -> dict[str, str]:
        """The status message of the first failed span, by trace id."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), _BATCH):
            failed = f"status_code = '{SpanStatusCode.ERROR.value}' AND status_message != ''"
            for id_, message in self._of_spans(
                keys[start : start + _BATCH], "trace_id, status_message", failed
            ):
                found.setdefault(id_, message)
        return found

    def neighbours(self, info: TraceInfo) -> tuple[str | None, str | None]:
        """The ids of the previous and the next trace in the same experiment."""
        # Within one millisecond the lower id is the newer one, as in a search for the newest.
        before = self._neighbour(info, "<", ">", "t.request_time DESC, t.trace_id ASC")
        return before, self._neighbour(info, ">", "<", "t.request_time ASC, t.trace_id DESC")

    def _neighbour(self, info: TraceInfo, time: str, id_: str, order: str) -> str | None:
        query = self.query()
        moment, own = query.number(info.request_time), query.bind(info.trace_id)
        near = f"(t.request_time {time} {moment} OR t.request_time = {moment} AND t.trace_id {id_} {own})"
        selection = Selection(experiments=(info.experiment,))
        within = self.within(query, selection, f"t.request_time {time}= {moment}", near)
        rows = self.run(
            query, f"SELECT t.trace_id FROM {query.traces} WHERE {within} ORDER BY {order} LIMIT 1"
        )
        return rows[0][0] if rows else None

    def _rows(
        self, places: Sequence[TracePlace]
    ) -> Iterator[tuple[Sequence[TracePlace], dict[str, Row], dict[str, dict[str, str]]]]:
        """Batches of places, their rows by trace id in the same order, and the tags of those."""
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            by_place = self._found
            if not by_place.keys() >= {*some}:
                found = self.ask(
                    f"SELECT {', '.join(READ_COLUMNS)} FROM traces FINAL WHERE {_AT_PLACES}", _listed(some)
                )
                rows = (dict(zip(READ_COLUMNS, row, strict=True)) for row in found)
                by_place = {_place(row): row for row in rows}
            ordered = {place.trace_id: by_place[place] for place in some if place in by_place}
            tags = {id_: {**row["tags"]} for id_, row in ordered.items()}
            for id_, row in ordered.items():
                if row["name"] is not None:
                    tags[id_][keys.TRACE_NAME_TAG] = row["name"]
            for id_, key, value, deleted in self._edits(list(ordered)):
                if deleted:
                    tags[id_].pop(key, None)
                else:
                    tags[id_][key] = value
            yield some, ordered, tags

    def _edits(self, trace_ids: list[str]) -> list[list[Any]]:
        if not self._edited_tags or not trace_ids:
            return []
        return self.ask(
            "SELECT trace_id, key, value, deleted FROM tags FINAL WHERE trace_id IN {ids:Array(String)}",
            {"ids": trace_ids},
        )

    def _spans(self, places: Sequence[TracePlace]) -> dict[str, list[Sequence[Any]]]:
        found: dict[str, list[Sequence[Any]]] = {}
        for row in self._of_spans(places, ", ".join(SPAN_READ)):
            found.setdefault(row[0], []).append(row)
        return found

    def _of_spans(
        self,
        places: Sequence[TracePlace],
        columns: str,
        condition: str = "1",
        more: Mapping[str, Any] | None = None,
    ) -> list[list[Any]]:
        named = "trace_id IN {ids:Array(String)}"
        # What other services recorded has the time of their part of the trace.
        times = f"request_time IN (SELECT request_time FROM trace_ids WHERE {named})"
        return self.ask(
            f"SELECT {columns} FROM spans FINAL WHERE {named} AND {times}"
            f" AND {condition} ORDER BY trace_id, start_ns, place, version",
            {"ids": [place.trace_id for place in places], **(more or {})},
        )

    # Counts

    def count_values(self, keys: Sequence[TracePlace], fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of these traces with each value."""
        found = [Counter[str]() for _ in fields]
        for start in range(0, len(keys) if fields else 0, _BATCH):
            query = self.query()
            columns = ", ".join(query.value(field) for field in fields)
            query.values |= _listed(keys[start : start + _BATCH])
            for row in self.run(query, f"SELECT {columns} FROM {query.traces} WHERE {_AT_PLACES_OF_T}"):
                for count, value in zip(found, row, strict=True):
                    count.update(() if value is None else (str(value),))
        return found

    def count_all_values(self, selection: Selection, fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of traces of the selection with each value."""
        return [counts.values(self, selection, field) for field in fields]

    def count(self, selection: Selection) -> int:
        """The number of traces in the selection."""
        return counts.count(self, selection)

    def bounds(self, selection: Selection, *, with_pruned: bool = False) -> tuple[int, int] | None:
        """The first and last request time of the selection in ms since the epoch, ``None`` if it is empty.

        ``with_pruned``: also of traces that have been pruned, if rollups can count them.
        """
        return counts.bounds(self, selection, with_pruned=with_pruned)

    def first_seen(
        self, by: Field, values: Sequence[str], experiments: tuple[str, ...] | None
    ) -> dict[str, int]:
        """The first request time of all traces with each of these values of a field, be they pruned."""
        return counts.first_seen(self, by, values, Selection(experiments=experiments))

    def groups(
        self,
        selection: Selection,
        by: Field,
        *,
        with_tokens: bool = False,
        before_blocks: bool = False,  # noqa: ARG002 - blocks have a query of their own
    ) -> list[ValueCounts]:
        """The traces of the selection, grouped by their value of a field."""
        return counts.groups(self, selection, by, with_tokens=with_tokens)

    def counts(self, selection: Selection, edges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield traces and errors within each ``(from, before)`` of ``edges``, counted lazily."""
        return counts.between(self, selection, edges)

    def block_columns(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int
    ) -> Iterator[BlockColumns]:
        """The traces that are not pruned, by value, stratum, process and step of ``width_ms``."""
        return counts.block_columns(self, selection, by, stratum, width_ms)

    def amounts(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int, measures: Sequence[str]
    ) -> Iterator[BlockAmount]:
        """Tokens, cost and feedback of the traces that are not pruned, by block as in ``block_columns``."""
        return counts.amounts(self, selection, by, stratum, width_ms, measures)

    def counts_by(
        self,
        selection: Selection,
        by: Field,
        width_ms: int,
        *,
        with_pruned: bool = True,  # noqa: ARG002 - of the protocol
    ) -> Iterator[tuple[str | None, int, int, int]]:
        """Value, start, traces and errors for each value of a field and each step of ``width_ms``.

        Pruned traces are never among them here.
        """
        return counts.steps(self, selection, by, width_ms)

    def buckets_by(
        self, selection: Selection, by: Field, width_ms: int
    ) -> Iterator[tuple[str | None, int, int | None, int, int]]:
        """Value, start, bucket, traces and errors, for each value, step of ``width_ms`` and bucket."""
        return counts.buckets(self, selection, by, width_ms)

    def sources(self, selection: Selection, limit: int | None = None) -> list[SourceRow]:
        """The sources with traces in the selection, the one with the latest trace first.

        Only the ``limit`` sources that were stored last are considered.
        """
        return counts.sources(self, selection, limit)

    def sessions(
        self, selection: Selection, limit: int, after: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Sessions with a trace in the selection, the latest first; all traces of a session are counted."""
        return counts.sessions(self, selection, limit, after)

    def session(self, session_id: str, experiments: tuple[str, ...] | None) -> SessionRow | None:
        """One session; ``None`` if no trace has it."""
        return next(iter(counts.read_sessions(self, [session_id], experiments)), None)

    # Changes

    def cursor(self) -> str:
        """The cursor of the end of the store, for ``changes``."""
        return str(Cursor(self._store, self.moment))

    def changes(
        self, cursor: str | None, selection: Selection, limit: int, *, until: str | None = None
    ) -> Changes:
        """Traces of the selection stored since the cursor, in the order in which they were stored.

        Raises:
            FilterError: the cursor is malformed.
        """
        begin = self._begin(cursor)
        end = self.moment if until is None else self._begin(until).seen
        target = begin.target or end
        query = self.query()
        stamp, place = (query.bind(number, "UInt64") for number in begin.reached)
        later = (
            f"NOT {self._visible(query, begin.seen)}",
            self._visible(query, target),
            f"t.created >= {stamp}",
            f"(t.created > {stamp} OR t.place > {place})",
        )
        within = self.within(query, selection, *(later if cursor is not None else later[1:2]))
        rows = self.run(
            query,
            "SELECT t.experiment, t.request_time, t.trace_id, t.created, t.place"
            f" FROM {query.traces} WHERE {within} ORDER BY t.created, t.place LIMIT {int(limit)}",
        )
        places = [TracePlace(*row[:3]) for row in rows]
        if len(rows) == limit:
            reached = rows[-1][3], rows[-1][4]
            done = self._share(begin, reached[0], target)
            return Changes(places, str(Cursor(self._store, begin.seen, target, reached)), done)
        done = 1.0 if target == end else self._share(begin, target.last, end)
        return Changes(places, str(Cursor(self._store, target)), done)

    def _begin(self, cursor: str | None) -> Cursor:
        found = Cursor(self._store, Moment()) if cursor is None else Cursor.parse(cursor)
        # All traces of this store are new to a cursor of another.
        return found if found.store == self._store else Cursor(self._store, Moment())

    def _share(self, begin: Cursor, reached: int, target: Moment) -> float:
        first = begin.seen.settled or self.ask("SELECT min(created) FROM traces")[0][0]
        return min(max(reached - first, 0) / max(target.last - first, 1), 0.99)


_PLACES: Final = "{places:Array(Tuple(String, Int64, String))}"
_AT_PLACES: Final = f"(experiment, request_time, trace_id) IN {_PLACES}"
_AT_PLACES_OF_T: Final = f"(t.experiment, t.request_time, t.trace_id) IN {_PLACES}"


def _place(row: Row) -> TracePlace:
    return TracePlace(row["experiment"], row["request_time"], row["trace_id"])


def _listed(places: Sequence[TracePlace]) -> dict[str, Any]:
    return {"places": list(map(tuple, places))}
