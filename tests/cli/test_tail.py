from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.cells import cell_len

from wherefrom.analysis import tail
from wherefrom.analysis.tail import Follower, Selection
from wherefrom.exceptions import FilterError, StoreError
from wherefrom.model import TraceState
from wherefrom.stores import Store, open_store

from .conftest import (
    HOSTILE,
    Result,
    is_harmless,
    make_trace,
    on_terminal,
    read_rest,
    read_until,
    run,
)

Write = Callable[..., None]

WRITER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from cli.conftest import make_trace
from wherefrom.stores import open_store
store = open_store(sys.argv[1])
for number in range(10, 15):
    store.write([make_trace(number, request_time=1_790_000_000_000 - number)])
    time.sleep(0.05)
"""


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{file}")
    yield store
    store.close()


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Each pause of the command does the next of some things; after the last comes Ctrl-C."""

    def _interrupt(*things: Callable[[], object]) -> None:
        left = list(things)

        def sleep(_seconds: float) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(time, "sleep", sleep)

    return _interrupt


def names(result: Result) -> list[str]:
    return [json.loads(line)["info"]["client_request_id"] for line in result.lines]


def test_the_last_few_come_first_then_each_as_it_comes(write: Write, interrupt: Callable[..., None]) -> None:
    write(*(make_trace(number) for number in range(20)))
    interrupt(lambda: write(make_trace(30)), lambda: None, lambda: write(make_trace(31), make_trace(32)))
    result = run("tail", "-n", "2", "--json")
    assert names(result) == ["req-18", "req-19", "req-30", "req-31", "req-32"]
    assert (result.code, result.err) == (130, "")


def test_the_filter_and_the_experiment_are_followed(write: Write, interrupt: Callable[..., None]) -> None:
    bad = {"state": TraceState.ERROR, "experiment": "shop"}
    write(make_trace(1, **bad), make_trace(2))
    interrupt(
        lambda: write(make_trace(3, experiment="shop"), make_trace(4, **bad)),
        lambda: write(make_trace(5, state=TraceState.ERROR), make_trace(6, **bad, metadata={"new": "key"})),
    )
    assert names(run("tail", "status = 'ERROR'", "--experiment", "shop", "--json")) == [
        "req-1",
        "req-4",
        "req-6",
    ]


def test_none_of_the_last_when_none_are_wanted(write: Write, interrupt: Callable[..., None]) -> None:
    write(make_trace(1))
    interrupt(lambda: write(make_trace(2)))
    assert names(run("tail", "-n", "0", "--json")) == ["req-2"]


@pytest.mark.parametrize("width", [None, 52, 80, 100, 140, 200])
def test_the_columns_stay_as_wide_as_they_are(
    write: Write, interrupt: Callable[..., None], width: int | None
) -> None:
    now = int(time.time() * 1000)
    write(make_trace(1, request_time=now))
    long = make_trace(2, request_time=now, name="POST /" + "x" * 300, execution_duration=3_599_000, spans=[])
    last = make_trace(3, request_time=now, execution_duration=None, spans=[])
    interrupt(lambda: write(long), lambda: write(last))
    lines = run("tail", width=width).lines
    assert len(lines) == 4
    assert lines[0].split()[:3] == ["time", "state", "name"]
    assert "duration" in lines[0]
    if width is None:
        assert "x" * 300 in lines[2]
        assert lines[1].split()[-1] == "tr-0001" + "a" * 28
    else:
        assert all(cell_len(line) <= max(width, 60) for line in lines)
        end = lines[0].index("duration") + len("duration")
        assert lines[1][:end].endswith("120 ms")
        assert lines[2][:end].endswith("59 min 59 s")
        assert ("version" in lines[0]) is (width >= 80)
        assert ("request id" in lines[0]) is (width >= 200)


def test_a_day_ago_is_told_with_its_date(write: Write, interrupt: Callable[..., None]) -> None:
    write(make_trace(1, request_time=int(time.time() * 1000) - 40 * 86_400_000))
    interrupt()
    line = run("tail", width=100).lines[1]
    assert line.startswith(time.strftime("%b %d ", time.localtime(time.time() - 40 * 86_400))) or "-" in line


def test_traces_of_strangers_do_no_harm(write: Write, interrupt: Callable[..., None]) -> None:
    write(make_trace(1, name=HOSTILE, client_request_id=HOSTILE))
    for args in ((), ("--json",)):
        for width in (None, 200):
            interrupt()
            assert is_harmless(run("tail", *args, width=width).out)


