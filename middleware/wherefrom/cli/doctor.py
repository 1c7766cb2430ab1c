"""``wherefrom doctor``: what traces of an app started here would say, and whether they can be kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .._units import counted, size, spoken_moment
from .grid import Column, print_grid
from .help import Documented, Examples, print_section
from .opening import StoreOption
from .terminal import Terminal, print_object
from .text import styled

if TYPE_CHECKING:
    from ..source import Fact
    from .configuration import Configuration
    from .destinations import Destination
    from .health import Health

_COLUMNS = (Column(20, wraps=True), Column(16, wraps=True, most=4), Column(20, wraps=True, most=4))


class DoctorCommand(Documented):
    """The command, with the table of settings in its help."""

    examples: Examples = (
        ("wherefrom doctor", "from the directory and with the environment of your app"),
        ("wherefrom doctor uvicorn main:app", "as the app that this command starts"),
        ("wherefrom doctor python -m shop", "a module or a script too"),
        ("wherefrom doctor --json | jq .problems", "for scripts; exit code 1 when there are any"),
    )

    def print_tables(self, terminal: Terminal) -> None:
        """Print the settings."""
        from ..settings import setting_rows

        print_section(
            terminal,
            "Settings",
            "Each is a variable, and an argument of Settings with the name in small letters.",
        )
        rows = [
            [
                Text(row.variable, style="cyan"),
                Text(f"{row.help} Takes {row.takes}."),
                Text(row.default.replace(",", ", "), "dim"),
            ]
            for row in setting_rows()
        ]
        columns = (Column(26), Column(24, wraps=True), Column(18, wraps=True))
        print_grid(terminal, columns, rows, indent=2, header=("variable", "meaning", "default"))


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the doctor found."""

    facts: Sequence[Fact]
    configuration: Configuration
    health: Health
    destinations: Sequence[Destination]

    @property
    def problems(self) -> list[str]:
        """What is wrong with a setting, the store or a place that traces are sent to."""
        setting = self.configuration.problem
        sent = [each.problem for each in self.destinations if each.problem]
        return [*([setting] if setting else []), *self.health.problems, *sent]

    def to_dict(self) -> dict[str, Any]:
        """The report for scripts."""
        return {
            "metadata": [asdict(fact) for fact in self.facts],
            "settings": [asdict(setting) for setting in self.configuration.settings],
            "unknown_variables": [asdict(stray) for stray in self.configuration.strays],
            "store": asdict(self.health),
            "destinations": [asdict(each) for each in self.destinations],
            "problems": self.problems,
        }


def doctor(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="The command that starts your app, such as: uvicorn main:app"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    store: StoreOption = None,
) -> None:
    """Say wherefrom each metadata value and each setting comes, why one is absent, and how the store is.

    An MLflow server that traces are sent to is asked whether it would take them. Exits with 1 when a setting
    cannot be used, or the store or that server is not in order.
    """
    report = _examine(command or [], store or ctx.obj)
    if as_json:
        print_object(report.to_dict())
    else:
        _print(Terminal(), report)
    if report.problems:
        raise typer.Exit(1)


def _examine(command: list[str], store: str | None) -> Report:
    from .configuration import read_configuration
    from .destinations import examine_destinations
    from .health import Health, examine

    configuration = read_configuration(store)
    url = configuration.store
    with Terminal(stderr=True).busy("Checking the store"):
        health = Health("cannot be used") if url is None else examine(url)
    settings = configuration.effective
    destinations: list[Destination] = []
    if settings is not None and settings.export:
        with Terminal(stderr=True).busy("Asking where traces are sent"):
            destinations = list(examine_destinations(settings.export, settings.experiment))
    return Report(_facts(command, configuration), configuration, health, destinations)


