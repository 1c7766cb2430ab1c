"""A store with recent traces, rules over it, and a webhook that is a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wherefrom.alerts.alerting import Alerting, Outcome
from wherefrom.stores import Store, open_store

from ..analysis.traffic import START, make_trace

MINUTE = 60_000
NOW = START + 10 * MINUTE
"""When the traces of ``write`` end."""


@dataclass
class Receiver:
    """Answers with the next of ``statuses``, else with 200; ``accepted`` are the bodies that it took."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found, lock = Receiver(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                status = found.statuses.pop(0) if found.statuses else 200
                found.keys.append(self.headers["idempotency-key"])
                if status == 200:
                    found.accepted.append(json.loads(body))
            self.send_response(status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            answer = f"{status} for {self.path}".encode()
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'wherefrom.db'}")
    yield store
    store.close()


def write(store: Store, count: int = 100, *, errors: int = 0, until: int = NOW, first: int = 0) -> None:
    """Traces of the last minute before a moment, of which the first ones failed."""
    store.write(
        [
            make_trace(
                first + number,
                failed=number < errors,
                ms=100 + number,
                at=until - MINUTE + number * MINUTE // count,
                version="1.0.0",
            )
            for number in range(count)
        ]
    )


Rules = Callable[..., Path]


@pytest.fixture
def rules(tmp_path: Path, receiver: Receiver) -> Rules:
    """Writes a file of one rule, whose keys are given as TOML, and the keys of the file itself."""

    def make(rule: str = "", *, whole: str = "") -> Path:
        text = rule or "filter = \"status = 'ERROR'\"\nabove = '5%'"
        file = tmp_path / "alerts.toml"
        file.write_text(f"webhook = '{receiver.url}'\n{whole}\n[[rule]]\nname = 'errors'\n{text}\n")
        return file

    return make


@dataclass
class Evaluator:
    """Evaluates a file of rules at a given time; each call is a new process as far as its state goes."""

    store: Store
    file: Path

    def __call__(self, now: int) -> list[Outcome]:
        alerts = Alerting(self.store, str(self.file), page="http://page", clock=lambda: now)
        return alerts.run_once()
