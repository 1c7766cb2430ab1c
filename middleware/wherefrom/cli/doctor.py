"""``wherefrom doctor``: the metadata, settings, store and exporters of an app, and their problems."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from .._sanitize import MASK, without_secrets
from .._units import counted, size, spoken_moment
from ..exceptions import MissingExtraError, SettingsError, StoreError
from .options import StoreOption, examples
from .terminal import Terminal, print_json, print_pairs, styled

if TYPE_CHECKING:
    from ..otel.instrumentors import Instrumentor
    from ..settings import Given, Settings, UnknownSetting
    from ..source import Fact
    from ..stores.base import Health

DOCTOR_HELP: Final = examples(
    ("wherefrom doctor", "in the directory and environment of your app"),
    ("wherefrom doctor uvicorn main:app", "for the app that this command starts"),
    ("wherefrom doctor python -m shop", "for a module or a script"),
    ("wherefrom doctor --json | jq .problems", "for scripts; the exit code is 1 if there are any"),
)
_VALUE_LINES: Final = 4


def print_settings() -> None:
    """Print the table of settings, below the help of ``doctor``."""
    from ..settings import setting_rows

    terminal = Terminal()
    terminal.line(" Settings", style="bold")
    terminal.paragraph(
        "Set them as variables in the environment or in .env, or in lower case without the prefix as keys of"
        " [tool.wherefrom] in pyproject.toml or as arguments of Settings.",
        indent=2,
        style="dim",
    )
    rows = [
        [
            Text(row.variable, style="cyan"),
            Text(f"{row.help} Takes {row.takes}."),
            Text(row.default.replace(",", ", "), "dim"),
        ]
        for row in setting_rows()
    ]
    print_pairs(terminal, rows, header=("variable", "meaning", "default"))
    terminal.line()


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in effect; ``value`` is written as in ``variable``, with secrets masked.

    ``origin`` is ``argument``, ``environment``, ``.env``, ``pyproject.toml`` or ``default``.
    """

    name: str
    variable: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Destination:
    """An entry of the setting ``export``, without secrets; ``problem`` is ``None`` if it works."""

    target: str
    state: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks."""

    metadata: Sequence[Fact]
    settings: Sequence[Setting]
    unknown_variables: Sequence[UnknownSetting]
    store: Health
    destinations: Sequence[Destination]
    instrumentors: Sequence[Instrumentor]
    problems: Sequence[str]
    warnings: Sequence[str]


def doctor(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="Command that starts your app, such as: uvicorn main:app"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    store: StoreOption = None,
) -> None:
    """Show where metadata and settings come from, check the store and exporters, and list instrumentors.

    MLflow servers in WHEREFROM_EXPORT are asked whether they accept traces. The exit code is 1 if a setting
    is invalid, or the store or a server has a problem; a warning does not change it.
    """
    report = _examine(command or [], store or ctx.obj)
    if as_json:
        print_json(asdict(report))
    else:
        _print(Terminal(), report)
    if report.problems:
        raise typer.Exit(1)


def _examine(command: list[str], store: str | None) -> Report:
    """Check everything; ``store`` is the argument, which overrides the settings."""
    from ..settings import PREFIX, Given, Settings, given_settings, setting_rows, unknown_settings
    from ..stores.base import Health
    from ..stores.opening import examine

    given: dict[str, Given] = {}
    variables = {row.variable: row for row in setting_rows()}
    problems = []
    effective, url = None, store
    try:
        given = given_settings()
        effective = Settings()
        url = store or effective.store
    except SettingsError as error:
        problems.append(without_secrets(str(error)))
        own = variables[f"{PREFIX}STORE"]
        if not problems[0].startswith(f"{own.variable}="):
            url = store or given.get(own.variable, Given(own.default, "default")).value
    waiting = Terminal(stderr=True)
    with waiting.busy("Checking the store"):
        cap = None if effective is None else effective.max_store_mb
        health = Health("invalid") if url is None else examine(url, max_store_mb=cap)
    with waiting.busy("Checking the destinations"):
        sent_to = [] if effective is None else list(_destinations(effective.export, effective.experiment))
    problems += health.problems
    problems += [each.problem for each in sent_to if each.problem]
    unknown = unknown_settings() if given else []
    facts, settings = _facts(command, effective), list(_settings(effective, given, store))
    warnings = [*health.warnings, *map(str, unknown)]
    instrumentors: Sequence[Instrumentor] = ()
    try:
        instrumentors = _instrumentors(effective)
    except (SettingsError, MissingExtraError) as error:
        problems.append(str(error))
    warnings += [str(each) for each in instrumentors if each.is_problem]
    return Report(facts, settings, unknown, health, sent_to, instrumentors, problems, warnings)


def _instrumentors(effective: Settings | None) -> Sequence[Instrumentor]:
    """Switch on what the app would, in this process: whether one fails is only known then."""
    from ..otel.instrumentors import installed_instrumentors

    if effective is None or not effective.instrument:
        return installed_instrumentors("WHEREFROM_INSTRUMENT is not set")
    from ..otel import switch_on

    return switch_on(effective.instrument)


def _settings(effective: Settings | None, given: Mapping[str, Given], store: str | None) -> Iterator[Setting]:
    from ..settings import Given, setting_rows

    for row in setting_rows():
        value, origin = given.get(row.variable, Given(row.default, "default"))
        if row.name == "store" and store is not None:
            yield Setting(row.name, row.variable, without_secrets(store), "argument")
            continue
        if effective is not None:
            value = _written(getattr(effective, row.name))
        if row.secret:
            value = MASK if value else ""
        yield Setting(row.name, row.variable, without_secrets(value), origin)


def _written(value: Any) -> str:
    """A setting as in its variable."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(value)
        case dict():
            return json.dumps(value)
    return str(value)


