"""Compiles filters to ClickHouse's SQL. Every value is a bound parameter; no text of a filter is SQL.

A condition may be NULL, which counts as false: only NOT has to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from ... import keys
from ...query.fields import (
    ASSESSED,
    PATTERN,
    PRESENCE,
    SEARCH_FIELD,
    Family,
    Field,
    Operator,
    Type,
    stored_key,
)
from ...query.regex import translate
from ...query.tree import And, Compare, Node, Not, Or, expand_search, flatten
from ...query.values import NUMBER, bounded, to_duration, to_moment
from .schema import COLUMN_OF_KEY

TRUE: Final = "1"
FALSE: Final = "0"

_COLUMNS: Final = {
    "status": "t.state",
    "request_id": "t.trace_id",
    "client_request_id": "t.client_request_id",
    "session_id": "t.session_id",
    "user": "t.user_id",
    "timestamp": "t.request_time",
    "execution_time": "intDiv(t.duration_us, 1000)",
    "end_time": "t.request_time + intDiv(ifNull(t.duration_us, 0), 1000)",
    "request_preview": "t.request_preview",
    "response_preview": "t.response_preview",
    "experiment_id": "t.experiment",
    "span.name": "s.name",
    "span.type": "s.span_type",
    "span.status": "s.status_code",
    "span.message": "s.status_message",
    "span.content": "s.content",
}
_SPAN_KEYS: Final = {
    keys.SPAN_TYPE: "s.span_type",
    keys.SPAN_INPUTS: "s.inputs",
    keys.SPAN_OUTPUTS: "s.outputs",
}
_NUMBERS: Final = "('Int64', 'UInt64', 'Double')"


def number_in(text: str, name: str) -> str:
    """The number under ``name`` in a JSON object that is text; NULL if there is none, or no such JSON."""
    place = f"{text}, '{name}'"
    return f"if(JSONType({place}) IN {_NUMBERS}, JSONExtractFloat({place}), NULL)"


_RELATIONS: Final = {
    Operator.EQ: "=",
    Operator.NE: "!=",
    Operator.GT: ">",
    Operator.GE: ">=",
    Operator.LT: "<",
    Operator.LE: "<=",
}
_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Query:
    """What one statement is made of: its bound values, and the edited tags that it has to join.

    ``of_rollups`` is whether it reads rollups in the place of traces; ``edited`` says whether some trace has
    a tag of this key that was edited, ``covers`` whether some feedback under a field holds for a whole
    session. ``'2h ago'`` is relative to ``now_ms``. A query that is not ``exact`` reads rows that were
    replaced too: it finds every trace that it is to find, and perhaps others.
    """

    def __init__(
        self,
        now_ms: int,
        edited: Callable[[str], bool],
        covers: Callable[[Field], bool],
        *,
        of_rollups: bool = False,
        exact: bool = True,
    ) -> None:
        self.values: dict[str, Any] = {}
        self._exact = exact
        self._of_rollups = of_rollups
        self._now_ms = now_ms
        self._edited = edited
        self._covers = covers
        self._names: dict[tuple[str, Any], str] = {}
        self._joins: dict[str, str] = {}
        self._near: str | None = None

    def look_near(self, ids: str) -> None:
        """Look for spans among those of these traces alone; ``ids`` is a list of ids, or a query for them."""
        times = f"SELECT request_time FROM trace_ids WHERE trace_id IN {ids}"
        self._near = f"s.trace_id IN {ids} AND s.request_time IN ({times})"

    def bind(self, value: Any, type_: str = "String") -> str:
        """The placeholder of a value."""
        value = value if isinstance(value, (str, int, float)) else list(value)
        place = (type_, tuple(value) if isinstance(value, list) else value)
        if place not in self._names:
            name = f"p{len(self._names)}"
            self._names[place] = f"{{{name}:{type_}}}"
            self.values[name] = value
        return self._names[place]

    def number(self, value: float) -> str:
        """The placeholder of a number."""
        return self.bind(value, "Int64" if isinstance(value, int) else "Float64")

    def texts(self, values: Iterable[str]) -> str:
        """The placeholder of a list of texts."""
        return self.bind(list(dict.fromkeys(values)), "Array(String)")

    @property
    def traces(self) -> str:
        """The traces and the edited tags that the conditions name, after ``FROM``; call it last."""
        return " ".join(("traces AS t FINAL" if self._exact else "traces AS t", *self._joins.values()))

    def value(self, field: Field) -> str:  # noqa: PLR0911 # one for each family
        """The value of a field in a trace or span, NULL if it has none."""
        if field.key is None and (column := _COLUMNS.get(field.name)) is not None:
            return column
        if field.constant is not None:
            return self.bind(field.constant)
        if field.attributes:
            return self._first_attribute(field)
        if field.number is not None:
            key, name = field.number
            return number_in(f"ifNull({self._metadata(key)}, '')", name)
        if field.family in ASSESSED:
            return self._last_assessment(field)
        key = stored_key(field)
        if field.family is Family.SPAN:
            return _SPAN_KEYS.get(key) or self._attribute(key)
        if field.family is Family.METADATA:
            return self._metadata(key)
        # The name of a trace is one of its tags.
        key = keys.TRACE_NAME_TAG if field.name == "name" else key
        written = "t.name" if key == keys.TRACE_NAME_TAG else _in_map("t.tags", self.bind(key))
        return self._tag(key, written)

    def _metadata(self, key: str) -> str:
        if column := COLUMN_OF_KEY.get(key):
            return f"t.{column}"
        bound = self.bind(key)
        if self._of_rollups:
            return f"if(JSONHas(t.flags, {bound}), JSONExtractString(t.flags, {bound}), NULL)"
        return _in_map("t.metadata", bound)

    def condition(self, node: Compare) -> str:  # noqa: PLR0911 # one for each kind of operator
        """The condition on a trace, or on a span if the field is a span's."""
        if node.field.family in ASSESSED:
            return self._on_assessment(node)
        value = self.value(node.field)
        match node.operator, node.value:
            case Operator.IS_NULL, _:
                return f"isNull({value})"
            case Operator.IS_NOT_NULL, _:
                return f"isNotNull({value})"
            case Operator.IN, tuple(values):
                return f"{value} IN {self.texts(values)}{self._among(node.field, values)}"
            case Operator.NOT_IN, tuple(values):
                return f"{value} NOT IN {self.texts(values)}"
            case operator, str(pattern) if operator in PATTERN:
                return self._matches(value, operator, pattern)
            case Operator.EQ, str(text) if node.field.type in {Type.TEXT, Type.ANY}:
                return f"{value} = {self.bind(text)}{self._among(node.field, (text,))}"
        return self.related(value, node)

    def related(self, value: str, node: Compare) -> str:
        """The node's comparison with ``value``; only numbers compare with a number."""
        operand = self._operand(node)
        if isinstance(operand, str):
            return f"{value} {_RELATIONS[node.operator]} {self.bind(operand)}"
        if node.field.type is Type.ANY:
            value = self._number_of(value)
        return f"{value} {_RELATIONS[node.operator]} {self.number(operand)}"

    def _operand(self, node: Compare) -> Any:
        if not isinstance(node.value, str):
            return bounded(cast("float", node.value))
        match node.field.type:
            case Type.TIME:
                return bounded(to_moment(node.value, self._now_ms))
            case Type.DURATION:
                return bounded(to_duration(node.value))
        return node.value

    def _among(self, field: Field, texts: tuple[str, ...]) -> str:
        """Implied by the equality with a value in a map. Stated, the indexes over values serve it."""
        if field.key is None or field.constant is not None or field.family is not Family.METADATA:
            return ""
        if self._of_rollups or stored_key(field) in COLUMN_OF_KEY:
            return ""
        return f" AND hasAny(mapValues(t.metadata), {self.texts(texts)})"

    def _tag(self, key: str, written: str) -> str:
        if not self._edited(key):
            return written
        rows = f"SELECT trace_id, value, deleted FROM tags FINAL WHERE key = {self.bind(key)}"
        name = self._join(f"tag {key}", rows)
        return f"if({name}.trace_id != '', if({name}.deleted, NULL, {name}.value), {written})"

    def _first_attribute(self, field: Field) -> str:
        """The value of one of the field's attributes, in the root or in the first span that has one."""
        values = ", ".join(map(self._attribute, field.attributes))
        having = " OR ".join(f"mapContains(s.attributes, {self.bind(name)})" for name in field.attributes)
        of_root = "1"
        if field.is_of_root:
            # The parent of a root, if it has one, is not in the trace.
            below = f"SELECT s.trace_id FROM spans AS s WHERE isNotNull(s.parent_id) AND ({having})"
            inside = f"SELECT s.trace_id, s.span_id FROM spans AS s WHERE s.trace_id IN ({below})"
            of_root = f"(isNull(s.parent_id) OR (s.trace_id, ifNull(s.parent_id, '')) NOT IN ({inside}))"
        rows = (
            "SELECT trace_id, argMin(found, (start_ns, place)) AS value FROM (SELECT s.trace_id AS trace_id,"
            f" s.start_ns AS start_ns, s.place AS place, coalesce({values}) AS found"
            f" FROM spans AS s FINAL WHERE ({having}) AND {of_root})"
            " WHERE isNotNull(found) GROUP BY trace_id"
        )
        value = f"{self._join(f'field {field.name}', rows)}.value"
        return self._number_of(value) if field.type is Type.DURATION else value

    def _last_assessment(self, field: Field) -> str:
        """The text of the last assessment of the trace under the name."""
        rows = (
            "SELECT trace_id, argMax(text, (request_time, assessment_id)) AS value FROM assessments FINAL"
            f" WHERE {self._under_name(field)} GROUP BY trace_id"
        )
        name = self._join(f"{field.family} {field.key}", rows)
        return f"if({name}.trace_id != '', {name}.value, NULL)"

    def _on_assessment(self, node: Compare) -> str:
        assessed = f"SELECT trace_id FROM assessments FINAL WHERE {self._assessed(node)}"
        holds = f"t.trace_id IN ({assessed})"
        if self._covers(node.field):
            covering = f"trace_id IN ({assessed} AND covers_session)"
            sessions = f"SELECT session_id FROM traces WHERE isNotNull(session_id) AND {covering}"
            holds = f"({holds} OR ifNull(t.session_id GLOBAL IN ({sessions}), 0))"
        return f"NOT {holds}" if node.operator is Operator.IS_NULL else holds

    def _assessed(self, node: Compare) -> str:
        """The condition for an assessment by which the node holds."""
        named = self._under_name(node.field)
        match node.operator, node.value:
            case operator, _ if operator in PRESENCE:
                return named
            case operator, str(pattern) if operator in PATTERN:
                return f"{named} AND {self._matches('value', operator, pattern)}"
            case operator, str(text):
                given = self.bind(text)
                among = f"(text = {given} OR value = {given})"
                return f"{named} AND {'' if operator is Operator.EQ else 'NOT '}{among}"
        return f"{named} AND {self.related('number', node)}"

    def _under_name(self, field: Field) -> str:
        return f"kind = {self.bind(field.family.value)} AND name = {self.bind(stored_key(field))} AND valid"

    def _join(self, key: str, rows: str) -> str:
        """The name of what is joined to the traces by their id."""
        if key not in self._joins:
            name = f"e{len(self._joins)}"
            self._joins[key] = f"LEFT ANY JOIN ({rows}) AS {name} ON {name}.trace_id = t.trace_id"
        return f"e{list(self._joins).index(key)}"

    def _number_of(self, value: str) -> str:
        return f"if(match({value}, {self.bind(NUMBER)}), toFloat64OrNull({value}), NULL)"

    def _attribute(self, key: str) -> str:
        raw = _in_map("s.attributes", self.bind(key))
        return f"if(startsWith({raw}, '\"'), JSONExtractString({raw}), nullIf({raw}, 'null'))"

    def _matches(self, value: str, operator: Operator, pattern: str) -> str:
        match operator:
            case Operator.LIKE:
                return self._like(value, pattern)
            case Operator.NOT_LIKE:
                return f"NOT {self._like(value, pattern)}"
            case Operator.ILIKE:
                return self._like(f"lower({value})", pattern.translate(_LOWER))
            case Operator.NOT_ILIKE:
                return f"NOT {self._like(f'lower({value})', pattern.translate(_LOWER))}"
        # A dot matches no line break, as in Python.
        return f"match({value}, {self.bind('(?-s)' + translate(pattern))})"

    def _like(self, value: str, pattern: str) -> str:
        escaped = pattern.replace("\\", "\\\\")
        return f"like({value}, {self.bind(escaped)})"

    # Trees

    def compile(self, node: Node) -> str:
        """The condition for a tree."""
        match node:
            case Compare(field) if field == SEARCH_FIELD:
                return self.compile(expand_search(node))
            case Compare():
                return self._on_some_span([node]) if _is_on_span(node) else self.condition(node)
            case Not(part):
                # What is not found among too many is not what is not found.
                exact, self._exact = self._exact, True
                condition = f"NOT ifNull({self.compile(part)}, 0)"
                self._exact = exact
                return condition
            case Or(parts):
                return any_of(self.compile(part) for part in parts)
            case And(parts):
                return self._and(flatten(parts))

    def _and(self, parts: list[Node]) -> str:
        alone = [self.compile(part) for part in parts if not speaks_of_spans(part)]
        together = [part for part in parts if speaks_of_spans(part)]
        return all_of([*alone, self._on_some_span(together)] if together else alone)

    def _on_some_span(self, parts: list[Node]) -> str:
        """All conditions hold for one and the same span, or they hold without any span."""
        outside = all_of(self._on_span(part, there=False) for part in parts)
        joins, self._joins = self._joins, {}
        inside = all_of(self._on_span(part, there=True) for part in parts)
        source = "spans AS s FINAL" if self._exact else "spans AS s"
        if any(map(_speaks_of_traces, parts)):
            joined = "INNER JOIN traces AS t FINAL ON t.trace_id = s.trace_id"
            source = " ".join((source, joined, *self._joins.values()))
        self._joins = joins
        inside = inside if self._near is None else f"{self._near} AND {inside}"
        some = f"t.trace_id IN (SELECT s.trace_id FROM {source} WHERE {inside})"
        return any_of([some, outside])

    def _on_span(self, node: Node, *, there: bool) -> str:
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
                return FALSE if _is_on_span(node) and not there else self.condition(node)


