"""The entry point: how this process was started, or how a command would start one.

``sys.argv`` is read first: servers keep it in the workers that they spawn, where ``sys.orig_argv`` is the
command line of multiprocessing. ``sys.orig_argv`` is used only if ``sys.argv`` is empty.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final, Literal

from .facts import Process, UnreadableError, read_text
from .launchers import LAUNCHERS, Launcher, find_target

Kind = Literal["LOCAL", "NOTEBOOK", "UNKNOWN"]

_TEST_RUNNERS: Final = {"pytest": "pytest", "py.test": "pytest", "unittest": "unittest"}
_CONSOLES: Final = frozenset({"ipython", "ipython3", "bpython", "ptpython"})
_KERNELS: Final = frozenset(
    {
        "ipykernel",
        "ipykernel_launcher",
        "colab_kernel_launcher",
        "db_ipykernel_launcher",
        "PythonShell",
        "PythonShellImpl",
    }
)
_NOTEBOOK_VARIABLES: Final = ("__vsc_ipynb_file__", "IPYNB_FILE", "JPY_SESSION_NAME")
_NO_SCRIPT: Final = {
    "": "no script: a console, or code from standard input",
    "-": "no script: code from standard input",
    "-c": "no script: python -c",
}
_PROGRAM_SUFFIX: Final = re.compile(r"(-script\.pyw?|\.exe|\.pyw?)$")
_CONSOLE_SCRIPT: Final = re.compile(r"^from ([\w.]+) import (\w+).*sys\.exit\(\2\b", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry point of a process.

    ``name`` is ``None`` if it is unknown. ``location`` is the absolute path of the file or directory with its
    code, ``None`` if it was not found. ``origin`` says where the name was found, or why there is none.
    """

    name: str | None
    kind: Kind
    location: str | None
    origin: str


def find_entry(process: Process) -> Entry:
    """Return the entry point of ``process``: a notebook, ``module:app`` of a server, a module or a script."""
    if not process.argv:
        process = replace(process, argv=_without_interpreter(process.orig_argv))
    start = process.argv[0] if process.argv else ""
    program = _program(start)
    if _is_notebook(process, program):
        return _notebook(process)
    if start in _NO_SCRIPT:
        return Entry(None, "UNKNOWN", process.cwd or None, _NO_SCRIPT[start])
    if program in _CONSOLES:
        return Entry(None, "UNKNOWN", process.cwd or None, f"no script: {program}")
    if program in _TEST_RUNNERS:
        return Entry(_TEST_RUNNERS[program], "LOCAL", process.cwd or None, "sys.argv")
    if launcher := LAUNCHERS.get(program):
        return _launched(launcher, process)
    return _module(process, start) or _script(process, start)


def _program(start: str) -> str:
    name = os.path.basename(start)
    if name == "__main__.py":
        name = os.path.basename(os.path.dirname(start))
    # unittest writes "python -m unittest" into sys.argv.
    return _PROGRAM_SUFFIX.sub("", name).rpartition(" -m ")[2]


def _without_interpreter(orig_argv: Sequence[str]) -> Sequence[str]:
    """Return what ``sys.argv`` would be, except that after ``-m`` the module's name replaces its file."""
    for index, argument in enumerate(orig_argv[1:], start=1):
        if argument in {"-m", "-c"}:
            return orig_argv[index + 1 :] if argument == "-m" else ["-c"]
        if not argument.startswith("-") and orig_argv[index - 1] not in {"-W", "-X"}:
            return orig_argv[index:]
    return [""]


def _is_notebook(process: Process, program: str) -> bool:
    shell = _shell(process)
    on_databricks = bool(process.environ.get("DATABRICKS_RUNTIME_VERSION"))
    if shell is None:
        return program in _KERNELS or (on_databricks and program in _NO_SCRIPT)
    return on_databricks or any(
        base.__name__ == "ZMQInteractiveShell" or base.__module__.startswith("google.colab")
        for base in type(shell).__mro__
    )


def _shell(process: Process) -> Any:
    get_ipython = getattr(process.modules.get("IPython"), "get_ipython", None)
    return get_ipython() if callable(get_ipython) else None


def _notebook(process: Process) -> Entry:
    for file, origin in _notebook_files(process):
        place = process.absolute(file)
        location = place if os.path.exists(place) else process.cwd or None
        return Entry(os.path.basename(file), "NOTEBOOK", location, origin)
    reason = f"the notebook's name is in none of {', '.join(_NOTEBOOK_VARIABLES)}"
    return Entry(None, "NOTEBOOK", process.cwd or None, reason)


def _notebook_files(process: Process) -> Iterator[tuple[str, str]]:
    names: Any = getattr(_shell(process), "user_ns", None) or getattr(process.main_module, "__dict__", {})
    by_editor = names.get("__vsc_ipynb_file__")
    if isinstance(by_editor, str) and os.path.basename(by_editor):
        yield by_editor, "__vsc_ipynb_file__ of the notebook"
    for variable in _NOTEBOOK_VARIABLES:
        if os.path.basename(file := process.environ.get(variable, "").strip()):
            yield file, f"env {variable}"


