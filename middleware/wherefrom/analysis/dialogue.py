"""The turns of one conversation, in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from .. import keys
from ..client import PagedList
from ..exceptions import TraceNotFoundError
from ..model import SpanStatusCode
from ..query import Query, format_filter, search
from ..query.fields import Operator
from ..query.lookup import find_field
from ..query.page import check_max_results
from ..query.tree import Compare
from ..stores import Store
from ..stores.schema import spans, traces
from .conversations import Session, tell_sessions
from .listing import Listed, read_listed
from .scope import Scope, scope

_SESSION: Final = find_field(None, "session_id")
_IN_TURN: Final = ("timestamp ASC",)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    ``flags`` are the feature flags that were recorded, ``error`` is what the first span that failed says of
    it. ``pause_ms`` is from the end of the turn before, on the same page, to its begin: negative where that
    one was still being answered.
    """

    trace: Listed
    flags: dict[str, str]
    error: str | None
    pause_ms: float | None


def read_session(
    session_id: str, *, experiment: str | None = None, store: Store | str | None = None
) -> Session:
    """The session as one line.

    Raises:
        TraceNotFoundError: no trace has it.
    """
    with scope(store, None, experiment) as inside:
        found = [] if inside.is_empty else list(tell_sessions(inside, [session_id]))
    if not found:
        raise TraceNotFoundError(f"no trace has the session {session_id!r}")
    return found[0]


def turns(
    session_id: str,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Turn]:
    """A page of the turns of a session, the first one first.

    Raises:
        FilterError: the token or the number cannot be used.
    """
    names = None if experiment is None else [experiment]
    where = format_filter(Compare(_SESSION, Operator.EQ, session_id))
    query = Query(where, names, _IN_TURN, check_max_results(max_results), page_token)
    with scope(store, None, experiment) as inside:
        page = search(inside.connection, query, now_ms=time.time_ns() // 1_000_000)
        rows = read_listed(inside, page.ids)
        errors = _errors(inside, page.ids)
    return PagedList(list(_in_turn(rows, errors)), page.token)


def _in_turn(rows: Sequence[Listed], errors: dict[str, str]) -> Iterator[Turn]:
    ended: float | None = None
    for row in rows:
        pause = None if ended is None else row.request_time - ended
        yield Turn(row, _flags(row), errors.get(row.trace_id), pause)
        ended = row.request_time + (row.duration_ms or 0)


def _flags(row: Listed) -> dict[str, str]:
    prefix = keys.FEATURE_FLAG_PREFIX
    return {key.removeprefix(prefix): value for key, value in row.metadata.items() if key.startswith(prefix)}


def _errors(inside: Scope, ids: Sequence[int]) -> dict[str, str]:
    query = (
        select(traces.c.trace_id, spans.c.status_message)
        .join_from(spans, traces)
        .where(
            spans.c.trace.in_(ids),
            spans.c.status_code == SpanStatusCode.ERROR.value,
            spans.c.status_message != "",
        )
        .order_by(spans.c.start_ns.desc(), spans.c.id.desc())
    )
    return {row.trace_id: row.status_message for row in inside.connection.execute(query)}
