"""The tree as one SQLAlchemy condition on ``traces``: the logic of it, and which span is meant.

Conditions on spans speak of one and the same span, except under NOT: there no span may make them hold. Put
as logic: a filter holds for a trace when there is a span, or none, with which it holds. An absent value
makes a comparison false, so that NOT always selects exactly the other traces.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from ..stores.schema import spans, traces
from .compare import Comparer
from .dialects import Condition
from .fields import Family
from .logic import FALSE, all_of, any_of, is_false, opposite
from .tree import And, Compare, Node, Not, Or


class Compiler:
    """Compiles filters for one search; constant conditions come back as TRUE and FALSE."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    def compile(self, node: Node) -> Condition:
        """The condition for a tree."""
        match node:
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
        """With one span they all hold, or without any they all do."""
        inside = all_of(self._on_span(part, there=True) for part in parts)
        outside = all_of(self._on_span(part, there=False) for part in parts)
        if is_false(inside):
            return outside
        some = select(spans.c.id).where(spans.c.trace == traces.c.id, inside).correlate(traces).exists()
        return any_of([some, outside])

    def _on_span(self, node: Node, *, there: bool) -> Condition:
        match node:
            case And(parts):
                return all_of(self._on_span(part, there=there) for part in parts)
            case Or(parts):
                return any_of(self._on_span(part, there=there) for part in parts)
            case Not():
                return self.compile(node)
            case Compare():
                return FALSE if _is_on_span(node) and not there else self._comparer.condition(node)


def flatten(parts: Iterable[Node]) -> list[Node]:
    """The parts of an And, with those of an And inside it in its place."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(flatten(part.parts) if isinstance(part, And) else [part])
    return flat


def speaks_of_spans(node: Node) -> bool:
    """Whether a condition in it, outside of any NOT, is on a span."""
    if isinstance(node, Not):
        return False
    if isinstance(node, Compare):
        return _is_on_span(node)
    return any(speaks_of_spans(part) for part in node.parts)


def _is_on_span(node: Compare) -> bool:
    return node.field.family is Family.SPAN
