"""From the name that traces are compared by to the value that each has for it, in SQL."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import orjson
from sqlalchemy import Function, Select, Text, cast, func, select

from .. import keys
from ..exceptions import FilterError
from ..model import TraceState
from ..query.errors import did_you_mean
from ..query.fields import (
    EXPERIMENT,
    METADATA,
    RUN_ID,
    TAG,
    TRACE_FIELDS,
    Family,
    Field,
    Type,
    UnknownFieldError,
    find_field,
    stored_key,
    with_key,
)
from ..stores.sqlite.catalog import MAX_SOURCES
from ..stores.sqlite.conditions import column_of
from ..stores.sqlite.expressions import Condition, Expression, pair, plain
from ..stores.sqlite.schema import Json, known_keys, sources, traces
from .results import Tokens
from .scope import Scope
from .statistics import Sample

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
    if field.family is not Family.METADATA or column_of(field) is not None or field.constant is not None:
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
    of_source = pair(sources.c.metadata, key)
    labels: dict[int, str] = {}
    lacking = False
    for id_, value in scope.connection.execute(select(sources.c.id, of_source)):
        if value is None:
            lacking = True
        else:
            labels[id_] = value
    parts = [Part(traces.c.source_id, _by_index(labels), labels)] if labels else []
    if lacking:
        outside = plain(traces.c.source_id).in_(select(sources.c.id).where(of_source.is_(None)))
        parts.append(Part(pair(traces.c.metadata, key), (outside,) if labels else ()))
    return parts


def _by_index(labels: Mapping[int, str]) -> tuple[Condition, ...]:
    """Said though it is implied, so that the index over source and time serves where time is limited."""
    return (traces.c.source_id.in_(sorted(labels)),) if len(labels) <= MAX_SOURCES else ()


@dataclass(frozen=True)
class Group:
    """The traces with one value; times in ms since the epoch, durations in µs."""

    value: str
    traces: int
    errors: int
    first_seen: int
    last_seen: int
    succeeded: Sample
    failed: Sample
    tokens: Tokens | None = None

    @cached_property
    def durations(self) -> Sample:
        """Those of all its traces."""
        return Sample([*self.succeeded, *self.failed]) if self.failed else self.succeeded


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups in the order in which they were first seen, and how many traces have no value."""

    found: list[Group]
    left_out: int


def read_groups(scope: Scope, parts: Sequence[Part]) -> Groups:
    """The traces in the scope, grouped."""
    gathered: dict[str, _Gathered] = {}
    left_out = 0
    for part in parts if not scope.is_empty else ():
        for value, row in part.name(scope.connection.execute(_totals(scope, part))):
            if value is None:
                left_out += row[0]
            else:
                gathered.setdefault(value, _Gathered(value)).add(*row)
    if gathered and scope.catalog.has_key("metadata", keys.TOKEN_USAGE):
        _add_tokens(scope, parts, gathered)
    groups = [one.group() for one in gathered.values()]
    return Groups(sorted(groups, key=lambda group: (group.first_seen, group.value)), left_out)


class _Gathered:
    """Adds up what several sources, or several parts, have of one value."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._traces = self._errors = 0
        self._times: list[int] = []
        self._durations = array("q"), array("q")
        self._tokens = 0, 0, 0, 0

    def add(self, traces: int, errors: int, first: int, last: int, *durations: list[int] | None) -> None:
        self._traces += traces
        self._errors += errors
        self._times += first, last
        for known, new in zip(self._durations, durations, strict=True):
            known.extend(new or ())

    def count_tokens(self, texts: Iterable[str]) -> None:
        total = self._tokens
        for text in texts:
            if (counts := _token_counts(text)) is not None:
                total = total[0] + 1, total[1] + counts[0], total[2] + counts[1], total[3] + counts[2]
        self._tokens = total

    def group(self) -> Group:
        succeeded, failed = map(Sample, self._durations)
        return Group(
            self._value,
            self._traces,
            self._errors,
            min(self._times),
            max(self._times),
            succeeded,
            failed,
            Tokens(*self._tokens) if self._tokens[0] else None,
        )


def _totals(scope: Scope, part: Part) -> Select[Any]:
    """For each group: traces, errors, first, last, and the durations of those that succeeded and failed."""
    columns = traces.c.request_time, traces.c.state, traces.c.duration_us
    each = part.select(scope, *columns).subquery("each").c
    failed = each.state == TraceState.ERROR.value
    timed = each.duration_us.is_not(None)
    figures = (
        func.count(),
        func.count().filter(failed),
        func.min(each.request_time),
        func.max(each.request_time),
        collect(each.duration_us).filter(timed & ~failed),
        collect(each.duration_us).filter(timed & failed),
    )
    return select(each.value, *figures).group_by(each.value)


def collect(column: Expression) -> Function[Any]:
    """The values of a group as one list: a JSON text is read ten times as fast as a million rows."""
    return func.json_group_array(column, type_=Json())


def _add_tokens(scope: Scope, parts: Iterable[Part], gathered: dict[str, _Gathered]) -> None:
    usage = pair(traces.c.metadata, keys.TOKEN_USAGE)
    for part in parts:
        each = part.select(scope, cast(usage, Text).label("usage")).subquery("each").c
        texts = collect(each.usage).filter(each.usage.is_not(None))
        rows = scope.connection.execute(select(each.value, texts).group_by(each.value))
        for value, (found,) in part.name(rows):
            if value is not None:
                gathered[value].count_tokens(found or ())


def _token_counts(text: str) -> tuple[int, int, int] | None:
    """Input, output and total; ``None`` where the text does not tell."""
    try:
        use = orjson.loads(text).get
        return int(use("input_tokens") or 0), int(use("output_tokens") or 0), int(use("total_tokens") or 0)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
