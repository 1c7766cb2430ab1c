"""The command for cron, and the thread of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..alerts.conftest import Receiver, receiver
from .conftest import make_trace, run

__all__ = ["receiver"]
Write = Callable[..., None]


@pytest.fixture
def rules(tmp_path: Path, receiver: Receiver) -> Path:
    file = tmp_path / "alerts.toml"
    file.write_text(
        f"webhook = '{receiver.url}'\n[[rule]]\nname = 'any'\nabove = 0\n[[rule]]\nname = 'many'\nabove = 9\n"
    )
    return file


def test_it_evaluates_once(
    write: Write, rules: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trial sends nothing; then each run tells what changed, and fails if a message was not delivered."""
    write(make_trace(request_time=time.time_ns() // 1_000_000 - 1000))
    trial = run("alert", "--rules", str(rules), "--dry-run")
    assert trial.lines == [
        "any fires: 1 trace in the last 5 min 00 s",
        "many quiet: 1 trace in the last 5 min 00 s",
    ]
    assert not (tmp_path / "wherefrom-alerts.db").exists()
    monkeypatch.setenv("WHEREFROM_ALERTS", str(rules))
    receiver.statuses = [500]
    failed = run("alert")
    assert (failed.code, failed.lines) == (1, ["any began: 1 trace in the last 5 min 00 s"])
    assert "alert any not delivered yet: http://127.0.0.1:" in " ".join(failed.err.split())
    assert "secret" not in failed.err
    again = run("alert")
    assert (again.code, again.lines) == (0, ["any fires: 1 trace in the last 5 min 00 s"])
    assert len(receiver.keys) == 1


def test_rules_are_needed(write: Write, rules: Path) -> None:
    write(make_trace())
    result = run("alert")
    assert result.code == 1
    assert "there are no alert rules: pass --rules FILE, or set WHEREFROM_ALERTS" in result.err
    rules.write_text("[[rule]]\nname = 'x'\nabove = 'much'")
    wrong = run("alert", "--rules", str(rules))
    assert wrong.code == 1
    assert "alerts.toml: rule 'x': above = 'much' cannot be used: it takes" in " ".join(wrong.err.split())


def test_the_page_evaluates_them_while_it_runs(
    write: Write, rules: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its links lead to itself."""
    write(make_trace(request_time=time.time_ns() // 1_000_000 - 1000))
    monkeypatch.setenv("WHEREFROM_ALERTS", str(rules))

    def serve(_server: object, sockets: object) -> None:
        end = time.monotonic() + 20
        while not receiver.accepted and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr("uvicorn.Server.run", serve)
    result = run("ui", "--port", "0")
    assert result.code == 0
    (body,) = receiver.accepted
    assert body["link"].startswith("http://127.0.0.1:")
    assert body["link"].split("/traces?")[0] in result.err
