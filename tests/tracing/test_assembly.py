"""What a process assembles once: its source, its queues, its counters, and how they end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import orjson
import pytest

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware
from wherefrom.process import process
from wherefrom.tracing import assembly
from wherefrom.tracing.recorder import Recorder

pytestmark = pytest.mark.usefixtures("fresh_process")


def lines(target: Path) -> Settings:
    return Settings(store="none", export=f"jsonl:///{target}", flush_interval_ms=1)


def record_one(recorder: Recorder) -> None:
    recorder.finish(recorder.start("x"))


def read(target: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in target.read_bytes().splitlines()]


def test_settings_are_assembled_once(tmp_path: Path) -> None:
    """However many middlewares an app has, equal settings share one queue and one source."""
    first, second = (assembly.make_recorder(lines(tmp_path / "a")) for _ in range(2))
    other = assembly.make_recorder(lines(tmp_path / "b"))
    assert first.sink is second.sink
    assert other.sink is not first.sink
    assert first.source == other.source


def test_the_store_and_each_exporter_have_their_own_queue(tmp_path: Path) -> None:
    """A slow exporter holds up neither the store nor another exporter."""
    store, target = tmp_path / "w.db", tmp_path / "t.jsonl"
    settings = Settings(store=f"sqlite:///{store}", export=f"jsonl:///{target}", flush_interval_ms=1)
    recorder = assembly.make_recorder(settings)
    record_one(recorder)
    assert wherefrom.flush()
    assert len(read(target)) == 1
    assert store.exists()
    assert wherefrom.stats().queue_depth == 0
    assert wherefrom.stats().recorded == 1
    assert wherefrom.stats().stored == 2


def test_a_settings_without_a_store_or_exporter_keeps_nothing() -> None:
    """``store=none`` with no exporter is a middleware that only gives context."""
    record_one(assembly.make_recorder(Settings(store="none")))
    assert wherefrom.flush()
    assert wherefrom.stats().recorded == 1


def test_a_sink_of_one_s_own_is_called_directly(sink: MemorySink) -> None:
    """With a sink there is no queue, and traces outside of requests do not go there."""
    recorder = assembly.make_recorder(Settings(), sink)
    record_one(recorder)
    assert len(sink.traces) == 1
    assert process.queues == {}
    assert process.default_recorder is None


def test_calls_outside_a_request_use_the_first_queue(tmp_path: Path) -> None:
    """A traced call outside a request goes where the app's middleware goes."""
    TraceMiddleware(None, settings=lines(tmp_path / "a"))  # type: ignore[arg-type] # never called
    TraceMiddleware(None, settings=lines(tmp_path / "b"))  # type: ignore[arg-type]
    with wherefrom.start_span("job") as span:
        span.set_outputs(1)
    assert wherefrom.flush()
    (trace,) = read(tmp_path / "a")
    assert trace["info"]["tags"] == {"mlflow.traceName": "job"}
    assert not (tmp_path / "b").exists()


def test_calls_outside_a_request_need_no_middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without an app reads its settings from the environment at the first traced call."""
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    monkeypatch.setenv("WHEREFROM_EXPORT", f"jsonl:///{tmp_path / 'a'}")
    wherefrom.trace(lambda: 1)()
    assert wherefrom.flush()
    (trace,) = read(tmp_path / "a")
    assert trace["info"]["trace_metadata"]["mlflow.trace_schema.version"] == "3"


def test_disabled_means_outside_of_requests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """``WHEREFROM_ENABLED=false`` records no traced call either."""
    monkeypatch.setenv("WHEREFROM_ENABLED", "false")
    with wherefrom.start_span("job"):
        pass
    assert process.queues == {}
    assert wherefrom.stats().recorded == 0


def test_set_active_model(sink: MemorySink) -> None:
    """It counts for traces that start later, of every recorder; the last one named counts."""
    before = assembly.make_recorder(Settings(), sink)
    early = before.start("early")
    wherefrom.set_active_model("m-1")
    after = assembly.make_recorder(Settings(), sink)
    for recorder in (before, after):
        record_one(recorder)
    wherefrom.set_active_model("m-2")
    record_one(before)
    early.recorder.finish(early)
    models = [trace.info.trace_metadata.get("mlflow.modelId") for trace in sink.traces]
    assert models == ["m-1", "m-1", "m-2", None]


def test_flush_waits_no_longer_than_told() -> None:
    """A store that is out of reach makes ``flush`` say no, in time."""
    settings = Settings(store="none", export="jsonl:////nowhere/at/all", shutdown_timeout=0.01)
    record_one(assembly.make_recorder(settings))
    assert wherefrom.flush(0.05) is False
    assert wherefrom.stats().queue_depth == 1


def test_recorders_are_not_kept(sink: MemorySink) -> None:
    """An app that is thrown away, as in tests, takes its recorder with it."""
    kept = weakref.ref(assembly.make_recorder(Settings(), sink))
    gc.collect()
    assert kept() is None


def run(code: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    """At exit the queue is written, whatever the interval; nothing is printed and the file is left clean."""
    done = run(
        """
        import wherefrom
        for n in range(300):
            with wherefrom.start_span(f"job {n}"):
                pass
        """,
        tmp_path,
        WHEREFROM_FLUSH_INTERVAL_MS="60000",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    import sqlite3

    connection = sqlite3.connect(tmp_path / "wherefrom.db")
    assert connection.execute("SELECT count(*) FROM traces").fetchone() == (300,)
    connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["wherefrom.db"]


def test_a_process_that_ends_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    """``shutdown_timeout`` bounds the end of the process when the store is out of reach."""
    done = run(
        """
        import time, wherefrom
        with wherefrom.start_span("job"):
            pass
        import atexit
        start = time.monotonic()
        wherefrom.tracing.assembly._close_all()
        assert time.monotonic() - start < 2
        print(wherefrom.stats().dropped)
        """,
        tmp_path,
        WHEREFROM_STORE="none",
        WHEREFROM_EXPORT="jsonl:////nowhere/at/all",
        WHEREFROM_SHUTDOWN_TIMEOUT="0.2",
    )
    assert (done.returncode, done.stdout) == (0, "{'shutdown': 1}\n")