def _facts(command: list[str], configuration: Configuration) -> list[Fact]:
    from .. import keys
    from ..settings import Settings
    from ..source import Fact, detect
    from .launch import process_of

    settings = configuration.effective or Settings.model_construct()
    found = detect(
        process_of(command, os.environ),
        env_metadata=settings.env_metadata,
        max_metadata_length=settings.max_metadata_length,
    ).facts
    facts = [_explained(fact) if fact.key == keys.SOURCE_NAME and not command else fact for fact in found]
    request_id = f"header {settings.request_id_header}, else generated"
    facts.append(Fact("client_request_id", None, note=f"each request has its own: {request_id}"))
    from ..asgi.headers import HeaderReader

    for header, key in HeaderReader(settings).metadata:
        facts.append(Fact(key, None, note=f"each request has its own: header {_as_written(header)}"))
    return facts


def _as_written(header: bytes) -> str:
    """``x-user-id`` as people write it: ``X-User-ID``."""
    parts = header.decode("latin-1").split("-")
    return "-".join("ID" if part == "id" else part.capitalize() for part in parts)


def _explained(fact: Fact) -> Fact:
    return replace(fact, note="no app is named: try `wherefrom doctor uvicorn main:app`")


def _print(terminal: Terminal, report: Report) -> None:
    terminal.line("Metadata of an app that is started here", style="bold")
    print_grid(terminal, _COLUMNS, [_fact_row(fact) for fact in report.facts], indent=2)
    terminal.line()
    terminal.line("Settings", style="bold")
    rows = [
        [styled(setting.variable), styled(setting.value), styled(setting.origin, "" if changed else "dim")]
        for setting in report.configuration.settings
        for changed in [setting.origin != "default"]
    ]
    print_grid(terminal, _COLUMNS, rows, indent=2)
    for stray in report.configuration.strays:
        meant = f"; did you mean {stray.meant}?" if stray.meant else ""
        shown = styled(stray.variable, "yellow").append(f" is no setting of Wherefrom{meant}", style="yellow")
        terminal.paragraph(shown, indent=2)
    terminal.line()
    terminal.line("Store", style="bold")
    rows = [[Text(label), styled(value)] for label, value in _store_rows(report.health)]
    print_grid(terminal, (Column(14), Column(20, wraps=True)), rows, indent=2)
    if report.destinations:
        terminal.line()
        terminal.line("Destinations", style="bold")
        rows = [[styled(each.target), styled(each.state)] for each in report.destinations]
        print_grid(terminal, (Column(24, wraps=True), Column(20, wraps=True)), rows, indent=2)
    terminal.line()
    for problem in report.problems:
        terminal.paragraph(styled(problem, "red"))
    if not report.problems:
        terminal.line("Everything is in order.", style="green")


def _fact_row(fact: Fact) -> list[Text]:
    if fact.value is None:
        return [styled(fact.key), Text("-", style="dim"), styled(fact.note, "dim")]
    note = f"{fact.origin} ({fact.note})" if fact.note else fact.origin
    return [styled(fact.key), styled(fact.value, "cyan"), styled(note)]


def _store_rows(health: Health) -> list[tuple[str, str]]:
    rows: list[tuple[str, str | None]] = [
        ("URL", health.url if health.url != "none" else "none: traces are only exported"),
        ("file", health.file),
        ("size", _size(health)),
        ("schema version", _text(health.schema_version)),
        ("content", _content(health)),
        ("oldest", None if health.oldest is None else spoken_moment(health.oldest)),
        ("newest", None if health.newest is None else spoken_moment(health.newest)),
        ("journal mode", health.journal_mode),
        ("writable", None if health.writable is None else "yes" if health.writable else "no"),
        ("quick check", health.integrity),
    ]
    return [(label, value) for label, value in rows if value is not None]


def _size(health: Health) -> str | None:
    if health.size is None:
        return None
    return size(health.size) + (f", {size(health.free)} of it free" if health.free else "")


def _content(health: Health) -> str | None:
    if health.traces is None:
        return None
    nouns = ((health.traces, "trace"), (health.spans, "span"), (health.sources, "source"))
    return ", ".join(counted(count or 0, noun) for count, noun in nouns)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
