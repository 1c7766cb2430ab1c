"""What is lost when a server ends, and when several processes write one file: nothing, or the last second."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from wherefrom import TraceClient

from .processes import COMMANDS, Server, load, running, start

UVICORN_WORKER = (
    "uvicorn.workers.UvicornWorker"
    if importlib.util.find_spec("uvicorn.workers")
    else "uvicorn_worker.UvicornWorker"
)


# Forks while the writer thread is in the middle of a transaction.
FORK = """
import os, sys, threading, time
from wherefrom import flush, start_span
from wherefrom.stores.sqlite import writer

insert, inside = writer.insert, threading.Event()

def slow_insert(*arguments):
    insert(*arguments)
    inside.set()
    time.sleep(0.5)

def trace(name):
    with start_span(name):
        pass

writer.insert = slow_insert
trace("parent")
inside.wait()
child = os.fork()
writer.insert = insert
trace("child" if child == 0 else "parent again")
done = flush(5)
if child == 0:
    os._exit(not done)
sys.exit(os.waitpid(child, 0)[1] or not done)
"""


def fresh(count: int) -> list[str]:
    return [uuid4().hex for _ in range(count)]


async def lost(server: Server, ids: set[str]) -> set[str]:
    """Which of the requests are not in the store of a server that has ended."""
    await asyncio.to_thread(server.process.wait, 20)
    return ids - server.stored_ids()


@pytest.mark.parametrize("name", COMMANDS)
async def test_sigterm_after_the_last_answer(tmp_path: Path, name: str) -> None:
    """500 requests, then SIGTERM at once: each of them is in the store, under every server.

    The writer would come round once in 20 s only, so it is the shutdown that writes.
    """
    ids = fresh(500)
    command = "gunicorn -k asgi" if name == "gunicorn" else name
    server = start(tmp_path, command, environ={"WHEREFROM_FLUSH_INTERVAL_MS": "20000"})
    with running(server):
        answered = await load(server, ids)
        server.process.send_signal(signal.SIGTERM)
        assert answered.keys() == set(ids)
        assert not await lost(server, set(ids))


async def test_sigterm_with_open_streams(tmp_path: Path) -> None:
    """Requests that the server cancels when its patience ends are in the store, as cancelled.

    All of it is in the file itself: nothing is left in a log beside it, so the file alone can be copied.
    """
    server = start(tmp_path, "uvicorn --timeout-graceful-shutdown 1", measured=False)
    with running(server):
        ids = fresh(3)

        async def read(request: str) -> None:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                async with server.connection() as connection:
                    await connection.request("/endless", {"X-Request-ID": request})

        reading = [asyncio.create_task(read(request)) for request in ids]
        await asyncio.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*reading)
        assert not await lost(server, set(ids))
        traces = TraceClient(f"sqlite:///{server.store}").search_traces()
        outcomes = [trace.data.spans[0].attributes["wherefrom.outcome"] for trace in traces]
        assert outcomes == ["cancelled"] * 3
        log = server.store.with_name(server.store.name + "-wal")
        assert not log.exists() or log.stat().st_size == 0


async def test_sigterm_with_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """The server stops without waiting for it again, and says how many traces are lost."""
    blocked = tmp_path / "no folder"
    blocked.touch()
    environ = {"WHEREFROM_STORE": f"sqlite:///{blocked}/traces.db", "WHEREFROM_SHUTDOWN_TIMEOUT": "2"}
    server = start(tmp_path, "uvicorn", environ=environ, measured=False)
    with running(server):
        await load(server, fresh(3))
        await asyncio.sleep(3)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, 20)
        assert "3 traces could not be written to SQLiteStore" in server.output()


async def test_sigterm_under_load(tmp_path: Path) -> None:
    """As many requests as the server can take, then SIGTERM: each that was answered is in the store.

    The queue is small: a writer that fell behind an event loop that never rests would lose most of them.
    """
    environ = {"WHEREFROM_QUEUE_SIZE": "4000"}
    server = start(tmp_path, "uvicorn --timeout-graceful-shutdown 5", environ=environ)
    with running(server):
        task = asyncio.create_task(load(server, fresh(60_000)))
        await asyncio.sleep(3)
        server.process.send_signal(signal.SIGTERM)
        answered = await task
        assert 300 < len(answered) < 60_000
        assert not await lost(server, set(answered))


@pytest.mark.parametrize("form", ["app:deaf", "app:deaf --lifespan on", "app:silent", "app:django"])
async def test_sigterm_with_an_app_without_lifespan(tmp_path: Path, form: str) -> None:
    """The middleware answers for an app that has no lifespan, so that nothing is lost at the end.

    uvicorn ends itself by the signal it was sent, so nothing else runs at the exit of its process.
    """
    ids = fresh(300)
    server = start(tmp_path, "uvicorn", app=form, environ={"WHEREFROM_FLUSH_INTERVAL_MS": "20000"})
    with running(server):
        answered = await load(server, ids)
        server.process.send_signal(signal.SIGTERM)
        assert answered.keys() == set(ids)
        assert not await lost(server, set(ids))


async def test_sigterm_without_lifespan(tmp_path: Path) -> None:
    """Where nobody tells us of the end, what waited for the writer may be lost, and nothing older."""
    ids = fresh(300)
    server = start(tmp_path, "uvicorn", app="app:app --lifespan off")
    with running(server):
        await load(server, ids)
        await asyncio.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert not await lost(server, set(ids))


async def test_sigkill_under_load(tmp_path: Path) -> None:
    """SIGKILL under load: only requests that were answered in the last second may be missing."""
    server = start(tmp_path, "uvicorn", measured=False)
    when: dict[str, float] = {}

    async def client() -> None:
        try:
            async with server.connection() as connection:
                while True:
                    request = uuid4().hex
                    await connection.request(f"/items/{request}", {"X-Request-ID": request})
                    when[request] = time.monotonic()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server was killed

    with running(server):
        clients = [asyncio.create_task(client()) for _ in range(40)]
        await asyncio.sleep(2.5)
        killed = time.monotonic()
        server.process.kill()
        await asyncio.gather(*clients)
        missing = await lost(server, set(when))
        assert len(when) > 300
        assert all(when[request] > killed - 1 for request in missing)


@pytest.mark.parametrize(
    ("worker", "traced"),
    [(UVICORN_WORKER, ""), (UVICORN_WORKER, "flushed"), (UVICORN_WORKER, "queued"), ("asgi", "queued")],
)
async def test_gunicorn_preload(tmp_path: Path, worker: str, traced: str) -> None:
    """Four workers forked from a master that holds the app: nothing is lost and nothing is locked.

    Also when the master has traced before, its writer thread alive and the file open when it forks.
    """
    ids = fresh(500)
    server = start(tmp_path, f"gunicorn --preload -w 4 -k {worker}", environ={"TRACE_AT_IMPORT": traced})
    with running(server):
        await shared(server, ids)
        imports = server.rows("SELECT 1 FROM traces WHERE name = 'import'")
        assert len(imports) == (200 if traced else 0)


def test_a_fork_while_the_writer_writes(tmp_path: Path) -> None:
    """A child forked in the middle of its parent's transaction can write, and the parent goes on."""
    store = tmp_path / "wherefrom.db"
    environ = os.environ | {"WHEREFROM_STORE": f"sqlite:///{store}"}
    subprocess.run([sys.executable, "-c", FORK], env=environ, cwd=tmp_path, check=True, timeout=20)
    with closing(sqlite3.connect(store)) as connection:
        names = connection.execute("SELECT name FROM traces ORDER BY name").fetchall()
    assert names == [("child",), ("parent",), ("parent again",)]


async def test_uvicorn_workers(tmp_path: Path) -> None:
    """Four uvicorn processes write one file, which was not there: nothing is lost and nothing is locked."""
    server = start(tmp_path, "uvicorn --workers 4")
    with running(server):
        await shared(server, fresh(500))


async def shared(server: Server, ids: list[str]) -> None:
    """Requests to several processes, SIGTERM at once, and all of them are in the one file."""
    pids: set[int] = set()
    sent = set(ids)
    while len(pids) < 4:  # until the last worker is up
        first = fresh(20)
        answers = await asyncio.gather(
            *(server.get(f"/items/{request}?pause=0.02", {"X-Request-ID": request}) for request in first)
        )
        pids |= {answer.json()["pid"] for answer in answers}
        sent.update(first)
    answered = await load(server, ids)
    server.process.send_signal(signal.SIGTERM)
    assert answered.keys() == set(ids)
    assert not await lost(server, sent)
    assert len(server.rows("SELECT 1 FROM traces WHERE client_request_id IS NOT NULL")) == len(sent)
    assert "is locked" not in server.output()
    assert "Traceback" not in server.output()
