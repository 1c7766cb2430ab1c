"""The process that a command would start, described without starting it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType

from .entrypoint import module_file
from .facts import Process
from .launchers import LAUNCHERS

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*w?(?:\.exe)?", re.IGNORECASE)
_TAKES_VALUE = ("-W", "-X")


def process_of(command: Sequence[str], environ: Mapping[str, str]) -> Process:
    """The process that ``command`` would start here, such as ``uvicorn main:app`` or ``python -m app``."""
    cwd = os.getcwd()
    plain = Process(
        argv=(_found(command[0]), *command[1:]) if command else ("",),
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


def _found(program: str) -> str:
    """The program's own file, as a console script sees it in ``sys.argv``."""
    return shutil.which(program) or program


def _after_options(arguments: Sequence[str]) -> list[str]:
    """What follows the interpreter's own options: ``-m``, ``-c``, or a script."""
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
