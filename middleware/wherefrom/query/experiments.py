"""Search of experiments by name, in the filter language of traces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..exceptions import FilterError
from .fields import TRACE_FIELDS, Field, Operator
from .like import compile_like
from .order import order_items
from .parser import parse_filter
from .regex import compile_pattern
from .tree import And, Compare, Node, Not, Or

Experiment = tuple[int, str]
"""Id and name; an id is higher than those of the experiments that were made before."""

_ORDERS: Final[dict[str, Callable[[Experiment], int | str]]] = {
    "name": lambda experiment: experiment[1],
    "experiment_id": lambda experiment: experiment[0],
    "creation_time": lambda experiment: experiment[0],
}
_ITEM: Final = re.compile(r"(?:attributes?\.)?(\w+)(?:\s+(ASC|DESC))?", re.IGNORECASE | re.ASCII)
_NAME_FIELD: Final = next(field for field in TRACE_FIELDS if field.name == "name")


def search_experiments(
    experiments: Iterable[Experiment], filter_string: str | None = None, order_by: Sequence[str] | None = None
) -> list[Experiment]:
    """The experiments that match the filter, the latest first by default.

    Raises:
        FilterError: the filter or the order is invalid.
    """
    tree = parse_filter(filter_string)
    passes = (lambda _: True) if tree is None else _compile(tree)
    found = sorted((one for one in experiments if passes(one[1])), reverse=True)
    # Sorting is stable: sort by the last key first; equal names stay with the latest first.
    for item in reversed(order_items(order_by)):
        parts = _ITEM.fullmatch(item) if isinstance(item, str) else None
        key = _ORDERS.get(parts[1]) if parts else None
        if parts is None or key is None:
            raise FilterError(
                f"experiments are ordered by {', '.join(_ORDERS)}, ASC or DESC, not by {item!r}"
            )
        found.sort(key=key, reverse=(parts[2] or "").upper() == "DESC")
    return found


def _compile(node: Node) -> Callable[[str], bool]:
    match node:
        case Compare(field):
            return _compile_condition(field, node)
        case Not(part):
            passes = _compile(part)
            return lambda name: not passes(name)
        case And(parts):
            every = [_compile(part) for part in parts]
            return lambda name: all(passes(name) for passes in every)
        case Or(parts):
            some = [_compile(part) for part in parts]
            return lambda name: any(passes(name) for passes in some)


def _compile_condition(field: Field, node: Compare) -> Callable[[str], bool]:
    if field != _NAME_FIELD:
        raise FilterError(f"experiments are searched by their name, not by {field.label}")
    match node.operator, node.value:
        case ((Operator.EQ | Operator.IN), value):
            wanted = value if isinstance(value, tuple) else (value,)
            return lambda name: name in wanted
        case ((Operator.NE | Operator.NOT_IN), value):
            unwanted = value if isinstance(value, tuple) else (value,)
            return lambda name: name not in unwanted
        case Operator.RLIKE, str(pattern):
            return compile_pattern(pattern)
        case ((Operator.LIKE | Operator.ILIKE), str(pattern)):
            return compile_like(pattern, ignores_case=node.operator is Operator.ILIKE)
        case ((Operator.NOT_LIKE | Operator.NOT_ILIKE), str(pattern)):
            is_like = compile_like(pattern, ignores_case=node.operator is Operator.NOT_ILIKE)
            return lambda name: not is_like(name)
    is_there = node.operator is Operator.IS_NOT_NULL
    return lambda _: is_there
