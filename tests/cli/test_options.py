"""The store that a command opens, and the examples in its help."""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rich.text import Text
from typer.main import get_group

from wherefrom import keys
from wherefrom.cli.app import app

from .conftest import make_release, run

Write = Callable[..., None]


@pytest.mark.parametrize(
    "command", [("search",), ("show", "latest"), ("prune", "--older-than", "1d", "--yes")]
)
def test_a_file_that_is_not_there_is_named_and_not_made(file: Path, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert str(file) in result.err
    assert "WHEREFROM_STORE" in result.err
    assert not list(file.parent.iterdir())


def test_another_programs_file_is_left_as_it_is(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    before = file.read_bytes()
    result = run("search")
    assert (result.code, result.err) == (
        1,
        f"wherefrom: {file} is an SQLite file, but not a store of Wherefrom\n",
    )
    assert file.read_bytes() == before


def test_what_is_no_sqlite_file_is_refused(file: Path) -> None:
    file.write_text("x" * 5000)
    result = run("search")
    assert result.code == 1
    assert f"{file} cannot be read as a store: file is not a database" in result.err


def test_an_empty_file_is_an_empty_store(file: Path) -> None:
    file.touch()
    result = run("search")
    assert (result.code, result.out) == (0, "")
    assert "holds no traces yet" in result.err


def test_a_newer_schema_is_refused_by_name(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER)")
        connection.execute("INSERT INTO schema_version VALUES (99)")
    result = run("search")
    assert result.code == 1
    assert "schema version 99" in result.err


def test_no_store_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    result = run("search")
    assert (result.code, result.err) == (1, "wherefrom: no traces are stored: WHEREFROM_STORE is none\n")


def test_a_path_where_a_url_belongs_is_recognised() -> None:
    result = run("search", "--store", "wherefrom.db")
    assert result.code == 1
    assert "did you mean sqlite:///wherefrom.db?" in result.err


def test_a_url_of_another_kind_is_refused_without_its_password() -> None:
    result = run("search", "--store", "mysql://root:hunter2@db/wherefrom")
    assert result.code == 1
    assert "sqlite:///file.db" in result.err
    assert "hunter2" not in result.err


def test_a_setting_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_QUEUE_SIZE", "-1")
    result = run("search")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("wherefrom: WHEREFROM_QUEUE_SIZE='-1' cannot be used")
    assert len(result.err.splitlines()) == 1


COMMANDS = get_group(app).commands
# What needs a server, a terminal or a trace of a certain id is tested elsewhere.
NAMES = ("search", "sessions", "session", "export", "compare", "versions", "flag", "deployments")


def examples(name: str) -> list[str]:
    """The commands in the help of one command."""
    lines = Text.from_markup(COMMANDS[name].epilog or "").plain.splitlines()
    return [line.strip() for line in lines if line.startswith("  wherefrom ")]


EXAMPLES = [example for name in NAMES for example in examples(name) if "mlflow+http" not in example]


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_help_shows_works(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    if "parquet" in example:
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    now = int(time.time() * 1000)
    write(
        *make_release(
            "1.0.0",
            3,
            metadata={"feature_flag_new_retriever": "true", keys.SESSION: "s-17"},
            request_time=now,
        ),
        *make_release("1.1.0", 3, first=3, metadata={"feature_flag_new_retriever": "false"}),
    )
    command = shlex.split(example.partition(" | ")[0])
    assert command[0] == "wherefrom"
    result = run(*command[1:])
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_example_can_be_copied_from_a_narrow_terminal(name: str) -> None:
    """Each example fits on one line of 80 columns."""
    shown = [line.strip() for line in run(name, "--help", width=80).lines]
    assert examples(name)
    for example in examples(name):
        assert example in shown
