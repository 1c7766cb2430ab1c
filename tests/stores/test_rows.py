"""How few calls of the driver a batch takes: each may cost the writer 5 ms while requests keep the GIL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from whence import Trace
from whence.stores.sqlite import SQLiteStore

MakeTrace = Callable[..., Trace]


def test_a_batch_takes_few_statements(tmp_path: Path, make_trace: MakeTrace) -> None:
    """1,024 traces of one span are written with eight inserts, not with two thousand."""
    store = SQLiteStore(tmp_path / "whence.db")
    store.write([make_trace()])
    statements: list[str] = []
    store._connection().set_trace_callback(statements.append)
    store.write([make_trace() for _ in range(1024)])
    store.close()
    assert len(statements) == 8 + 2
    assert count(tmp_path / "whence.db") == 1025


def test_an_sqlite_that_takes_few_parameters(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Before 3.32 SQLite took 999 parameters a statement: a batch is then written in smaller pieces."""
    store = SQLiteStore(tmp_path / "whence.db")
    store._connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    store.write([make_trace() for _ in range(301)])
    store.close()
    assert count(tmp_path / "whence.db") == 301


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        found: int = connection.execute(
            "SELECT count(*) FROM traces JOIN spans ON trace = traces.id"
        ).fetchone()[0]
    finally:
        connection.close()
    return found
