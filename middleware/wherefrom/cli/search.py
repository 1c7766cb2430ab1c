"""``wherefrom search``: the traces that pass a filter, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .._sanitize import visible, visible_json
from .grid import Column, print_grid
from .help import Documented, Examples, print_section
from .opening import StoreOption, opened, store_url
from .options import ExperimentOption, FilterArgument
from .terminal import Terminal, hint, remark

if TYPE_CHECKING:
    from ..client import TraceClient
    from ..model import Trace

_PAGE = 100
_DEFAULT_LIMIT = 20


class SearchCommand(Documented):
    """The command, with what a filter can ask for in its help."""

    examples: Examples = (
        ("wherefrom search", "the newest"),
        ("wherefrom search \"status = 'ERROR' AND timestamp > '2h ago'\"", "what failed lately"),
        ("wherefrom search \"metadata.app_version = '1.1.0'\"", "what one release did"),
        ("wherefrom search \"user = 'alice' AND name LIKE '%chat%'\"", "one user's requests"),
        ("wherefrom search --order-by 'execution_time_ms DESC' -n 5", "the slowest"),
        ("wherefrom search --json | jq .info.trace_id", "for scripts: one JSON object a line"),
    )

    def print_tables(self, terminal: Terminal) -> None:
        """Print the fields."""
        from ..query.fields import ALL_FIELDS, METADATA, SPAN_ATTRIBUTE, TAG

        print_section(
            terminal,
            "What a filter can ask for",
            "MLflow's filter language, and OR, NOT and parentheses. Text stands in single quotes; a key with"
            " other characters than letters, digits, _ and . stands in backticks.",
        )
        by_operators: dict[str, list[list[Text]]] = {}
        for field in ALL_FIELDS:
            name = f"{field.name}.<key>" if field in {METADATA, TAG, SPAN_ATTRIBUTE} else field.name
            row = [Text(name, style="cyan"), Text(field.help)]
            by_operators.setdefault("  ".join(field.operators), []).append(row)
        for operators, rows in by_operators.items():
            if operators:
                terminal.line()
                terminal.paragraph(operators, indent=2, style="dim")
                print_grid(terminal, (Column(22), Column(24, wraps=True)), rows, indent=4)


def search(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One trace a line, as MLflow's trace JSON.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = _DEFAULT_LIMIT,
    order_by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD [DESC]", help="In which order; may be given again.", show_default=False),
    ] = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List traces, the newest first."""
    from ..client import TraceClient

    with opened(store_url(ctx, store)) as opened_store:
        found = _Search(TraceClient(opened_store), filter_string, order_by, experiment, limit)
        if as_json:
            for trace in found:
                typer.echo(visible_json(trace.to_json()))
        else:
            _print_table(found)
        if not found.count:
            remark(_nothing_found(TraceClient(opened_store), filter_string, experiment))
            return
    if not as_json:
        more = f"-n {limit * 5} shows more; " if found.has_more else ""
        hint(f"{more}`wherefrom show TRACE_ID` shows one in full.")


class _Search:
    """Pages through the traces found."""

    def __init__(
        self,
        client: TraceClient,
        filter_string: str | None,
        order_by: list[str] | None,
        experiment: str | None,
        limit: int,
    ) -> None:
        self._client = client
        self._filter = filter_string
        self._order = order_by or None
        self._experiments = None if experiment is None else [experiment]
        self._limit = limit
        self.count = 0
        self.has_more = False

    def __iter__(self) -> Iterator[Trace]:
        token = None
        while True:
            size = min(_PAGE, self._limit - self.count)
            page = self._client.search_traces(self._experiments, self._filter, size, self._order, token)
            yield from page
            self.count += len(page)
            token = page.token
            self.has_more = token is not None
            if not self.has_more or self.count >= self._limit:
                return


def _print_table(found: _Search) -> None:
    from .listing import Entry, print_traces

    entries = [Entry.of(trace) for trace in found]
    if entries:
        print_traces(Terminal(), entries, datetime.now().astimezone())


def _nothing_found(client: TraceClient, filter_string: str | None, experiment: str | None) -> str:
    if not client.search_traces(max_results=1):
        return "The store holds no traces yet: send your app a request, then search again."
    place = "" if experiment is None else f" in experiment {visible(experiment)!r}"
    if filter_string is None:
        return f"There are no traces{place}: `wherefrom search` without --experiment shows those of all."
    return (
        f"No trace{place} passes this filter: `wherefrom search` without one shows the newest,"
        " `wherefrom search --help` what a filter can ask for."
    )