def test_a_writer_in_another_process_is_followed(write: Write, file: Path) -> None:
    """Its traces began before those that are there already, and come nevertheless."""
    write(make_trace(1), make_trace(2))
    url = f"sqlite:///{file}"
    tail = subprocess.Popen(
        [sys.executable, "-m", "wherefrom", "tail", "--json", "-n", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    seen = [json.loads(tail.stdout.readline())["info"]["client_request_id"]]
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", WRITER, url, tests], check=True, timeout=60)
    seen += [json.loads(tail.stdout.readline())["info"]["client_request_id"] for _ in range(5)]
    assert seen == ["req-2", "req-10", "req-11", "req-12", "req-13", "req-14"]
    tail.send_signal(signal.SIGINT)
    rest, errors = tail.communicate(timeout=30)
    assert (tail.returncode, rest, errors) == (130, "", "")


def test_ctrl_c_on_a_terminal_leaves_a_clean_line(write: Write) -> None:
    write(make_trace(1))
    process, terminal = on_terminal("tail")
    read_until(terminal, b"GET /orders")
    process.send_signal(signal.SIGINT)
    rest = read_rest(terminal)
    assert process.wait(30) == 130
    assert rest.endswith(b"\r\n")
    assert b"Traceback" not in rest


def test_a_reader_that_goes_away_ends_it(write: Write) -> None:
    write(*(make_trace(number, request_preview="x" * 900) for number in range(300)))
    piped = f"{sys.executable} -m wherefrom tail --json -n 300 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_store_that_is_not_there_yet_is_waited_for(write: Write, interrupt: Callable[..., None]) -> None:
    interrupt(lambda: None, lambda: write(make_trace(1)))
    result = run("tail", "--json")
    assert names(result) == ["req-1"]
    assert "there is no store at" in result.err
    assert " ".join(result.err.split()).endswith("Waiting for it.")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_filter_that_cannot_be_read_is_exit_code_2(write: Write, is_there: bool) -> None:
    if is_there:
        write(make_trace(1))
    result = run("tail", "stat = 'OK'")
    assert (result.code, result.out) == (2, "")
    assert "did you mean status?" in result.err


def test_a_file_of_another_kind_is_no_store(file: Path) -> None:
    file.write_text("no database at all, though long enough to be one" * 40)
    assert run("tail").code == 1
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    assert "not a store of Wherefrom" in run("tail").err


def test_no_store_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    assert run("tail").code == 1


def seen(follower: Follower) -> list[str | None]:
    return [trace.info.client_request_id for trace in follower.new()]


def test_a_trace_that_is_stored_again_is_not_new(store: Store) -> None:
    store.write([make_trace(1)])
    follower = Follower(Selection(store))
    follower.last(0)
    store.write([make_trace(1, state=TraceState.ERROR), make_trace(2)])
    assert seen(follower) == ["req-2"]
    assert seen(follower) == []


def test_an_id_that_is_given_again_is_new(store: Store) -> None:
    """SQLite gives the id of the last row to another when that was deleted."""
    store.write([make_trace(number) for number in range(1, 6)])
    follower = Follower(Selection(store))
    follower.last(0)
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM traces WHERE id > 3")
    store.write([make_trace(number) for number in (6, 7, 8)])
    assert seen(follower) == ["req-6", "req-7", "req-8"]
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM traces")
    assert seen(follower) == []
    now = int(time.time() * 1000)
    store.write([make_trace(9, request_time=now)])
    assert seen(follower) == ["req-9"]


def test_of_what_was_forgotten_only_the_latest_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_REMEMBERED", 2)
    store.write([make_trace(number) for number in range(1, 6)])
    follower = Follower(Selection(store))
    follower.last(0)
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM traces WHERE id > 3")
    store.write([make_trace(6, request_time=int(time.time() * 1000))])
    assert seen(follower) == ["req-6"]
    store.write([make_trace(7)])
    assert seen(follower) == ["req-7"]


def test_an_empty_store_has_no_past(store: Store) -> None:
    store.write([])
    follower = Follower(Selection(store))
    assert follower.last(5) == []
    store.write([make_trace(1)])
    assert seen(follower) == ["req-1"]


def test_many_at_once_come_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_MOST", 10)
    monkeypatch.setattr(tail, "_REMEMBERED", 12)
    follower = Follower(Selection(store))
    store.write([make_trace(0)])
    assert seen(follower) == ["req-0"]
    store.write([make_trace(number) for number in range(1, 26)])
    assert [len(seen(follower)) for _ in range(4)] == [10, 10, 5, 0]


def test_a_smaller_id_that_is_committed_later_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL does where two transactions overlap."""
    monkeypatch.setitem(tail._LOOK_BACK, "sqlite", 5)
    store.write([make_trace(number) for number in range(1, 9)])
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM traces WHERE id = 7")
    follower = Follower(Selection(store))
    follower.last(0)
    assert seen(follower) == []
    store.write([make_trace(9, spans=[])])
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE traces SET id = 7 WHERE client_request_id = 'req-9'")
    assert seen(follower) == ["req-9"]
    assert seen(follower) == []


def test_another_file_in_its_place_is_followed_from_its_beginning(
    store: Store, file: Path, write: Write
) -> None:
    store.write([make_trace(number) for number in range(1, 6)])
    follower = Follower(Selection(store))
    assert len(follower.last(10)) == 5
    for path in file.parent.glob("wherefrom.db*"):
        path.unlink()
    assert seen(follower) == []
    write(make_trace(7))
    assert seen(follower) == ["req-7"]
    for path in file.parent.glob("wherefrom.db*"):
        path.unlink()
    file.write_text("something else, long enough to be read" * 40)
    with pytest.raises(StoreError):
        follower.new()


def test_a_filter_is_read_before_the_store_is_there(store: Store) -> None:
    with pytest.raises(FilterError):
        Follower(Selection(store, "stat = 1")).last(1)
