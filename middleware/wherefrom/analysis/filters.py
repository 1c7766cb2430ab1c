"""Filters made from other filters: what is within a time range, and what has a certain value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from ..query import format_filter
from ..query.fields import Operator
from ..query.parser import parse_filter
from ..query.tree import format_field, quote
from ..stores import Store
from ..stores.sqlite.schema import traces
from .groups import find_grouping
from .scope import Scope, Window, find_window, scope


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A filter that keeps within a window, and the window; all that is stored may need no filter."""

    filter_string: str | None
    window: Window


def narrow(
    filter_string: str | None, since: str | None, until: str | None, *, store: Store | str | None = None
) -> Narrowed:
    """The filter, and besides it the time range that is meant by ``since`` and ``until``.

    Raises:
        FilterError: the filter or a moment cannot be read, or the range is empty.
    """
    with scope(store, None, None) as inside:
        window = find_window(inside.snapshot, since, until)
        tree = parse_filter(filter_string, inside.catalog.spelled_keys)
        if not _holds_all(inside, window):
            tree = window.around(tree)
    return Narrowed(None if tree is None else format_filter(tree), window)


def find_condition(by: str, *, store: Store | str | None = None) -> Callable[[str], str] | None:
    """From a value of what ``compare`` goes by to the filter for its traces; ``None`` where there is none.

    Raises:
        FilterError: nothing is named ``by``.
    """
    with scope(store, None, None) as inside:
        field = find_grouping(by, inside)
    if Operator.EQ not in field.operators:
        return None
    return lambda value: f"{format_field(field)} = {quote(value)}"


def both(filter_string: str | None, condition: str) -> str:
    """What passes the filter, where there is one, and the condition."""
    return f"({filter_string}) AND {condition}" if filter_string else condition


def _holds_all(inside: Scope, window: Window) -> bool:
    """Whether nothing lies outside of the window: a condition less to test on each trace."""
    oldest, newest = (
        inside.connection.scalar(select(end(traces.c.request_time))) for end in (func.min, func.max)
    )
    return oldest is not None and newest is not None and window.since <= oldest and newest < window.until
