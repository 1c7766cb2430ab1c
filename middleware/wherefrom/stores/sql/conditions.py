"""Compiles filters to SQL. Known keys and sources decide the form of each condition."""

from __future__ import annotations

import operator as relations
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, inf
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Connection, Double, Text, bindparam, func, literal, not_, or_, select

from ...model import Source
from ...query.fields import (
    ASSESSED,
    EXPECTATION,
    FEEDBACK,
    METADATA,
    ORDER,
    PATTERN,
    PRESENCE,
    SEARCH_FIELD,
    SPAN_ATTRIBUTE,
    TAG,
    Family,
    Field,
    Operator,
    Type,
    stored_key,
    with_key,
)
from ...query.tree import And, Compare, Node, Not, Or, expand_search, flatten, format_field
from ...query.values import bounded, to_duration, to_moment
from .expressions import (
    FALSE,
    TRUE,
    WILDCARD,
    Condition,
    Dialect,
    Expression,
    Hint,
    all_of,
    any_of,
    is_false,
    opposite,
)
from .hours import Hours
from .known_keys import OTHERS, has_row
from .reader import Prepared, sources_by_id
from .schema import assessments, column_of, experiments, is_root, known_keys, sources, spans, traces

MAX_SOURCES: Final = 500
_MAX_HINT: Final = 50  # characters: SQLite compares them with each place of a text
_FAMILIES: Final = {
    "metadata": METADATA,
    "tag": TAG,
    "span": SPAN_ATTRIBUTE,
    "feedback": FEEDBACK,
    "expectation": EXPECTATION,
}

_SOURCES: Final = Prepared(select(sources.c.id).limit(MAX_SOURCES + 1))
_TIME: Final = traces.c.request_time
_ENDS: Final = Prepared(
    select(*(select(_TIME).order_by(by).limit(1).scalar_subquery() for by in (_TIME.asc(), _TIME.desc())))
)
_EXPERIMENTS: Final = Prepared(select(experiments.c.id, experiments.c.name))
_KEY: Final = Prepared(
    select(known_keys.c.id, known_keys.c.unlisted).where(
        known_keys.c.family == bindparam("family"), known_keys.c.key == bindparam("key")
    )
)

_FAR: Final = 1 << 62

SourceIds = frozenset[int]


@lru_cache(maxsize=8)
def _source_values(dialect: Dialect) -> Prepared:
    return Prepared(select(sources.c.id, dialect.at(sources.c.metadata, bindparam("path"))))


class KnownKey(NamedTuple):
    """A key that traces carry; ``unlisted`` says which of its values ``trace_values`` lacks."""

    id: int
    unlisted: int


