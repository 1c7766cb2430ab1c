"""``wherefrom errors``: failed traces in groups."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

import typer
from rich.text import Text

from .._units import full_moment, short_moment
from .options import (
    ExperimentOption,
    FilterArgument,
    JsonOption,
    SinceOption,
    StoreOption,
    examples,
    narrowed,
    opened,
)
from .terminal import Column, Terminal, print_json, print_table, remark, styled

if TYPE_CHECKING:
    from ..analysis import ErrorGroup

ERRORS_HELP: Final = examples(
    ("wherefrom errors", "those of the last day"),
    ("wherefrom errors --since 7d", "within a week"),
    ("wherefrom errors \"metadata.app_version = '1.1.0'\"", "those of one release"),
    ("wherefrom errors --json | jq '.groups[] | select(.is_new)'", "those that only the newest release has"),
    closing="Errors with the same type, the same place and, but for numbers, ids and quoted parts, the same"
    " message are one group. The newest 1,000 failed traces are read.",
)


def errors(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: JsonOption = False,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List errors in groups, the one with the most traces first."""
    from .. import analysis

    start = None if since is None else str(since)
    with opened(ctx, store) as used:
        found = analysis.errors(narrowed(filter_string), since=start, experiment=experiment, store=used)
    if as_json:
        print_json(asdict(found))
    else:
        terminal = Terminal()
        print_table(terminal, _columns(terminal, datetime.now().astimezone()), found.groups)
    if not found.groups:
        remark("No trace failed in this time range; --since looks further back.")
    elif not found.is_whole:
        remark(f"{found.errors:,} traces failed; the newest {found.traces:,} are grouped.")


def _columns(terminal: Terminal, now: datetime) -> list[Column[ErrorGroup]]:
    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if terminal.room is None else short_moment(ms, now), "dim")

    return [
        Column("last", lambda one: moment(one.last_seen)),
        Column("first", lambda one: moment(one.first_seen), 4),
        Column("traces", lambda one: Text(f"{one.traces:,}"), is_right=True),
        Column("users", lambda one: Text(f"{one.users:,}"), 3, is_right=True),
        Column("error", lambda one: styled(one.kind, "bold red"), floor=12, cap=40),
        Column("message", lambda one: styled(one.message), floor=20),
        Column("new", lambda one: Text("new" if one.is_new else ""), 2),
        Column("where", lambda one: styled(one.where, "dim"), 5, floor=8, cap=40),
        Column("versions", lambda one: styled(", ".join(one.versions)), 6, floor=8, cap=24),
        Column("example", lambda one: styled(one.example, "cyan"), 1),
    ]
