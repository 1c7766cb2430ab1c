"""Reading traces, editing their tags, deleting them: the verbs of MLflow's client."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeGuard, TypeVar

from sqlalchemy import Connection, bindparam, func, select, update

from . import keys
from ._capture.values import clean_text
from .exceptions import FilterError, InvalidTraceError, TraceNotFoundError
from .model import Trace
from .process import ProcessReport
from .query import Query, search
from .query.values import is_storable
from .stores import Store
from .stores.opening import locate
from .stores.sqlite.catalog import Catalog
from .stores.sqlite.experiments import search_experiments
from .stores.sqlite.expressions import register
from .stores.sqlite.known_keys import OTHERS, learn_key
from .stores.sqlite.reader import mapped_errors, read_traces, snapshot
from .stores.sqlite.reports import read_reports
from .stores.sqlite.schema import known_keys, sources, traces
from .stores.sqlite.search import check_max_results

__all__ = ["KnownExperiment", "KnownSource", "PagedList", "TraceClient", "get_trace", "search_traces"]

_LOG = logging.getLogger("wherefrom")
_Item = TypeVar("_Item")

MAX_TAG_LENGTH: Final = 8000
_MAX_KEY_LENGTH: Final = 250
_OFFSET: Final = re.compile(r"[0-9]{1,9}")
_TAG_KEY: Final = re.compile(r"[\w\-. :/]+")
_FIXED_TAGS: Final = frozenset({keys.OS_USER, "mlflow.artifactLocation", keys.SPANS_LOCATION_TAG})
_READ_BATCH: Final = 500

# Built once: SQLAlchemy takes as long to build a statement as SQLite does to answer it.
_ROW_IDS: Final = select(traces.c.id, traces.c.trace_id).where(
    traces.c.trace_id.in_(bindparam("ids", expanding=True))
)


class PagedList(list[_Item]):
    """A list with the ``token`` for the next page, ``None`` on the last one."""

    def __init__(self, items: Sequence[_Item], token: str | None) -> None:
        super().__init__(items)
        self.token = token


@dataclass(frozen=True, slots=True)
class KnownSource:
    """One process's worth of metadata, and which traces came from it; times in ms since the epoch."""

    metadata: dict[str, str]
    traces: int
    first_seen: int
    last_seen: int


@dataclass(frozen=True, slots=True)
class KnownExperiment:
    """An experiment of the store: its id there, later ones higher, and the name that its traces carry."""

    id: int
    name: str


