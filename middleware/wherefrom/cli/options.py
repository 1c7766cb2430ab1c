"""Options that several commands share, and the examples in their help."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer
from rich.markup import escape

from .._sanitize import visible
from .._units import age_ms
from .completion import complete_experiment, complete_filter, complete_key
from .terminal import remark

if TYPE_CHECKING:
    from ..client import PagedList
    from ..stores import Store

Item = TypeVar("Item")


def option(name: str, metavar: str, help: str, complete: Callable[..., Any] | None = None) -> Any:  # noqa: A002
    """An option that takes a value."""
    return typer.Option(name, metavar=metavar, help=help, autocompletion=complete)


def _moment(text: str) -> int:
    from ..query.values import to_moment

    now_ms = time.time_ns() // 1_000_000
    if (age := age_ms(text)) is not None:
        return now_ms - age
    try:
        return round(to_moment(text, now_ms))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error)) from None


StoreOption = Annotated[
    str | None,
    option(
        "--store", "URL", "Store to read, such as sqlite:///wherefrom.db. The default is WHEREFROM_STORE."
    ),
]
FilterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FILTER",
        help="Only traces that match this filter, such as: status = 'ERROR'",
        autocompletion=complete_filter,
    ),
]
WhereOption = Annotated[
    str | None,
    option("--where", "FILTER", "A further filter; traces must match both.", complete_filter),
]
SinceOption = Annotated[
    int | None,
    typer.Option(
        "--since",
        parser=_moment,
        metavar="TIME",
        help="Only traces since this time: 2h, '2h ago', yesterday, 2026-01-31 or ms since 1970.",
    ),
]
ByOption = Annotated[
    str,
    option(
        "--by",
        "KEY",
        "What to compare by: a metadata key, tag.KEY, or a field such as name or user.",
        complete_key,
    ),
]
ExperimentOption = Annotated[
    str | None, option("--experiment", "NAME", "Only traces of this experiment.", complete_experiment)
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object with every figure.")]
TracesAsJsonOption = Annotated[
    bool, typer.Option("--json", help="Print MLflow's trace JSON and the HTTP status, one trace per line.")
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot", metavar="FILE", help="Write a chart to this file: .png for PNG, else SVG.", dir_okay=False
    ),
]


def examples(*pairs: tuple[str, str], closing: str = "") -> str:
    """An epilog: commands, each under what it does, then a paragraph."""
    lines = [f"[dim]  # {escape(what)}[/]\n[cyan]  {escape(command)}[/]" for command, what in pairs]
    return "\n".join(["[bold]Examples[/]", *lines]) + (f"\n\n{escape(closing)}" if closing else "")


def narrowed(*filters: str | None, since: int | None = None) -> str | None:
    """The filter for traces that pass all of these and started at ``since`` (ms) or later.

    Words and values without quotes are understood, as on the page.

    Raises:
        FilterError: one of several cannot be read.
    """
    from ..query.edit import join_filters
    from ..query.forgiving import spell_out

    begun = None if since is None else f"timestamp >= {since}"
    given = [one for one in (*map(spell_out, filters), begun) if one is not None]
    return join_filters(*given) if len(given) > 1 else next(iter(given), None)


@contextmanager
def opened(ctx: typer.Context, store: str | None) -> Iterator[Store]:
    """The store of the command, of the program or of the settings, in this order; it must exist.

    Raises:
        StoreError: there is none, or the file belongs to another program.
    """
    from ..stores.opening import existing

    with existing(store or ctx.obj) as found:
        yield found


def print_misses(store: Store, filter_string: str | None, experiment: str | None, command: str) -> None:
    """What is wrong with a filter that finds nothing, and ``command`` with filters that may be meant."""
    from ..analysis.misses import explain
    from ..analysis.scope import opened as reading

    with reading(store, filter_string, experiment) as (snapshot, selection):
        for miss in explain(snapshot, selection, selection):
            remark(visible(miss.sentence))
            for one in miss.suggestions:
                remark(visible(f"  wherefrom {command} {shlex.quote(one)}"))


class Pages(Generic[Item]):
    """The items of page after page, up to a limit.

    ``fetch`` takes a size and a page token. ``count`` and ``has_more`` are final when all items were read.
    """

    def __init__(self, fetch: Callable[[int, str | None], PagedList[Item]], limit: int, *, size: int) -> None:
        self._fetch = fetch
        self._limit = limit
        self._size = size
        self.count = 0
        self.has_more = True

    def __iter__(self) -> Iterator[Item]:
        token = None
        while self.has_more and self.count < self._limit:
            page = self._fetch(min(self._size, self._limit - self.count), token)
            token = page.token
            self.has_more = token is not None
            self.count += len(page)
            yield from page
