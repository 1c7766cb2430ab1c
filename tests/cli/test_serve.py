"""The page and the tracking server, each started by its command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import make_trace, run

Write = Callable[..., None]


def start(*args: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command in another process; return the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wherefrom", "serve", *args],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    return process, process.stderr.readline().split("'")[1]


def fetch(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def end(process: subprocess.Popen[str], ending: signal.Signals) -> None:
    """It exits cleanly."""
    process.send_signal(ending)
    _, rest = process.communicate(timeout=20)
    assert rest == ""
    assert process.returncode in {0, 130, -ending}


def test_it_serves_until_ctrl_c(write: Write) -> None:
    """It prints the URL for MLflow's client, and exits cleanly."""
    trace = make_trace()
    write(trace)
    process, url = start("--port", "0")
    assert url.startswith("http://127.0.0.1:")
    assert fetch(f"{url}/api/3.0/mlflow/traces/{trace.info.trace_id}") == 200
    assert fetch(f"{url}/version", Host="evil.example") == 403
    end(process, signal.SIGINT)


def test_a_token_opens_other_addresses_until_it_is_terminated(write: Write) -> None:
    write(make_trace())
    process, url = start("--port", "0", "--host", "::1", WHEREFROM_UI_TOKEN="sesame")
    assert url.startswith("http://[::1]:")
    assert fetch(f"{url}/version") == 401
    assert fetch(f"{url}/version", Authorization="Bearer sesame") == 200
    end(process, signal.SIGTERM)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "traces.example"])
def test_other_addresses_need_a_token(write: Write, host: str) -> None:
    """What listens beyond this machine has to know its readers."""
    write(make_trace())
    result = run("serve", "--host", host)
    assert result.code == 1
    assert (
        f"other machines could read the traces on {host or 'every address'}: set WHEREFROM_UI_TOKEN"
        in " ".join(result.err.split())
    )


def test_an_address_that_cannot_be_had(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, or an address of another machine, is one sentence."""
    write(make_trace())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port)
    assert (result.code, len(result.lines)) == (1, 0)
    assert f"cannot listen on 127.0.0.1, port {port}: address already in use" in result.err
    monkeypatch.setenv("WHEREFROM_UI_TOKEN", "sesame")
    result = run("serve", "--host", "traces.invalid")
    assert result.code == 1
    assert "cannot listen on traces.invalid, port 8500" in result.err


def test_it_needs_a_store(file: Path) -> None:
    """No file is made for one that is not there."""
    result = run("serve")
    assert result.code == 1
    assert "there is no store at" in result.err
    assert not file.exists()


def test_localhost_is_this_machine(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server uses the given address, and closes its socket at the end."""
    write(make_trace())
    ran: list[Any] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda _self, sockets: ran.extend(sockets))
    result = run("serve", "--host", "localhost", "--port", "0")
    assert result.code == 0
    assert "mlflow.set_tracking_uri('http://" in result.err
    assert ran[0].fileno() == -1


def start_ui(*args: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command in another process; return the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wherefrom", "ui", "--port", "0", *args],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    found = re.search(r"http://\S+:\d+", process.stderr.readline())
    assert found is not None
    return process, found[0]


def fetch_page(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
            return int(response.status), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_shows_the_page_until_ctrl_c(write: Write) -> None:
    """To this machine alone, by its own names."""
    trace = make_trace()
    write(trace)
    process, url = start_ui()
    assert url.startswith("http://127.0.0.1:")
    status, page = fetch_page(f"{url}/traces")
    assert status == 200
    assert trace.info.trace_id in page
    assert fetch_page(f"{url}/traces", Host="evil.example")[0] == 403
    end(process, signal.SIGINT)


def test_a_token_opens_the_page_on_other_addresses_until_it_is_terminated(write: Write) -> None:
    """Who has it may come by any name."""
    write(make_trace())
    process, url = start_ui("--host", "::1", WHEREFROM_UI_TOKEN="sesame")
    assert url.startswith("http://[::1]:")
    assert "Log in" in fetch_page(f"{url}/")[1]
    assert fetch_page(f"{url}/traces.json")[0] == 401
    assert fetch_page(f"{url}/traces.json", Authorization="Bearer sesame", Host="traces.example")[0] == 200
    end(process, signal.SIGTERM)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "traces.example"])
def test_the_page_on_other_addresses_needs_a_token(write: Write, host: str) -> None:
    """What listens beyond this machine has to know its readers."""
    write(make_trace())
    result = run("ui", "--host", host)
    assert result.code == 1
    assert "set WHEREFROM_UI_TOKEN" in " ".join(result.err.split())


def test_the_page_needs_a_store(file: Path) -> None:
    """No file is made for one that is not there."""
    result = run("ui")
    assert result.code == 1
    assert "there is no store at" in result.err
    assert not file.exists()


def test_the_browser_is_opened_when_asked_to(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--open``, at the printed address."""
    write(make_trace())
    opened: list[str] = []
    ran: list[Any] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda _self, sockets: ran.extend(sockets))
    result = run("ui", "--port", "0", "--open")
    assert result.code == 0
    assert opened[0] in result.err
    assert len(ran) == 1
