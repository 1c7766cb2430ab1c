"""``wherefrom search`` and ``wherefrom tail``: the table of traces."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .. import keys
from .._records import http_status
from .._sanitize import visible, visible_json
from .._units import duration, full_moment, short_moment
from ..model import Trace, TraceState
from .options import (
    ExperimentOption,
    FilterArgument,
    LimitOption,
    Pages,
    SinceOption,
    StoreOption,
    TracesAsJsonOption,
    examples,
    narrowed,
    opened,
    print_misses,
)
from .terminal import (
    Column,
    Terminal,
    hint,
    is_interactive,
    plain_table,
    print_pairs,
    print_table,
    remark,
    styled,
    that_fit,
)

if TYPE_CHECKING:
    from ..client import TraceClient
    from ..stores import Store

STATE_STYLES: Final = {TraceState.OK: "green", TraceState.ERROR: "bold red", TraceState.IN_PROGRESS: "yellow"}
SEARCH_HELP: Final = examples(
    ("wherefrom search", "the newest traces"),
    ("wherefrom search \"status = 'ERROR'\" --since 2h", "recent errors"),
    ("wherefrom search \"metadata.app_version = '1.1.0'\"", "one release"),
    ("wherefrom search \"user = 'alice' AND name LIKE '%chat%'\"", "one user's requests"),
    ("wherefrom search --order-by 'execution_time_ms DESC' -n 5", "the slowest"),
    ("wherefrom search --json | jq .info.trace_id", "for scripts: one JSON object per line"),
)
TAIL_HELP: Final = examples(
    ("wherefrom tail", "the latest traces, then new ones; stop with Ctrl-C"),
    ("wherefrom tail \"status = 'ERROR'\"", "only errors"),
    ("wherefrom tail \"user = 'alice'\" -n 0", "only new traces of one user"),
    ("wherefrom tail \"execution_time > '1s'\" --json | jq .info.trace_id", "for scripts: one per line"),
    closing="A trace appears when its request ends, so a slow request follows faster ones that began later.",
)
_PAGE: Final = 100
_PAUSE_S: Final = 1.0  # stores that are told of new traces wake earlier
_SHORT_ID: Final = len("tr-") + 16  # 48 bits of time and 16 random bits: enough for `wherefrom show`
_LIVE_WIDTHS: Final = {
    "time": 8, "state": 5, "name": 22, "duration": 11, "http": 4, "version": 8, "environment": 11, "user": 12,
    "session": 12, "request id": 36, "trace id": _SHORT_ID - len("tr-"),
}  # fmt: skip


def print_filter_fields() -> None:
    """Print the fields of a filter, below the help of ``search``."""
    from ..query.fields import ALL_FIELDS, OPEN, SPAN_ATTRIBUTE

    terminal = Terminal()
    terminal.line(" Filter fields", style="bold")
    terminal.paragraph(
        "MLflow's filter language with OR, NOT and parentheses. Put text in single quotes. Put a key in"
        " backticks if it contains characters other than letters, digits, _ and .",
        indent=2,
        style="dim",
    )
    by_operators: dict[str, list[list[Text]]] = {}
    for field in ALL_FIELDS:
        name = f"{field.name}.<key>" if field in {*OPEN, SPAN_ATTRIBUTE} else field.name
        row = [Text(f"  {name}", style="cyan"), Text(field.help)]
        by_operators.setdefault("  ".join(field.operators), []).append(row)
    for operators, rows in by_operators.items():
        if operators:
            terminal.line()
            terminal.paragraph(operators, indent=2, style="dim")
            print_pairs(terminal, rows)
    terminal.line()


def search(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: TracesAsJsonOption = False,
    limit: LimitOption = 20,
    order_by: Annotated[
        list[str] | None, typer.Option(metavar="FIELD [DESC]", help="Sort order. Can be repeated.")
    ] = None,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List traces, the newest first."""
    from ..client import TraceClient

    filter_string = narrowed(filter_string, since=since)
    with opened(ctx, store) as opened_store:
        client = TraceClient(opened_store)
        experiments = None if experiment is None else [experiment]
        found = Pages(
            lambda size, token: client.search_traces(
                experiments, filter_string, size, order_by or None, token
            ),
            limit,
            size=_PAGE,
        )
        if as_json:
            _print_json(found)
        else:
            terminal = Terminal()
            print_table(terminal, _columns(terminal, datetime.now().astimezone()), found)
        if not found.count:
            remark(_nothing_found(client, filter_string, experiment))
            print_misses(opened_store, filter_string, experiment, "search")
        elif not as_json:
            more = f"-n {limit * 5} shows more; " if found.has_more else ""
            hint(f"{more}`wherefrom show TRACE_ID` shows one trace in full.")


