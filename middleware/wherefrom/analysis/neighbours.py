"""The traces before and after one, in the order in which they came in."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, or_, select

from ..model import TraceInfo
from ..stores import Store
from ..stores.schema import traces
from .scope import Scope, scope


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Ids of traces; ``None`` where there is none."""

    older: str | None
    newer: str | None


def find_neighbours(info: TraceInfo, *, store: Store | str | None = None) -> Neighbours:
    """What came in just before and just after a trace, in its experiment."""
    with scope(store, None, info.experiment) as inside:
        return Neighbours(_next(inside, info, is_older=True), _next(inside, info, is_older=False))


def _next(inside: Scope, info: TraceInfo, *, is_older: bool) -> str | None:
    # Of one millisecond the lower id is the newer, as in a search for the newest.
    time, id_ = traces.c.request_time, traces.c.trace_id
    moment, own = info.request_time, info.trace_id
    if is_older:
        beyond = time <= moment, or_(time < moment, and_(time == moment, id_ > own))
        order = time.desc(), id_.asc()
    else:
        beyond = time >= moment, or_(time > moment, and_(time == moment, id_ < own))
        order = time.asc(), id_.desc()
    query = select(id_).where(*inside.conditions, *beyond).order_by(*order).limit(1)
    found: str | None = inside.connection.scalar(query)
    return found
