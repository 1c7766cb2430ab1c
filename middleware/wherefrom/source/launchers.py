"""Server commands: which argument is the app, and where the app is searched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .facts import Process, UnreadableError, read_text

_APP: Final = re.compile(r"[A-Za-z_][\w./-]*:[A-Za-z_].*")
_MAX_CONFIG_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Launcher:
    """One server command.

    ``flags`` are the options without a value, besides ``--no-...``; every other option is assumed to have
    one. ``directories`` are the options, and ``variables`` the environment variables, for a directory where
    the app is searched. ``app_variable`` is the environment variable for the app itself.
    """

    name: str
    flags: frozenset[str]
    directories: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    app_variable: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The app that a server runs, as it was typed; ``None`` if unknown, with the reason in ``origin``."""

    name: str | None
    origin: str
    directories: tuple[str, ...] = ()


@dataclass(slots=True)
class Arguments:
    """A parsed command line: the positional arguments, and the last value of each option."""

    words: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def first(self, *names: str) -> str | None:
        """Return the value of the first of ``names`` that was given."""
        return next((self.options[name] for name in names if name in self.options), None)


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split()) | {"-h", "--help", "--version"}


LAUNCHERS: Final[dict[str, Launcher]] = {
    launcher.name: launcher
    for launcher in (
        Launcher(
            "uvicorn",
            _flags(
                "--reload --http2 --access-log --use-colors --proxy-headers --server-header --date-header"
                " --reset-contextvars --factory"
            ),
            directories=("--app-dir",),
            variables=("UVICORN_APP_DIR",),
            app_variable="UVICORN_APP",
        ),
        Launcher(
            "gunicorn",
            _flags(
                "-v -D -R --reload --spew --check-config --print-config --preload --reuse-port --daemon"
                " --initgroups --disable-redirect-access-to-syslog --capture-output --log-syslog"
                " --enable-stdio-inheritance --enable-backlog-metric --proxy-protocol"
                " --suppress-ragged-eofs --do-handshake-on-connect --permit-obsolete-folding"
                " --strip-header-spaces --permit-unconventional-http-method"
                " --permit-unconventional-http-version --casefold-http-method"
            ),
            directories=("--chdir", "--pythonpath"),
        ),
        Launcher("hypercorn", _flags("-D --daemon --debug --reload")),
        Launcher(
            "granian",
            _flags(
                "--ws --http1-keep-alive --http1-pipeline-flush --http2-adaptive-window --log --access-log"
                " --ssl-client-verify --respawn-failed-workers --factory --metrics --reload"
                " --reload-ignore-worker-failure"
            ),
            directories=("--working-dir",),
            variables=("GRANIAN_WORKING_DIR",),
        ),
        Launcher("daphne", _flags("--proxy-headers --no-server-name")),
        Launcher("fastapi", _flags("--reload --proxy-headers --verbose")),
    )
}
"""Known servers by the name of their command."""


def read_arguments(arguments: Sequence[str], flags: frozenset[str]) -> Arguments:
    """Parse a command line; ``flags`` are the options without a value."""
    result = Arguments()
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            result.words.extend(left)
        elif not argument.startswith("-") or argument == "-":
            result.words.append(argument)
        else:
            option, is_assigned, value = argument.partition("=")
            if is_assigned:
                result.options[option] = value
            elif not _stands_alone(option, flags):
                result.options[option] = next(left, "")
    return result


def _stands_alone(option: str, flags: frozenset[str]) -> bool:
    has_value_attached = len(option) > 2 and not option.startswith("--")  # such as -w4
    return has_value_attached or option in flags or option.startswith("--no-")


def find_target(launcher: Launcher, process: Process) -> Target:
    """Return the app that ``launcher`` runs, from its arguments, its variables or its configuration."""
    arguments = read_arguments(process.argv[1:], launcher.flags)
    find = _FINDERS.get(launcher.name, _by_argument)
    return find(launcher, arguments, process)


def _by_argument(launcher: Launcher, arguments: Arguments, process: Process) -> Target:
    places = [arguments.options[option] for option in launcher.directories if option in arguments.options]
    places += [process.environ[name] for name in launcher.variables if process.environ.get(name)]
    directories = tuple(process.absolute(place) for text in places for place in text.split(","))
    # An option that is not in the table may have taken the app as its value, or its value looks like an app.
    candidates = (
        [word for word in arguments.words if _APP.fullmatch(word)]
        + arguments.words[:1]
        + [word for word in reversed(process.argv[1:]) if _APP.fullmatch(word)]
    )
    if candidates:
        return Target(candidates[0], f"argument of {launcher.name}", directories)
    if app := process.environ.get(launcher.app_variable):
        return Target(app, f"env {launcher.app_variable}", directories)
    return Target(None, f"{launcher.name} was given no module:app", directories)


def _by_gunicorn(launcher: Launcher, arguments: Arguments, process: Process) -> Target:
    import shlex

    try:
        extra = shlex.split(process.environ.get("GUNICORN_CMD_ARGS", ""))
    except ValueError:  # an unclosed quote, with which gunicorn itself would not start
        extra = []
    by_environment = read_arguments(extra, launcher.flags)
    arguments.options = {**by_environment.options, **arguments.options}
    target = _by_argument(launcher, arguments, process)
    if target.name is not None:
        return target
    file = process.absolute((arguments.first("-c", "--config") or "gunicorn.conf.py").removeprefix("file:"))
    app = _assigned("wsgi_app", file)
    return Target(app, f"wsgi_app in {file}", target.directories) if app else target


def _assigned(name: str, file: str) -> str | None:
    """Return the string that a Python file assigns to ``name``, without running the file."""
    try:
        text = read_text(file, _MAX_CONFIG_BYTES)
    except UnreadableError:
        return None
    found = re.search(rf"""^{name}\s*=\s*(["'])(.+?)\1""", text, re.MULTILINE)
    return found[2] if found else None


_FASTAPI_DEFAULTS: Final = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")


def _by_fastapi(_: Launcher, arguments: Arguments, process: Process) -> Target:
    if app := arguments.first("-e", "--entrypoint"):
        return Target(app, "option --entrypoint of fastapi", (process.cwd,))
    if arguments.words[1:]:
        return Target(arguments.words[1], "argument of fastapi")
    project = process.absolute("pyproject.toml")
    if app := _fastapi_entrypoint(project):
        return Target(app, f"tool.fastapi in {project}", (process.cwd,))
    for file in _FASTAPI_DEFAULTS:
        if os.path.isfile(process.absolute(file)):
            return Target(file, "default file of fastapi")
    return Target(None, "fastapi was given no file")


def _fastapi_entrypoint(file: str) -> str | None:
    import tomllib

    try:
        table: Any = tomllib.loads(read_text(file, _MAX_CONFIG_BYTES))
        entrypoint = table["tool"]["fastapi"]["entrypoint"]
    except (UnreadableError, ValueError, KeyError, TypeError):
        return None
    return entrypoint if isinstance(entrypoint, str) and entrypoint else None


_FINDERS: Final[dict[str, Callable[[Launcher, Arguments, Process], Target]]] = {
    "gunicorn": _by_gunicorn,
    "fastapi": _by_fastapi,
}
