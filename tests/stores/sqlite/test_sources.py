"""The rows of ``sources``: one for each process, however much clients say, and none without a trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from wherefrom import Settings, Trace, TraceClient, TraceMiddleware, current_trace
from wherefrom.model import Source
from wherefrom.sinks import BackgroundSink
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]
MAPPED = {"X-Version": "app_version", "X-Region": "region", "X-Tenant": "tenant"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        yield store


def count(path: Path, table: str = "sources") -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: Any) -> None:
    pass


async def plain(scope: Any, _receive: Any, send: Any) -> None:
    if scope["uses"]:
        assert current_trace() is not None
        current_trace().info  # type: ignore[union-attr] # noqa: B018
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


@pytest.mark.parametrize("uses", [False, True], ids=["nobody uses the trace", "the app uses the trace"])
async def test_what_a_client_says_makes_no_source(store: SQLiteStore, path: Path, *, uses: bool) -> None:
    """200 values of a header for a key of the process are values of 200 traces, found by a filter."""
    queue = BackgroundSink(store)
    app = TraceMiddleware(plain, settings=Settings(store="none", header_metadata=MAPPED), sink=queue)
    headers = [[(b"x-version", f"v{number}".encode()), (b"x-tenant", b"t")] for number in range(200)]
    for each in [*headers, [(b"x-region", b"moon")], []]:
        await app(
            {"type": "http", "method": "GET", "path": "/", "headers": each, "uses": uses}, receive, send
        )
    assert queue.close()
    assert count(path, "traces") == 202
    assert count(path) == 3  # without a version, without a region, and with both
    with TraceClient(store) as client:
        (found,) = client.search_traces(None, "metadata.app_version = 'v17'")
        assert found.info.trace_metadata["app_version"] == "v17"
        assert found.info.trace_metadata["region"] == "unknown"
        assert len(client.search_traces(None, "metadata.app_version = 'development'", 1000)) == 2
        assert len(client.search_traces(None, "metadata.region = 'moon'")) == 1
        assert len(client.search_traces(None, "metadata.app_version LIKE 'v1%'", 1000)) == 111


def from_source(make_trace: MakeTrace, **pairs: str) -> Trace:
    source = Source(pairs)
    return make_trace(trace_metadata=dict(source), source=source)


@pytest.mark.parametrize("way", ["prune", "delete", "retention"])
def test_a_source_goes_with_its_last_trace(
    store: SQLiteStore, path: Path, make_trace: MakeTrace, way: str
) -> None:
    """With a trace that is deleted; that of a pruned one goes when its counts do."""
    store.write([from_source(make_trace, app_version=f"v{number}") for number in range(200)])
    kept = from_source(make_trace, app_version="v3")
    kept.info.request_time = 4_000_000_000_000
    store.write([kept])
    if way == "prune":
        assert store.prune(2_000_000_000_000) == 200
    elif way == "delete":
        assert store.delete(kept.info.experiment, until_ms=2_000_000_000_000) == 200
    else:
        with closing(SQLiteStore(path, retention_days=1)) as other:
            other.write([])
            while count(path, "traces") > 1:
                pass
    if way != "delete":
        assert (count(path, "traces"), count(path)) == (1, 200)
        assert store.delete(kept.info.experiment, until_ms=2_000_000_000_000) == 0
    assert (count(path, "traces"), count(path)) == (1, 1)
    with TraceClient(store) as client:
        assert [source.metadata for source in client.list_sources()] == [{"app_version": "v3"}]


def test_sources_that_an_earlier_version_left_go(
    store: SQLiteStore, path: Path, make_trace: MakeTrace
) -> None:
    """Also where there is no trace left to delete."""
    store.write([make_trace()])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM traces")
        connection.executemany(
            "INSERT INTO sources (digest, metadata) VALUES (?, '{}')",
            [(f"{number}",) for number in range(2500)],
        )
    assert store.prune(0) == 0
    assert count(path) == 0


def test_a_process_goes_on_after_its_source_is_gone(
    store: SQLiteStore, path: Path, make_trace: MakeTrace
) -> None:
    """Another process deletes all traces, and with them the source that this one has written before."""
    store.write([from_source(make_trace, app_version="v1")])
    with closing(SQLiteStore(path)) as other:
        assert other.delete("default", until_ms=2**60) == 1
        assert count(path) == 0
    store.write([from_source(make_trace, app_version="v1")])
    with TraceClient(store) as client:
        assert [found.info.trace_metadata["app_version"] for found in client.search_traces()] == ["v1"]


async def test_a_queue_goes_on_after_its_source_is_gone(store: SQLiteStore, path: Path) -> None:
    """The same for requests that are recorded from their facts."""
    queue = BackgroundSink(store)
    app = TraceMiddleware(plain, settings=Settings(store="none"), sink=queue)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "uses": False}
    for _ in range(2):
        await app(dict(scope), receive, send)
        assert queue.flush()
        assert count(path, "traces") == 1
        with closing(SQLiteStore(path)) as other:
            assert other.delete("default", until_ms=2**60) == 1
    assert queue.close()
