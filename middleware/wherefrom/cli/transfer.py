"""``wherefrom export``, ``dataset`` and ``import``: traces to and from files and servers."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer
from rich.text import Text

from .._csv import Layout, Write, comma_separated
from .._records import DatasetFormat
from .._sanitize import visible, without_secrets
from .._units import counted, size
from ..exceptions import SettingsError, StoreError
from .completion import complete_format
from .formats import Format, format_of, json_lines, parquet, replacing
from .options import (
    ExperimentOption,
    FilterArgument,
    SinceOption,
    StoreOption,
    examples,
    narrowed,
    opened,
    option,
)
from .terminal import Terminal, remark, styled

if TYPE_CHECKING:
    from ..analysis.tail import Step
    from ..exporters.delivery import Refused
    from ..mlflow.reader import Listed, MLflowReader
    from ..stores import Store

EXPORT_HELP: Final = examples(
    ("wherefrom export --output traces.parquet", "all traces, for pandas, polars or DuckDB"),
    ("wherefrom export --since 24h --output day.csv", "the last day, for a spreadsheet"),
    ("wherefrom export \"status = 'ERROR'\" --to jsonl | jq .info.trace_id", "for scripts"),
    ("wherefrom export --to mlflow+http://127.0.0.1:5000?experiment=chat", "to an MLflow server"),
    closing="jsonl is MLflow's trace JSON with all spans. csv has a column for each known metadata key and"
    " tag, and no spans; an apostrophe precedes text that a spreadsheet would read as a formula. parquet has"
    " the same columns with unchanged values, and the spans as JSON. Traces come in the order of storage."
    " Servers are written as in WHEREFROM_EXPORT. The command is idempotent and can be resumed: traces that"
    " an MLflow server has already are not sent again.",
)
DATASET_HELP: Final = examples(
    ("wherefrom dataset \"feedback.helpful = 'true'\" -o train.jsonl", "for fine-tuning at OpenAI"),
    ("wherefrom dataset --format mlflow --since 7d -o eval.jsonl", "for mlflow.genai.evaluate and datasets"),
    closing='openai is {"messages": [...]} with the answer as the last message, and tools where they were'
    " recorded. mlflow has inputs, outputs, expectations, tags (metadata, tags and feedback) and the trace as"
    " source. Traces without a question and an answer, or with parts that the form cannot hold, are left out"
    " and counted.",
)
IMPORT_HELP: Final = examples(
    ("wherefrom import mlflow http://127.0.0.1:5000 --experiment chat", "one experiment"),
    ("wherefrom import mlflow http://127.0.0.1:5000", "all experiments of the server"),
    (
        "wherefrom import mlflow --since 7d",
        "from the server in MLFLOW_TRACKING_URI",
    ),
    closing="The command is idempotent and can be resumed: unchanged traces are skipped, changed ones"
    " are updated. Credentials are read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or"
    " MLFLOW_TRACKING_TOKEN. Runs, prompts and issues are not imported.",
)
_SERVERS: Final = ("mlflow", "otlp")
_SENT_AT_ONCE: Final = 50  # the progress bar moves at least every second
_REFUSED_SHOWN: Final = 20
_URI: Final = "MLFLOW_TRACKING_URI"


class Origin(StrEnum):
    """Where traces can be imported from."""

    MLFLOW = "mlflow"


OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Output file. The default is standard output."),
]


def export(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    to: Annotated[
        str | None,
        option(
            "--to",
            "FORMAT",
            "jsonl, csv or parquet; or a server, such as mlflow+http://127.0.0.1:5000?experiment=chat or"
            " otlp+http://127.0.0.1:4318. The default is the extension of FILE, else jsonl.",
            complete_format,
        ),
    ] = None,
    output: OutputOption = None,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Write traces as JSON lines, CSV or Parquet, or send them to a server."""
    from ..analysis.tail import in_steps

    is_sent = to is not None and to.startswith(_SERVERS)
    if is_sent and output is not None:
        raise typer.BadParameter("a server takes no output file", param_hint="--output")
    chosen = Format.JSONL if is_sent else _format(to, output)
    with opened(ctx, store) as used:
        steps = in_steps(used, narrowed(filter_string, since=since), experiment)
        if to is not None and is_sent:
            _send(steps, to)
        elif output is None:
            with Terminal(stderr=True).progress("Exporting", is_shown=not sys.stdout.isatty()) as report:
                _copy(steps, _to_stdout(chosen, used), report)
                sys.stdout.flush()
        else:
            _to_file(steps, chosen, output, used)


