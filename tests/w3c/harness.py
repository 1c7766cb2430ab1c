"""What the W3C's test service does, in a few lines: send headers as they are, and look at what comes back."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
Headers = Sequence[tuple[str, str]]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class CallBack:
    """A request that the app made: its place in the trace."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        parents = [value for name, value in headers if name == "traceparent"]
        states = [value for name, value in headers if name == "tracestate"]
        assert len(parents) == 1, f"one traceparent, not {parents}"
        assert len(states) < 2, f"tracestate in one header, not {states}"
        match = _TRACEPARENT.fullmatch(parents[0])
        assert match, parents[0]
        self.trace_id, self.parent_id, flags = match.groups()
        self.flags = int(flags, 16)
        assert int(self.trace_id, 16)
        assert int(self.parent_id, 16)
        self.tracestate = states[0] if states else None
        assert self.tracestate != ""


class Harness:
    """Calls the app on ``port`` and listens for its calls."""

    def __init__(self, app_port: int, own_port: int) -> None:
        self.app_port = app_port
        self.own_port = own_port
        self.seen: list[CallBack] = []

    async def send(self, headers: Headers, count: int = 1) -> list[CallBack]:
        """Ask the app for ``count`` calls, and give back what they carried."""
        self.seen = []
        url = f"http://127.0.0.1:{self.own_port}/"
        body = json.dumps([{"url": f"{url}{number}", "arguments": []} for number in range(count)]).encode()
        lines = ["POST /test HTTP/1.1", "Host: app", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.app_port)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert len(self.seen) == count
        return self.seen

    async def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The app calls."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        pairs = [line.partition(":") for line in head[1:] if line]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        await reader.readexactly(int(dict(headers)["content-length"]))
        try:
            self.seen.append(CallBack(headers))
        finally:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnull")
            writer.close()


@asynccontextmanager
async def harness(app_port: int) -> AsyncIterator[Harness]:
    """A harness that listens inside the block."""
    own = Harness(app_port, 0)
    server = await asyncio.start_server(own.called, "127.0.0.1", 0)
    own.own_port = server.sockets[0].getsockname()[1]
    async with server:
        yield own


@contextmanager
def serving(parser: str) -> Iterator[int]:
    """The app in a process of its own, under uvicorn; the block gets its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.w3c.app", "--port", str(port), "--http", parser]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))
