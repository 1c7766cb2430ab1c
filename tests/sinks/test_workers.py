"""The queue where its thread or its process does not end as usual."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink, Trace
from wherefrom.sinks import BackgroundSink

MakeTrace = Callable[..., Trace]

POOL = textwrap.dedent(
    """
    import multiprocessing
    import sys
    import wherefrom

    @wherefrom.trace
    def work(number):
        return number

    if __name__ == "__main__":
        work(-1)  # the parent has a writer thread and an open file
        if "flushed" in sys.argv:
            assert wherefrom.flush()
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            assert pool.map(work, range(20), chunksize=1) == list(range(20))
            pool.close()
            pool.join()
        process = context.Process(target=work, args=(20,))
        process.start()
        process.join()
        assert process.exitcode == 0
        work(21)
    """
)


@pytest.mark.parametrize("flushed", [(), ("flushed",)], ids=["queued", "flushed"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_children_of_multiprocessing_lose_nothing(
    tmp_path: Path, method: str, flushed: tuple[str, ...]
) -> None:
    """However they are started, and though they end by ``os._exit``, each call is stored, and once."""
    script, store = tmp_path / "script.py", tmp_path / "wherefrom.db"
    script.write_text(POOL)
    environ = os.environ | {"WHEREFROM_STORE": f"sqlite:///{store}"}
    command = [sys.executable, str(script), method, *flushed]
    subprocess.run(command, env=environ, cwd=tmp_path, check=True, timeout=120)
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT name, count(*) FROM traces GROUP BY name").fetchall() == [
            ("work", 23)
        ]


TASK = """
import wherefrom

@wherefrom.trace
def work(number):
    return number
"""

FORKED = (
    TASK
    + """
import os

for number in range(5):
    if not (pid := os.fork()):
        work(number)
        os._exit(0)
    os.waitpid(pid, 0)
"""
)

# Its children import our package, and not the parent.
IMPORTED_LATER = """
import os

for number in range(5):
    if not (pid := os.fork()):
        from task import work
        work(number)
        os._exit(0)
    os.waitpid(pid, 0)
"""

# The pool ends its processes by SIGTERM.
TERMINATED = """
import multiprocessing, sys
from task import work

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(work, range(5), chunksize=1)
"""

BILLIARD = """
import billiard
from task import work

if __name__ == "__main__":
    with billiard.Pool(1) as pool:
        pool.map(work, range(5))
"""

RQ = """
import sys, redis, rq

connection = redis.Redis(port=int(sys.argv[1]))
connection.set_response_callback("CLIENT INFO", lambda *_, **__: {"addr": ""})  # the stand-in sends less
queue = rq.Queue(connection=connection)
for number in range(5):
    queue.enqueue("task.work", number)
rq.Worker([queue], connection=connection).work(burst=True)
"""

CELERY = """
import os, signal
from celery import Celery, signals
import task

app = Celery("jobs", broker="filesystem://")
app.conf.broker_transport_options = dict.fromkeys(("data_folder_in", "data_folder_out"), "broker")
app.conf.task_ignore_result = True
work = app.task(task.work, name="work")

@app.task
def last():
    os.kill(os.getppid(), signal.SIGTERM)

if __name__ == "__main__":
    os.makedirs("broker", exist_ok=True)
    for number in range(5):
        work.delay(number)
    last.delay()
    app.worker_main(["worker", "-P", "prefork", "-c", "1", "--without-mingle", "--without-gossip"])
"""


LOCKED = """
import os, sqlite3, task
if os.fork():
    os.wait()
else:
    task.work(1)
    lock = sqlite3.connect("wherefrom.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    task.work(2)
    task.work(3)
    lock.execute("ROLLBACK")
"""


def stored_by(folder: Path, script: str, *arguments: object, name: str = "script") -> list[Any]:
    """What a script leaves in its store, in which the writer alone would come round too late."""
    (folder / "task.py").write_text(TASK)
    (folder / f"{name}.py").write_text(script)
    environ = {
        **os.environ,
        "WHEREFROM_STORE": f"sqlite:///{folder / 'wherefrom.db'}",
        "WHEREFROM_FLUSH_INTERVAL_MS": "20000",
        "C_FORCE_ROOT": "1",
    }
    command = [sys.executable, f"{name}.py", *map(str, arguments)]
    done = subprocess.run(command, env=environ, cwd=folder, timeout=120, capture_output=True, text=True)
    with closing(sqlite3.connect(folder / "wherefrom.db")) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return [done.stderr]
        return connection.execute("SELECT name, count(*) FROM traces GROUP BY name ORDER BY name").fetchall()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestTasks:
    """Each task is in the store, though its process ends without notice."""

    def test_children_that_exit_at_once(self, tmp_path: Path) -> None:
        """Forked, and ended by ``os._exit``."""
        assert stored_by(tmp_path, FORKED) == [("work", 5)]

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that was forked before")
    def test_a_store_that_is_locked_for_a_while(self, tmp_path: Path) -> None:
        """What a task has waited for in vain is written at the end of the process."""
        assert stored_by(tmp_path, LOCKED) == [("work", 3)]

    def test_children_that_import_it_late(self, tmp_path: Path) -> None:
        """The parent does not know of us, so no fork hook runs."""
        assert stored_by(tmp_path, IMPORTED_LATER) == [("work", 5)]

    @pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
    def test_pools_that_are_terminated(self, tmp_path: Path, method: str) -> None:
        """``with Pool()`` ends its processes by a signal, however they were started."""
        assert stored_by(tmp_path, TERMINATED, method) == [("work", 5)]

    def test_billiard(self, tmp_path: Path) -> None:
        """Celery's own multiprocessing."""
        pytest.importorskip("billiard")
        assert stored_by(tmp_path, BILLIARD) == [("work", 5)]

    def test_celery(self, tmp_path: Path) -> None:
        """A real worker with a process of its own for tasks, which Celery ends after the last."""
        pytest.importorskip("celery")
        assert stored_by(tmp_path, CELERY, name="jobs") == [("work", 5)]

    def test_rq(self, tmp_path: Path) -> None:
        """A real worker, which forks for each job; Redis is a stand-in that speaks its protocol."""
        pytest.importorskip("rq")
        fakeredis = pytest.importorskip("fakeredis")
        server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            assert stored_by(tmp_path, RQ, server.server_address[1]) == [("work", 5)]
        finally:
            server.shutdown()
            server.server_close()


class Interrupted(MemorySink):
    """Ends its thread at the first write, as a panic of an extension or ``sys.exit`` does; keeps the rest."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.errors = [error]

    def write(self, traces: Any) -> None:
        if self.errors:
            raise self.errors.pop()
        self.traces.extend(traces)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_writer_that_died_is_replaced(make_trace: MakeTrace, error: BaseException) -> None:
    """What is no ``Exception`` ends the thread; the next trace starts another, which loses nothing."""
    sink = Interrupted(error)
    queue = BackgroundSink(sink, flush_interval_ms=1)
    queue.write([make_trace("a")])
    died = queue._thread
    assert died is not None
    died.join(5)
    assert not died.is_alive()
    assert queue.depth == 1
    queue.write([make_trace("b")])
    deadline = time.monotonic() + 5
    while queue.depth:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert [trace.info.name for trace in sink.traces] == ["a", "b"]
    assert wherefrom.stats().stored == 2
    assert queue.close(5)
