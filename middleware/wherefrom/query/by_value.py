"""Which values of a key, or which names, a condition holds for, where an index tells."""

from __future__ import annotations

from ..stores.schema import traces
from ..stores.trace_values import ANY, lists_key, lists_value
from .catalog import Catalog, KnownKey
from .compare import Comparer
from .fields import Family, Operator, stored_key
from .indexes import NAMES, PAIRS, Entries, Index, listed_like, listed_values
from .tree import Compare


def find_entries(node: Compare, catalog: Catalog, comparer: Comparer) -> Entries | None:
    """What an index has of the traces for which a condition holds; ``None`` where none tells."""
    if node.operator is Operator.IS_NULL:
        return None
    if node.field.column is traces.c.name:
        return _entries(NAMES, node, catalog, comparer)
    key = _listed_key(node, catalog)
    if key is None or not _is_decided_by_traces(node, comparer):
        return None
    return _entries(PAIRS, node, catalog, comparer, key)


def _listed_key(node: Compare, catalog: Catalog) -> KnownKey | None:
    field = node.field
    if field.family not in {Family.METADATA, Family.TAG} or field.column is not None or field.constant:
        return None
    key = stored_key(field)
    known = catalog.known_key(field.family, key) if lists_key(key) else None
    return None if known is None or known.unlisted == ANY else known


def _is_decided_by_traces(node: Compare, comparer: Comparer) -> bool:
    """Whether it holds for a trace's own pair or not at all: not for one of its source."""
    if node.field.family is Family.TAG:
        return True
    decided = comparer.by_source(node)
    return decided is not None and not decided.holding


def _entries(
    index: Index, node: Compare, catalog: Catalog, comparer: Comparer, key: KnownKey | None = None
) -> Entries | None:
    part = None if key is None else key.id
    wanted = _wanted(node, comparer)
    if wanted is not None and all(map(lists_value, wanted)):
        return Entries(index, wanted, part)
    if key is not None and key.unlisted:
        return None
    if node.operator is Operator.LIKE and isinstance(node.value, str):
        values = listed_like(catalog.connection, index, node.value, part)
    else:
        values = listed_values(catalog.connection, index, lambda value: comparer.holds(value, node), part)
    return None if values is None else Entries(index, values, part)


def _wanted(node: Compare, comparer: Comparer) -> list[str] | None:
    match node.operator, node.value:
        case Operator.EQ, str(text):
            return comparer.storable((text,))
        case Operator.IN, tuple(texts):
            return comparer.storable(texts)
    return None