def tail(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: TracesAsJsonOption = False,
    count: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="Number of stored traces to show first.")
    ] = 10,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Show the latest traces, then new ones as they are stored."""
    from ..stores.opening import locate

    filter_string = narrowed(filter_string, since=since)
    opened_store = locate(store or ctx.obj)
    try:
        _follow(opened_store, filter_string, experiment, count, _print_json if as_json else _live_table())
    except KeyboardInterrupt:
        if is_interactive():
            Terminal(stderr=True).line()
        raise typer.Exit(130) from None
    finally:
        opened_store.close()


def _follow(
    store: Store,
    filter_string: str | None,
    experiment: str | None,
    count: int,
    show: Callable[[list[Trace]], None],
) -> None:
    from ..analysis.tail import Follower

    follower = Follower(store, filter_string, experiment)
    found = follower.last(count)
    if (missing := store.missing()) is not None:
        remark(f"{missing}. Waiting for it.")
    while True:
        if found:
            show(found)
            sys.stdout.flush()
        else:
            store.wait(_PAUSE_S)
        found = follower.new()


def _live_table() -> Callable[[list[Trace]], None]:
    """Prints traces in columns whose widths never change, under titles that are printed once."""
    terminal = Terminal()
    is_first = True

    def show(traces: list[Trace]) -> None:
        nonlocal is_first
        columns, widths = _columns(terminal, datetime.now().astimezone()), dict(_LIVE_WIDTHS)
        if terminal.room is not None:
            columns = that_fit(columns, widths, terminal.room)
            taken = sum(widths[column.title] + 2 for column in columns if column.title != "name")
            widths["name"] = max(terminal.room - taken, 8)
        table = plain_table(show_header=is_first)
        for column in columns:
            is_cut = terminal.room is not None and column.title != "time"
            table.add_column(
                column.title,
                justify="right" if column.is_right else "left",
                no_wrap=True,
                overflow="ellipsis",
                min_width=widths[column.title],
                max_width=widths[column.title] if is_cut else None,
            )
        for trace in traces:
            table.add_row(*(column.cell(trace) for column in columns))
        terminal.show(table, is_fitted=False)
        is_first = False

    return show


def _print_json(traces: Pages[Trace] | list[Trace]) -> None:
    for trace in traces:
        status = http_status(trace)
        shown = "null" if status is None else status
        typer.echo(visible_json(f'{trace.to_json()[:-1]},"http_status":{shown}}}'))


def state_text(trace: Trace) -> Text:
    """The state in its colour."""
    return Text(trace.info.state.value, style=STATE_STYLES.get(trace.info.state, ""))


def _columns(terminal: Terminal, now: datetime) -> Sequence[Column[Trace]]:
    """Every column, in its order; times and ids are short on a terminal."""
    is_whole = terminal.room is None

    def moment(trace: Trace) -> Text:
        ms = trace.info.request_time
        return Text(full_moment(ms) if is_whole else short_moment(ms, now), style="" if is_whole else "dim")

    def trace_id(trace: Trace) -> Text:
        whole = trace.info.trace_id
        return styled(whole) if is_whole else styled(whole[:_SHORT_ID].removeprefix("tr-"), "cyan")

    def took(trace: Trace) -> Text:
        return Text("" if trace.duration_ns is None else duration(trace.duration_ns))

    def metadata(key: str) -> Callable[[Trace], Text]:
        return lambda trace: styled(trace.info.trace_metadata.get(key, ""))

    return [
        Column("time", moment),
        Column("state", state_text, cap=17),
        Column("name", lambda trace: styled(trace.info.name or ""), floor=26),
        Column("duration", took, is_right=True),
        Column("http", lambda trace: Text(str(http_status(trace) or "")), 2, is_right=True),
        Column("version", metadata(keys.APP_VERSION), 1, floor=8, cap=16),
        Column("environment", metadata(keys.ENVIRONMENT), 5, floor=11, cap=16),
        Column("user", metadata(keys.USER), 2, floor=8, cap=24),
        Column("session", metadata(keys.SESSION), 3, floor=8, cap=24),
        Column("request id", lambda trace: styled(trace.info.client_request_id or ""), 4, cap=36),
        Column("trace id", trace_id),
    ]


def _nothing_found(client: TraceClient, filter_string: str | None, experiment: str | None) -> str:
    if not client.search_traces(max_results=1):
        return "The store holds no traces yet. Send your app a request and search again."
    place = "" if experiment is None else f" in experiment {visible(experiment)!r}"
    if filter_string is None:
        return f"There are no traces{place}. `wherefrom search` without --experiment shows all experiments."
    return (
        f"No trace{place} matches this filter. `wherefrom search` without a filter shows the newest traces,"
        " `wherefrom search --help` lists the filter fields."
    )
