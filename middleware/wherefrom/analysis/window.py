"""A stretch of time, and a filter kept within it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from ..exceptions import FilterError
from ..query.fields import Operator
from ..query.literals import to_moment
from ..query.lookup import find_field
from ..query.tree import And, Compare, Node
from ..stores.schema import traces
from .scope import Scope

DAY_MS: Final = 86_400_000
_TIME: Final = find_field(None, "timestamp")


@dataclass(frozen=True, slots=True)
class Window:
    """From ``since`` to before ``until``, in ms since the epoch; ``is_moved``: the last day had nothing."""

    since: int
    until: int
    is_moved: bool = False

    def around(self, tree: Node | None) -> Node:
        """What the filter asks for, of what came in within the window."""
        begun = Compare(_TIME, Operator.GE, self.since)
        over = Compare(_TIME, Operator.LT, self.until)
        return And((begun, over) if tree is None else (tree, begun, over))


def find_window(inside: Scope, since: str | None, until: str | None, now_ms: int) -> Window:
    """The window that is asked for, as a filter spells moments: ``2h ago``, an ISO date, ms.

    Without ``since`` it is a day long. Without either it ends now; or with the newest trace, where the day
    up to now has none.

    Raises:
        FilterError: a moment cannot be read, or the window ends before it begins.
    """
    end = now_ms + 1 if until is None else _moment("until", until, now_ms)
    begin = end - DAY_MS if since is None else _moment("since", since, now_ms)
    if begin >= end:
        raise FilterError("the time range is empty: since takes a moment before until")
    if since is None and until is None and (newest := _newest(inside)) is not None and newest < begin:
        return Window(newest + 1 - DAY_MS, newest + 1, is_moved=True)
    return Window(begin, end)


def _moment(name: str, text: str, now_ms: int) -> int:
    try:
        moment = round(to_moment(text, now_ms))
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{name}: {error}") from None
    return min(max(moment, -_FURTHEST), _FURTHEST)


_FURTHEST: Final = 2**53
"""Numbers up to here are the same in JSON and JavaScript."""


def _newest(inside: Scope) -> int | None:
    """When the newest trace came in; clocks that run ahead do not count as news."""
    newest: int | None = inside.connection.scalar(select(func.max(traces.c.request_time)))
    return newest
