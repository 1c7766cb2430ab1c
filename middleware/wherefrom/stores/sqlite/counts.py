"""Counts over traces: by source, by value, over time, by session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select

from ...model import TraceState
from ...query.fields import Family, Field, stored_key
from ..base import Selection, SourceRow
from .conditions import Comparer, column_of
from .plan import make_plan
from .reader import sources_by_id
from .schema import traces

_BATCH: Final = 500
_JSON_PLACES: Final = {Family.METADATA: 0, Family.TAG: 1}


def count_sources(comparer: Comparer, selection: Selection, limit: int | None) -> list[SourceRow]:
    """The sources that have traces in the selection, the one with the newest of them first."""
    connection = comparer.connection
    plan = make_plan(selection, comparer.catalog, comparer)
    if plan.is_empty:
        return []
    time = traces.c.request_time
    errors = func.count().filter(traces.c.state == TraceState.ERROR.value)
    query = select(traces.c.source_id, func.count(), errors).group_by(traces.c.source_id)
    query = query.where(*plan.conditions(comparer)).order_by(func.max(time).desc()).limit(limit)
    found = connection.execute(query).all()
    ids = {row[0] for row in found}
    ends = select(traces.c.source_id, func.min(time), func.max(time)).group_by(traces.c.source_id)
    seen = {row[0]: row for row in connection.execute(ends.where(traces.c.source_id.in_(ids)))}
    of_sources = sources_by_id(connection, ids)
    return [
        SourceRow(id_, of_sources[id_].pairs, count, errors, seen[id_][1], seen[id_][2])
        for id_, count, errors in found
    ]


def count_values(comparer: Comparer, ids: Sequence[int], fields: Sequence[Field]) -> list[Counter[str]]:
    """For each field of a trace, the values that these traces have, and how many have each."""
    connection, counts = comparer.connection, [Counter[str]() for _ in fields]
    # JSON is parsed once a row here, and not once for each key of each row as SQLite would.
    in_json = [
        (count, _JSON_PLACES[field.family], stored_key(field))
        for field, count in zip(fields, counts, strict=True)
        if column_of(field) is None and field.constant is None and field.family in _JSON_PLACES
    ]
    parsed = {id(count) for count, _, _ in in_json}
    others = [(f, count) for f, count in zip(fields, counts, strict=True) if id(count) not in parsed]
    query = select(
        traces.c.source_id, traces.c.metadata, traces.c.tags, *(comparer.value(f) for f, _ in others)
    )
    for start in range(0, len(ids), _BATCH):
        rows = connection.execute(query.where(traces.c.id.in_(ids[start : start + _BATCH]))).all()
        of_sources = sources_by_id(connection, {row[0] for row in rows})
        for source_id, own, tags, *values in rows:
            places = (own, of_sources[source_id].pairs), (tags,)
            for count, place, key in in_json:
                count.update([pairs[key] for pairs in places[place] if key in pairs][:1])
            for (_, count), value in zip(others, values, strict=True):
                count.update(() if value is None else (str(value),))
    return counts