def _destinations(targets: Iterable[str], experiment: str) -> Iterator[Destination]:
    """Check each destination; servers that can be asked are asked, and no trace is sent."""
    from ..exporters.targets import open_exporter

    for target in targets:
        shown = without_secrets(target)
        try:
            sink: Any = open_exporter(target)
        except (SettingsError, MissingExtraError) as error:
            yield Destination(shown, "invalid", without_secrets(str(error)))
            continue
        check = getattr(sink, "check", None)
        try:
            yield Destination(shown, "not checked" if check is None else check(experiment))
        except StoreError as error:
            yield Destination(shown, "unreachable", without_secrets(str(error)))
        finally:
            close = getattr(sink, "close", None)
            if close is not None:
                close()


def _facts(command: list[str], effective: Settings | None) -> list[Fact]:
    from .. import keys
    from ..asgi.headers import HeaderReader
    from ..settings import Settings
    from ..source import Fact, detect
    from ..source.entrypoint import process_of

    settings = effective or Settings.model_construct()
    facts = list(
        detect(
            process_of(command, os.environ),
            env_metadata=settings.env_metadata,
            max_metadata_length=settings.max_metadata_length,
        ).facts
    )
    if not command:
        note = "no app given: try `wherefrom doctor uvicorn main:app`"
        facts = [replace(fact, note=note) if fact.key == keys.SOURCE_NAME else fact for fact in facts]
    request_id = f"header {settings.request_id_header}, else generated"
    facts.append(Fact("client_request_id", None, note=f"set per request: {request_id}"))
    for header, key in HeaderReader(settings).metadata:
        parts = header.decode("latin-1").split("-")
        written = "-".join("ID" if part == "id" else part.capitalize() for part in parts)
        facts.append(Fact(key, None, note=f"set per request: header {written}"))
    return facts


def _print(terminal: Terminal, report: Report) -> None:
    terminal.line("Metadata of an app started here", style="bold")
    print_pairs(terminal, [_fact_row(fact) for fact in report.metadata], most=_VALUE_LINES)
    terminal.title("Settings")
    rows = [
        [
            styled(each.variable),
            styled(each.value),
            styled(each.origin, "dim" if each.origin == "default" else ""),
        ]
        for each in report.settings
    ]
    print_pairs(terminal, rows, most=_VALUE_LINES)
    terminal.title("Store")
    print_pairs(terminal, [[Text(label), styled(value)] for label, value in _store_rows(report.store)])
    if report.destinations:
        terminal.title("Destinations")
        print_pairs(terminal, [[styled(each.target), styled(each.state)] for each in report.destinations])
    if report.instrumentors:
        terminal.title("Instrumentors")
        rows = [
            [
                styled(each.name),
                styled(f"{each.package} {each.version}"),
                styled(f"off: {each.why_off}", "dim") if each.why_off else styled("on", "green"),
            ]
            for each in report.instrumentors
        ]
        print_pairs(terminal, rows, most=_VALUE_LINES)
    terminal.line()
    for warning in report.warnings:
        terminal.paragraph(styled(warning, "yellow"))
    for problem in report.problems:
        terminal.paragraph(styled(problem, "red"))
    if not report.problems and not report.warnings:
        terminal.line("No problems found.", style="green")


def _fact_row(fact: Fact) -> list[Text]:
    if fact.value is None:
        return [styled(fact.key), Text("-", style="dim"), styled(fact.note, "dim")]
    note = f"{fact.origin} ({fact.note})" if fact.note else fact.origin
    return [styled(fact.key), styled(fact.value, "cyan"), styled(note)]


def _store_rows(health: Health) -> Iterator[tuple[str, object]]:
    free = f", {size(health.free)} of it free" if health.free else ""
    nouns = ((health.traces, "trace"), (health.spans, "span"), (health.sources, "source"))
    rows: dict[str, object | None] = {
        "URL": "none: traces are only exported" if health.url == "none" else health.url,
        "file": health.file,
        "size": None if health.size is None else size(health.size) + free,
        "size cap": None if health.cap is None else f"{size(health.cap)}: then the oldest traces are deleted",
        "schema version": health.schema_version,
        "content": health.traces
        if health.traces is None
        else ", ".join(counted(n or 0, noun) for n, noun in nouns),
        "oldest": None if health.oldest is None else spoken_moment(health.oldest),
        "newest": None if health.newest is None else spoken_moment(health.newest),
        "journal mode": health.journal_mode,
        "file system": health.file_system,
        "writable": None if health.writable is None else "yes" if health.writable else "no",
        "quick check": health.integrity,
    }
    return ((label, value) for label, value in rows.items() if value is not None)
