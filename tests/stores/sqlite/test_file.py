"""The SQLite file under a store that is in use: forked away from, removed, oddly named."""

from __future__ import annotations

import os
import select
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wherefrom import Trace, TraceClient
from wherefrom.stores import Selection, open_store
from wherefrom.stores.sql.schema import SCHEMA_VERSION
from wherefrom.stores.sqlite.file import version
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()


def names(path: Path) -> list[str]:
    """What a process that opens the file now finds in it, read without our code."""
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM traces ORDER BY id")]


class Signal:
    """A signal from one side of a fork to the other."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def give(self) -> None:
        os.write(self._write, b"x")

    def wait(self) -> None:
        assert select.select([self._read], [], [], 10)[0], "the other side has died"
        os.read(self._read, 1)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    @pytest.mark.parametrize("reads", [False, True], ids=["writer", "writer and reader"])
    def test_the_parent_s_close_leaves_the_child_s_writes_in_the_file(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace, *, reads: bool
    ) -> None:
        """A parent that had the file open at the fork and closes it first does not take the child's WAL."""
        wrote, closed = Signal(), Signal()
        store.write([make_trace("parent")])
        if reads:
            assert len(TraceClient(store).search_traces()) == 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.write([make_trace("child")])
                wrote.give()
                closed.wait()
                store.write([make_trace("child again")])
                code = 0
            finally:
                os._exit(code)
        wrote.wait()
        store.close()
        closed.give()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        wrote.close()
        closed.close()
        assert names(path) == ["parent", "child", "child again"]

    def test_both_go_on_after_it(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """A child that ends first does not take what its parent writes afterwards."""
        store.write([make_trace("parent")])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.write([make_trace("child")])
                store.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store.write([make_trace("parent again")])
        assert names(path) == ["parent", "child", "parent again"]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed")
class TestRemoved:
    @pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("",)], ids=["all of it", "without its WAL"])
    def test_it_is_made_anew(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace, suffixes: tuple[str, ...]
    ) -> None:
        """A file that is removed under a store that has it open is there again with the next trace."""
        store.write([make_trace("lost")])
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink()
        store.write([make_trace("kept")])
        assert names(path) == ["kept"]
        store.write([make_trace("kept too")])
        assert names(path) == ["kept", "kept too"]

    def test_its_reader_follows(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Who reads through the same store sees the new file, not the one that is gone."""
        client = TraceClient(store)
        store.write([make_trace("lost")])
        assert [trace.info.name for trace in client.search_traces()] == ["lost"]
        for file in path.parent.iterdir():
            file.unlink()
        store.write([make_trace("kept")])
        assert [trace.info.name for trace in client.search_traces()] == ["kept"]

    def test_a_reader_alone_follows_too(self, path: Path, make_trace: MakeTrace) -> None:
        """One that never writes reads the file that is there now, not the one that was."""
        reader, client = SQLiteStore(path), None
        try:
            for name in ("one", "another"):
                writer = SQLiteStore(path)
                writer.write([make_trace(name)])
                writer.close()
                client = client or TraceClient(reader)
                assert [trace.info.name for trace in client.search_traces()] == [name]
                path.unlink()
        finally:
            reader.close()

    def test_another_file_in_its_place_is_written(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A store whose file was replaced by another store's writes to the one that is there now."""
        store.write([make_trace("lost")])
        with closing(SQLiteStore(path.with_name("other.db"))) as other:
            other.write([make_trace("other")])
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        path.with_name("other.db").replace(path)
        store.write([make_trace("kept")])
        assert names(path) == ["other", "kept"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
@pytest.mark.parametrize("name", ["a?b.db", "a?mode=ro.db", "a%20b#c.db", "ä b.db"])
def test_a_path_is_not_a_url(tmp_path: Path, make_trace: MakeTrace, name: str) -> None:
    """Characters that mean something in a URL are characters of the file's name, written and read."""
    with closing(open_store(f"sqlite:///{tmp_path / name}")) as store:
        store.write([make_trace("kept")])
        assert [trace.info.name for trace in TraceClient(store).search_traces()] == ["kept"]
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with closing(open_store(f"sqlite:///{tmp_path / name}")) as again:
        assert len(TraceClient(again).search_traces()) == 1


def test_several_that_open_it_at_once_make_it_once(path: Path, make_trace: MakeTrace) -> None:
    """The second finds the tables made."""
    failures: list[BaseException] = []

    def write() -> None:
        store = SQLiteStore(path)
        try:
            store.write([make_trace()])
        except BaseException as error:
            failures.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(names(path)) == 4
    with closing(sqlite3.connect(path)) as connection:
        assert version(connection) == SCHEMA_VERSION


def test_an_id_is_never_given_again(store: SQLiteStore, make_trace: MakeTrace) -> None:
    """Deletions do not move a cursor."""
    traces = [make_trace() for _ in range(3)]
    store.write(traces)
    with store.snapshot() as snapshot:
        cursor = snapshot.cursor()
    assert store.delete(traces[0].info.experiment, until_ms=2**62) == 3
    store.write([make_trace("new")])
    with store.snapshot() as snapshot:
        changes = snapshot.changes(cursor, Selection(), 10)
        assert [row.name for row in snapshot.rows(changes.keys)] == ["new"]


def test_a_cursor_of_another_file_counts_as_the_beginning(tmp_path: Path, make_trace: MakeTrace) -> None:
    """All traces of a file that has taken the place of another are new."""
    stores = [SQLiteStore(tmp_path / f"{name}.db") for name in "ab"]
    for store in stores:
        store.write([make_trace()])
    with stores[0].snapshot() as first, stores[1].snapshot() as second:
        assert len(second.changes(first.cursor(), Selection(), 10).keys) == 1
        assert len(second.changes(second.cursor(), Selection(), 10).keys) == 0
    for store in stores:
        store.close()
