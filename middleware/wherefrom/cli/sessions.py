"""``wherefrom sessions`` and ``session``: one line per conversation, and one line per turn of one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.text import Text

from .._sanitize import visible_json
from .._units import counted, duration, full_moment, short_moment
from .options import (
    ExperimentOption,
    FilterArgument,
    JsonOption,
    LimitOption,
    Pages,
    SinceOption,
    StoreOption,
    examples,
    narrowed,
    opened,
)
from .terminal import Column, Terminal, hint, print_json, print_table, remark, styled

if TYPE_CHECKING:
    from ..analysis import Session, Turn

SESSIONS_HELP: Final = examples(
    ("wherefrom sessions", "the sessions with the latest requests"),
    ("wherefrom sessions \"status = 'ERROR'\"", "sessions with an error"),
    ("wherefrom sessions \"user = 'alice'\" -n 5", "one user's latest sessions"),
    ("wherefrom session s-17", "the requests of one session in order"),
    ("wherefrom sessions --json | jq .duration", "for scripts: one JSON object per line"),
    closing="A filter selects sessions with at least one matching trace; each is shown whole. The duration is"
    " the time from the first request to the end of the last response.",
)
SESSION_HELP: Final = examples(
    ("wherefrom session s-17", "its requests in order"),
    ("wherefrom session s-17 \"status = 'ERROR'\"", "its failed requests"),
    ("wherefrom session s-17 --json | jq '.turns[].trace.request_preview'", "for scripts"),
    closing="The pause is the time between the end of the previous request and the start of this one. It is"
    " negative if they overlap.",
)
_PAGE: Final = 500
_ROOM_FOR_FIRST_TURN: Final = 100


def sessions(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one session per line.")] = False,
    limit: LimitOption = 20,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List sessions with their turns, duration and errors, the most recently active first."""
    from .. import analysis

    filter_string = narrowed(filter_string, since=since)
    with opened(ctx, store) as opened_store:
        found = Pages(
            lambda size, token: analysis.sessions(
                filter_string, experiment=experiment, store=opened_store, max_results=size, page_token=token
            ),
            limit,
            size=_PAGE,
        )
        if as_json:
            for session in found:
                typer.echo(visible_json(orjson.dumps(session.to_dict()).decode()))
        else:
            terminal = Terminal()
            print_table(terminal, _columns(terminal, datetime.now().astimezone()), found)
    if not found.count:
        remark(
            "No trace has a session. Clients name one with the header X-Session-ID."
            if filter_string is None
            else "No session has a trace that matches this filter. `wherefrom sessions` shows the latest."
        )
    elif not as_json:
        more = f"-n {limit * 5} shows more; " if found.has_more else ""
        hint(f"{more}`wherefrom session ID` lists the turns of one.")


def session(
    ctx: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the session.")],
    filter_string: FilterArgument = None,
    as_json: JsonOption = False,
    limit: LimitOption = 100,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List the requests of one session in order."""
    from .. import analysis

    filter_string = narrowed(filter_string, since=since)
    with opened(ctx, store) as used:
        whole = analysis.read_session(session_id, experiment=experiment, store=used)
        found = Pages(
            lambda size, token: analysis.turns(
                session_id,
                filter_string,
                experiment=experiment,
                store=used,
                max_results=size,
                page_token=token,
            ),
            limit,
            size=_PAGE,
        )
        if as_json:
            print_json({"session": whole.to_dict(), "turns": [asdict(turn) for turn in found]})
            return
        print_table((terminal := Terminal()), _turn_columns(terminal, datetime.now().astimezone()), found)
    if not found.count:
        remark("No request of the session matches this filter.")
    took = duration(whole.duration * 1e6)
    terminal.line()
    terminal.paragraph(
        f"{'The whole session: ' if filter_string else ''}{counted(whole.turns, 'turn')} in {took},"
        f" {counted(whole.errors, 'error')}.",
        style="dim",
    )
    if found.has_more:
        hint(f"-n {limit * 5} shows more.")


def _turn_columns(terminal: Terminal, now: datetime) -> list[Column[Turn]]:
    def moment(turn: Turn) -> Text:
        ms = turn.trace.request_time
        return Text(full_moment(ms) if terminal.room is None else short_moment(ms, now), "dim")

    def state(turn: Turn) -> Text:
        return styled(turn.trace.state, "bold red" if turn.trace.state == "ERROR" else "green")

    def length(ms: float | None) -> Text:
        return Text("" if ms is None else ("-" if ms < 0 else "") + duration(abs(ms) * 1e6))

    return [
        Column("time", moment),
        Column("state", state, cap=17),
        Column("name", lambda turn: styled(turn.trace.name or ""), floor=20),
        Column("pause", lambda turn: length(turn.pause_ms), 4, is_right=True),
        Column("duration", lambda turn: length(turn.trace.duration_ms), is_right=True),
        Column("user", lambda turn: styled(turn.trace.user or ""), 5, floor=8, cap=24),
        Column("request", lambda turn: styled(turn.trace.request_preview or ""), 1, floor=16),
        Column("response", lambda turn: styled(turn.trace.response_preview or ""), 2, floor=16),
        Column("error", lambda turn: styled(turn.error or "", "red"), 3, floor=16),
        Column("trace id", lambda turn: styled(turn.trace.trace_id, "cyan"), 6),
    ]


def _columns(terminal: Terminal, now: datetime) -> list[Column[Session]]:
    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if terminal.room is None else short_moment(ms, now), "dim")

    def user(session: Session) -> Text:
        return Text(f"{session.users} users", "yellow") if session.users > 1 else styled(session.user or "")

    def errors(session: Session) -> Text:
        return Text(f"{session.errors:,}", "bold red" if session.errors else "dim")

    columns: list[Column[Session]] = [
        Column("last turn", lambda session: moment(session.last_seen)),
        Column("first turn", lambda session: moment(session.first_seen)),
        Column("session", lambda session: styled(session.session_id, "cyan"), floor=8, cap=250),
        Column("user", user, floor=8, cap=250),
        Column("turns", lambda session: Text(f"{session.turns:,}"), is_right=True),
        Column("duration", lambda session: Text(duration(session.duration * 1e6)), is_right=True),
        Column("errors", errors, is_right=True),
    ]
    if terminal.room is not None and terminal.room < _ROOM_FOR_FIRST_TURN:
        del columns[1]
    return columns
