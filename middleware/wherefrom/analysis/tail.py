"""Traces in the order in which they were stored, which is not the order in which they started."""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Select, func, select

from ..exceptions import FilterError, StoreError
from ..model import Trace
from ..query import Query, search
from ..query.parser import parse_filter
from ..query.values import is_storable
from ..stores import Store
from ..stores.sqlite.conditions import Compiler
from ..stores.sqlite.expressions import TRUE, Condition
from ..stores.sqlite.file import file_of, is_wherefrom_file, not_ours
from ..stores.sqlite.reader import read_traces
from ..stores.sqlite.schema import traces
from .listing import Listed, read_listed
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


_REMEMBERED: Final = 10_000
# PostgreSQL gives out ids before it commits: a row may come with a smaller id than one that was seen.
_LOOK_BACK: Final = {"sqlite": 0}
_ELSEWHERE: Final = 1_000
_MOST: Final = 4_000
_MOST_NEWS: Final = 1_000
_ROWS: Final = select(traces.c.trace_id, traces.c.id)
_ENDED: Final = traces.c.request_time + func.coalesce(traces.c.duration_us, 0) / 1000

_File = tuple[int, int]


class Follower:
    """Knows which traces of a selection have been seen.

    The file of an embedded store may come later, or be replaced by another: its traces are new then.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._began_ms = _now_ms()
        self._seen: dict[str, int] = {}  # the newest rows by the ids of their traces
        self._has_forgotten = False
        self._path = file_of(selection.store)
        self._file: _File | None = None

    @property
    def is_there(self) -> bool:
        """Whether the store can be read."""
        return self._path is None or self._path.exists()

    def last(self, count: int) -> list[Trace]:
        """The newest of those that are there already, the oldest first; the others count as seen.

        Raises:
            FilterError: the filter cannot be read.
            StoreError: the file is no store.
        """
        selection = self._selection
        self._file = self._identity()
        if not self.is_there:
            parse_filter(selection.filter_string)
            return []
        with selection.opened() as (inside, _):
            rows = inside.connection.execute(_ROWS.order_by(traces.c.id.desc()).limit(_REMEMBERED)).all()
            self._remember(rows[::-1])
            if not count:
                return []
            experiments = None if selection.experiment is None else [selection.experiment]
            query = Query(selection.filter_string, experiments, max_results=count)
            ids = search(inside.connection, query, _now_ms()).ids
            return read_traces(inside.connection, ids[::-1])

    def new(self) -> list[Trace]:
        """Traces that have come since, the first stored first; where there are too many at once, not all.

        Raises:
            FilterError: the filter names what the store does not know.
            StoreError: the file is no store.
        """
        if (file := self._identity()) != self._file and file is not None:
            self._begin_anew(file)
        if not self.is_there:
            return []
        with self._selection.opened() as (inside, condition):
            rows = inside.connection.execute(self._later(inside.connection)).all()
            fresh = [id_ for trace_id, id_ in rows if trace_id not in self._seen]
            self._remember(rows)
            return passing(inside, condition, fresh) if fresh else []

    def _later(self, connection: Connection) -> Select[Any]:
        """The rows after the newest that is still where it was."""
        rows = _ROWS.order_by(traces.c.id).limit(_MOST)
        while self._seen:
            trace_id, id_ = next(reversed(self._seen.items()))
            if connection.scalar(select(traces.c.trace_id).where(traces.c.id == id_)) == trace_id:
                return rows.where(traces.c.id > id_ - _LOOK_BACK.get(connection.dialect.name, _ELSEWHERE))
            # It was deleted, and SQLite may have given its id to another.
            del self._seen[trace_id]
            self._has_forgotten = True
        if not self._has_forgotten:
            return rows
        return rows.where(self._began_ms <= _ENDED)

    def _remember(self, rows: Iterable[Sequence[Any]]) -> None:
        for trace_id, id_ in rows:
            self._seen.pop(trace_id, None)
            self._seen[trace_id] = id_
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _begin_anew(self, file: _File) -> None:
        self._selection.store.close()
        self._seen.clear()
        self._has_forgotten = False
        self._file = file

    def _identity(self) -> _File | None:
        """Which file there is. As long as we hold one open, no other gets its number."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        file = (stat.st_dev, stat.st_ino)
        if file != self._file and not is_wherefrom_file(self._path):
            raise StoreError(not_ours(self._path))
        return file


@dataclass(frozen=True, slots=True)
class News:
    """Traces that have come since a ``mark``, the first stored first, and the mark to ask with next."""

    traces: tuple[Listed, ...]
    mark: str


def news(selection: Selection, mark: str | None = None) -> News:
    """What has come since the mark; without one nothing, and the mark of now. Nothing is kept in between.

    Where rows may come with a smaller id than one that was seen, traces may come twice. If there are many
    at once, the rest comes with the next mark.

    Raises:
        FilterError: the mark is none, or the filter cannot be read.
    """
    with selection.opened() as (inside, condition):
        if mark is None:
            newest = inside.connection.execute(_ROWS.order_by(traces.c.id.desc()).limit(1)).first()
            return News((), _to_mark(newest or ("", 0), _now_ms()))
        trace_id, id_, began_ms = _from_mark(mark)
        rows = inside.connection.execute(_after(inside.connection, trace_id, id_, began_ms)).all()
        if not rows:
            return News((), mark)
        found = passing_ids(inside, condition, [row.id for row in rows])
        return News(tuple(read_listed(inside, found)), _to_mark(rows[-1], began_ms))


def _after(connection: Connection, trace_id: str, id_: int, began_ms: int) -> Select[Any]:
    """The rows after one; where that was deleted, those of requests that have ended since."""
    rows = _ROWS.order_by(traces.c.id).limit(_MOST_NEWS)
    if not trace_id:
        return rows
    if connection.scalar(select(traces.c.trace_id).where(traces.c.id == id_)) == trace_id:
        return rows.where(traces.c.id > id_ - _LOOK_BACK.get(connection.dialect.name, _ELSEWHERE))
    return rows.where(began_ms <= _ENDED)


def _to_mark(row: Sequence[Any], began_ms: int) -> str:
    return urlsafe_b64encode(orjson.dumps([*row, began_ms])).decode()


def _from_mark(mark: str) -> tuple[str, int, int]:
    try:
        match orjson.loads(urlsafe_b64decode(mark.encode())):
            case [str(trace_id), id_, began_ms] if is_storable(id_) and is_storable(began_ms) and id_ >= 0:
                return trace_id, id_, began_ms
    except (ValueError, AttributeError):
        pass
    raise FilterError("this mark is not one that came with news")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