def dataset(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    form: Annotated[
        DatasetFormat,
        typer.Option("--format", help="openai for fine-tuning, mlflow for evaluation."),
    ] = DatasetFormat.OPENAI,
    output: OutputOption = None,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Write messages and answers as JSON lines, for fine-tuning or evaluation."""
    from ..analysis.datasets import make_lines
    from ..analysis.tail import in_steps

    records, reasons = 0, Counter[str]()

    def write_to(stream: BinaryIO) -> None:
        nonlocal records
        with Terminal(stderr=True).progress("Writing", is_shown=not stream.isatty()) as report:
            for step in in_steps(used, narrowed(filter_string, since=since), experiment):
                for line in make_lines(step.traces, form, lambda reason: reasons.update([reason])):
                    stream.write(line)
                    records += 1
                report(step.done, counted(records, "record"))
        stream.flush()

    with opened(ctx, store) as used:
        if output is None:
            write_to(sys.stdout.buffer)
        else:
            with replacing(output, used) as path, path.open("wb") as stream:
                write_to(stream)
    remark(f"{counted(records, 'record')}{'' if output is None else f' in {visible(output)}'}.")
    for reason, count in reasons.most_common():
        remark(f"Left out: {counted(count, 'trace')} {reason}.")


def import_traces(
    ctx: typer.Context,
    origin: Annotated[Origin, typer.Argument(help="Where to import from.", show_default=False)],
    server: Annotated[
        str | None, typer.Argument(metavar="URL", help=f"Server URL. The default is {_URI}.")
    ] = None,
    experiment: Annotated[
        str | None, option("--experiment", "NAME", "Only traces of this experiment of the server.")
    ] = None,
    where: Annotated[
        str | None, option("--where", "FILTER", "Only traces that match this filter, which the server reads.")
    ] = None,
    since: SinceOption = None,
    store: StoreOption = None,
) -> None:
    """Copy traces from an MLflow server into the store.

    The exit code is 1 if a trace could not be imported; the others are.
    """
    from ..mlflow.client import access_options
    from ..mlflow.reader import MLflowReader
    from ..stores.opening import locate

    del origin  # there is one
    url = (server or os.environ.get(_URI, "")).removeprefix("mlflow+")
    if not url:
        raise SettingsError(f"no server to import from: give its URL, or set {_URI}")
    target = locate(store or ctx.obj)
    target.missing()  # raises where another program made the file
    if since is not None:  # in MLflow's language, which has no parentheses
        where = " AND ".join(filter(None, (where, f"timestamp_ms >= {since}")))
    reader = MLflowReader(url, **access_options(url, os.environ))
    tally = Tally()
    try:
        chosen = _experiments(reader, experiment)
        with Terminal(stderr=True).progress("Importing") as report:
            for index, (name, id_) in enumerate(chosen.items()):
                for page in reader.pages(name, id_, where):
                    tally.add(*_take(reader, page.listed, target))
                    tally.add(0, 0, page.refused)
                    report((index + page.done) / len(chosen), str(tally))
    finally:
        reader.close()
        target.close()
    tally.close(f"from {visible(without_secrets(url))}")


@dataclass(slots=True)
class Tally:
    """The number of traces that were ``moved``, were ``there`` already, or were refused."""

    moved: int = 0
    there: int = 0
    refused: list[Refused] = field(default_factory=list)

    def add(self, moved: int, there: int, refused: Iterable[Refused]) -> None:
        """Add to the counts."""
        self.moved += moved
        self.there += there
        self.refused += refused

    def __str__(self) -> str:
        return counted(self.moved, "trace") + (f", {self.there:,} already there" if self.there else "")

    def close(self, where: str) -> None:
        """Print the result; ``where`` follows the count.

        Raises:
            Exit: some were refused.
        """
        remark(f"{self} {where}.")
        if not self.refused:
            return
        terminal = Terminal(stderr=True)
        terminal.line(f"{counted(len(self.refused), 'trace')} could not be moved:", style="red")
        for refused in self.refused[:_REFUSED_SHOWN]:
            named = Text.assemble(styled(refused.trace_id, "cyan"), "  ", styled(refused.reason))
            terminal.paragraph(named, indent=2, most=3)
        if len(self.refused) > _REFUSED_SHOWN:
            terminal.line(f"  and {len(self.refused) - _REFUSED_SHOWN:,} more", style="dim")
        raise typer.Exit(1)


def _format(name: str | None, output: Path | None) -> Format:
    """The format to write: the one of this name, or that of the file's extension.

    Raises:
        BadParameter: there is none, or it needs a file.
    """
    try:
        to = None if name is None else Format(name)
    except ValueError:
        takes = f"use {', '.join(Format)}, or a server such as mlflow+http://127.0.0.1:5000"
        shown = visible(without_secrets(name or ""))
        raise typer.BadParameter(f"unknown format {shown!r}: {takes}", param_hint="--to") from None
    if output is None:
        if to is Format.PARQUET:
            raise typer.BadParameter("parquet needs a file: name one with --output", param_hint="--to")
        return to or Format.JSONL
    if chosen := to or format_of(output):
        return chosen
    raise typer.BadParameter(
        f"no format is known for the extension of {visible(output)}: name one with --to",
        param_hint="--output",
    )


def _send(steps: Iterable[Step], target: str) -> None:
    """Send the traces that the server does not have yet."""
    from ..exporters.delivery import deliver, retry_with_backoff
    from ..exporters.targets import open_exporter

    sink: Any = open_exporter(target)
    missing = getattr(sink, "missing", list)
    getattr(sink, "check", str)()  # a wrong address fails before the store is read
    tally = Tally()
    try:
        with Terminal(stderr=True).progress("Exporting") as report:
            for step in steps:
                for start in range(0, len(step.traces), _SENT_AT_ONCE):
                    some = step.traces[start : start + _SENT_AT_ONCE]
                    left = retry_with_backoff(partial(missing, some))
                    refused = deliver(sink, left)
                    tally.add(len(left) - len(refused), len(some) - len(left), refused)
                    report(step.done, str(tally))
    finally:
        sink.close()
    tally.close(f"to {visible(without_secrets(target))}")


def _to_stdout(chosen: Format, store: Store) -> Write:
    is_terminal = sys.stdout.isatty()
    if not is_terminal and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    if chosen is Format.CSV:
        return comma_separated(sys.stdout, _layout(store), is_terminal=is_terminal)
    return json_lines(sys.stdout)


def _to_file(steps: Iterable[Step], chosen: Format, output: Path, store: Store) -> None:
    with replacing(output, store) as path:
        with (
            _writing(chosen, path, store) as write,
            Terminal(stderr=True).progress("Exporting") as report,
        ):
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

    client = TraceClient(store)
    return Layout.of(client.list_keys("metadata"), client.list_keys("tag"))


def _copy(steps: Iterable[Step], write: Write, report: Callable[[float, str], None]) -> int:
    """Write all traces; return how many."""
    count = 0
    for step in steps:
        write(step.traces)
        count += len(step.traces)
        report(step.done, counted(count, "trace"))
    return count


def _experiments(reader: MLflowReader, name: str | None) -> dict[str, str]:
    """The ids of the experiments to import, by name.

    Raises:
        StoreError: there is none of that name.
    """
    found = reader.experiments()
    if name is None:
        return found
    if name not in found:
        known = ", ".join(visible(each) for each in sorted(found)[:10])
        raise StoreError(f"the server has no experiment {name!r}; it has {known or 'none'}")
    return {name: found[name]}


def _take(reader: MLflowReader, listed: Sequence[Listed], store: Store) -> tuple[int, int, list[Refused]]:
    """Store new and changed traces; return how many, how many existed, and those that were refused."""
    from ..exporters.delivery import deliver

    new = _changed(listed, store)
    traces, lost = reader.read(new)
    refused = [*lost, *deliver(store, traces)]
    return len(new) - len(refused), len(listed) - len(new), refused


def _changed(listed: Sequence[Listed], store: Store) -> list[Listed]:
    """The traces that differ from those in the store; values that MLflow truncated are kept whole."""
    from ..client import TraceClient
    from ..mlflow.trace_infos import uncut
    from ..model import Assessment

    ids = [each.info.trace_id for each in listed]
    found = TraceClient(store).get_traces(ids, include_spans=False)
    known = {trace.info.trace_id: trace.info for trace in found}
    changed = []
    for each in listed:
        if (before := known.get(each.info.trace_id)) is not None:
            uncut(each.info, before)
            each.info.tags = each.info.tags | before.tags  # keep tags that were edited here
            theirs = {one.assessment_id for one in each.info.assessments}
            own = [one for one in before.assessments if one.assessment_id not in theirs]
            each.info.assessments = sorted([*each.info.assessments, *own], key=Assessment.order)
        if each.info != before:
            changed.append(each)
    return changed
