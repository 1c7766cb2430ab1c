"""The application: global options, the table of commands, and errors as one sentence with an exit code."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..exceptions import FilterError, WherefromError
from . import (
    compare,
    doctor,
    export,
    flag,
    importing,
    prune,
    search,
    serve,
    sessions,
    show,
    tail,
    ui,
    versions,
)
from .help import Examples, WithExamples
from .opening import StoreOption
from .terminal import complain, plain_characters

_FILTER_ERROR = 2
_ERROR = 1


class Commands(WithExamples, TyperGroup):
    """All commands. What Wherefrom raises ends them with its message alone."""

    examples: Examples = (
        ("wherefrom ui --open", "the traces on a page, in your browser"),
        ("wherefrom search \"status = 'ERROR'\"", "what went wrong lately"),
        ("wherefrom show latest", "the newest trace in full"),
        ("wherefrom compare --by app_version", "is one release worse than another?"),
        ("wherefrom tail", "traces as they come"),
        ("wherefrom doctor uvicorn main:app", "what traces of this app will say, and from where"),
    )
    closing = "`wherefrom search --help` lists what a filter can ask for, `wherefrom doctor --help` lists the settings."

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except FilterError as error:
            complain(error)
            raise typer.Exit(_FILTER_ERROR) from None
        except WherefromError as error:
            complain(error)
            raise typer.Exit(_ERROR) from None


app = typer.Typer(
    name="wherefrom",
    cls=Commands,
    help="Read the traces of your ASGI apps: what each request did, and wherefrom its answer came.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ui", cls=ui.UICommand, rich_help_panel="Read")(ui.ui)
app.command("search", cls=search.SearchCommand, rich_help_panel="Read")(search.search)
app.command("show", cls=show.ShowCommand, rich_help_panel="Read")(show.show)
app.command("tail", cls=tail.TailCommand, rich_help_panel="Read")(tail.tail)
app.command("sessions", cls=sessions.SessionsCommand, rich_help_panel="Read")(sessions.sessions)
app.command("export", cls=export.ExportCommand, rich_help_panel="Read")(export.export)
app.command("import", cls=importing.ImportCommand, rich_help_panel="Read")(importing.import_traces)
app.command("serve", cls=serve.ServeCommand, rich_help_panel="Read")(serve.serve)
app.command("compare", cls=compare.CompareCommand, rich_help_panel="Judge")(compare.compare)
app.command("versions", cls=versions.VersionsCommand, rich_help_panel="Judge")(versions.versions)
app.command("flag", cls=flag.FlagCommand, rich_help_panel="Judge")(flag.flag)
app.command(
    "doctor",
    cls=doctor.DoctorCommand,
    rich_help_panel="Look after",
    context_settings={"allow_interspersed_args": False},  # what follows is the app's own command
)(doctor.doctor)
app.command("prune", cls=prune.PruneCommand, rich_help_panel="Look after")(prune.prune)


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
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Say which Wherefrom this is."
        ),
    ] = False,
) -> None:
    ctx.obj = store


def run() -> None:
    """Run with the arguments of the process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=plain_characters())
    app(prog_name="wherefrom")
