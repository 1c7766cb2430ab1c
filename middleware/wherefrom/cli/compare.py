"""``wherefrom compare``: one release, user, region or name against another."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._sanitize import visible
from .completion import complete_baseline
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .options import ByOption, ExperimentOption, JsonOption, PlotOption, WhereOption
from .terminal import Terminal, print_object, remark

if TYPE_CHECKING:
    from ..analysis import Comparison
    from ..stores import Store

_PNG = ".png"

READING = (
    "The interval is where the true error rate lies. A verdict takes 30 traces of each and a p-value below"
    " 0.05 after correction; a latency has to differ by 5 % too. `--json` has every figure."
)


class CompareCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom compare", "is the newest release worse than the ones before?"),
        ("wherefrom compare --baseline 1.0.0 --plot releases.png", "each against 1.0.0, and a picture of it"),
        ("wherefrom compare --by region --where \"timestamp > '2h ago'\"", "where is it worse?"),
        ("wherefrom compare --by name --where \"metadata.app_version = '1.1.0'\"", "which route is worse?"),
        ("wherefrom compare --json | jq '.rows[] | {value, verdict}'", "for scripts"),
    )
    closing = READING


def compare(
    ctx: typer.Context,
    by: ByOption = "app_version",
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="What the others are compared with; by default the value first seen.",
            autocompletion=complete_baseline,
            show_default=False,
        ),
    ] = None,
    where: WhereOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Compare traces by a value that they have: error rates, latencies, and a verdict on each."""
    from .. import analysis

    with opened(store_url(ctx, store)) as opened_store:
        with busy():
            found = analysis.compare(by, where, baseline=baseline, experiment=experiment, store=opened_store)
        show_comparison(opened_store, found, plot, as_json=as_json)


def busy() -> AbstractContextManager[object]:
    """Say that it takes its time, as it does with a million traces."""
    return Terminal(stderr=True).busy("Comparing")


def show_comparison(store: Store, found: Comparison, plot: Path | None, *, as_json: bool) -> None:
    """Print a comparison as it was asked for, and draw it to the file ``plot``."""
    from .comparison import print_comparison
    from .verdicts import nothing_to_compare, show_where_to_look

    if as_json:
        print_object(found.to_dict())
    elif found.rows:
        print_comparison(Terminal(), found, datetime.now().astimezone())
    if not found.rows:
        remark(nothing_to_compare(found))
        return
    if plot is not None:
        from .files import replacing

        with replacing(plot, store) as path:
            path.write_bytes(_draw(store, found, plot.suffix.lower()))
        remark(f"The plot is in {visible(plot)}.")
    if not as_json:
        show_where_to_look(store, found)


def _draw(store: Store, found: Comparison, suffix: str) -> bytes:
    from ..analysis import deployments, timeline
    from ..analysis.report import STEPS
    from ..web.charts import draw
    from ..web.charts.picture import to_png
    from ..web.figures import events

    inside = found.experiment
    over_time = timeline(found.by, found.filter_string, buckets=STEPS, experiment=inside, store=store)
    since, until = min(row.first_seen for row in found.rows), max(row.last_seen for row in found.rows) + 1
    deployed = deployments(str(since), str(until), experiment=inside, store=store).found
    svg = draw(found, over_time, events(one for one in deployed if one.first_seen >= since))
    return to_png(svg) if suffix == _PNG else svg.encode()
