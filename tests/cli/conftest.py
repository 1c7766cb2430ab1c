from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import typer.main
import typer.testing
from typer.testing import CliRunner

from wherefrom import keys
from wherefrom.cli.app import app
from wherefrom.model import (
    Source,
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)
from wherefrom.stores import open_store

HOSTILE = "\x1b[2J\x1b]0;t\x07[bold red]x[/]\n\u202egnp\x9b1m\u200b\x7f'\"\\"
"""A value as a stranger may send it: escape sequences, markup, a line end, direction and hidden marks."""

_STYLE = re.compile(r"\x1b\[[0-9;]*m")

MS = 1_000_000

# To build the commands takes longer than to run most of them. They hold no state: they are built once.
typer.testing._get_command = cache(typer.main.get_command)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "APP_ENVIRONMENT", "APP_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHEREFROM_STORE", f"sqlite:///{tmp_path}/wherefrom.db")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()


@pytest.fixture(autouse=True)
def _own_zone_again() -> Iterator[None]:
    yield
    time.tzset()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def write(file: Path) -> Callable[..., None]:
    """Writes traces to the store of the settings."""

    def _write(*traces: Trace) -> None:
        store = open_store(f"sqlite:///{file}")
        store.write(traces)
        store.close()

    return _write


def run(*args: str, width: int | None = None) -> Result:
    """Run a command, in a pipe or on a terminal of this width; its colours are taken away."""
    env = {} if width is None else {"FORCE_COLOR": "1", "COLUMNS": str(width)}
    result = CliRunner().invoke(app, args, env=env, prog_name="wherefrom")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, _STYLE.sub("", result.stdout), _STYLE.sub("", result.stderr))


def make_trace(number: int = 1, **changes: Any) -> Trace:
    """Trace ``number``: its id begins with the number in four digits; ``changes`` are fields of its info."""
    trace_id = f"tr-{number:04}{'a' * 28}"
    start = changes.get("request_time", 1_790_000_000_000 + number * 1000)
    name = changes.pop("name", "GET /orders/{order_id}")
    metadata = changes.pop("metadata", {})
    spans = changes.pop("spans", None)
    source = Source({keys.APP_VERSION: "1.1.0", keys.ENVIRONMENT: "production"})
    info: dict[str, Any] = {
        "trace_id": trace_id,
        "request_time": start,
        "execution_duration": 120,
        "state": TraceState.OK,
        "client_request_id": f"req-{number}",
        "trace_metadata": {**source, keys.USER: "alice", keys.SESSION: "s-1"} | metadata,
        "tags": {keys.TRACE_NAME_TAG: name},
        "source": source,
    } | changes
    if spans is None:
        spans = [make_span("root", None, 0, 120, name=name, trace_id=info["trace_id"], base=start)]
    return Trace(TraceInfo(**info), TraceData(spans))


def make_span(
    span_id: str,
    parent: str | None,
    start: int,
    end: int | None,
    *,
    base: int = 1_790_000_001_000,
    **fields: Any,
) -> Span:
    """A span from ``start`` to ``end`` ms after the trace began, named as its id is here."""
    given: dict[str, Any] = {
        "name": span_id,
        "trace_id": "tr-" + "a" * 32,
        "status": SpanStatus(SpanStatusCode.OK),
    } | fields
    end_ns = None if end is None else (base + end) * MS
    parent_id = None if parent is None else hex_id(parent)
    return Span(
        span_id=hex_id(span_id),
        parent_id=parent_id,
        start_time_ns=(base + start) * MS,
        end_time_ns=end_ns,
        **given,
    )


def make_release(
    version: str, count: int, *, first: int = 0, errors: int = 0, ms: int = 100, **changes: Any
) -> list[Trace]:
    """``count`` traces of a version from number ``first`` on; ``errors`` of them failed, evenly spread."""
    metadata = {keys.APP_VERSION: version, **changes.pop("metadata", {})}
    return [
        make_trace(
            first + place,
            execution_duration=ms // 2 + ms * (place % 20) // 20,
            state=TraceState.ERROR
            if place * errors // count < (place + 1) * errors // count
            else TraceState.OK,
            metadata=metadata,
            spans=[],
            **changes,
        )
        for place in range(count)
    ]


def hex_id(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def make_exception(kind: str, message: str, stack: str = "", at: int = 0) -> SpanEvent:
    return SpanEvent(
        "exception",
        at,
        {"exception.type": kind, "exception.message": message, "exception.stacktrace": stack},
    )


@pytest.fixture
def is_read_by_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if both streams of commands in this process were terminals."""
    monkeypatch.setattr("wherefrom.cli.terminal.is_interactive", lambda: True)


def on_terminal(*args: str, columns: int = 80) -> tuple[subprocess.Popen[bytes], int]:
    """The command on a terminal of its own, and the other end of that."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wherefrom", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 1000)
    return seen


def read_rest(terminal: int) -> bytes:
    """The output until the program ends, which Linux signals by an error."""
    seen = b""
    with suppress(OSError):
        while more := os.read(terminal, 1000):
            seen += more
    os.close(terminal)
    return seen


def is_harmless(text: str) -> bool:
    """Whether the text has nothing that controls a terminal or hides text."""
    return all(line.isprintable() for line in text.split("\n"))
