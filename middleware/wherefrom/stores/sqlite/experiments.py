"""Searching experiments by their name, in the same language as traces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Column, Connection, Select, select

from ...exceptions import FilterError
from ...query.fields import TRACE_FIELDS, Field
from ...query.order import order_items
from ...query.parser import parse_filter
from ...query.tree import Compare, Node, Not
from .catalog import Catalog
from .conditions import Comparer, Compiler
from .schema import experiments

_ID, _NAME = experiments.c.id, experiments.c.name
# An id is higher than those of the experiments that were made before.
_ORDERS: Final[dict[str, Column[int] | Column[str]]] = {
    "name": _NAME,
    "experiment_id": _ID,
    "creation_time": _ID,
}
# Built once: SQLAlchemy takes as long to build a statement as SQLite does to answer it.
_EXPERIMENTS: Final = select(_ID, _NAME)
_LATEST_FIRST: Final = _EXPERIMENTS.order_by(_ID.desc())
_ITEM: Final = re.compile(r"(?:attributes?\.)?(\w+)(?:\s+(ASC|DESC))?", re.IGNORECASE | re.ASCII)
_NAME_FIELD: Final = next(field for field in TRACE_FIELDS if field.name == "name")


def search_experiments(
    connection: Connection, filter_string: str | None = None, order_by: Sequence[str] | None = None
) -> list[tuple[int, str]]:
    """Id and name of each experiment that passes the filter, the latest first.

    Raises:
        FilterError: the filter or the order cannot be used.
    """
    tree = parse_filter(filter_string)
    query = _ordered(order_by)
    if tree is not None:
        comparer = Comparer(Catalog(connection), now_ms=0)
        query = query.where(Compiler(comparer).compile(_on_experiments(tree)))
    return [(row.id, row.name) for row in connection.execute(query)]


def _ordered(order_by: Sequence[str] | None) -> Select[tuple[int, str]]:
    if not order_by:
        return _LATEST_FIRST
    query = _EXPERIMENTS
    for item in order_items(order_by):
        found = _ITEM.fullmatch(item) if isinstance(item, str) else None
        column = _ORDERS.get(found[1]) if found else None
        if found is None or column is None:
            raise FilterError(
                f"experiments are ordered by {', '.join(_ORDERS)}, ASC or DESC, not by {item!r}"
            )
        query = query.order_by(column.desc() if (found[2] or "").upper() == "DESC" else column.asc())
    return query.order_by(_ID.desc())


def _on_experiments(node: Node) -> Node:
    """The tree, asking for the name of the experiment where it asks for a trace's."""
    if isinstance(node, Compare):
        return replace(node, field=_field(node.field))
    if isinstance(node, Not):
        return Not(_on_experiments(node.part))
    return type(node)(tuple(_on_experiments(part) for part in node.parts))


def _field(field: Field) -> Field:
    if field != _NAME_FIELD:
        raise FilterError(f"experiments are searched by their name, not by {field.label}")
    return replace(field, column=_NAME)
