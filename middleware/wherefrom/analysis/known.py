"""What traces have for a field: offered while a filter is typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import func, select

from ..model import SpanStatusCode, TraceState
from ..query.fields import Family, Field, Type, stored_key
from ..stores.schema import sources, spans, traces
from .scope import Scope

_NEWEST: Final = 2_000
_MOST: Final = 50
_TIMES: Final = ("30m ago", "1h ago", "24h ago", "7d ago", "today", "yesterday")
_DURATIONS: Final = ("100ms", "500ms", "1s", "10s")
_FIXED: Final = {"status": TraceState, "span.status": SpanStatusCode}
"""Fields of which all values are known, whether traces have them or not."""


class KnownValues:
    """Keys and values that the newest traces, and all sources, have; ``allows`` says which may be offered."""

    def __init__(self, scope: Scope, allows: Callable[[str], object]) -> None:
        self._scope = scope
        self._allows = allows

    def spelled_keys(self) -> Sequence[str]:
        """Keys of metadata, tags and span attributes, as a filter spells them."""
        return list(self._scope.catalog.spelled_keys())

    def values(self, field: Field) -> Sequence[str]:
        """Values for the field, the most frequent first, without quotes."""
        if field.type is Type.TIME:
            return _TIMES
        if field.type is Type.DURATION:
            return _DURATIONS
        fixed = [value.value for value in _FIXED.get(field.name, ())]
        return list(dict.fromkeys([*fixed, *self._seen(field)]))

    def _seen(self, field: Field) -> Iterator[str]:
        table = spans if field.family is Family.SPAN else traces
        newest = select(func.max(table.c.id)).scalar_subquery() - _NEWEST
        value = self._scope.comparer.value(field)
        found = Counter(self._scope.connection.scalars(select(value).where(table.c.id > newest)))
        if field.family is Family.METADATA and field.column is None:
            of_source = self._scope.catalog.dialect.pair(sources.c.metadata, stored_key(field))
            found.update(self._scope.connection.scalars(select(of_source)))
        return (value for value, _ in found.most_common(_MOST) if value and self._allows(str(value)))
