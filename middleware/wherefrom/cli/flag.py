"""``wherefrom flag``: a feature flag that is on against off."""

from __future__ import annotations

from typing import Annotated

import typer

from .compare import READING, busy, show_comparison
from .completion import complete_flag
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .options import ExperimentOption, JsonOption, PlotOption, WhereOption


class FlagCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom flag new_retriever", "is it better with the flag on?"),
        ("wherefrom flag new_retriever --where \"metadata.app_version = '1.1.0'\"", "in one release"),
        ("wherefrom flag new_retriever --json | jq -r '.rows[].verdict'", "for scripts"),
    )
    closing = f"Apps tell of flags with wherefrom.record_feature_flag(name, value). {READING}"


def flag(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The flag, such as: new_retriever", autocompletion=complete_flag),
    ],
    where: WhereOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Compare the traces with a feature flag on to those with it off."""
    from .. import analysis

    with opened(store_url(ctx, store)) as opened_store:
        with busy():
            found = analysis.flag(name, where, experiment=experiment, store=opened_store)
        show_comparison(opened_store, found, plot, as_json=as_json)
