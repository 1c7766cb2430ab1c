"""Sessions: those with a trace in a selection, and what all traces of each add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Select, and_, func, or_, select

from ...model import TraceState
from ..base import Selection, SessionRow
from .conditions import Catalog, Comparer
from .plan import Plan, inside
from .schema import traces

_BATCH: Final = 500  # ids in one parameter; a deadline interrupts between batches
_ALL: Final = traces.alias("all_traces")


def find_sessions(
    comparer: Comparer, plan: Plan, selection: Selection, limit: int, after: tuple[int, str] | None
) -> list[SessionRow]:
    """At most ``limit`` sessions with a trace in the selection, the latest first, after ``after``."""
    if plan.is_empty:
        return []
    last = func.max(_ALL.c.request_time)
    query = _of_sessions(select(_ALL.c.session_id), selection.experiments, comparer.catalog)
    if selection.tree is not None:
        passing = select(traces.c.session_id).where(
            *plan.conditions(comparer), traces.c.session_id.is_not(None)
        )
        query = query.where(_ALL.c.session_id.in_(passing))
    if after is not None:
        query = query.having(or_(last < after[0], and_(last == after[0], _ALL.c.session_id > after[1])))
    ids = list(comparer.connection.scalars(query.order_by(last.desc(), _ALL.c.session_id).limit(limit)))
    rows = {row.session_id: row for row in read_sessions(comparer, ids, selection.experiments)}
    return [rows[session_id] for session_id in ids]


def read_sessions(
    comparer: Comparer, ids: Sequence[str], experiments: tuple[str, ...] | None
) -> Iterator[SessionRow]:
    """The sessions with these ids, unordered; those without traces are left out."""
    started_us = _ALL.c.request_time * 1000
    columns = (
        _ALL.c.session_id,
        func.count(),
        func.count().filter(_ALL.c.state == TraceState.ERROR.value),
        func.min(_ALL.c.request_time),
        func.max(_ALL.c.request_time),
        func.max(started_us + func.coalesce(_ALL.c.duration_us, 0)) - func.min(started_us),
        func.count(_ALL.c.user_id.distinct()),
        func.max(_ALL.c.user_id),
    )
    query = _of_sessions(select(*columns), experiments, comparer.catalog)
    for start in range(0, len(ids), _BATCH):
        chosen = _ALL.c.session_id.in_(ids[start : start + _BATCH])
        for row in (SessionRow(*row) for row in comparer.connection.execute(query.where(chosen))):
            yield row if row.users == 1 else replace(row, user=None)


def _of_sessions(query: Select[Any], experiments: tuple[str, ...] | None, catalog: Catalog) -> Select[Any]:
    """All traces with a session in the experiments, whether or not they are in the selection."""
    query = query.where(inside(experiments, catalog, _ALL), _ALL.c.session_id.is_not(None))
    return query.group_by(_ALL.c.session_id)
