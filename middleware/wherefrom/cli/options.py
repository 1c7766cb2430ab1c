"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_experiment, complete_filter, complete_key

FilterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FILTER", help="Which traces, such as: status = 'ERROR'", autocompletion=complete_filter
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Only the traces that pass this filter, such as: metadata.region = 'eu'",
        autocompletion=complete_filter,
        show_default=False,
    ),
]
ByOption = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="KEY",
        help="What to compare by: a metadata key, tag.KEY, or a field such as name or user.",
        autocompletion=complete_key,
    ),
]
ExperimentOption = Annotated[
    str | None,
    typer.Option(
        "--experiment",
        metavar="NAME",
        help="Only the traces of this experiment.",
        autocompletion=complete_experiment,
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object, with every figure.")]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw it too: as SVG, or as PNG where the name ends so.",
        dir_okay=False,
        show_default=False,
    ),
]
