"""``wherefrom tail``: traces as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from .._sanitize import visible_json
from ..stores.sqlite.file import file_of, missing
from .help import Documented, Examples
from .opening import StoreOption, store_url, unopened
from .options import ExperimentOption, FilterArgument
from .terminal import Terminal, is_looked_on, remark

if TYPE_CHECKING:
    from ..model import Trace
    from ..stores import Store

Show = Callable[[list["Trace"]], None]

_PAUSE_S = 0.25
_DEFAULT_COUNT = 10


class TailCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom tail", "the last few, then each as it comes; Ctrl-C ends it"),
        ("wherefrom tail \"status = 'ERROR'\"", "only what goes wrong"),
        ("wherefrom tail \"user = 'alice'\" -n 0", "one user's, none of those that are there already"),
        ("wherefrom tail \"execution_time > '1s'\" --json | jq .info.trace_id", "for scripts: one a line"),
    )
    closing = (
        "A trace comes when its request is over: one that took long comes after others that began later."
    )


def tail(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One trace a line, as MLflow's trace JSON.")
    ] = False,
    count: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many of those there are already.")
    ] = _DEFAULT_COUNT,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Show traces as they come, the last few first."""
    opened_store = unopened(store_url(ctx, store))
    try:
        _follow(opened_store, filter_string, experiment, count, _print_json if as_json else _table())
    except KeyboardInterrupt:
        if is_looked_on():
            Terminal(stderr=True).line()
        raise typer.Exit(130) from None
    finally:
        opened_store.close()


def _follow(store: Store, filter_string: str | None, experiment: str | None, count: int, show: Show) -> None:
    """Show what is there and what comes, until it is interrupted."""
    from ..analysis.tail import Follower, Selection

    follower = Follower(Selection(store, filter_string, experiment))
    found = follower.last(count)
    if not follower.is_there and (path := file_of(store)) is not None:
        remark(f"{missing(path)}. Waiting for it.")
    while True:
        if found:
            show(found)
            sys.stdout.flush()
        else:
            time.sleep(_PAUSE_S)
        found = follower.new()


def _table() -> Show:
    from .listing import Entry, LiveTable

    table = LiveTable(Terminal())
    return lambda traces: table.add([Entry.of(trace) for trace in traces], datetime.now().astimezone())


def _print_json(traces: list[Trace]) -> None:
    for trace in traces:
        typer.echo(visible_json(trace.to_json()))