class TraceClient:
    """Reads and edits the traces of a store.

    ``store`` is a store or its URL; by default it is the one that ``Settings`` names, opened when it is
    first needed. A store that the client opened itself is closed by ``close`` or at the end of ``with``.
    """

    def __init__(self, store: Store | str | None = None) -> None:
        self._given = store
        self._opened: Store | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store if this client opened it."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def search_traces(
        self,
        experiment_ids: Sequence[str | int] | None = None,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
        *,
        include_spans: bool = True,
    ) -> PagedList[Trace]:
        """A page of the traces that pass the filter, newest first unless ``order_by`` says otherwise.

        ``experiment_ids`` are names; all experiments are searched where there are none. ``max_results`` is
        1 to 50,000, and ``page_token`` the ``token`` of the page before, in the same order. Without
        ``include_spans`` the traces come with none, which is faster.

        Raises:
            FilterError: the filter, the order, the token or the number cannot be used.
        """
        given = [experiment_ids] if isinstance(experiment_ids, (str, int)) else experiment_ids
        names = None if given is None else [str(name) for name in given]
        query = Query(filter_string, names, order_by, max_results, page_token)
        with self._reading() as connection:
            page = search(connection, query, now_ms=time.time_ns() // 1_000_000)
            return PagedList(read_traces(connection, page.ids, include_spans=include_spans), page.token)

    def get_trace(self, trace_id: str) -> Trace:
        """The trace with this id.

        Raises:
            TraceNotFoundError: there is none.
        """
        found = self.get_traces([trace_id])
        if not found:
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        return found[0]

    def get_traces(self, trace_ids: Sequence[str], *, include_spans: bool = True) -> list[Trace]:
        """The traces with these ids, in their order; those that are not there are left out."""
        wanted = [trace_id for trace_id in trace_ids if _is_text(trace_id)]
        with self._reading() as connection:
            rows = {
                row.trace_id: row.id
                for start in range(0, len(wanted), _READ_BATCH)
                for row in connection.execute(_ROW_IDS, {"ids": wanted[start : start + _READ_BATCH]})
            }
            ids = [rows[trace_id] for trace_id in dict.fromkeys(wanted) if trace_id in rows]
            return read_traces(connection, ids, include_spans=include_spans)

    def set_trace_tag(self, trace_id: str, key: str, value: Any) -> None:
        """Set a tag, its value cut to 8,000 characters; tags that MLflow fixes are left as they are.

        Raises:
            TraceNotFoundError: there is no such trace.
            InvalidTraceError: the key is empty, too long, or holds other than letters, digits and ``_-. :/``.
        """
        if not _is_text(key) or len(key) > _MAX_KEY_LENGTH or not _TAG_KEY.fullmatch(key):
            raise InvalidTraceError(
                f"{key!r} is no key for a tag: 1 to {_MAX_KEY_LENGTH} letters, digits, blanks and _-.:/ are"
            )
        if _is_fixed(key):
            return
        text = clean_text(value)
        if len(text) > MAX_TAG_LENGTH:
            _LOG.warning("tag %s has %d characters; it is cut to %d", key, len(text), MAX_TAG_LENGTH)
            text = text[:MAX_TAG_LENGTH]
        with self._editing_tags(trace_id) as (connection, tags):
            tags[key] = text
            learn_key(connection, "tag", key)

    def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            TraceNotFoundError: there is no such trace, or it has no such tag.
        """
        if not _is_text(key):
            raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
        if _is_fixed(key):
            return
        with self._editing_tags(trace_id) as (_, tags):
            if tags.pop(key, None) is None:
                raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")

    def delete_traces(
        self,
        experiment_id: str | int,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        """Delete traces of an experiment, and say how many there were.

        Either those with ``trace_ids``, or those from no later than ``max_timestamp_millis``, the oldest
        first and at most ``max_traces``.

        Raises:
            FilterError: neither or both are given, or ``max_traces`` does not go with them.
        """
        if (max_timestamp_millis is None) == (trace_ids is None):
            raise FilterError("delete_traces takes either max_timestamp_millis or trace_ids")
        if max_traces is not None and (trace_ids is not None or max_traces < 1):
            raise FilterError("max_traces is 1 or more, and goes with max_timestamp_millis alone")
        if not all(number is None or is_storable(number) for number in (max_timestamp_millis, max_traces)):
            raise FilterError("max_timestamp_millis and max_traces take integers of at most 64 bits")
        given = [trace_id for trace_id in trace_ids or () if _is_text(trace_id)]
        with self._reading() as connection:
            inside, _ = Catalog(connection).experiment_ids([str(experiment_id)])
            found = select(traces.c.trace_id).where(traces.c.experiment_id.in_(inside))
            if trace_ids is None:
                early_enough = found.where(traces.c.request_time <= max_timestamp_millis)
                oldest_first = early_enough.order_by(traces.c.request_time).limit(max_traces)
                doomed = list(connection.scalars(oldest_first))
            else:
                batches = (given[at : at + _READ_BATCH] for at in range(0, len(given), _READ_BATCH))
                named = (found.where(traces.c.trace_id.in_(batch)) for batch in batches)
                doomed = [trace_id for query in named for trace_id in connection.scalars(query)]
        return self._store().delete(doomed)

    def list_keys(self, family: str = "metadata") -> list[str]:
        """The keys that traces carry; ``family`` is ``metadata``, ``tag`` or ``span`` (span attributes)."""
        if not _is_text(family):
            return []
        with self._reading() as connection:
            query = select(known_keys.c.key).where(known_keys.c.family == family, known_keys.c.key != OTHERS)
            return list(connection.scalars(query.order_by(known_keys.c.key)))

    def search_experiments(
        self,
        filter_string: str | None = None,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[KnownExperiment]:
        """A page of the experiments under which traces have been kept, the latest first.

        A filter asks for ``name``; ``order_by`` takes ``name``, ``experiment_id`` and ``creation_time``.

        Raises:
            FilterError: the filter, the order, the token or the number cannot be used.
        """
        limit, start = check_max_results(max_results), _offset(page_token)
        with self._reading() as connection:
            found = search_experiments(connection, filter_string, order_by)
        page = [KnownExperiment(*row) for row in found[start : start + limit]]
        return PagedList(page, str(start + limit) if len(found) > start + limit else None)

    def list_sources(self) -> list[KnownSource]:
        """Every source that has sent traces, the latest first: which deployments, from when to when."""
        times = func.count(), func.min(traces.c.request_time), func.max(traces.c.request_time)
        seen = select(traces.c.source_id, *times).group_by(traces.c.source_id).subquery()
        query = select(sources.c.metadata, *seen.c[1:]).join(seen, seen.c.source_id == sources.c.id)
        with self._reading() as connection:
            found = [KnownSource(*row) for row in connection.execute(query)]
        return sorted(found, key=lambda source: source.last_seen, reverse=True)

    def list_processes(self) -> list[ProcessReport]:
        """What the processes that write to the store last said of themselves, the newest first."""
        with self._reading() as connection:
            return read_reports(connection)

    @contextmanager
    def _editing_tags(self, trace_id: str) -> Iterator[tuple[Connection, dict[str, str]]]:
        if not _is_text(trace_id):
            raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
        with self._writing() as connection:
            found = select(traces.c.id, traces.c.name, traces.c.tags).where(traces.c.trace_id == trace_id)
            row = connection.execute(found.with_for_update()).first()
            if row is None:
                raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
            tags = dict(row.tags) if row.name is None else row.tags | {keys.TRACE_NAME_TAG: row.name}
            yield connection, tags
            name = tags.pop(keys.TRACE_NAME_TAG, None)
            connection.execute(update(traces).where(traces.c.id == row.id).values(name=name, tags=tags))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with snapshot(self._store().engine, prepare=register) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with mapped_errors(), self._store().begin() as connection:
            yield connection

    def _store(self) -> Store:
        if self._given is not None and not isinstance(self._given, str):
            return self._given
        with self._lock:
            if self._opened is None:
                self._opened = locate(self._given)
            return self._opened


def search_traces(
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    max_results: int = 100,
    order_by: Sequence[str] | None = None,
    page_token: str | None = None,
) -> PagedList[Trace]:
    """A page of the traces in the configured store; ``experiment`` is a name, all of them by default.

    Raises:
        FilterError: the filter, the order, the token or the number cannot be used.
    """
    names = None if experiment is None else [experiment]
    with TraceClient() as client:
        return client.search_traces(names, filter_string, max_results, order_by, page_token)


def get_trace(trace_id: str) -> Trace:
    """The trace with this id in the configured store.

    Raises:
        TraceNotFoundError: there is none.
    """
    with TraceClient() as client:
        return client.get_trace(trace_id)


def _offset(token: object) -> int:
    if not token:
        return 0
    if not isinstance(token, str) or not _OFFSET.fullmatch(token):
        raise FilterError("this page_token is not one that a search returned")
    return int(token)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a store can hold it as text: what it cannot, it does not."""
    return isinstance(value, str) and clean_text(value) == value


def _is_fixed(key: str) -> bool:
    if key in _FIXED_TAGS:
        _LOG.warning("tag %s cannot be changed; it is left as it is", key)
    return key in _FIXED_TAGS