def _launched(launcher: Launcher, process: Process) -> Entry:
    target = find_target(launcher, process)
    if target.name is None:
        return Entry(None, "LOCAL", process.cwd or None, target.origin)
    module = re.sub(r"^(asgi|wsgi):(?=.*:)", "", target.name).partition(":")[0]
    if module.endswith(".py") or "/" in module:
        location: str | None = process.absolute(module)
    else:
        location = module_file(module, process, (*target.directories, process.cwd))
    return Entry(target.name, "LOCAL", location, target.origin)


def _module(process: Process, start: str) -> Entry | None:
    """Return the entry for ``python -m module``, if ``start`` is the file of that module."""
    spec = getattr(process.main_module, "__spec__", None)
    file = getattr(spec, "origin", None)
    name = str(getattr(spec, "name", "")).removesuffix(".__main__")
    place = process.absolute(start)
    # A runner such as cProfile puts the script it runs in sys.argv and stays the main module itself.
    if name and not name.startswith("__") and (file == place or not os.path.exists(place)):
        return Entry(name, "LOCAL", file if isinstance(file, str) else None, "python -m")
    if os.path.basename(start) == "__main__.py" and (package := _package(os.path.dirname(place))):
        return Entry(package, "LOCAL", place, "python -m")
    return None


def _package(directory: str) -> str:
    """Return the dotted name of the package in a directory; empty if there is none."""
    parts: list[str] = []
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, part = os.path.split(directory)
        parts.insert(0, part)
    return ".".join(parts)


def _script(process: Process, start: str) -> Entry:
    file = getattr(process.main_module, "__file__", None)
    places = [process.absolute(place) for place in (file, start) if isinstance(place, str)]
    location = next((place for place in places if os.path.exists(place)), None)
    if location and os.path.basename(os.path.dirname(location)) in {"bin", "Scripts"}:
        location = _behind_console_script(location, process) or location
    return Entry(start, "LOCAL", location, "sys.argv")


def _behind_console_script(script: str, process: Process) -> str | None:
    """Return the file of the module that an installed command calls: the command's own file is a stub."""
    try:
        found = _CONSOLE_SCRIPT.search(read_text(script, 1 << 16))
    except UnreadableError:
        return None
    return module_file(found[1], process) if found else None


def module_file(name: str, process: Process, first: Sequence[str] = ()) -> str | None:
    """Return the file of a module without importing anything; ``None`` if it is not found.

    Directories of ``first`` are searched before ``process.path``. If the module itself is not found, the
    result is the file of the nearest package above it; for a package without ``__init__`` it is the
    directory.
    """
    file = getattr(process.modules.get(name), "__file__", None)
    if isinstance(file, str):
        return process.absolute(file)
    found = None
    places = [process.absolute(place) for place in (*first, *process.path)]
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = PathFinder.find_spec(".".join(parts[:depth]), places)
        except (ImportError, OSError, ValueError):
            break
        if spec is None:
            break
        places = list(spec.submodule_search_locations or ())
        found = spec.origin if spec.has_location else next(iter(places), found)
    return found


_PYTHON = re.compile(r"(?:python|pypy)[\d.]*w?(?:\.exe)?", re.IGNORECASE)
_TAKES_VALUE = ("-W", "-X")


def process_of(command: Sequence[str], environ: Mapping[str, str]) -> Process:
    """The process that ``command`` would start here, such as ``uvicorn main:app`` or ``python -m app``."""
    cwd = os.getcwd()
    plain = Process(
        argv=(shutil.which(command[0]) or command[0], *command[1:]) if command else ("",),
        orig_argv=tuple(command),
        environ=dict(environ),
        cwd=cwd,
        main_module=None,
        modules={},
        path=(cwd, *sys.path),
    )
    if not command or not _PYTHON.fullmatch(os.path.basename(command[0])):
        return plain
    arguments = _after_options(command[1:])
    if arguments[:1] == ["-m"] and arguments[1:]:
        return _of_module(arguments[1], arguments[2:], plain)
    return replace(plain, argv=tuple(arguments) or ("",))


def _after_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments after the interpreter's own options: ``-m``, ``-c`` or a script comes first."""
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in {"-", "-m", "-c"}:
        del rest[: 2 if rest[0] in _TAKES_VALUE else 1]
    return rest


def _of_module(name: str, arguments: Sequence[str], plain: Process) -> Process:
    if name in LAUNCHERS:
        return replace(plain, argv=(name, *arguments))
    module = ModuleType("__main__")
    file = module_file(name, plain)
    module.__spec__ = ModuleSpec(name, None, origin=file)
    return replace(plain, argv=(file or name, *arguments), main_module=module)
