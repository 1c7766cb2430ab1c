"""``wherefrom versions``: releases in order, and with which of them things got worse."""

from __future__ import annotations

import typer

from .compare import READING, busy, show_comparison
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .options import ByOption, ExperimentOption, JsonOption, PlotOption, WhereOption


class VersionsCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom versions", "each release against the one before it"),
        ("wherefrom versions --by mlflow.source.git.commit", "by commit"),
        (
            "wherefrom versions --where \"metadata.environment = 'production'\" --plot releases.svg",
            "and a picture",
        ),
        ("wherefrom versions --json | jq '.regressions'", "for scripts"),
    )
    closing = f"A release with too few traces is passed over as the one before. {READING}"


def versions(
    ctx: typer.Context,
    by: ByOption = "app_version",
    where: WhereOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List releases in the order in which they came, each compared with the one before it."""
    from .. import analysis

    with opened(store_url(ctx, store)) as opened_store:
        with busy():
            found = analysis.versions(where, by=by, experiment=experiment, store=opened_store)
        show_comparison(opened_store, found, plot, as_json=as_json)
