"""``wherefrom deployments``: which releases and processes sent traces lately."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

import typer
from rich.text import Text

from .._units import counted, duration, full_moment, short_moment
from .options import (
    ExperimentOption,
    FilterArgument,
    JsonOption,
    SinceOption,
    StoreOption,
    examples,
    narrowed,
    opened,
)
from .terminal import Column, Terminal, print_json, print_table, remark, styled

if TYPE_CHECKING:
    from ..analysis import Deployment

DEPLOYMENTS_HELP: Final = examples(
    ("wherefrom deployments", "those that sent traces within a day"),
    ("wherefrom deployments --since 7d", "within a week"),
    ("wherefrom deployments \"metadata.environment = 'production'\"", "those of one environment"),
    ("wherefrom deployments --json | jq '.found[].version'", "for scripts"),
    closing="Traces with the same version, deployment id, region, environment and commit are one deployment."
    " The number of traces, error rate and p95 are for the time range. Without --since, the range is the last"
    " 24 hours, or the 24 hours before the newest trace if it is older.",
)
_COMMIT: Final = 12


def deployments(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    as_json: JsonOption = False,
    since: SinceOption = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List deployments, the one with the latest trace first."""
    from .. import analysis

    start = None if since is None else str(since)
    with opened(ctx, store) as used:
        seen = analysis.deployments(
            start, filter_string=narrowed(filter_string), experiment=experiment, store=used
        )
    if as_json:
        print_json(asdict(seen))
    else:
        terminal = Terminal()
        print_table(terminal, _columns(terminal, datetime.now().astimezone()), seen.found)
    if not seen.found:
        remark("No deployment sent such traces in this time range; --since looks further back.")
    elif seen.others:
        remark(f"{counted(seen.others, 'deployment')} more with earlier traces.")


def _columns(terminal: Terminal, now: datetime) -> list[Column[Deployment]]:
    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if terminal.room is None else short_moment(ms, now), "dim")

    def commit(one: Deployment) -> Text:
        return styled((one.commit or "")[:_COMMIT] + (" (dirty)" if one.is_dirty else ""))

    return [
        Column("last trace", lambda one: moment(one.last_seen)),
        Column("first trace", lambda one: moment(one.first_seen), 5),
        Column("version", lambda one: styled(one.version or "", "cyan"), floor=8, cap=40),
        Column("deployment", lambda one: styled(one.deployment_id or ""), 1, floor=8, cap=40),
        Column("environment", lambda one: styled(one.environment or ""), 2, floor=8, cap=24),
        Column("region", lambda one: styled(one.region or ""), 3, floor=8, cap=24),
        Column("commit", commit, 4, cap=20),
        Column("branch", lambda one: styled(one.branch or ""), 6, floor=8, cap=24),
        Column("traces", lambda one: Text(f"{one.traces:,}"), is_right=True),
        Column("error rate", lambda one: Text(f"{100 * one.error_rate:.1f} %"), is_right=True),
        Column(
            "p95", lambda one: Text("" if one.p95_ms is None else duration(one.p95_ms * 1e6)), is_right=True
        ),
    ]
