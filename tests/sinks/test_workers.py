"""The queue where its thread or its process does not end as usual."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
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
    subprocess.run(command, env=environ, cwd=tmp_path, check=True, timeout=30)
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT name, count(*) FROM traces GROUP BY name").fetchall() == [
            ("work", 23)
        ]


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
