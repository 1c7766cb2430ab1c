"""The program: its help, its errors, its output streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from wherefrom.query.fields import ALL_FIELDS
from wherefrom.settings import setting_rows

from .conftest import HOSTILE, make_exception, make_span, make_trace, run

Write = Callable[..., None]

COMMANDS = (
    "search", "show", "tail", "sessions", "session", "export", "compare", "versions", "flag", "deployments",
    "gate", "doctor", "prune",
)  # fmt: skip


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
        env=os.environ | env,
    )


# Each command in a fork of one process: to start one takes longer than the command. With ``-`` before it, it
# writes to a reader that has gone away.
ONE_BY_ONE = """
import os, sys
from wherefrom.cli import app, main
from wherefrom.stores.sqlite import store
for command in sys.argv[1:]:
    reader, writer = os.pipe()
    os.close(reader)
    if os.fork() == 0:
        if command.startswith("- "):
            os.dup2(writer, 1)
        sys.argv = ["wherefrom", *command.removeprefix("- ").split()]
        main()
    os.close(writer)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_python_m_wherefrom(write: Write) -> None:
    write(make_trace())
    done = python("-m", "wherefrom", "search")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.isascii()


def test_the_version() -> None:
    assert run("--version").out == f"wherefrom {version('wherefrom')}\n"


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_extra_is_one_sentence(package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; from wherefrom.cli import main; main()"
    done = python("-c", code)
    assert done.returncode == 1
    assert (
        done.stderr
        == "wherefrom: the command line needs an optional dependency: pip install 'wherefrom[cli]'\n"
    )


@pytest.mark.parametrize(
    ("command", "package"),
    [("ui", "jinja2"), ("ui", "starlette"), ("ui", "uvicorn"), ("serve", "starlette"), ("serve", "uvicorn")],
)
def test_the_page_has_an_extra_of_its_own(write: Write, command: str, package: str) -> None:
    """The rest of the command line works without it."""
    write(make_trace())
    done = python(
        "-c", f"import sys; sys.modules['{package}'] = None\n{ONE_BY_ONE}", f"{command} --port 0", "search"
    )
    assert (
        done.stderr
        == f"wherefrom: `wherefrom {command}` needs an optional dependency: pip install 'wherefrom[ui]'\n"
    )
    assert done.stdout.startswith("1\n")
    assert done.stdout.endswith("\n0\n")


def test_another_missing_module_is_not_mistaken_for_it() -> None:
    code = "import sys; sys.modules['wherefrom.cli.terminal'] = None; from wherefrom.cli import main; main()"
    assert "ModuleNotFoundError" in python("-c", code).stderr


def test_a_reader_that_goes_away_is_no_news(write: Write, file: Path) -> None:
    """It had all that it wanted: nothing is said, and the command has succeeded."""
    write(*(make_trace(number, request_preview="x" * 900) for number in range(300)))
    commands = "search --json -n 300", "search -n 300", "show latest", "export --to csv", "search --help"
    done = python("-c", ONE_BY_ONE, *(f"- {command}" for command in commands))
    assert (done.stdout, done.stderr) == ("0\n" * len(commands), "")


def test_ctrl_c_while_starting_is_130() -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from wherefrom.cli import main; main()"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_terminal_without_unicode_gets_plain_characters(write: Write) -> None:
    spans = [
        make_span("root", None, 0, 120, name="café …", events=[make_exception("E", "naïve")]),
        make_span("work", "root", 10, None),
    ]
    write(make_trace(1, name="café …", spans=spans))
    done = python("-c", ONE_BY_ONE, "search", "--help", "doctor", "show latest", PYTHONIOENCODING="ascii")
    assert done.stderr == ""
    assert done.stdout.isascii()
    lines = done.stdout.splitlines()
    assert lines.count("0") == 4
    assert any(line.startswith(r"+ caf\xe9 ~") and "====" in line for line in lines)
    assert any(line.startswith("~ `- work") for line in lines)


def test_colours_are_for_terminals(write: Write) -> None:
    write(make_trace(1, name=HOSTILE))
    assert "\x1b" not in python("-m", "wherefrom", "search").stdout
    assert "\x1b[1m" in python("-m", "wherefrom", "search", FORCE_COLOR="1", COLUMNS="80").stdout


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_has_examples_that_begin_with_wherefrom(command: tuple[str, ...], width: int) -> None:
    result = run(*command, "--help", width=width)
    assert result.code == 0
    lines = [line.rstrip() for line in result.lines]
    examples = lines[lines.index(" Examples") + 1 :]
    assert examples[0].startswith("   # ")
    assert examples[1].startswith("   wherefrom ")


def test_help_lists_every_field_and_every_setting() -> None:
    fields = run("search", "--help").out
    for field in ALL_FIELDS:
        if field.operators:
            assert f"    {field.name}" in fields
            assert field.help in fields
    settings = run("doctor", "--help").out
    for row in setting_rows():
        assert f"  {row.variable} " in settings
        assert row.help in settings


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    result = run("searhc")
    assert result.code == 2
    assert "Did you mean 'search'?" in result.err


def test_help_does_not_import_the_store() -> None:
    code = (
        "import sys; sys.argv = ['wherefrom', '--help']\n"
        "from wherefrom.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'sqlalchemy', 'wherefrom.client', 'wherefrom.query', 'wherefrom.analysis', 'pyarrow'}\n"
        "print(heavy & sys.modules.keys() or 'none')"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "none"
