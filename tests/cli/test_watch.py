"""The command: its exits, and what it prints in a pipe and on a terminal. Nothing here waits."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from wherefrom import Trace

from .conftest import HOSTILE, is_harmless, make_release, run

Write = Callable[..., None]
NOW = time.time_ns() // 1_000_000
SHORT = ("--for", "0.001s", "--every", "0.001s")


def recent(version: str, count: int, *, first: int, errors: int = 0) -> list[Trace]:
    """A release of the last hours: the first, of number 1000, began two hours ago."""
    traces = make_release(version, count, first=first, errors=errors)
    for trace in traces:
        trace.info.request_time += NOW - 7_200_000 - 1_790_001_000_000
    return traces


def test_a_worse_release_exits_with_1(write: Write) -> None:
    """It is sure at the first look, so it does not wait for half an hour."""
    write(*recent("1.0.0", 400, first=1000, errors=4), *recent("1.1.0", 400, first=1500, errors=200))
    result = run("watch", "--candidate", "1.1.0", "--for", "30m")
    assert result.code == 1
    first, last = result.lines
    assert " worse: 1.1.0 is worse than 1.0.0: error rate 50.0 % against 1.0 % (+49.0 points" in first
    assert last == "Sure with 400 and 400 traces."
    better = run("watch", "--candidate", "1.0.0", "--baseline", "1.1.0", width=100)
    assert better.code == 0
    assert "better: 1.0.0 is better than 1.1.0" in better.out


def test_no_difference_and_too_few(write: Write) -> None:
    write(*recent("1.0.0", 400, first=1000, errors=4), *recent("1.1.0", 400, first=1500, errors=4))
    same = run("watch", "--candidate", "1.1.0", *SHORT)
    assert same.code == 0
    assert same.lines[-1].startswith("The time is over: No difference seen between 1.1.0 and 1.0.0: ")
    missing = run("watch", "--candidate", HOSTILE, *SHORT)
    assert missing.code == 3
    assert "No trace has app_version" in missing.out
    assert is_harmless(missing.out)
    old = run("watch", "--candidate", "1.1.0", "--since", "1h", *SHORT)
    assert old.code == 3


def test_ctrl_c_tells_the_state(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits as a program that a signal ended, so that no script takes the state for a result."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    write(*recent("1.0.0", 40, first=1000))
    monkeypatch.setattr("wherefrom.analysis.watch.watch.__kwdefaults__", _with(wait=interrupt))
    result = run("watch", "--candidate", "1.1.0")
    assert result.code == 130
    assert result.lines[-1] == "Stopped. So far: too few traces."


def _with(**defaults: object) -> dict[str, object]:
    from wherefrom.analysis.watch import watch

    return {**(watch.__kwdefaults__ or {}), **defaults}


@pytest.mark.parametrize("option", ["--for", "--every"])
def test_a_wrong_time_is_one_sentence(write: Write, option: str) -> None:
    write(*recent("1.0.0", 1, first=1000))
    result = run("watch", "--candidate", "1.1.0", option, "soon")
    assert result.code == 2
    said = " ".join(result.err.replace("│", " ").split())
    assert f"Invalid value for {option}: 'soon' is not a time: use a number and s, m, h or d" in said
