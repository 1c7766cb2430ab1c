"""Sessions: what users came back for, and the turns of one conversation in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...analysis import Session, Turn
from ...analysis.scope import find_window, limit_to, opened
from ...analysis.sessions import find_session, read_sessions, read_turns
from ..page import Page, Reader
from ..parameters import RANGE, Kind, Parameter, Parameters, range_context

_SIZE: Final = 50
_AFTER: Final = Parameter("after", "The page after this: the `next_page` of the one before.")


@dataclass(frozen=True, slots=True)
class SessionsView:
    """Sessions, the one with the latest turn first; ``next_page`` goes into ``after``.

    Each is told whole. ``since`` and ``until`` are the time range, in ms since the epoch, in which some turn
    of it passes the filter.
    """

    sessions: tuple[Session, ...]
    next_page: str | None
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """One conversation and a page of its turns, the first one first; ``next_page`` goes into ``after``."""

    session: Session
    turns: tuple[Turn, ...]
    next_page: str | None


def view_sessions(reader: Reader, query: Parameters) -> SessionsView:
    """The sessions that were asked for."""
    with opened(reader.store, query.text("filter"), reader.experiment) as (snapshot, selection):
        window = find_window(snapshot, query.text("since"), query.text("until"))
        within = limit_to(snapshot, selection, window)
        found = read_sessions(snapshot, within, query["size"], query.text("after"))
    return SessionsView(tuple(found), found.token, window.since, window.until)


def view_session(reader: Reader, query: Parameters) -> SessionView:
    """One of them."""
    session_id = query["id"]
    with opened(reader.store, None, reader.experiment) as (snapshot, selection):
        experiments = selection.experiments
        session = find_session(snapshot, session_id, experiments)
        found = read_turns(snapshot, session_id, experiments, query["size"], query.text("after"))
    return SessionView(session, tuple(found), found.token)


def _early(_reader: Reader, _query: Parameters) -> None:
    """Nothing: the form is all that is known at once."""


PAGES: Final = (
    Page(
        path="/sessions",
        title="Sessions",
        view=view_sessions,
        early=_early,
        answer=SessionsView,
        context=range_context,
        template="sessions.html",
        summary="Sessions in which some trace passes a filter within a time range.",
        parameters=(
            *RANGE,
            Parameter("size", "How many.", Kind.INTEGER, _SIZE, least=1, most=500),
            _AFTER,
        ),
    ),
    Page(
        path="/session",
        view=view_session,
        answer=SessionView,
        template="session.html",
        summary="One session: its turns in their order.",
        parameters=(
            Parameter("id", "The session.", default=""),
            Parameter("size", "How many turns.", Kind.INTEGER, 2 * _SIZE, least=1, most=500),
            _AFTER,
        ),
    ),
)