def _in_map(column: str, key: str) -> str:
    return f"if(mapContains({column}, {key}), {column}[{key}], NULL)"


def all_of(parts: Iterable[str]) -> str:
    """The conjunction of the conditions; TRUE without any."""
    kept = list(dict.fromkeys(part for part in parts if part != TRUE))
    if FALSE in kept:
        return FALSE
    return f"({' AND '.join(kept)})" if kept else TRUE


def any_of(parts: Iterable[str]) -> str:
    """The disjunction of the conditions; FALSE without any."""
    kept = list(dict.fromkeys(part for part in parts if part != FALSE))
    if TRUE in kept:
        return TRUE
    return f"({' OR '.join(kept)})" if kept else FALSE


def speaks_of_spans(node: Node) -> bool:
    """Whether the tree has a condition on a span outside of NOT."""
    if isinstance(node, Not):
        return False
    if isinstance(node, Compare):
        return _is_on_span(node)
    return any(speaks_of_spans(part) for part in node.parts)


def _speaks_of_traces(node: Node) -> bool:
    """Whether the tree has a condition on the trace, such as any under NOT."""
    if isinstance(node, Not):
        return True
    if isinstance(node, Compare):
        return not _is_on_span(node)
    return any(map(_speaks_of_traces, node.parts))


def _is_on_span(node: Compare) -> bool:
    return node.field.family is Family.SPAN
