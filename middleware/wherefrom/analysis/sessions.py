"""Conversations: the traces of one session, as one line."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Select, and_, func, or_, select

from .. import keys
from ..exceptions import FilterError, TraceNotFoundError
from ..model import TraceState
from ..query.fields import Operator, find_field
from ..query.order import parse_order
from ..query.paging import PagedList, check_max_results, decode_token, encode_token
from ..query.tree import Compare
from ..query.values import is_storable
from ..stores import Selection, Store
from ..stores.base import TraceRow
from ..stores.sqlite.schema import traces
from .scope import Scope, scope

_BATCH: Final = 500
_ALL: Final = traces.alias("all_traces")

Place = tuple[int, str]
"""When the last turn of a session came in, and the session: what sessions are ordered by."""


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation; times in ms since the epoch.

    ``duration`` is from its first request to its last answer, in ms. ``user`` is ``None`` where no turn
    names one, or where they name several: ``users`` says how many.
    """

    session_id: str
    turns: int
    errors: int
    first_seen: int
    last_seen: int
    duration: float
    users: int
    user: str | None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return asdict(self)


def sessions(
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Session]:
    """A page of the sessions in which some trace passes the filter, the one with the latest turn first.

    Each is told whole, with the turns that do not pass. New turns shift no page: a session that has them
    since the first page was read is among the newest again.

    Raises:
        FilterError: the filter, the token or the number cannot be used.
    """
    limit = check_max_results(max_results)
    after = _decode(page_token) if page_token else None
    with scope(store, filter_string, experiment) as inside:
        if inside.is_empty:
            return PagedList([], None)
        places = _latest(inside, filter_string, after, limit + 1)
        shown = [session_id for _, session_id in places[:limit]]
        told = {session.session_id: session for session in tell_sessions(inside, shown)}
    token = _encode(places[limit - 1]) if len(places) > limit else None
    return PagedList([told[session_id] for session_id in shown], token)


def _latest(inside: Scope, filter_string: str | None, after: Place | None, limit: int) -> list[Place]:
    last = func.max(_ALL.c.request_time)
    query = _whole(inside, select(last, _ALL.c.session_id))
    if filter_string:
        passing = select(traces.c.session_id).where(*inside.conditions, traces.c.session_id.is_not(None))
        query = query.where(_ALL.c.session_id.in_(passing))
    if after is not None:
        query = query.having(or_(last < after[0], and_(last == after[0], _ALL.c.session_id > after[1])))
    query = query.order_by(last.desc(), _ALL.c.session_id).limit(limit)
    return [(time, session_id) for time, session_id in inside.connection.execute(query)]


def tell_sessions(inside: Scope, ids: Sequence[str]) -> Iterator[Session]:
    """These sessions, as far as there are any, in no order."""
    started_us = _ALL.c.request_time * 1000
    query = _whole(
        inside,
        select(
            _ALL.c.session_id,
            func.count(),
            func.count().filter(_ALL.c.state == TraceState.ERROR.value),
            func.min(_ALL.c.request_time),
            func.max(_ALL.c.request_time),
            func.max(started_us + func.coalesce(_ALL.c.duration_us, 0)) - func.min(started_us),
            func.count(_ALL.c.user_id.distinct()),
            func.max(_ALL.c.user_id),
        ),
    )
    for start in range(0, len(ids), _BATCH):
        chosen = _ALL.c.session_id.in_(ids[start : start + _BATCH])
        for row in inside.connection.execute(query.where(chosen)):
            session_id, turns, errors, first, last, duration_us, users, user = row
            user = user if users == 1 else None
            yield Session(session_id, turns, errors, first, last, duration_us / 1000, users, user)


def _whole(inside: Scope, query: Select[Any]) -> Select[Any]:
    """Of all traces with a session in the experiment, whatever the filter says."""
    if inside.experiments is not None:
        query = query.where(_ALL.c.experiment_id.in_(inside.experiments))
    return query.where(_ALL.c.session_id.is_not(None)).group_by(_ALL.c.session_id)


def _encode(place: Place) -> str:
    return urlsafe_b64encode(orjson.dumps(place)).decode()


def _decode(token: str) -> Place:
    try:
        match orjson.loads(urlsafe_b64decode(token.encode())):
            case [time, str(session_id)] if is_storable(time):
                return time, session_id
    except (ValueError, AttributeError):
        pass
    raise FilterError("this page_token is not one that sessions() returned")


_SESSION: Final = find_field(None, "session_id")
_IN_TURN: Final = ("timestamp ASC",)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    ``flags`` are the feature flags that were recorded, ``error`` is what the first span that failed says of
    it. ``pause_ms`` is from the end of the turn before, on the same page, to its begin: negative where that
    one was still being answered.
    """

    trace: TraceRow
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
    names = None if experiment is None else (experiment,)
    selection = Selection(Compare(_SESSION, Operator.EQ, session_id), names)
    order, limit = parse_order(_IN_TURN), check_max_results(max_results)
    after = decode_token(page_token, order) if page_token else None
    with scope(store, None, experiment) as inside:
        page = inside.snapshot.search(selection, order, limit, after)
        rows = inside.snapshot.rows(page.keys)
        errors = inside.snapshot.errors(page.keys)
    token = None if page.after is None else encode_token(order, page.after)
    return PagedList(list(_in_turn(rows, errors)), token)


def _in_turn(rows: Sequence[TraceRow], errors: dict[str, str]) -> Iterator[Turn]:
    ended: float | None = None
    for row in rows:
        pause = None if ended is None else row.request_time - ended
        yield Turn(row, _flags(row), errors.get(row.trace_id), pause)
        ended = row.request_time + (row.duration_ms or 0)


def _flags(row: TraceRow) -> dict[str, str]:
    prefix = keys.FEATURE_FLAG_PREFIX
    return {key.removeprefix(prefix): value for key, value in row.metadata.items() if key.startswith(prefix)}
