"""Traces in a table: those found, and those that follow."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.model import Trace, TraceState

from .conftest import (
    HOSTILE,
    Result,
    is_harmless,
    make_span,
    make_trace,
    on_terminal,
    read_rest,
    read_until,
    run,
)

Write = Callable[..., None]


def columns(result: Result) -> list[str]:
    return result.lines[0].replace("request id", "request_id").replace("trace id", "trace_id").split()


def test_the_newest_come_first(write: Write) -> None:
    write(*(make_trace(number) for number in (2, 1, 3)))
    result = run("search")
    assert result.code == 0
    assert [line.split()[-1][:7] for line in result.lines[1:]] == ["tr-0003", "tr-0002", "tr-0001"]


def test_in_a_pipe_everything_is_there_in_full_and_without_colour(write: Write) -> None:
    name = "GET /" + "long/" * 60
    write(make_trace(1, name=name, client_request_id="r" * 100))
    result = run("search")
    assert columns(result) == [
        "time", "state", "name", "duration", "http", "version", "environment", "user", "session",
        "request_id", "trace_id",
    ]  # fmt: skip
    cells = result.lines[1].split()
    moment = datetime.fromisoformat(cells[0])
    assert moment.timestamp() == 1_790_000_001
    assert moment.utcoffset() is not None
    assert cells[1:] == [
        "OK", "GET", name[4:], "120", "ms", "1.1.0", "production", "alice", "s-1", "r" * 100,
        "tr-0001" + "a" * 28,
    ]  # fmt: skip
    assert all(line == line.rstrip() for line in result.lines)


def test_80_columns_hold_what_one_looks_for_first(write: Write) -> None:
    now = int(time.time() * 1000)
    write(
        make_trace(
            1, request_time=now, name="POST /orders/{order_id}/items/{item_id}", execution_duration=1240
        ),
        make_trace(2, request_time=now, state=TraceState.ERROR),
    )
    result = run("search", width=80)
    assert columns(result) == ["time", "state", "name", "duration", "version", "trace_id"]
    assert all(cell_len(line) <= 80 for line in result.lines)
    first, second = sorted(result.lines[1:], key=lambda line: "ERROR" in line)
    assert "OK     POST /orders/{order_id}/i…" in first
    assert "1.24 s  1.1.0    0001aaaaaaaaaaaa" in first
    assert "ERROR  GET /orders/{order_id}" in second


@pytest.mark.parametrize("width", [20, 52, 60, 80, 100, 120, 140, 200, 300])
def test_more_columns_come_with_more_room(write: Write, width: int) -> None:
    write(make_trace(1, client_request_id="0199" * 9), make_trace(2, request_time=int(time.time() * 1000)))
    shown = columns(run("search", width=width))
    assert {"time", "state", "name", "duration", "trace_id"} <= set(shown)
    assert shown == [name for name in columns(run("search", width=300)) if name in shown]
    if width > 52:
        assert all(cell_len(line) <= width for line in run("search", width=width).lines)
    assert ("request_id" in shown) is (width >= 140)


def test_wide_characters_keep_the_columns_straight(write: Write) -> None:
    write(make_trace(1, name="東京" * 30), make_trace(2, name="GET /"))
    lines = run("search", width=100).lines
    assert {cell_len(line[: line.index("120 ms")]) for line in lines[1:]} == {
        cell_len(lines[0][: lines[0].index("duration")]) + 2
    }


def test_a_column_with_nothing_in_it_takes_no_room(write: Write) -> None:
    trace = make_trace(1)
    del trace.info.trace_metadata[keys.USER]
    write(trace)
    assert "user" not in columns(run("search", width=160))


def test_what_is_absent_is_blank(write: Write) -> None:
    trace = make_trace(
        1, execution_duration=None, client_request_id=None, state=TraceState.IN_PROGRESS, spans=[]
    )
    trace.info.tags.clear()
    write(trace)
    for width in (None, 80):
        assert "IN_PROGRESS" in run("search", width=width).lines[1]


def test_a_duration_without_spans_is_in_milliseconds(write: Write) -> None:
    write(make_trace(1, execution_duration=7, spans=[]))
    assert "7.00 ms" in run("search").out


def test_json_is_one_trace_a_line(write: Write) -> None:
    traces = [make_trace(number) for number in range(1, 4)]
    write(*traces)
    result = run("search", "--json", "-n", "2")
    found = [Trace.from_dict(json.loads(line)) for line in result.lines]
    assert found == [traces[2], traces[1]]
    assert (result.code, result.err) == (0, "")


def test_the_filter_the_order_and_the_limit_are_passed_on(write: Write) -> None:
    write(*(make_trace(number, execution_duration=100 - number, spans=[]) for number in range(1, 6)))
    args = ["client_request_id IN ('req-2', 'req-3', 'req-4')", "--order-by", "execution_time_ms", "-n", "2"]
    result = run("search", *args)
    assert [line.split()[-1][:7] for line in result.lines[1:]] == ["tr-0004", "tr-0003"]


def test_a_limit_beyond_a_page_is_paged_through(write: Write) -> None:
    write(*(make_trace(number) for number in range(250)))
    assert len(run("search", "--json", "-n", "240").lines) == 240
    assert len(run("search", "--json", "-n", "1000").lines) == 250


def test_an_experiment_is_searched_alone(write: Write) -> None:
    write(make_trace(1, experiment="shop"), make_trace(2, experiment="bank"))
    assert len(run("search", "--experiment", "shop", "--json").lines) == 1
    result = run("search", "--experiment", "zoo")
    assert (result.code, result.out) == (0, "")
    assert "no traces in experiment 'zoo'" in result.err


def test_nothing_found_says_what_to_do_next(write: Write) -> None:
    write()
    empty = run("search", "status = 'ERROR'")
    assert (empty.code, empty.out) == (0, "")
    assert "holds no traces yet" in empty.err
    write(make_trace())
    for extra in ((), ("--json",)):
        result = run("search", "status = 'ERROR'", *extra)
        assert (result.code, result.out) == (0, "")
        assert "No trace matches this filter" in result.err


def test_a_part_that_finds_nothing_is_named_with_what_may_have_been_meant(write: Write) -> None:
    write(make_trace())
    for typed, message, meant in (
        ("status = 'ok'", "No trace has status = 'ok'; there are OK.", "status = 'OK'"),
        ("metadata.app_versoin = '1'", "No trace carries metadata.app_versoin", "metadata.app_version = '1'"),
    ):
        result = run("search", typed)
        assert (result.code, result.out) == (0, "")
        assert message in result.err
        assert f"wherefrom search {shlex.quote(meant)}" in " ".join(result.err.split())


def test_words_and_values_without_quotes_are_understood(write: Write) -> None:
    write(make_trace(1, name="GET /chat"), make_trace(2, name="GET /other"))
    result = run("search", "chat status = ok", "--json")
    assert [json.loads(line)["info"]["trace_id"] for line in result.lines] == [make_trace(1).info.trace_id]


def test_a_filter_that_cannot_be_read_is_shown_with_a_caret(write: Write) -> None:
    write(make_trace())
    result = run("search", "name = 'x' AND stats = 'ERROR'")
    assert (result.code, result.out) == (2, "")
    message, text, caret = result.err.splitlines()
    assert message.startswith("wherefrom: ")
    assert "did you mean status" in message
    assert text[caret.index("^") : caret.rindex("^") + 1] == "stats"


def test_an_order_that_cannot_be_read_is_a_filter_error_too(write: Write) -> None:
    write(make_trace())
    assert run("search", "--order-by", "colour").code == 2


def test_a_hostile_filter_is_shown_harmlessly(write: Write) -> None:
    write(make_trace())
    for text in (HOSTILE, f"name = {HOSTILE}", f"metadata.`{HOSTILE}` = 'x'"):
        assert is_harmless(run("search", text).err)


@pytest.mark.parametrize("width", [None, 60, 80, 200])
def test_what_strangers_sent_is_shown_as_text(write: Write, width: int | None) -> None:
    hostile = dict.fromkeys((keys.USER, keys.SESSION, keys.APP_VERSION, keys.ENVIRONMENT), HOSTILE)
    trace = make_trace(1, name=HOSTILE, metadata=hostile, client_request_id=HOSTILE, experiment=HOSTILE)
    write(trace)
    result = run("search", width=width)
    assert is_harmless(result.out)
    assert len(result.lines) == 2
    assert r"\x1b[2J\x1" in result.out
    if width is None:
        assert result.out.count(r"[bold red]x[/]\n\u202egnp\x9b1m\u200b") == 6
    as_json = run("search", "--json", width=width)
    assert is_harmless(as_json.out)
    assert Trace.from_dict(json.loads(as_json.out)).info.name == HOSTILE


def test_the_store_is_an_option_of_the_program_and_of_the_command(
    write: Write, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(make_trace())
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    url = f"sqlite:///{file}"
    assert len(run("--store", url, "search").lines) == 2
    assert len(run("search", "--store", url).lines) == 2
    assert len(run("--store", "sqlite:///nowhere.db", "search", "--store", url).lines) == 2


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


def test_traces_of_strangers_do_no_harm_as_they_come(write: Write, interrupt: Callable[..., None]) -> None:
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
    assert (done.stdout, done.stderr) == ("0\n", "")


def with_status(number: int, status: object, **changes: Any) -> Trace:
    name = f"GET /{number}"
    root = make_span("root", None, 0, 120, name=name, attributes={"http.response.status_code": status})
    child = make_span("call", "root", 1, 2, attributes={"http.response.status_code": 418})
    return make_trace(number, name=name, spans=[child, root], **changes)


def test_the_http_status_is_in_the_table_and_in_json(write: Write) -> None:
    """It is that of the response, not that of a call to another service; other values are left out."""
    write(
        with_status(1, 200), with_status(2, 503), with_status(3, True), with_status(4, "x\x1b[2J"),
        make_trace(5, spans=[]),
    )  # fmt: skip
    found = [json.loads(line)["http_status"] for line in run("search", "--json").lines]
    assert found == [None, None, None, 503, 200]
    assert all(Trace.from_json(line) for line in run("search", "--json").lines)
    lines = run("search", width=120).lines
    end = lines[0].index("http") + len("http")
    assert [line[:end].split()[-1] for line in lines[4:]] == ["503", "200"]


def test_since_leaves_out_what_is_older(write: Write) -> None:
    """An age, words, an ISO time or milliseconds, together with a filter."""
    now = int(time.time() * 1000)
    hour, day = 3_600_000, 86_400_000
    write(
        make_trace(1, request_time=now - 3 * day),
        make_trace(2, request_time=now - 3 * hour, name="GET /b"),
        make_trace(3, request_time=now - hour // 2),
    )
    moment = datetime.fromtimestamp((now - 2 * day) / 1000, UTC).isoformat()
    for since, wanted in (
        ("1h", ["req-3"]),
        ("4h", ["req-3", "req-2"]),
        ("4h ago", ["req-3", "req-2"]),
        (moment, ["req-3", "req-2"]),
        (str(now - 4 * day), ["req-3", "req-2", "req-1"]),
    ):
        assert names(run("search", "--json", "--since", since)) == wanted
    assert names(run("search", "name = 'GET /b' OR name = 'x'", "--json", "--since", "1h")) == []
    assert names(run("export", "name = 'GET /b' OR name = 'x'", "--since", "4h")) == ["req-2"]
    assert len(run("sessions", "--json", "--since", "1h").lines) == 1
    assert run("sessions", "--json", "--since", "1s").lines == []
    wrong = run("search", "--since", "soon")
    assert wrong.code == 2
    assert "'soon' is no time" in " ".join(wrong.err.split())


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
