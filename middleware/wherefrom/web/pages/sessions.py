"""The Sessions page, and the page of one session: its turns in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ...analysis import Session, Turn
from ...analysis.model_calls import ModelCalls, sum_metadata
from ...analysis.scope import find_window, limit_to
from ...analysis.sessions import find_session, read_sessions, read_turns
from ...messages.content import Conversation, last_turn
from ...messages.conversation import main_span, read_span
from ...stores import Selection, Snapshot
from ..page import Page, Reader, no_view
from ..parameters import SessionQuery, SessionsQuery

_MOST_SPANS: Final = 1_000


@dataclass(frozen=True, slots=True)
class SessionsView:
    """Sessions, the one with the latest turn first; ``next_page`` is ``after`` of the next page.

    All turns of a session are counted. ``since`` and ``until`` are the time range, in ms since the epoch, in
    which at least one of its turns matches the filter.
    """

    sessions: tuple[Session, ...]
    next_page: str | None
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session and a page of its turns in order; ``next_page`` is ``after`` of the next page.

    ``calls`` are totals over the turns of this page. ``conversations`` are by trace id, each from the last
    message of the user on, for as many turns as have a thousand spans together.
    """

    session: Session
    turns: tuple[Turn, ...]
    next_page: str | None
    calls: ModelCalls
    conversations: dict[str, Conversation]


def view_sessions(reader: Reader, query: SessionsQuery) -> SessionsView:
    """The sessions of a time range."""
    window = find_window(reader.snapshot, query.since, query.until)
    within = limit_to(reader.snapshot, reader.selection, window)
    found = read_sessions(reader.snapshot, within, query.size, query.after)
    return SessionsView(tuple(found), found.token, window.since, window.until)


def view_session(reader: Reader, query: SessionQuery) -> SessionView:
    """One session."""
    experiments = reader.selection.experiments
    session = find_session(reader.snapshot, query.id, experiments)
    found = read_turns(reader.snapshot, query.id, Selection(None, experiments), query.size, query.after)
    calls = sum_metadata(turn.trace.metadata for turn in found)
    conversations = dict(_conversations(reader.snapshot, [turn.trace.trace_id for turn in found]))
    return SessionView(session, tuple(found), found.token, calls, conversations)


def _conversations(snapshot: Snapshot, trace_ids: Sequence[str]) -> Iterator[tuple[str, Conversation]]:
    """The conversations of traces, by id, until a thousand spans are read."""
    left = _MOST_SPANS
    for key in snapshot.find(trace_ids):
        if left <= 0:
            return
        (trace,) = snapshot.read([key])
        left -= len(trace.data.spans)
        known = {span.span_id: one for span in trace.data.spans if (one := read_span(span)) is not None}
        main = main_span(trace.data.spans, known)
        if main is not None:
            yield trace.info.trace_id, last_turn(known[main])


PAGES: Final = (
    Page(
        path="/sessions",
        title="Sessions",
        view=view_sessions,
        early=no_view,
        answer=SessionsView,
        template="sessions.html",
        summary="Sessions with at least one trace that passes a filter within a time range.",
        query=SessionsQuery,
    ),
    Page(
        path="/session",
        view=view_session,
        answer=SessionView,
        template="session.html",
        summary="One session and its turns in order.",
        query=SessionQuery,
    ),
)
