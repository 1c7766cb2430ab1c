"""``wherefrom sessions``: conversations, each as one line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .._sanitize import visible_json
from .._units import duration, full_moment, short_moment
from .grid import Column, print_grid
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .options import ExperimentOption, FilterArgument
from .terminal import Terminal, hint, remark
from .text import styled

if TYPE_CHECKING:
    from ..analysis import Session
    from ..stores import Store

_PAGE = 500
_DEFAULT_LIMIT = 20
_ROOM_FOR_FIRST_SEEN = 100
_RIGHT = Column(is_right=True)


class SessionsCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom sessions", "the conversations with the latest turns"),
        ("wherefrom sessions \"status = 'ERROR'\"", "in which something went wrong"),
        ("wherefrom sessions \"user = 'alice'\" -n 5", "one user's latest"),
        ("wherefrom search \"session_id = 's-17'\" --order-by timestamp", "the turns of one, in their order"),
        ("wherefrom sessions --json | jq .duration", "for scripts: one JSON object a line"),
    )
    closing = (
        "A filter chooses the sessions in which some trace passes it; each is shown whole. The duration is"
        " from the first request to the last answer."
    )


def sessions(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="One session a line.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = _DEFAULT_LIMIT,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List sessions, the one with the latest turn first: how many turns, how long, and what failed."""
    with opened(store_url(ctx, store)) as opened_store:
        found = _Sessions(opened_store, filter_string, experiment, limit)
        if as_json:
            _print_json(found)
        else:
            _print_table(Terminal(), list(found), datetime.now().astimezone())
    if not found.count:
        remark(_nothing_found(filter_string))
    elif not as_json:
        more = f"-n {limit * 5} shows more; " if found.has_more else ""
        hint(f"{more}`wherefrom search \"session_id = '...'\" --order-by timestamp` lists the turns of one.")


class _Sessions:
    """Pages through the sessions."""

    def __init__(self, store: Store, filter_string: str | None, experiment: str | None, limit: int) -> None:
        self._store = store
        self._filter = filter_string
        self._experiment = experiment
        self._limit = limit
        self.count = 0
        self.has_more = True

    def __iter__(self) -> Iterator[Session]:
        from .. import analysis

        token = None
        while self.has_more and self.count < self._limit:
            page = analysis.sessions(
                self._filter,
                experiment=self._experiment,
                store=self._store,
                max_results=min(_PAGE, self._limit - self.count),
                page_token=token,
            )
            self.count += len(page)
            token = page.token
            self.has_more = token is not None
            yield from page


def _print_json(sessions: _Sessions) -> None:
    import orjson

    for session in sessions:
        typer.echo(visible_json(orjson.dumps(session.to_dict()).decode()))


def _print_table(terminal: Terminal, sessions: list[Session], now: datetime) -> None:
    is_whole = terminal.room is None

    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if is_whole else short_moment(ms, now), "dim")

    rows = [
        {
            "last turn": moment(session.last_seen),
            "first turn": moment(session.first_seen),
            "session": styled(session.session_id, "cyan"),
            "user": _user(session),
            "turns": Text(f"{session.turns:,}"),
            "duration": Text(duration(session.duration * 1e6)),
            "errors": Text(f"{session.errors:,}", "bold red" if session.errors else "dim"),
        }
        for session in sessions
    ]
    if terminal.room is not None and terminal.room < _ROOM_FOR_FIRST_SEEN:
        for row in rows:
            del row["first turn"]
    if rows:
        right = {"turns", "duration", "errors"}
        columns = [_RIGHT if title in right else Column() for title in rows[0]]
        print_grid(terminal, columns, [list(row.values()) for row in rows], header=list(rows[0]))


def _user(session: Session) -> Text:
    if session.users > 1:
        return Text(f"{session.users} users", "yellow")
    return styled(session.user or "")


def _nothing_found(filter_string: str | None) -> str:
    if filter_string is None:
        return "No trace tells its session: a client does with the header X-Session-ID."
    return (
        "No session has a trace that passes this filter: `wherefrom sessions` without one shows the latest."
    )
