"""Changes to a filter, made on the tree: no text is ever pasted into a filter."""

from __future__ import annotations

from collections.abc import Iterator

from .fields import Field, Operator
from .parser import parse_filter
from .tree import And, Compare, Node, Not, Or, flatten, format_filter


def selected(tree: Node | None, field: Field) -> tuple[str, ...]:
    """The values that ``=`` or ``IN`` allows for the field at the top level of the filter."""
    for part in _parts(tree):
        if (values := _values(part, field)) is not None:
            return values
    return ()


def toggled(tree: Node | None, field: Field, value: str) -> Node | None:
    """The filter with ``value`` added to the allowed values of the field, or removed if it was allowed."""
    before = selected(tree, field)
    values = tuple(one for one in before if one != value) if value in before else (*before, value)
    return with_values(tree, field, values)


def with_values(tree: Node | None, field: Field, values: tuple[str, ...]) -> Node | None:
    """The filter with the allowed values of the field replaced; without values, any value is allowed."""
    rest = list(without(tree, field))
    if values and (len(values) == 1 or Operator.IN not in field.operators):
        rest.append(Compare(field, Operator.EQ, values[-1]))
    elif values:
        rest.append(Compare(field, Operator.IN, values))
    return _joined(rest)


def excluded(tree: Node | None, field: Field, value: str) -> Node | None:
    """The filter for the other values of the field, and for those excluded before."""
    rest = list(without(tree, field))
    condition = Compare(field, Operator.NE, value)
    return _joined(rest if condition in rest else [*rest, condition])


def without_values(tree: Node | None, field: Field) -> Node | None:
    """The filter without the condition that ``selected`` reads."""
    return _joined(list(without(tree, field)))


def without(tree: Node | None, field: Field) -> Iterator[Node]:
    """The parts of the filter without those that ``selected`` reads."""
    return (part for part in _parts(tree) if _values(part, field) is None)


def substitute(tree: Node, old: Compare, new: Compare) -> Node:
    """The filter with ``new`` wherever it has ``old``."""
    match tree:
        case Compare():
            return new if tree == old else tree
        case Not(part):
            return Not(substitute(part, old, new))
        case And(parts) | Or(parts):
            return type(tree)(tuple(substitute(part, old, new) for part in parts))


def join_filters(*filters: str | None) -> str:
    """The conjunction of filters; ``None`` is skipped.

    Raises:
        FilterError: one of them is invalid.
    """
    trees = [tree for text in filters if (tree := parse_filter(text)) is not None]
    return format_filter(And(tuple(flatten(trees)))) if trees else ""


def _parts(tree: Node | None) -> list[Node]:
    return [] if tree is None else flatten([tree])


def _joined(parts: list[Node]) -> Node | None:
    if len(parts) > 1:
        return And(tuple(parts))
    return parts[0] if parts else None


def _values(part: Node, field: Field) -> tuple[str, ...] | None:
    if not isinstance(part, Compare) or part.field != field:
        return None
    match part.operator, part.value:
        case Operator.EQ, str(value):
            return (value,)
        case Operator.IN, tuple(values):
            return values
    return None