class Catalog:
    """Cached look-ups on one connection; each search creates its own."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self.connection = connection
        self.dialect = dialect
        self._sources: SourceIds | None = None
        self._times: tuple[int, int] | None = None
        self._known: dict[tuple[str, str], KnownKey | None] = {}
        self._experiments: list[tuple[int, str]] | None = None
        self._read: dict[int, Source] = {}

    def known_key(self, family: str, key: str) -> KnownKey | None:
        """The row of a key, ``None`` if there is none; ``family`` as in ``Snapshot.keys``."""
        place = (family, key)
        if place not in self._known:
            rows = _KEY.rows(self.connection, {"family": family, "key": key})
            self._known[place] = KnownKey(*rows[0]) if rows else None
        return self._known[place]

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key."""
        if not has_row(key) or self.known_key(family, key) is not None:
            return True
        return self.known_key(family, OTHERS) is not None

    def all_sources(self) -> SourceIds | None:
        """Every source; ``None`` if there are too many to list."""
        if self._sources is None:
            self._sources = frozenset(_SOURCES.values(self.connection))
        return self._sources if len(self._sources) <= MAX_SOURCES else None

    def times(self) -> tuple[int, int] | None:
        """The first and the last request time in ms since the epoch; ``None`` if there are no traces."""
        if self._times is None:
            ((first, last),) = _ENDS.rows(self.connection)
            self._times = None if first is None else (first, last)
        return self._times

    def sources_where(self, condition: Condition) -> SourceIds:
        """The sources for which the condition holds."""
        return frozenset(self.connection.scalars(select(sources.c.id).where(condition)))

    def source_values(self, key: str) -> Mapping[int, str]:
        """The value of each source for a metadata key; sources without one are left out."""
        if (path := self.dialect.path(key)) is not None:
            rows: Any = _source_values(self.dialect).rows(self.connection, {"path": path})
        else:
            of_source = self.dialect.pair(sources.c.metadata, key)
            rows = self.connection.execute(select(sources.c.id, of_source))
        return {id_: value for id_, value in rows if value is not None}

    def sources_by_id(self, ids: set[int]) -> Mapping[int, Source]:
        """The sources with these row ids, and those that were read before."""
        if missing := ids - self._read.keys():
            self._read |= sources_by_id(self.connection, missing)
        return self._read

    def experiments(self) -> list[tuple[int, str]]:
        """Ids and names of all experiments."""
        if self._experiments is None:
            self._experiments = [(id_, name) for id_, name in _EXPERIMENTS.rows(self.connection)]
        return self._experiments

    def experiment_ids(self, names: Sequence[str]) -> tuple[list[int], bool]:
        """The ids of experiments by name or, if none has the name, by id; and whether they are all."""
        rows = self.experiments()
        by_name = {str(id_): id_ for id_, _ in rows} | {name: id_ for id_, name in rows}
        found = {by_name[name] for name in names if name in by_name}
        return sorted(found), len(found) == len(rows)

    def spelled_keys(self) -> Iterator[str]:
        """The keys that traces carry, as in a filter."""
        query = select(known_keys.c.family, known_keys.c.key).where(known_keys.c.key != OTHERS)
        for family, key in self.connection.execute(query.order_by(known_keys.c.family, known_keys.c.key)):
            yield format_field(with_key(_FAMILIES[family], key))


_RELATIONS: Final[dict[Operator, Any]] = {
    Operator.EQ: relations.eq,
    Operator.NE: relations.ne,
    Operator.GT: relations.gt,
    Operator.GE: relations.ge,
    Operator.LT: relations.lt,
    Operator.LE: relations.le,
}


@dataclass(frozen=True, slots=True)
class BySource:
    """The sources that decide a metadata condition: those for which it holds, and those without the key.

    A trace has no pair of its own under a key of its source, because an override creates another source. So
    its own pairs matter only if the source lacks the key, and not at all if no trace has such a pair.
    """

    holding: SourceIds
    lacking: SourceIds


