from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from .conftest import make_trace, on_terminal, read_rest, read_until, run

Write = Callable[..., None]

DAY = 86_400_000


@pytest.fixture
def aged(write: Write) -> None:
    """One trace of each of the last ten days, and of this moment."""
    now = int(time.time() * 1000)
    write(*(make_trace(number, request_time=now - number * DAY - 1000, spans=[]) for number in range(10)))


def count() -> int:
    with closing(sqlite3.connect(os.environ["WHEREFROM_STORE"].removeprefix("sqlite:///"))) as connection:
        return int(connection.execute("SELECT count(*) FROM traces").fetchone()[0])


def left() -> int:
    return len(run("search", "--json").lines)


@pytest.mark.usefixtures("aged")
def test_old_traces_go() -> None:
    result = run("prune", "--older-than", "7d", "--yes")
    assert (result.code, result.out, result.err) == (0, "3 traces deleted.\n", "")
    assert left() == 7
    assert run("prune", "--older-than", "1w").out == "0 traces deleted.\n"


@pytest.mark.usefixtures("aged")
def test_a_dry_run_says_how_many() -> None:
    result = run("prune", "--older-than", "9d", "--dry-run")
    assert result.code == 0
    assert result.out.startswith("1 trace from before 20")
    assert result.out.endswith(" would be deleted.\n")
    assert left() == 10


@pytest.mark.usefixtures("aged")
def test_without_a_terminal_nobody_can_be_asked() -> None:
    result = run("prune", "--older-than", "7d")
    assert (result.code, result.out) == (1, "")
    assert "--yes deletes 3 traces from before" in result.err
    assert left() == 10


@pytest.mark.parametrize("age", ["soon", "7", "-7d", "0d"])
def test_what_is_no_age_is_a_usage_error(age: str) -> None:
    result = run("prune", f"--older-than={age}")
    assert result.code == 2
    assert "is not an age" in result.err


@pytest.mark.usefixtures("aged")
def test_an_age_before_all_time_deletes_nothing() -> None:
    assert run("prune", "--older-than", "99999999999w", "--yes").out == "0 traces deleted.\n"


def test_the_file_becomes_smaller_when_asked(write: Write, file: Path) -> None:
    write(*(make_trace(number, request_preview="x" * 900) for number in range(500)))
    assert run("prune", "--older-than", "1s", "--yes").code == 0
    before = file.stat().st_size
    result = run("prune", "--older-than", "1s", "--vacuum")
    assert result.code == 0
    assert result.out.startswith("0 traces deleted.\nThe file shrank from ")
    assert file.stat().st_size < before / 2


def test_the_file_is_shrunk_without_deleting(write: Write) -> None:
    """For a file whose traces the settings have deleted; without both options there is nothing to do."""
    write(make_trace())
    result = run("prune", "--vacuum")
    assert (result.code, result.out.startswith("The file shrank from ")) == (0, True)
    assert left() == 1
    nothing = run("prune", "--yes")
    assert nothing.code == 2
    assert "takes an age" in nothing.err


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize(
    ("answer", "code", "said", "rest"),
    [(b"y", 0, b"3 traces deleted.", 7), (b"", 1, b"Nothing was deleted.", 10)],
)
def test_on_a_terminal_it_asks(answer: bytes, code: int, said: bytes, rest: int) -> None:
    process, terminal = on_terminal("prune", "--older-than", "7d")
    assert b"Delete 3 traces from before" in read_until(terminal, b"[y/N] ")
    os.write(terminal, answer + b"\n")
    shown = read_rest(terminal)
    assert process.wait(10) == code
    assert said in shown
    assert (b"--vacuum shrinks it" in shown) is (code == 0)
    assert left() == rest


def test_ctrl_c_in_the_middle_tells_how_many_have_gone(write: Write) -> None:
    """What is deleted is deleted, and the rest is whole and goes the next time."""
    write(*(make_trace(number, trace_id=f"tr-{number:032x}", spans=[]) for number in range(3000)))
    process, terminal = on_terminal("prune", "--older-than", "1s", "--yes")
    while count() == 3000:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown = read_rest(terminal)
    assert process.wait(10) == 130
    assert 0 < (rest := count()) < 3000
    assert f"{3000 - rest:,} traces deleted before the command stopped".encode() in shown
    assert b"Traceback" not in shown
    assert run("prune", "--older-than", "1s", "--yes").out == f"{rest:,} traces deleted.\n"
    assert count() == 0


def test_a_lock_in_the_middle_tells_how_many_have_gone(
    write: Write, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says that the file is locked; the output has the number that was deleted."""
    monkeypatch.setattr("wherefrom.stores.sqlite.file.BUSY_TIMEOUT_S", 0.01)
    write(*(make_trace(number, spans=[]) for number in range(30)))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = run("prune", "--older-than", "1s", "--yes")
    assert result.code == 1
    assert "0 traces deleted before the command stopped" in result.out
    assert "locked" in result.err


@pytest.mark.usefixtures("aged")
def test_ctrl_c_ends_it_without_a_word() -> None:
    process, terminal = on_terminal("prune", "--older-than", "7d")
    read_until(terminal, b"[y/N] ")
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    # Python sees one that comes between the prompt and the read only after the read.
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert b"Traceback" not in read_rest(terminal)
    assert left() == 10
