"""``wherefrom sessions``: one line per conversation."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.text import Text

from .._sanitize import visible_json
from .._units import duration, full_moment, short_moment
from .options import ExperimentOption, FilterArgument, LimitOption, Pages, StoreOption, examples, opened
from .terminal import Column, Terminal, hint, print_table, remark, styled

if TYPE_CHECKING:
    from ..analysis import Session

SESSIONS_HELP: Final = examples(
    ("wherefrom sessions", "the sessions with the latest requests"),
    ("wherefrom sessions \"status = 'ERROR'\"", "sessions with an error"),
    ("wherefrom sessions \"user = 'alice'\" -n 5", "one user's latest sessions"),
    ("wherefrom search \"session_id = 's-17'\" --order-by timestamp", "the requests of one session in order"),
    ("wherefrom sessions --json | jq .duration", "for scripts: one JSON object per line"),
    closing="A filter selects sessions with at least one matching trace; each is shown whole. The duration is"
    " the time from the first request to the end of the last response.",
)
_PAGE: Final = 500
_ROOM_FOR_FIRST_TURN: Final = 100


def sessions(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one session per line.")] = False,
    limit: LimitOption = 20,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List sessions with their turns, duration and errors, the most recently active first."""
    from .. import analysis

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
        hint(f"{more}`wherefrom search \"session_id = '...'\" --order-by timestamp` lists the turns of one.")


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