class Comparer:
    """Compiles the conditions of one search with a ``catalog``; ``'2h ago'`` is relative to ``now_ms``."""

    def __init__(self, catalog: Catalog, now_ms: int) -> None:
        self.connection = catalog.connection
        self.catalog = catalog
        self.dialect = catalog.dialect
        self._now_ms = now_ms
        self.hours: dict[Hashable, Hours | None] = {}
        """Counts of traces that several questions of a snapshot need: see ``OneByOne``."""
        self._by_source: dict[Compare, BySource | None] = {}
        self._source_values: dict[str, Mapping[int, str]] = {}
        self._covering: dict[Field, bool] = {}

    def condition(self, node: Compare) -> Condition:
        """The condition on a trace, or on a span if the field is a span's."""
        field = node.field
        if field.family in ASSESSED:
            return self._on_assessment(node)
        if column_of(field) is None and field.constant is None:
            if field.family is Family.METADATA:
                return self._on_metadata(node)
            if not self._may_have(field):
                return _on_nothing(node)
        condition = self.holds(self.value(field, _hint(node)), node)
        if column_of(field) is None and field.family is Family.SPAN and node.operator is not Operator.IS_NULL:
            return all_of([self.dialect.may_have(stored_key(field), _hint(node)), condition])
        return condition

    def _may_have(self, field: Field) -> bool:
        """Whether some trace may have a value of a field that is no column."""
        if field.attributes:
            return any(self.catalog.has_key(Family.SPAN, name) for name in field.attributes)
        if field.number is not None:
            return self.catalog.has_key(Family.METADATA, field.number[0])
        return self.catalog.has_key(field.family, stored_key(field))

    def value(self, field: Field, hint: Hint | None = None) -> Expression:  # noqa: PLR0911 # one for each family
        """The value of the field in a trace or span, NULL if it has none."""
        if (column := column_of(field)) is not None:
            return self.dialect.plain(column)
        if field.constant is not None:
            return literal(field.constant, Text())
        if field.attributes:
            return self._first_attribute(field)
        if field.number is not None:
            key, name = field.number
            return self.dialect.number_in(self._metadata_value(key, None), name)
        if field.family in ASSESSED:
            return self._last_assessment(field)
        key = stored_key(field)
        if field.family is Family.SPAN:
            return self.dialect.attribute(spans.c.attributes, key)
        if field.family is Family.TAG:
            return self.dialect.pair(traces.c.tags, key, hint)
        return self._metadata_value(key, hint)

    def _first_attribute(self, field: Field) -> Expression:
        """The value of one of the field's attributes, in the root or in the first span that has one."""
        own = spans.alias()
        values = [self.dialect.attribute(own.c.attributes, name) for name in field.attributes]
        value = func.coalesce(*values) if len(values) > 1 else values[0]
        first = select(value).where(own.c.trace == traces.c.id, value.is_not(None))
        if field.is_of_root:
            first = first.where(is_root(own))
        found = first.order_by(own.c.start_ns, own.c.id).limit(1).correlate(traces).scalar_subquery()
        return self.dialect.to_number_of(found) if field.type is Type.DURATION else found

    def _last_assessment(self, field: Field) -> Expression:
        """The text of the last assessment of the trace under the name."""
        own = assessments
        last = select(own.c.text).where(own.c.trace_id == traces.c.trace_id, *_under_name(field))
        last = last.order_by(own.c.created.desc(), own.c.assessment_id.desc()).limit(1)
        return last.correlate(traces).scalar_subquery()

    def _on_assessment(self, node: Compare) -> Condition:
        if not self.catalog.has_key(node.field.family, stored_key(node.field)):
            return _on_nothing(node)
        own = select(assessments.c.trace_id).where(*self._assessed(node))
        holds: Condition = own.where(assessments.c.trace_id == traces.c.trace_id).correlate(traces).exists()
        if self._covers_sessions(node.field):
            of = traces.alias()
            covering = own.where(assessments.c.covers_session == 1)
            sessions = select(of.c.session_id).where(
                of.c.trace_id.in_(covering), of.c.session_id.is_not(None)
            )
            holds = holds | func.coalesce(self.dialect.plain(traces.c.session_id).in_(sessions), FALSE)
        return opposite(holds) if node.operator is Operator.IS_NULL else holds

    def _assessed(self, node: Compare) -> tuple[Condition, ...]:
        """The conditions for an assessment by which the node holds."""
        named = _under_name(node.field)
        if node.operator in PRESENCE:
            return named
        if node.operator in ORDER:
            return *named, self.related(assessments.c.number, node)
        if isinstance(node.value, str) and node.operator not in PATTERN:
            among = or_(assessments.c.text == node.value, assessments.c.value == node.value)
            return *named, among if node.operator is Operator.EQ else not_(among)
        return *named, self.holds(assessments.c.value, node)

    def _covers_sessions(self, field: Field) -> bool:
        """Whether some assessment under the name holds for all traces of a session."""
        if field not in self._covering:
            some = select(assessments.c.trace_id).where(
                *_under_name(field), assessments.c.covers_session == 1
            )
            self._covering[field] = self.connection.scalar(some.limit(1)) is not None
        return self._covering[field]

    def assessed_traces(self, node: Compare, most: int) -> list[str] | None:
        """The ids of the traces for which a condition on assessments holds; ``None`` if they are more."""
        if node.operator is Operator.IS_NULL or self._covers_sessions(node.field):
            return None
        found = select(assessments.c.trace_id).where(*self._assessed(node)).distinct().limit(most + 1)
        ids = list(self.connection.scalars(found))
        return ids if len(ids) <= most else None

    def related(self, value: Expression, node: Compare) -> Condition:
        """The node's comparison with ``value``; only numbers compare with a number."""
        operand: Any = self._operand(node)
        if node.field.type is Type.ANY and not isinstance(operand, str):
            value = self.dialect.to_number_of(value)
        if isinstance(operand, float):
            # Typed: a driver that binds with the type of the column would round it.
            operand = literal(operand, Double())
        condition: Condition = _RELATIONS[node.operator](value, operand)
        return condition

    def holds(self, value: Expression, node: Compare) -> Condition:
        """The node's condition on ``value``, NULL if that is absent."""
        match node.operator, node.value:
            case Operator.IS_NULL, _:
                return value.is_(None)
            case Operator.IS_NOT_NULL, _:
                return value.is_not(None)
            case Operator.IN, tuple(values):
                return value.in_(list(dict.fromkeys(values)))
            case Operator.NOT_IN, tuple(values):
                return value.not_in(dict.fromkeys(values))
            case operator, str(pattern) if operator in PATTERN:
                return self._matches(value, operator, pattern)
        return self.related(value, node)

    def by_source(self, node: Compare) -> BySource | None:
        """How sources decide a metadata condition; ``None`` if there are too many to list."""
        if node not in self._by_source:
            self._by_source[node] = self._ask_sources(node)
        return self._by_source[node]

    def _ask_sources(self, node: Compare) -> BySource | None:
        everything = self.catalog.all_sources()
        if everything is None:
            return None
        key = stored_key(node.field)
        if not self.catalog.has_key("metadata", key):
            return BySource(frozenset(), everything if node.operator is Operator.IS_NULL else frozenset())
        values = self._values_of_sources(key)
        return BySource(self._sources_holding(node, values), everything - values.keys())

    def _sources_holding(self, node: Compare, values: Mapping[int, str]) -> SourceIds:
        """The sources with a value for which the condition holds."""
        match node.operator, node.value:
            case Operator.EQ, str(text):
                wanted = {text}
            case Operator.IN, tuple(texts):
                wanted = set(texts)
            case _:
                return self._ask_which_hold(node) if values else frozenset()
        return frozenset(id_ for id_, value in values.items() if value in wanted)

    def _ask_which_hold(self, node: Compare) -> SourceIds:
        of_source = self.dialect.pair(sources.c.metadata, stored_key(node.field))
        return self.catalog.sources_where(all_of([of_source.is_not(None), self.holds(of_source, node)]))

    def _values_of_sources(self, key: str) -> Mapping[int, str]:
        if key not in self._source_values:
            self._source_values[key] = self.catalog.source_values(key)
        return self._source_values[key]

    def _on_metadata(self, node: Compare) -> Condition:
        decided = self.by_source(node)
        if decided is None:
            return self.holds(self._metadata_value(stored_key(node.field), _hint(node)), node)
        source_id = self.dialect.plain(traces.c.source_id)
        holds = source_id.in_(sorted(decided.holding)) if decided.holding else FALSE
        if not decided.lacking:
            return holds
        own = self._on_own_metadata(node)
        if decided.lacking == self.catalog.all_sources():
            return own
        return any_of([holds, all_of([source_id.in_(sorted(decided.lacking)), own])])

    def _on_own_metadata(self, node: Compare) -> Condition:
        key = stored_key(node.field)
        if not self.catalog.has_key("metadata", key):
            return _on_nothing(node)
        return self.holds(self.dialect.pair(traces.c.metadata, key, _hint(node)), node)

    def _metadata_value(self, key: str, hint: Hint | None) -> Expression:
        own = self.dialect.pair(traces.c.metadata, key, hint)
        everything = self.catalog.all_sources()
        having = frozenset(self._values_of_sources(key)) if everything else frozenset()
        if everything and not having:
            return own
        of_source = select(self.dialect.pair(sources.c.metadata, key, hint))
        of_source = of_source.where(sources.c.id == traces.c.source_id).correlate(traces)
        if everything and having == everything:
            return of_source.scalar_subquery()
        return func.coalesce(own, of_source.scalar_subquery())

    def _matches(self, value: Expression, operator: Operator, pattern: str) -> Condition:
        match operator:
            case Operator.LIKE:
                return self.dialect.like(value, pattern)
            case Operator.NOT_LIKE:
                return not_(self.dialect.like(value, pattern))
            case Operator.ILIKE:
                return self.dialect.ilike(value, pattern)
            case Operator.NOT_ILIKE:
                return not_(self.dialect.ilike(value, pattern))
        return self.dialect.rlike(value, pattern)

    def bound(self, node: Compare) -> tuple[float, float] | None:
        """The whole numbers for which a comparison holds, as a half-open range; ``None`` if they are none.

        Ends are within 62 bits, or infinite: the range may be wider where no time is.
        """
        if node.operator not in _RELATIONS or node.operator is Operator.NE:
            return None
        operand = min(max(self._operand(node), -_FAR), _FAR)
        match node.operator:
            case Operator.GE:
                return ceil(operand), inf
            case Operator.GT:
                return floor(operand) + 1, inf
            case Operator.LT:
                return -inf, ceil(operand)
            case Operator.LE:
                return -inf, floor(operand) + 1
        return ceil(operand), floor(operand) + 1

    def _operand(self, node: Compare) -> Any:
        if not isinstance(node.value, str):
            return bounded(cast("float", node.value))
        match node.field.type:
            case Type.TIME:
                return bounded(to_moment(node.value, self._now_ms))
            case Type.DURATION:
                return bounded(to_duration(node.value))
        return node.value


