"""``wherefrom alert``: evaluate the alert rules once, as cron does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .._sanitize import visible
from ..exceptions import FilterError, SettingsError
from .options import StoreOption, examples, opened, option
from .terminal import Terminal, complain, styled

if TYPE_CHECKING:
    from ..alerts.alerting import Alerting

ALERT_HELP: Final = examples(
    ("wherefrom alert", "evaluate the rules of WHEREFROM_ALERTS once, and send what is due"),
    ("wherefrom alert --rules alerts.toml --dry-run", "see what the rules find, and send nothing"),
    ("* * * * * wherefrom alert --rules /etc/wherefrom/alerts.toml", "a line for cron"),
    closing="`wherefrom ui` and `wherefrom serve` evaluate the rules of WHEREFROM_ALERTS while they run. Exit"
    " status: 1 if a rule could not be evaluated or a message was not delivered.",
)
_STYLES: Final = {"began": "bold red", "fires": "red", "problem": "bold yellow", "ended": "green"}


def alert(
    ctx: typer.Context,
    rules: Annotated[
        str | None, option("--rules", "FILE", "A TOML file of rules. The default is WHEREFROM_ALERTS.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what the rules find: record and send nothing.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Evaluate the alert rules once, and send the messages that are due."""
    from ..alerts.alerting import Alerting
    from ..settings import Settings

    path = rules or Settings().alerts
    if path is None:
        raise SettingsError("there are no alert rules: pass --rules FILE, or set WHEREFROM_ALERTS")
    with opened(ctx, store) as used:
        alerts = Alerting(used, path)
        if dry_run:
            _print_findings(alerts)
            return
        outcomes = alerts.run_once()
    terminal = Terminal()
    problems = [one for one in outcomes if one.kind == "problem"]
    for one in outcomes:
        if one.kind not in {"problem", "quiet"}:
            _print(terminal, one.rule, one.kind, one.text)
    for one in problems:
        complain(visible(f"alert {one.rule} {one.text}"))
    if problems:
        raise typer.Exit(1)


def _print_findings(alerts: Alerting) -> None:
    terminal = Terminal()
    for rule, found in alerts.evaluate():
        if isinstance(found, FilterError):
            _print(terminal, rule.name, "problem", str(found))
        else:
            _print(terminal, rule.name, "fires" if found.fires else "quiet", found.text)


def _print(terminal: Terminal, rule: str, kind: str, text: str) -> None:
    terminal.paragraph(
        Text.assemble(styled(rule, "cyan"), " ", (kind, _STYLES.get(kind, "dim")), ": ", styled(text))
    )
