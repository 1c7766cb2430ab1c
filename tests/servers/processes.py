"""Servers as real processes, a client that speaks raw HTTP/1.1, and the store as sqlite3 alone reads it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMANDS = {
    "uvicorn": "uvicorn {app} --port {port} --log-level warning",
    "hypercorn": "hypercorn {app} -b 127.0.0.1:{port}",
    "granian": "granian {app} --interface asgi --port {port} --no-access-log",
    "gunicorn": "gunicorn {app} -b 127.0.0.1:{port}",
}
PROMPT = {"WHEREFROM_FLUSH_INTERVAL_MS": "20"}


@dataclass
class StoredTrace:
    """One row of ``traces`` with its rows of ``spans``."""

    trace_id: str
    request: str
    session: str | None
    user: str | None
    state: str
    name: str
    duration_ms: float
    spans: list[sqlite3.Row]

    @property
    def root(self) -> sqlite3.Row:
        """The root span."""
        (root,) = (span for span in self.spans if span["parent_id"] is None)
        return root

    @property
    def attributes(self) -> dict[str, Any]:
        """The root span's attributes."""
        found: dict[str, Any] = json.loads(self.root["attributes"])
        return found

    @property
    def children(self) -> list[str]:
        """Names of the spans right below the root."""
        return [span["name"] for span in self.spans if span["parent_id"] == self.root["span_id"]]


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        """The body as data."""
        return json.loads(self.body)

    @property
    def request_ids(self) -> list[str]:
        """Every ``X-Request-ID`` of the response."""
        return [value for name, value in self.headers if name == "x-request-id"]


class Connection:
    """One HTTP/1.1 connection, with the bytes in the test's own hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(
        self,
        path: str,
        headers: Mapping[str, bytes | str] | None = None,
        *,
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        """Send one request and read its answer."""
        self.writer.write(message(path, headers or {}, method=method, body=body))
        return await self.answer()

    async def answer(self) -> Answer:
        """Read the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        pairs = [line.split(":", 1) for line in head[1:] if line]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        known = dict(headers)
        if known.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self._chunks()])
        elif "content-length" in known:
            body = await self.reader.readexactly(int(known["content-length"]))
        else:
            body = await self.reader.read()
        return Answer(int(head[0].split()[1]), headers, body)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()


def message(
    path: str, headers: Mapping[str, bytes | str], *, method: str = "GET", body: bytes = b""
) -> bytes:
    """A request as bytes, its headers as they are."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost"]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    for name, value in headers.items():
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")))
    return b"\r\n".join([*lines, b"", body])


@dataclass
class Server:
    """One server that runs: its process, port, log and store."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    store: Path

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def get(self, path: str, headers: Mapping[str, bytes | str] | None = None) -> Answer:
        """One request on a connection of its own."""
        async with self.connection() as connection:
            return await connection.request(path, headers)

    async def traces(self, ids: Collection[str]) -> dict[str, StoredTrace]:
        """The traces of these requests, when all of them are stored."""
        await until(lambda: self.stored_ids().issuperset(ids), f"{len(ids)} traces are in the store", self)
        return {request: trace for request, trace in self.stored().items() if request in ids}

    async def trace(self, request: str) -> StoredTrace:
        """The trace of one request."""
        return (await self.traces({request}))[request]

    def rows(self, query: str) -> list[sqlite3.Row]:
        """What the file answers; nothing while it has no tables."""
        if not self.store.exists():
            return []
        with closing(sqlite3.connect(self.store, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'spans'").fetchone():
                return []
            return connection.execute(query).fetchall()

    def stored_ids(self) -> set[str]:
        """The request ids of all stored traces."""
        return {row["client_request_id"] for row in self.rows("SELECT client_request_id FROM traces")}

    def stored(self) -> dict[str, StoredTrace]:
        """All stored traces of requests."""
        spans: dict[int, list[sqlite3.Row]] = {}
        for row in self.rows("SELECT * FROM spans ORDER BY start_ns"):
            spans.setdefault(row["trace"], []).append(row)
        return {
            row["client_request_id"]: StoredTrace(
                row["trace_id"],
                row["client_request_id"],
                row["session_id"],
                row["user_id"],
                row["state"],
                row["name"],
                row["duration_us"] / 1000,
                spans.get(row["id"], []),
            )
            for row in self.rows("SELECT * FROM traces WHERE client_request_id IS NOT NULL")
        }

    def memory_kb(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")


async def until(fact: Callable[[], bool], what: str, server: Server, timeout: float = 10) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not fact():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}\n{server.output()[-4000:]}"
        await asyncio.sleep(0.02)


def start(
    folder: Path,
    command: str,
    *,
    app: str = "app:app",
    measured: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """Start a server on a free port; it may not answer yet.

    ``command`` begins with the name of a server and goes on with further options. ``measured`` is false for
    one that is killed: in the middle of writing its coverage it would leave a broken file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name, _, options = command.partition(" ")
    words = f"{COMMANDS[name]} {options}".format(app=app, port=port).split()
    ours = ("WHEREFROM_", "GUNICORN_", "UVICORN_", "WEB_CONCURRENCY") + (() if measured else ("COV",))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    kept |= {
        "PYTHONPATH": str(HERE),
        "WHEREFROM_STORE": f"sqlite:///{folder / 'wherefrom.db'}",
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=kept | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Server(process, port, log, folder / "wherefrom.db")


def wait_ready(server: Server, timeout: float = 30) -> None:
    """Wait until the server takes connections."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and server.process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", server.port)):
                return
        time.sleep(0.03)
    raise AssertionError(f"the server did not come up: {server.output()}")


def finish(server: Server) -> None:
    """End a server that may have ended, and look for what nobody should ever read in a log."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(10)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
    assert "database is locked" not in server.output()


@contextmanager
def running(*servers: Server, patience: float = 30) -> Iterator[None]:
    """Servers that are up inside the block, in ``patience`` seconds each, and gone after it."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(finish, server)
        for server in servers:
            wait_ready(server, patience)
        yield


async def load(server: Server, ids: Collection[str], *, connections: int = 40) -> dict[str, Answer]:
    """One request for each id over a few keep-alive connections; what was answered, as far as it got."""
    waiting = iter(ids)
    answered: dict[str, Answer] = {}

    async def client() -> None:
        try:
            async with server.connection() as connection:
                for request in waiting:
                    answered[request] = await connection.request(
                        f"/items/{request}", {"X-Request-ID": request}
                    )
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server was ended

    await asyncio.gather(*(client() for _ in range(connections)))
    return answered
