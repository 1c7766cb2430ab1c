"""The stores that the contract tests run over. Another store is another entry of ``ENGINES``."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from wherefrom.stores import Store, open_store

from .postgresql_server import MISSING

ROOT = Path(__file__).parent.parent
NO_CHDB = "chdb is not installed: pip install chdb"


def _nothing(_url: str) -> None:
    pass


@dataclass(frozen=True)
class NewUrl:
    """Gives the URL of a store without traces, another one with each call.

    ``release`` is called with one that is closed and no longer needed: where a new store takes long to make,
    it may be emptied and given again.
    """

    make: Callable[[], str]
    release: Callable[[str], None] = _nothing

    def __call__(self) -> str:
        return self.make()


@contextmanager
def new_store(new_url: NewUrl) -> Iterator[Store]:
    """A store without traces, which is closed and released at the end."""
    store = open_store(url := new_url())
    yield store
    store.close()
    new_url.release(url)


def _sqlite(request: pytest.FixtureRequest) -> NewUrl:
    folder = request.getfixturevalue("tmp_path_factory").mktemp("sqlite")
    numbers = count(1)
    return NewUrl(lambda: f"sqlite:///{folder}/traces{next(numbers)}.db")


def _postgresql(request: pytest.FixtureRequest) -> NewUrl:
    server = request.getfixturevalue("postgresql_server")
    if server is None:
        pytest.skip(MISSING)
    return NewUrl(server.new_url, server.release)


class ClickHouseServer:
    """A process that answers ClickHouse's HTTP interface, over a folder that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at the same port as before."""
        command = [sys.executable, "-m", "tests.clickhouse", str(self.folder), str(self.port)]
        # It runs nothing of ours that coverage could measure.
        environ = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environ)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it; by default as a crash would."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def has_clickhouse() -> bool:
    """Whether the engine is installed."""
    return importlib.util.find_spec("chdb") is not None


@contextmanager
def running_clickhouse(folder: Path) -> Iterator[ClickHouseServer]:
    """A server over this folder; skips the test where there is no engine."""
    if not has_clickhouse():
        pytest.skip(NO_CHDB)
    server = ClickHouseServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _clickhouse(request: pytest.FixtureRequest) -> NewUrl:
    port: int = request.getfixturevalue("clickhouse_port")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "test")

    def make() -> str:
        return _FREE.pop() if _FREE else f"clickhouse://127.0.0.1:{port}/{worker}_{next(_NUMBERS)}"

    return NewUrl(make, _empty)


def _empty(url: str) -> None:
    server, _, database = url.removeprefix("clickhouse://").partition("/")
    # For each client httpx reads the certificates of this machine, which takes longer than to empty tables.
    with suppress(HTTPError), urlopen(f"http://{server}/", f"TRUNCATE ALL TABLES FROM `{database}`".encode()):
        _FREE.append(url)


_FREE: list[str] = []
_NUMBERS = count(1)


ENGINES: dict[str, Callable[[pytest.FixtureRequest], NewUrl]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "clickhouse": _clickhouse,
}
"""By the scheme of its URLs, what makes the URLs of a store, or skips the test where it is not installed."""

every_engine = pytest.mark.parametrize("new_url", ENGINES, indirect=True)
"""For a test that would run on SQLite alone."""

IN_SQL = [name for name in ENGINES if name != "clickhouse"]
"""Those that share their SQL, and how it is planned."""