def _under_name(field: Field) -> tuple[Condition, ...]:
    kind, name = assessments.c.kind, assessments.c.name
    return kind == field.family.value, name == stored_key(field), assessments.c.valid == 1


def _on_nothing(node: Compare) -> Condition:
    """The condition on a value that no trace has."""
    return TRUE if node.operator is Operator.IS_NULL else FALSE


def _hint(node: Compare) -> Hint | None:
    """What is certain of every value for which the condition holds."""
    match node.operator, node.value:
        case Operator.EQ, str(text):
            return Hint(text, whole=True)
        case Operator.LIKE, str(pattern):
            start, *others = WILDCARD.split(pattern)
            if not others:
                return Hint(start, whole=True)
            return Hint(start[:_MAX_HINT], max(others, key=len)[:_MAX_HINT])
    return None


class Compiler:
    """Compiles the filter of one search; constant conditions are returned as TRUE and FALSE."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    def compile(self, node: Node) -> Condition:
        """The condition for a tree."""
        match node:
            case Compare(field) if field == SEARCH_FIELD:
                return self.compile(expand_search(node))
            case Compare():
                return self._on_some_span([node]) if _is_on_span(node) else self._comparer.condition(node)
            case Not(part):
                return opposite(self.compile(part))
            case Or(parts):
                return any_of(self.compile(part) for part in parts)
            case And(parts):
                return self._and(flatten(parts))

    def _and(self, parts: list[Node]) -> Condition:
        alone = all_of(self.compile(part) for part in parts if not speaks_of_spans(part))
        together = [part for part in parts if speaks_of_spans(part)]
        return all_of([alone, self._on_some_span(together)]) if together else alone

    def _on_some_span(self, parts: list[Node]) -> Condition:
        """All conditions hold for one and the same span, or they hold without any span."""
        inside = all_of(self._on_span(part, there=True) for part in parts)
        outside = all_of(self._on_span(part, there=False) for part in parts)
        if is_false(inside):
            return outside
        own = self._comparer.dialect.of_trace()
        some = select(spans.c.id).where(own, inside).correlate(traces).exists()
        return any_of([some, outside])

    def _on_span(self, node: Node, *, there: bool) -> Condition:
        match node:
            case And(parts):
                return all_of(self._on_span(part, there=there) for part in parts)
            case Or(parts):
                return any_of(self._on_span(part, there=there) for part in parts)
            case Not():
                return self.compile(node)
            case Compare(field) if field == SEARCH_FIELD:
                return self._on_span(expand_search(node), there=there)
            case Compare():
                return FALSE if _is_on_span(node) and not there else self._comparer.condition(node)


def speaks_of_spans(node: Node) -> bool:
    """Whether the tree has a condition on a span outside of NOT."""
    if isinstance(node, Not):
        return False
    if isinstance(node, Compare):
        return _is_on_span(node)
    return any(speaks_of_spans(part) for part in node.parts)


def _is_on_span(node: Compare) -> bool:
    return node.field.family is Family.SPAN
