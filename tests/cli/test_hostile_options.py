"""Whatever options and settings hold: one sentence and a documented exit code, never a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from wherefrom.cli.app import app
from wherefrom.exceptions import SettingsError
from wherefrom.settings import Settings, setting_rows

from .conftest import make_release, run

RANDOM = random.Random(7)
TEXTS = (
    "", "0", "-1", "abc", "1e999", "NaN", "inf", "9" * 5000, "99999999999999999999", "0x10", " 1 ", "true",
    "'", "''", "a = 'b'", "(", "%", "\x00", "\ud800", "\x1b[2J", "é" * 300, "x" * 70_000, "\n", "a\r\nb: c",
    "/", ".", "/dev/full", "/nonexistent/x/y", "--", "-", "[/]", "[bold]", "`", "tag.`", "metadata.",
    "latest", "1d", "99999999999d", "2h ago", "none", "sqlite:///", "sqlite:////dev/null",
    "sqlite:///" + "x" * 5000,
    "sqlite:///wherefrom.db?x=[", "mlflow+http://[::1", "mlflow+http://", "otlp+http://h:abc", "otlp+http://[::1",
    "mysql://root:hunter2@db/x", "{}", "[]", "null", '{"a": 1}', '{"a": -1}', "[1", "[" * 10_000, ",,", "a,b",
    "10.0.0.0/33", "::1/200", "opentelemetry,zipkin", "x y",
)  # fmt: skip
COMMANDS = get_group(app).commands
# What would run on and on, or ask somebody: only values that cannot be used are given to these.
ENDLESS = {"ui", "serve", "tail"}
UNDECIDED = {"gate", "watch"}  # they end with 3 too
NEEDED = {
    "show": ["latest"],
    "flag": ["new_retriever"],
    "prune": ["--yes", "--older-than", "1d"],
    "gate": ["--baseline", "1.0.0", "--candidate", "1.1.0"],
    "watch": ["--candidate", "1.1.0", "--for", "0s"],
}


def _cases() -> Iterator[tuple[str, Any]]:
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if getattr(parameter, "is_flag", False) or (name in ENDLESS and parameter.name != "port"):
                continue
            if parameter.name == "lasting":
                continue  # a day is a usable time
            yield name, parameter


CASES = list(_cases())


@pytest.mark.parametrize(("name", "parameter"), CASES, ids=[f"{name} {found.name}" for name, found in CASES])
def test_an_option_may_hold_anything(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameter: Any
) -> None:
    """An error is on stderr, names what is wrong, and ends the command with 1 or 2, or with 3."""
    monkeypatch.chdir(tmp_path)
    write(*make_release("1.0.0", 2), *make_release("1.1.0", 2, first=2))
    is_argument = parameter.param_type_name == "argument"
    for text in RANDOM.sample(TEXTS, 5):
        if name in ENDLESS and text.strip().isdigit():
            continue
        given = ["--", text] if is_argument else [parameter.opts[-1], text]
        needed = NEEDED.get(name, [])
        if (is_argument and name != "gate") or parameter.name == "older_than":
            needed = []
        result = run(name, *needed, *given)
        assert result.code in {0, 1, 2, *([3] if name in UNDECIDED else [])}, text
        assert "Traceback" not in result.err + result.out
        assert result.code == 0 or result.err or name in {"doctor", "prune", *UNDECIDED}
        assert len(result.err) < 10 * len(text) + 3000


@pytest.mark.parametrize("row", list(setting_rows()), ids=lambda row: row.name)
def test_a_setting_may_hold_anything(monkeypatch: pytest.MonkeyPatch, row: Any) -> None:
    """A value that cannot be used is one sentence with the variable, the value and what it takes."""
    for text in TEXTS:
        if "\0" in text:
            continue  # no variable can hold it
        monkeypatch.setenv(row.variable, text.replace("\ud800", "\udcff"))
        try:
            Settings()
        except SettingsError as error:
            message = str(error)
            assert message.startswith(row.variable)
            assert len(message.splitlines()) == 1
            assert len(message) < 400 + 3 * len(row.takes)
            assert "hunter2" not in message
            assert ("it takes " + row.takes) in message or "not valid UTF-8" in message


@pytest.mark.parametrize("text", ["abc", "-1", "mlflow+http://[::1", "\udcff", "[" * 10_000])
def test_the_doctor_reports_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whichever it is, with exit code 1."""
    for row in RANDOM.sample(list(setting_rows()), 6):
        monkeypatch.setenv(row.variable, text)
        result = run("doctor")
        assert result.code in {0, 1}
        assert "Traceback" not in result.out + result.err
        monkeypatch.delenv(row.variable)


def test_what_takes_a_number_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its unit."""
    units = {
        "QUEUE_BYTES": "bytes", "MAX_BODY_BYTES": "bytes", "RETENTION_DAYS": "days",
        "FLUSH_INTERVAL_MS": "milliseconds", "KEEP_SLOWER_THAN_MS": "milliseconds",
        "SHUTDOWN_TIMEOUT": "seconds", "MAX_METADATA_LENGTH": "characters", "QUEUE_SIZE": "traces",
        "MAX_SPANS_PER_TRACE": "spans",
    }  # fmt: skip
    for name, unit in units.items():
        monkeypatch.setenv(f"WHEREFROM_{name}", "abc")
        with pytest.raises(SettingsError, match=f"^WHEREFROM_{name}='abc' .* takes a number of {unit}$"):
            Settings()
        monkeypatch.delenv(f"WHEREFROM_{name}")
