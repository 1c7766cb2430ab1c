"""Sessions with totals over their traces, and the turns of a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from .. import keys
from .._capture.values import clean_text
from ..exceptions import FilterError, TraceNotFoundError
from ..query.fields import Operator, find_field
from ..query.order import Key, PagedList, check_max_results, decode_token, encode_token, parse_order
from ..query.tree import And, Compare
from ..stores import Selection, Snapshot
from ..stores.base import SessionRow, TraceRow

_SESSION: Final = find_field(None, "session_id")
_LATEST_FIRST: Final = (Key(find_field(None, "timestamp"), descending=True), Key(_SESSION))
_OLDEST_FIRST: Final = parse_order(["timestamp ASC"])
_NO_TURNS: Final = ("GET ", "HEAD ", "OPTIONS ", "PUT ", "PATCH ", "DELETE ")
"""Requests with these methods are turns only if they carry a question."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session; times in ms since the epoch.

    ``duration`` is from its first request to its last response, in ms. ``user`` is ``None`` if no turn names
    one, or if turns name several; ``users`` is their number.
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
        """A dictionary that can be written as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session.

    ``flags`` are the recorded feature flags; ``error`` is the status message of the first failed span.
    ``pause_ms`` is the time from the end of the previous turn on the page to the start of this one, negative
    if they overlap. ``is_turn``: the request asked something, as opposed to one that reads or manages a
    resource, such as ``GET /conversations``.
    """

    trace: TraceRow
    is_turn: bool
    flags: dict[str, str]
    error: str | None
    pause_ms: float | None


def read_sessions(
    snapshot: Snapshot, selection: Selection, max_results: int = 100, page_token: str | None = None
) -> PagedList[Session]:
    """A page of the sessions with a trace in the selection, the one with the latest turn first.

    Raises:
        FilterError: the token or the number cannot be used.
    """
    limit = check_max_results(max_results)
    after: tuple[int, str] | None = None
    if page_token:
        last_seen, session_id = decode_token(page_token, _LATEST_FIRST)
        if session_id is None:
            raise FilterError("this page_token is not one that sessions() returned")
        after = last_seen, session_id
    rows = snapshot.sessions(selection, limit + 1, after)
    found = [_session(row) for row in rows[:limit]]
    more = len(rows) > limit
    return PagedList(
        found, encode_token(_LATEST_FIRST, [found[-1].last_seen, found[-1].session_id]) if more else None
    )


def find_session(snapshot: Snapshot, session_id: str, experiments: tuple[str, ...] | None = None) -> Session:
    """One session.

    Raises:
        TraceNotFoundError: no trace has it.
    """
    # What no store can hold as text, such as a lone surrogate, is the session of no trace.
    row = snapshot.session(session_id, experiments) if clean_text(session_id) == session_id else None
    if row is None:
        raise TraceNotFoundError(f"no trace has the session {session_id!r}")
    return _session(row)


def _session(row: SessionRow) -> Session:
    return Session(
        row.session_id,
        row.turns,
        row.errors,
        row.first_seen,
        row.last_seen,
        row.duration_us / 1000,
        row.users,
        row.user,
    )


def read_turns(
    snapshot: Snapshot,
    session_id: str,
    selection: Selection,
    max_results: int = 100,
    page_token: str | None = None,
) -> PagedList[Turn]:
    """A page of the turns of a session that are in the selection, the first one first.

    Raises:
        FilterError: the token or the number cannot be used.
    """
    limit = check_max_results(max_results)
    after = decode_token(page_token, _OLDEST_FIRST) if page_token else None
    of_session = Compare(_SESSION, Operator.EQ, session_id)
    tree = of_session if selection.tree is None else And((of_session, selection.tree))
    selection = replace(selection, tree=tree)
    page = snapshot.search(selection, _OLDEST_FIRST, limit, after)
    found = list(_turns(snapshot.rows(page.keys), snapshot.errors(page.keys)))
    return PagedList(found, None if page.after is None else encode_token(_OLDEST_FIRST, page.after))


def _turns(rows: Sequence[TraceRow], errors: dict[str, str]) -> Iterator[Turn]:
    prefix = keys.FEATURE_FLAG_PREFIX
    ended: float | None = None
    for row in rows:
        flags = {
            key.removeprefix(prefix): row.metadata[key] for key in row.metadata if key.startswith(prefix)
        }
        pause = None if ended is None else row.request_time - ended
        asks = bool(row.request_preview) or not (row.name or "").startswith(_NO_TURNS)
        yield Turn(row, asks, flags, errors.get(row.trace_id), pause)
        ended = row.request_time + (row.duration_ms or 0)
