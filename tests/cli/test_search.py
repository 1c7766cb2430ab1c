from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.model import Trace, TraceState

from .conftest import HOSTILE, Result, is_harmless, make_trace, run

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
        "time", "state", "name", "duration", "version", "environment", "user", "session",
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
        assert "No trace passes this filter" in result.err


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
    assert r"\x1b[2J\x1b" in result.out
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
