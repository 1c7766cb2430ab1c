"""``wherefrom db``: create, upgrade and print the tables of a store, and copy its traces to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .._units import counted
from ..exceptions import WherefromError
from .options import StoreOption, examples
from .terminal import Terminal, remark, styled

if TYPE_CHECKING:
    from ..copying import Copy

DB_HELP: Final = examples(
    ("wherefrom db upgrade --store postgresql://owner@db.internal/traces", "create or upgrade the tables"),
    ("wherefrom db schema --store clickhouse://host/traces", "the DDL, to read or to run by hand"),
    ("wherefrom db schema --store 'clickhouse://host/traces?cluster=main'", "the same for a cluster"),
    ("wherefrom db copy sqlite:///wherefrom.db postgresql://app@db.internal/traces", "move to a server"),
    closing="Apps whose role may create tables do the same when they record their first trace.",
)


def upgrade(ctx: typer.Context, store: StoreOption = None) -> None:
    """Create the tables of the store, or upgrade them to this version. Any number may run at once."""
    from ..stores.opening import resolve

    with resolve(store or ctx.obj) as opened:
        version = opened.upgrade()
        remark(f"{opened.url} has schema version {version}.")


def schema(ctx: typer.Context, store: StoreOption = None) -> None:
    """Print the statements that make the tables of a ClickHouse store, without connecting to it."""
    from ..stores.opening import statements

    typer.echo(";\n\n".join(statements(store or ctx.obj)) + ";")


def copy(
    origin: Annotated[str, typer.Argument(metavar="FROM", help="URL of the store to read.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="URL of the store to write.")],
) -> None:
    """Copy all traces of one store to another, and compare what both hold.

    Run it again after an interruption: traces that TO has already are compared and not written.

    FROM is not changed. Counts of traces that were pruned there are not copied.

    The exit code is 1 if a trace is not the same in both.
    """
    from ..copying import Copy, copy_traces
    from ..stores.opening import resolve

    state = Copy()
    with resolve(origin) as source, resolve(target) as written:
        try:
            with Terminal(stderr=True).progress("Copying") as report:
                for state in copy_traces(source, written):
                    report(state.done, counted(state.source.traces, "trace"))
        except (KeyboardInterrupt, WherefromError):
            if state.written:
                remark(f"{counted(state.written, 'trace')} copied before the command stopped: run it again.")
            raise
        _close(state, source.url, written.url)


def _close(state: Copy, source: str, target: str) -> None:
    """Print the result.

    Raises:
        Exit: the stores differ.
    """
    there = state.source.traces - state.written - state.refused
    remark(f"{counted(state.written, 'trace')} copied, {there:,} already there.")
    for name, content in ((source, state.source), (target, state.target)):
        remark(f"{counted(content.traces, 'trace')} with the digest {content.digest} in {name}.")
    if not state.differing:
        return
    terminal = Terminal(stderr=True)
    terminal.line(f"{counted(state.differing, 'trace')} not the same in both:", style="red")
    for each in state.differences:
        named = Text.assemble(styled(each.trace_id, "cyan"), "  ", styled(each.reason))
        terminal.paragraph(named, indent=2, most=3)
    if (more := state.differing - len(state.differences)) > 0:
        terminal.line(f"  and {more:,} more", style="dim")
    raise typer.Exit(1)
