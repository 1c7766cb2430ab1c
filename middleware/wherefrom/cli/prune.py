"""``wherefrom prune``: old traces deleted, and the file made smaller when asked."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .._units import age_ms, counted, size, spoken_moment
from ..exceptions import StoreUnavailableError, WherefromError
from ..stores.sqlite.file import file_of
from .help import Documented, Examples
from .moving import progress
from .opening import StoreOption, opened, store_url
from .terminal import Terminal, hint

if TYPE_CHECKING:
    from ..stores import Store


class NotConfirmedError(WherefromError):
    """Nobody is there to be asked whether traces may be deleted."""


class PruneCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom prune --older-than 30d --dry-run", "how many would go"),
        ("wherefrom prune --older-than 30d", "delete them, after asking"),
        ("wherefrom prune --older-than 12h --yes --vacuum", "in a script, and give the space back"),
    )
    closing = "The setting WHEREFROM_RETENTION_DAYS does the same while the app runs."


def _age(text: str) -> int:
    milliseconds = age_ms(text)
    if milliseconds is None:
        raise typer.BadParameter(
            f"{text!r} is no age: it takes a number and s, m, h, d or w, such as 30d or 12h"
        )
    return milliseconds


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        int,
        typer.Option(
            parser=_age,
            metavar="AGE",
            help="How old a trace is that goes: 90s, 30m, 12h, 30d or 4w.",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many would go.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Make the file smaller afterwards; writers wait meanwhile.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Delete the traces that started longer ago than this."""
    terminal = Terminal()
    before_ms = max(time.time_ns() // 1_000_000 - older_than, 0)
    with opened(store_url(ctx, store)) as opened_store:
        count = _count_before(opened_store, before_ms)
        what = f"{counted(count, 'trace')} from before {spoken_moment(before_ms)}"
        if dry_run:
            terminal.line(f"{what} would be deleted.")
            return
        if count and not yes and not _is_confirmed(what):
            terminal.line("Nothing was deleted.")
            raise typer.Exit(1)
        deleted = _delete(terminal, opened_store, before_ms, count) if count else 0
        terminal.line(f"{counted(deleted, 'trace')} deleted.")
        if vacuum:
            _vacuum(terminal, opened_store)
        elif deleted:
            hint("The file keeps its size and fills up again; --vacuum gives the space back.")


def _delete(terminal: Terminal, store: Store, before_ms: int, count: int) -> int:
    """Delete them; how many have gone is told also when it is interrupted, or cannot go on."""
    try:
        with progress("Deleting") as report:
            return store.prune(
                before_ms, on_progress=lambda done: report(done / count, counted(done, "trace"))
            )
    except (KeyboardInterrupt, StoreUnavailableError):
        deleted = count - _count_before(store, before_ms)
        terminal.line(
            f"{counted(deleted, 'trace')} deleted before it ended early; run it again for the rest."
        )
        raise


def _count_before(store: Store, before_ms: int) -> int:
    from sqlalchemy import func, select

    from ..stores.sqlite.expressions import register
    from ..stores.sqlite.reader import snapshot
    from ..stores.sqlite.schema import traces

    with snapshot(store.engine, prepare=register) as connection:
        query = select(func.count()).select_from(traces).where(traces.c.request_time < before_ms)
        return connection.scalar(query) or 0


def _is_confirmed(what: str) -> bool:
    """Ask on the terminal.

    Raises:
        NotConfirmedError: there is none.
    """
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"there is no terminal to ask on: --yes deletes {what}")
    print(f"Delete {what}? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - input would ask on stdout
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _vacuum(terminal: Terminal, store: Store) -> None:
    from ..stores.sqlite.reader import mapped_errors

    path = file_of(store)
    if path is None:
        return
    before = path.stat().st_size
    with mapped_errors(), store.engine.connect() as connection:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    terminal.line(f"The file went from {size(before)} to {size(path.stat().st_size)}.")
