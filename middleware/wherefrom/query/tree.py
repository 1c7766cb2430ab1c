"""The syntax tree of a filter, and its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from .fields import Field, Operator, find_field

Value: TypeAlias = str | int | float | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition: ``value`` is a tuple for IN, ``None`` for IS NULL and IS NOT NULL."""

    field: Field
    operator: Operator
    value: Value = None


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; those on spans hold for one and the same span."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold. If it is on spans, it holds for no span."""

    part: Node


Node: TypeAlias = Compare | And | Or | Not

_WORD: Final = re.compile(r"\w[\w.$#]*")
_BINDING: Final = {Or: 0, And: 1, Not: 2, Compare: 3}


def format_filter(node: Node) -> str:
    """The tree as text that parses to an equal tree."""
    match node:
        case Compare():
            return _format_compare(node)
        case Not(part):
            return f"NOT {_inside(part, Not)}"
        case And(parts):
            return " AND ".join(_inside(part, And) for part in parts)
        case Or(parts):
            return " OR ".join(_inside(part, Or) for part in parts)


_SEARCHED: Final = tuple(
    find_field(family, name)
    for family, name in (
        (None, "name"),
        (None, "request_preview"),
        (None, "response_preview"),
        ("span", "message"),
    )
)
_IDS: Final = tuple(
    find_field(None, name) for name in ("request_id", "client_request_id", "session_id", "user")
)


def expand_search(node: Compare) -> Or:
    """A condition on ``search`` as conditions on what it searches: texts by pattern, ids as a whole."""
    word = str(node.value).strip("%")
    ids = (Compare(field, Operator.EQ, word) for field in _IDS)
    return Or((*(Compare(field, node.operator, node.value) for field in _SEARCHED), *ids))


def flatten(parts: Iterable[Node]) -> list[Node]:
    """The parts of an And, with the parts of nested Ands in their place."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(flatten(part.parts) if isinstance(part, And) else [part])
    return flat


def conditions(node: Node) -> Iterator[Compare]:
    """All conditions in the tree, from left to right."""
    match node:
        case Compare():
            yield node
        case Not(part):
            yield from conditions(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from conditions(part)


def height(node: Node) -> int:
    """The depth of nested ANDs, ORs and NOTs."""
    match node:
        case Compare():
            return 0
        case Not(part):
            return 1 + height(part)
        case And(parts) | Or(parts):
            return 1 + max(map(height, parts))


def quote(value: str) -> str:
    """``value`` as a quoted value of a filter."""
    return "'" + value.replace("'", "''") + "'"


def _inside(part: Node, outer: type[And | Or | Not]) -> str:
    text = format_filter(part)
    binds_tighter = _BINDING[type(part)] > _BINDING[outer] or (type(part) is Not and outer is Not)
    return text if binds_tighter else f"({text})"


def _format_compare(node: Compare) -> str:
    field = format_field(node.field)
    if node.value is None:
        return f"{field} {node.operator}"
    if isinstance(node.value, tuple):
        return f"{field} {node.operator} ({', '.join(quote(value) for value in node.value)})"
    value = quote(node.value) if isinstance(node.value, str) else repr(node.value)
    return f"{field} {node.operator} {value}"


def format_field(field: Field) -> str:
    """The field as in a filter; its key is quoted if necessary."""
    if field.key is None:
        return field.name
    if _WORD.fullmatch(field.key):
        return f"{field.name}.{field.key}"
    if "`" in field.key:
        doubled = field.key.replace('"', '""')
        return f'{field.name}."{doubled}"'
    return f"{field.name}.`{field.key}`"
