"""AND, OR and NOT of SQL conditions that know the constants: what is always true or false costs no query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import and_, false, func, not_, or_, true
from sqlalchemy.sql.elements import False_, True_

from .dialects import Condition

TRUE: Final[Condition] = true()
FALSE: Final[Condition] = false()


def all_of(parts: Iterable[Condition]) -> Condition:
    """Every one of the conditions; of none at all, TRUE."""
    kept = [part for part in parts if not is_true(part)]
    if any(is_false(part) for part in kept):
        return FALSE
    return and_(*kept) if kept else TRUE


def any_of(parts: Iterable[Condition]) -> Condition:
    """At least one of the conditions; of none at all, FALSE."""
    kept = [part for part in parts if not is_false(part)]
    if any(is_true(part) for part in kept):
        return TRUE
    return or_(*kept) if kept else FALSE


def opposite(condition: Condition) -> Condition:
    """Wherever the condition is false, and where it is NULL."""
    if is_true(condition):
        return FALSE
    return TRUE if is_false(condition) else not_(func.coalesce(condition, FALSE))


def is_true(condition: Condition) -> bool:
    """Whether the condition is the constant TRUE."""
    return isinstance(condition, True_)


def is_false(condition: Condition) -> bool:
    """Whether the condition is the constant FALSE."""
    return isinstance(condition, False_)
