"""``whence export``: traces as a file for other tools."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..units import counted, size
from ..visible import visible
from .formats import Format, Write, comma_separated, format_of, json_lines, parquet
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .options import ExperimentOption, FilterArgument
from .terminal import Terminal, remark

if TYPE_CHECKING:
    from ..analysis.scan import Step
    from ..stores import Store
    from .records import Layout


class ExportCommand(Documented):
    """The command."""

    examples: Examples = (
        ("whence export --output traces.parquet", "everything, for pandas, polars or DuckDB"),
        ("whence export \"timestamp > '24h ago'\" --output day.csv", "the last day, for a spreadsheet"),
        ("whence export \"status = 'ERROR'\" --to jsonl | jq .info.trace_id", "for scripts"),
    )
    closing = (
        "jsonl: MLflow's trace JSON, spans and all. csv: a column for each known metadata key and tag, no"
        " spans; a text that a spreadsheet would take for a formula gets an apostrophe before it. parquet:"
        " the same columns with nothing changed, and the spans as JSON. Traces come in the order in which"
        " they were stored."
    )


def export(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    to: Annotated[
        Format | None,
        typer.Option(
            "--to", help="The format; by default what FILE ends in, else jsonl.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it; by default standard output.",
            show_default=False,
        ),
    ] = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Write traces as JSON lines, CSV or Parquet."""
    from ..analysis.scan import Selection, in_steps

    chosen = _chosen(to, output)
    with opened(store_url(ctx, store)) as opened_store:
        steps = in_steps(Selection(opened_store, filter_string, experiment))
        if output is None:
            with _progress(not sys.stdout.isatty()) as report:
                _copy(steps, _to_stdout(chosen, opened_store), report)
                sys.stdout.flush()
        else:
            _to_file(steps, chosen, output, opened_store)


def _chosen(to: Format | None, output: Path | None) -> Format:
    """The format that is asked for.

    Raises:
        BadParameter: none is told, or it does not go with where it goes.
    """
    if output is None:
        if to is Format.PARQUET:
            raise typer.BadParameter("parquet takes a file: name one with --output", param_hint="--to")
        return to or Format.JSONL
    chosen = to or format_of(output)
    if chosen is None:
        raise typer.BadParameter(
            f"the ending of {visible(output)} tells no format: name one with --to", param_hint="--output"
        )
    return chosen


def _to_stdout(chosen: Format, store: Store) -> Write:
    is_seen = sys.stdout.isatty()
    if not is_seen and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    if chosen is Format.CSV:
        return comma_separated(sys.stdout, _layout(store), is_seen=is_seen)
    return json_lines(sys.stdout)


def _to_file(steps: Iterable[Step], chosen: Format, output: Path, store: Store) -> None:
    from .files import replacing

    with replacing(output, store) as path:
        with _writing(chosen, path, store) as write, _progress(is_shown=True) as report:
            count = _copy(steps, write, report)
        written = size(path.stat().st_size)
    remark(f"{counted(count, 'trace')} in {visible(output)} ({written}).")


@contextmanager
def _writing(chosen: Format, path: Path, store: Store) -> Iterator[Write]:
    if chosen is Format.PARQUET:
        with parquet(path, _layout(store)) as write:
            yield write
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield comma_separated(stream, _layout(store)) if chosen is Format.CSV else json_lines(stream)


def _layout(store: Store) -> Layout:
    from ..client import TraceClient
    from .records import Layout

    client = TraceClient(store)
    return Layout.of(client.list_keys("metadata"), client.list_keys("tag"))


Report = Callable[[float, str], None]


@contextmanager
def _progress(is_shown: bool) -> Iterator[Report]:
    """A bar on standard error, where that is a terminal and nothing else is written there."""
    terminal = Terminal(stderr=True)
    if is_shown and terminal.room is not None:
        with terminal.progress("Exporting") as report:
            yield report
    else:
        yield lambda *_: None


def _copy(steps: Iterable[Step], write: Write, report: Report) -> int:
    """Write everything, and say how much it was."""
    count = 0
    for step in steps:
        write(step.traces)
        count += len(step.traces)
        report(step.done, counted(count, "trace"))
    return count
