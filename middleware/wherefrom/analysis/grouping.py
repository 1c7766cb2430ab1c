"""From the name that traces are compared by to the value that each has for it, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, select

from .. import keys
from ..exceptions import FilterError
from ..query.catalog import MAX_SOURCES
from ..query.dialects import Condition, Expression
from ..query.errors import did_you_mean
from ..query.fields import EXPERIMENT, METADATA, RUN_ID, TAG, TRACE_FIELDS, Family, Field, Type, stored_key
from ..query.lookup import UnknownFieldError, find_field, with_key
from ..stores.schema import known_keys, sources, traces
from .scope import Scope

_FIELDS: Final = {
    name: field for field in (*TRACE_FIELDS, RUN_ID, EXPERIMENT) for name in (field.name, *field.aliases)
} | {"experiment": EXPERIMENT}
_FAMILIES: Final = frozenset(
    name for field in (METADATA, TAG) for name in (field.name, *field.aliases)
) | {"attribute", "attributes", "trace", "span"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the traces: what to group them by, and what value each group stands for.

    Without ``labels`` the group is the value; a group that is not among the labels is in another part.
    """

    group: Expression
    conditions: tuple[Condition, ...] = ()
    labels: Mapping[int, str] | None = None

    def select(self, scope: Scope, *columns: Expression) -> Select[Any]:
        """``value`` and the columns for each trace of this part in the scope."""
        chosen = select(self.group.label("value"), *columns)
        return chosen.select_from(traces).where(*scope.conditions, *self.conditions)

    def name(self, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[str | None, Sequence[Any]]]:
        """Each row's value, ``None`` where it has none, and what follows its group."""
        for row in rows:
            if self.labels is None:
                yield row[0], row[1:]
            elif row[0] in self.labels:
                yield self.labels[row[0]], row[1:]


def find_grouping(by: str, scope: Scope) -> Field:
    """The field that ``by`` names: a field of traces, ``metadata.x``, ``tag.x``, or a bare key.

    A bare name is a field, else a metadata key, else a tag.

    Raises:
        FilterError: nothing is named so, or traces cannot be compared by it.
    """
    family, dot, key = by.partition(".")
    if dot and family in _FAMILIES:
        field = _in_family(family, _unquoted(key))
    else:
        field = _FIELDS.get(by) or _bare_key(_unquoted(by), scope)
    if field.family is Family.SPAN or field.type in {Type.TIME, Type.DURATION}:
        raise FilterError(f"traces cannot be compared by {field.label}: it is no value that traces share")
    return field


def make_parts(field: Field, scope: Scope) -> list[Part]:
    """The traces by the field, in parts that do not overlap."""
    if field.family is not Family.METADATA or field.column is not None or field.constant is not None:
        return [Part(scope.comparer.value(field))]
    return _parts_by_metadata(stored_key(field), scope)


def _in_family(family: str, key: str) -> Field:
    try:
        return find_field(family, key)
    except UnknownFieldError as error:
        raise FilterError(str(error)) from None


def _unquoted(key: str) -> str:
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == "`" else key


def _bare_key(name: str, scope: Scope) -> Field:
    catalog = scope.catalog
    if name in keys.SOURCE_KEYS:
        return with_key(METADATA, name)
    for carries in (
        catalog.known_key,
        catalog.has_key,
    ):  # a key that is known goes before one that may be there
        for family, field in ((Family.METADATA, METADATA), (Family.TAG, TAG)):
            if name and carries(family, name):  # an empty key needs its family named
                return with_key(field, name)
    known = list(scope.connection.scalars(select(known_keys.c.key).where(known_keys.c.family != Family.SPAN)))
    if not known:
        return with_key(METADATA, name)
    raise FilterError(f"no trace carries {name!r}{did_you_mean(name, sorted({*known, *_FIELDS}))}")


def _parts_by_metadata(key: str, scope: Scope) -> list[Part]:
    """A trace has a pair of its own only where its source lacks the key: sources first, they are few."""
    dialect = scope.catalog.dialect
    of_source = dialect.pair(sources.c.metadata, key)
    labels: dict[int, str] = {}
    lacking = False
    for id_, value in scope.connection.execute(select(sources.c.id, of_source)):
        if value is None:
            lacking = True
        else:
            labels[id_] = value
    parts = [Part(traces.c.source_id, _by_index(labels), labels)] if labels else []
    if lacking:
        outside = dialect.plain(traces.c.source_id).in_(select(sources.c.id).where(of_source.is_(None)))
        parts.append(Part(dialect.pair(traces.c.metadata, key), (outside,) if labels else ()))
    return parts


def _by_index(labels: Mapping[int, str]) -> tuple[Condition, ...]:
    """Said though it is implied, so that the index over source and time serves where time is limited."""
    return (traces.c.source_id.in_(sorted(labels)),) if len(labels) <= MAX_SOURCES else ()
