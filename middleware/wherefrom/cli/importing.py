"""``wherefrom import``: traces from an MLflow server into the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .._sanitize import visible, without_secrets
from ..exceptions import SettingsError, StoreError
from ..stores.sqlite.file import file_of, is_wherefrom_file, not_ours
from .help import Documented, Examples
from .moving import Tally, progress
from .opening import StoreOption, store_url, unopened

if TYPE_CHECKING:
    from ..exporters.mlflow import MLflowReader
    from ..exporters.mlflow.reader import Listed, Page
    from ..stores import Store

_URI: Final = "MLFLOW_TRACKING_URI"


class Origin(StrEnum):
    """What traces can be imported from."""

    MLFLOW = "mlflow"


class ImportCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom import mlflow http://127.0.0.1:5000 --experiment chat", "one experiment"),
        ("wherefrom import mlflow http://127.0.0.1:5000", "all that the server has"),
        ('wherefrom import mlflow --where "timestamp_ms > 1790000000000"', f"the server is in {_URI}"),
    )
    closing = (
        "It may be run again, also after it broke off: traces that are in the store already stay as they are,"
        " and those that have changed are brought up to date. Credentials are read from"
        " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN. Assessments, runs"
        " and prompts are not kept."
    )


def import_traces(
    ctx: typer.Context,
    origin: Annotated[Origin, typer.Argument(help="What they come from.", show_default=False)],
    server: Annotated[
        str | None,
        typer.Argument(metavar="URL", help=f"The server; by default {_URI}.", show_default=False),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment",
            metavar="NAME",
            help="Only the traces of this experiment of the server.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="FILTER",
            help="Only the traces that pass this filter, as the server understands it.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Copy traces from an MLflow server into the store.

    Exits with 1 when one of them could not be had; the others are imported.
    """
    del origin  # there is one
    url = (server or os.environ.get(_URI, "")).removeprefix("mlflow+")
    if not url:
        raise SettingsError(f"no server is named: give its URL, or set {_URI}")
    target = _made_or_opened(store_url(ctx, store))
    reader = _reader(url)
    tally = Tally()
    try:
        chosen = _experiments(reader, experiment)
        with progress("Importing") as report:
            for index, (name, id_) in enumerate(chosen.items()):
                for page in reader.pages(name, id_, where):
                    _take(page, reader, target, tally)
                    report((index + page.done) / len(chosen), str(tally))
    finally:
        reader.close()
        target.close()
    tally.close(f"from {visible(without_secrets(url))}")


def _made_or_opened(url: str) -> Store:
    store = unopened(url)
    if (path := file_of(store)) is not None and path.exists() and not is_wherefrom_file(path):
        raise StoreError(not_ours(path))
    return store


def _reader(url: str) -> MLflowReader:
    from ..exporters.mlflow import MLflowReader
    from ..exporters.mlflow.targets import access

    return MLflowReader(url, **access(url, os.environ))


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


def _take(page: Page, reader: MLflowReader, store: Store, tally: Tally) -> None:
    from ..exporters.delivery import deliver

    new = _changed(page.listed, store)
    traces, lost = reader.read(new)
    refused = [*page.refused, *lost, *deliver(store, traces)]
    moved = len(new) - len(refused) + len(page.refused)
    tally.add(moved, len(page.listed) - len(new), refused)


def _changed(listed: Sequence[Listed], store: Store) -> list[Listed]:
    """Those that are not in the store as they are on the server; what MLflow cut off is kept."""
    from ..client import TraceClient
    from ..exporters.mlflow.start_trace import uncut

    ids = [each.info.trace_id for each in listed]
    found = TraceClient(store).get_traces(ids, include_spans=False)
    known = {trace.info.trace_id: trace.info for trace in found}
    changed = []
    for each in listed:
        if (before := known.get(each.info.trace_id)) is not None:
            uncut(each.info, before)
            each.info.tags = each.info.tags | before.tags  # a tag that was edited here stays so
        if each.info != before:
            changed.append(each)
    return changed
