"""``wherefrom prune``: delete old traces, and shrink the file on request."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .._units import age_ms, counted, size, spoken_moment
from ..exceptions import StoreUnavailableError, WherefromError
from .options import StoreOption, examples, opened
from .terminal import Terminal, hint

if TYPE_CHECKING:
    from ..stores import Store

PRUNE_HELP: Final = examples(
    ("wherefrom prune --older-than 30d --dry-run", "count what would be deleted"),
    ("wherefrom prune --older-than 30d", "delete after confirmation"),
    ("wherefrom prune --older-than 12h --yes --vacuum", "in a script, and shrink the file"),
    ("wherefrom prune --vacuum", "delete nothing, and shrink the file"),
    closing="The settings WHEREFROM_RETENTION_DAYS and WHEREFROM_MAX_STORE_MB delete while the app runs.",
)


class NotConfirmedError(WherefromError):
    """There is no terminal on which to confirm that traces may be deleted."""


def _age(text: str) -> int:
    milliseconds = age_ms(text)
    if milliseconds is None:
        raise typer.BadParameter(
            f"{text!r} is not an age: use a number and s, m, h, d or w, such as 30d or 12h"
        )
    return milliseconds


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        int | None,
        typer.Option(
            parser=_age,
            metavar="AGE",
            help="Minimum age of the traces to delete: 90s, 30m, 12h, 30d or 4w.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the traces.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Shrink the file afterwards; writers wait meanwhile.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Delete traces that started before a certain age, or shrink the file, or both."""
    terminal = Terminal()
    if older_than is None:
        if not vacuum:
            raise typer.BadParameter(
                "takes an age, such as 30d; without it there is only --vacuum", param_hint="--older-than"
            )
        with opened(ctx, store) as used:
            _shrink(terminal, used)
        return
    before_ms = max(time.time_ns() // 1_000_000 - older_than, 0)
    with opened(ctx, store) as used:
        count = _count_before(used, before_ms)
        what = f"{counted(count, 'trace')} from before {spoken_moment(before_ms)}"
        if dry_run:
            terminal.line(f"{what} would be deleted.")
            return
        if count and not yes and not _is_confirmed(what):
            terminal.line("Nothing was deleted.")
            raise typer.Exit(1)
        deleted = _delete(terminal, used, before_ms, count) if count else 0
        terminal.line(f"{counted(deleted, 'trace')} deleted.")
        if vacuum:
            _shrink(terminal, used)
        elif deleted:
            hint("The file keeps its size and reuses the space; --vacuum shrinks it.")


def _shrink(terminal: Terminal, store: Store) -> None:
    before, after = map(size, store.vacuum())
    terminal.line(f"The file shrank from {before} to {after}.")


def _delete(terminal: Terminal, store: Store, before_ms: int, count: int) -> int:
    """Delete the traces; the count is printed also when deletion is interrupted or fails halfway."""
    try:
        with terminal.progress("Deleting") as report:
            return store.prune(
                before_ms, on_progress=lambda done: report(done / count, counted(done, "trace"))
            )
    except (KeyboardInterrupt, StoreUnavailableError):
        deleted = count - _count_before(store, before_ms)
        terminal.line(f"{counted(deleted, 'trace')} deleted before the command stopped; run it again.")
        raise


def _count_before(store: Store, before_ms: int) -> int:
    from ..query.fields import Operator, find_field
    from ..query.tree import Compare
    from ..stores import Selection

    with store.snapshot() as snapshot:
        return snapshot.count(Selection(Compare(find_field(None, "timestamp"), Operator.LT, before_ms)))


def _is_confirmed(what: str) -> bool:
    """Ask on the terminal.

    Raises:
        NotConfirmedError: there is none.
    """
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"there is no terminal for the confirmation: --yes deletes {what}")
    print(f"Delete {what}? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - input would ask on stdout
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
