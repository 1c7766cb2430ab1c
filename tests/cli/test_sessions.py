from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.model import TraceState

from .conftest import HOSTILE, is_harmless, make_trace, run

Write = Callable[..., None]

START = 1_790_000_000_000


def turn(number: int, session: str, user: str = "alice", state: TraceState = TraceState.OK) -> object:
    return make_trace(
        number,
        metadata={keys.SESSION: session, keys.USER: user},
        state=state,
        spans=[],
        execution_duration=500,
    )


@pytest.fixture
def talks(write: Write) -> None:
    write(
        turn(1, "s-1"),
        turn(2, "s-2", "bob"),
        turn(3, "s-1", state=TraceState.ERROR),
        turn(4, "s-1"),
        turn(5, "s-3"),
        turn(6, "s-3", "carol"),
    )


@pytest.mark.usefixtures("talks")
def test_each_session_is_a_line_the_latest_first() -> None:
    result = run("sessions", width=80)
    assert (result.code, result.err) == (0, "")
    assert result.lines[0].split() == ["last", "turn", "session", "user", "turns", "duration", "errors"]
    rows = [line.split()[-7:] for line in result.lines[1:]]
    assert rows[0][-6:] == ["2", "users", "2", "1.50", "s", "0"]
    assert rows[1][-6:] == ["s-1", "alice", "3", "3.50", "s", "1"]
    assert rows[2][-6:] == ["s-2", "bob", "1", "500", "ms", "0"]


@pytest.mark.usefixtures("talks")
def test_more_room_holds_the_first_turn() -> None:
    assert "first turn" in run("sessions", width=140).lines[0]
    assert "first turn" not in run("sessions", width=80).lines[0]
    piped = run("sessions").lines
    assert "first turn" in piped[0]
    assert piped[2].split()[1].startswith("2026-09-21T")


@pytest.mark.usefixtures("talks")
def test_the_filter_chooses_whole_sessions() -> None:
    found = [json.loads(line) for line in run("sessions", "status = 'ERROR'", "--json").lines]
    assert [(one["session_id"], one["turns"], one["errors"]) for one in found] == [("s-1", 3, 1)]


def test_a_limit_beyond_a_page_is_paged_through(write: Write) -> None:
    write(*(turn(number, f"s-{number}") for number in range(1100)))
    assert len(run("sessions", "--json", "-n", "1050").lines) == 1050
    assert len(run("sessions", "--json", "-n", "5000").lines) == 1100
    assert len(run("sessions").lines) == 21


@pytest.mark.usefixtures("talks")
def test_a_person_is_told_how_to_go_on(is_read_by_a_person: None) -> None:
    assert "-n 10 shows more" in run("sessions", "-n", "2", width=200).err
    shown = run("sessions", width=200).err
    assert "shows more" not in shown
    assert "lists the turns of one" in shown


def test_nothing_found_is_said(write: Write) -> None:
    trace = make_trace(1)
    del trace.info.trace_metadata[keys.SESSION]
    write(trace)
    for args in ((), ("--json",)):
        result = run("sessions", *args)
        assert (result.code, result.out) == (0, "")
        assert "X-Session-ID" in result.err
    assert "No session has a trace that matches" in run("sessions", "status = 'OK'").err


def test_sessions_of_strangers_do_no_harm(write: Write) -> None:
    write(turn(1, HOSTILE, HOSTILE))
    for width in (None, 80):
        result = run("sessions", width=width)
        assert is_harmless(result.out)
        assert width is None or all(cell_len(line) <= width for line in result.lines)
    assert json.loads(run("sessions", "--json").out)["session_id"] == HOSTILE


def test_what_cannot_be_read_is_exit_code_2(write: Write) -> None:
    write()
    assert run("sessions", "stat = 'OK'").code == 2


@pytest.mark.usefixtures("talks")
def test_a_session_lists_its_turns_in_order() -> None:
    """With the pause before each; overlapping requests have a negative one."""
    result = run("session", "s-1")
    assert (result.code, result.err) == (0, "")
    assert result.lines[0].split()[:5] == ["time", "state", "name", "pause", "duration"]
    assert [line.split()[1] for line in result.lines[1:4]] == ["OK", "ERROR", "OK"]
    assert "1.50 s" in result.lines[2]
    assert result.lines[-1] == "3 turns in 3.50 s, 1 error."
    found = json.loads(run("session", "s-1", "--json").out)
    assert (found["session"]["session_id"], found["session"]["turns"]) == ("s-1", 3)
    assert [one["trace"]["request_id"] for one in found["turns"]] == ["req-1", "req-3", "req-4"]
    assert [one["pause_ms"] for one in found["turns"]] == [None, 1500, 500]
    assert len(json.loads(run("session", "s-1", "--json", "-n", "2").out)["turns"]) == 2


@pytest.mark.usefixtures("talks")
def test_a_filter_selects_requests_of_a_session() -> None:
    """As it does in every other command, and ``--since``; the totals are those of the session."""
    result = run("session", "s-1", "status = 'ERROR'")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[1] for line in result.lines[1:2]] == ["ERROR"]
    assert result.lines[-1] == "The whole session: 3 turns in 3.50 s, 1 error."
    since = json.loads(run("session", "s-1", "--json", "--since", str(START + 3000)).out)
    assert [one["trace"]["request_id"] for one in since["turns"]] == ["req-3", "req-4"]
    none = run("session", "s-1", "user = 'nobody'")
    assert (none.code, "No request of the session matches this filter." in none.err) == (0, True)
    assert run("session", "s-1", "stat = 'OK'").code == 2


@pytest.mark.usefixtures("talks")
def test_a_session_that_is_not_there_is_one_sentence() -> None:
    result = run("session", "s-9")
    assert (result.code, result.out, result.err) == (1, "", "wherefrom: no trace has the session 's-9'\n")
    assert run("session", "s-1", "--experiment", "other").code == 1


def test_a_hostile_session_is_harmless(write: Write) -> None:
    write(
        make_trace(
            1, name=HOSTILE, metadata={keys.SESSION: HOSTILE, keys.USER: HOSTILE}, request_preview=HOSTILE
        )
    )
    for width in (None, 40, 80, 200):
        result = run("session", HOSTILE, width=width)
        assert result.code == 0
        assert is_harmless(result.out)
        assert width is None or all(cell_len(line) <= max(width, 80) for line in result.lines)
