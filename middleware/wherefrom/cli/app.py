"""The application: global options, the table of commands, and errors as one sentence with an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from ..exceptions import FilterError, MissingExtraError, WherefromError
from . import (
    alert,
    compare,
    db,
    deployments,
    doctor,
    errors,
    gate,
    prune,
    search,
    serve,
    sessions,
    show,
    transfer,
    watch,
)
from .options import StoreOption, examples
from .terminal import complain, use_plain_characters

_FILTER_ERROR: Final = 2
_ERROR: Final = 1
_UI_PACKAGES: Final = frozenset({"jinja2", "markupsafe", "starlette", "uvicorn"})


class Commands(TyperGroup):
    """All commands. An error of Wherefrom ends them with its message alone."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run and exit; a reader that goes away, such as ``head``, has had all that it wanted."""
        try:
            return super().main(*args, **options)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                sys.exit(0)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except WherefromError as error:
            complain(error)
            raise typer.Exit(_FILTER_ERROR if isinstance(error, FilterError) else _ERROR) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _UI_PACKAGES:
                raise
            complain(MissingExtraError(f"`wherefrom {ctx.invoked_subcommand}`", "ui"))
            raise typer.Exit(_ERROR) from None


def _with_table(print_table: Callable[[], None]) -> type[TyperCommand]:
    """A command whose help ends with a table, which is too expensive to make for other commands."""

    class WithTable(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            print_table()

    return WithTable


app = typer.Typer(
    name="wherefrom",
    cls=Commands,
    help="Read the traces of your ASGI apps: what each request did, and which release served it.",
    epilog=examples(
        ("wherefrom ui --open", "traces on a page in your browser"),
        ("wherefrom search \"status = 'ERROR'\"", "recent errors"),
        ("wherefrom show latest", "the newest trace in full"),
        ("wherefrom compare --by app_version", "is one release worse than another?"),
        ("wherefrom tail", "new traces as they are stored"),
        ("wherefrom doctor uvicorn main:app", "the metadata that this app would record"),
        closing="`wherefrom search --help` lists the filter fields, `wherefrom doctor --help` the settings.",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(name: str, function: Callable[..., None], epilog: str, panel: str, **options: Any) -> None:
    app.command(name, epilog=epilog, rich_help_panel=panel, **options)(function)


_add("ui", serve.ui, serve.UI_HELP, "Read")
_add("search", search.search, search.SEARCH_HELP, "Read", cls=_with_table(search.print_filter_fields))
_add("show", show.show, show.SHOW_HELP, "Read")
_add("errors", errors.errors, errors.ERRORS_HELP, "Read")
_add("tail", search.tail, search.TAIL_HELP, "Read")
_add("sessions", sessions.sessions, sessions.SESSIONS_HELP, "Read")
_add("session", sessions.session, sessions.SESSION_HELP, "Read")
_add("export", transfer.export, transfer.EXPORT_HELP, "Read")
_add("dataset", transfer.dataset, transfer.DATASET_HELP, "Read")
_add("import", transfer.import_traces, transfer.IMPORT_HELP, "Read")
_add("serve", serve.serve, serve.SERVE_HELP, "Read")
_add("compare", compare.compare, compare.COMPARE_HELP, "Compare")
_add("gate", gate.gate, gate.GATE_HELP, "Compare")
_add("versions", compare.versions, compare.VERSIONS_HELP, "Compare")
_add("watch", watch.watch, watch.WATCH_HELP, "Compare")
_add("alert", alert.alert, alert.ALERT_HELP, "Compare")
_add("deployments", deployments.deployments, deployments.DEPLOYMENTS_HELP, "Compare")
_add("flag", compare.flag, compare.FLAG_HELP, "Compare")
_add(
    "doctor",
    doctor.doctor,
    doctor.DOCTOR_HELP,
    "Maintain",
    cls=_with_table(doctor.print_settings),
    context_settings={"allow_interspersed_args": False},  # what follows is the app's own command
)
_add("prune", prune.prune, prune.PRUNE_HELP, "Maintain")
_db = typer.Typer(
    help="Create and upgrade the tables of a store, and copy its traces to another.",
    epilog=db.DB_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_db.command("upgrade", epilog=db.DB_HELP)(db.upgrade)
_db.command("schema", epilog=db.DB_HELP)(db.schema)
_db.command("copy", epilog=db.DB_HELP)(db.copy)
app.add_typer(_db, name="db", rich_help_panel="Maintain")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"wherefrom {version('wherefrom')}")
        raise typer.Exit


@app.callback()
def _global_options(
    ctx: typer.Context,
    store: StoreOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = store


def run() -> None:
    """Run with the arguments of the process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=use_plain_characters())
    app(prog_name="wherefrom")
