"""``wherefrom export``: traces as a file for other tools, or to a server."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .._sanitize import visible, without_secrets
from .._units import counted, size
from .completion import complete_format
from .formats import Format, Write, comma_separated, format_of, json_lines, parquet
from .help import Documented, Examples
from .moving import Report, Tally, progress
from .opening import StoreOption, opened, store_url
from .options import ExperimentOption, FilterArgument
from .terminal import remark

if TYPE_CHECKING:
    from ..analysis.tail import Step
    from ..stores import Store
    from .records import Layout

_SERVERS: Final = ("mlflow", "otlp")
_SENT_AT_ONCE: Final = 50


class ExportCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom export --output traces.parquet", "everything, for pandas, polars or DuckDB"),
        ("wherefrom export \"timestamp > '24h ago'\" --output day.csv", "the last day, for a spreadsheet"),
        ("wherefrom export \"status = 'ERROR'\" --to jsonl | jq .info.trace_id", "for scripts"),
        ("wherefrom export --to mlflow+http://127.0.0.1:5000?experiment=chat", "into an MLflow server"),
    )
    closing = (
        "jsonl: MLflow's trace JSON, spans and all. csv: a column for each known metadata key and tag, no"
        " spans; a text that a spreadsheet would take for a formula gets an apostrophe before it. parquet:"
        " the same columns with nothing changed, and the spans as JSON. Traces come in the order in which"
        " they were stored. A server is named as in WHEREFROM_EXPORT. It may be run again, also after it broke"
        " off: what an MLflow server has already is not sent twice."
    )


def export(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="jsonl, csv or parquet, by default what FILE ends in, else jsonl; or a server, such as"
            " mlflow+http://127.0.0.1:5000?experiment=chat or otlp+http://127.0.0.1:4318.",
            autocompletion=complete_format,
            show_default=False,
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
    """Write traces as JSON lines, CSV or Parquet, or send them to a server."""
    from ..analysis.tail import Selection, in_steps

    is_sent = to is not None and to.startswith(_SERVERS)
    if is_sent and output is not None:
        raise typer.BadParameter("what is sent to a server goes to no file", param_hint="--output")
    chosen = Format.JSONL if is_sent else _chosen(_named(to), output)
    with opened(store_url(ctx, store)) as opened_store:
        steps = in_steps(Selection(opened_store, filter_string, experiment))
        if to is not None and is_sent:
            _send(steps, to)
        elif output is None:
            with progress("Exporting", is_shown=not sys.stdout.isatty()) as report:
                _copy(steps, _to_stdout(chosen, opened_store), report)
                sys.stdout.flush()
        else:
            _to_file(steps, chosen, output, opened_store)


def _named(to: str | None) -> Format | None:
    """The format of this name.

    Raises:
        BadParameter: there is none.
    """
    try:
        return None if to is None else Format(to)
    except ValueError:
        takes = f"{', '.join(Format)}, or a server such as mlflow+http://127.0.0.1:5000"
        shown = visible(without_secrets(to or ""))
        raise typer.BadParameter(f"{shown!r} is no format: it takes {takes}", param_hint="--to") from None


def _send(steps: Iterable[Step], target: str) -> None:
    """Send traces to a server, those that it does not have yet."""
    from ..exporters import open_exporter
    from ..exporters.delivery import deliver, patiently

    sink: Any = open_exporter(target)
    missing = getattr(sink, "missing", list)
    getattr(sink, "check", str)()  # an address that is wrong is told at once
    tally = Tally()
    try:
        with progress("Exporting") as report:
            for step in steps:
                for start in range(0, len(step.traces), _SENT_AT_ONCE):
                    some = step.traces[start : start + _SENT_AT_ONCE]
                    left = patiently(partial(missing, some))
                    refused = deliver(sink, left)
                    tally.add(len(left) - len(refused), len(some) - len(left), refused)
                    report(step.done, str(tally))
    finally:
        sink.close()
    tally.close(f"to {visible(without_secrets(target))}")


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
        with _writing(chosen, path, store) as write, progress("Exporting") as report:
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


def _copy(steps: Iterable[Step], write: Write, report: Report) -> int:
    """Write everything, and say how much it was."""
    count = 0
    for step in steps:
        write(step.traces)
        count += len(step.traces)
        report(step.done, counted(count, "trace"))
    return count
