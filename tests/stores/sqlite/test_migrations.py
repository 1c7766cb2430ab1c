"""Older files are brought forward, whole and once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from wherefrom.client import TraceClient
from wherefrom.model import Trace
from wherefrom.stores import open_store
from wherefrom.stores.sqlite.file import version
from wherefrom.stores.sqlite.known_keys import MAX_KEYS
from wherefrom.stores.sqlite.schema import SCHEMA_VERSION
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]
DATA = Path(__file__).parents[2] / "data"
"""Files of earlier schema versions, as those versions wrote them."""


@pytest.fixture(params=range(1, SCHEMA_VERSION))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / f"store-{request.param}.sql").read_text(encoding="utf-8"))
    return path


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return sorted((name, " ".join(sql.replace('"', "").split())) for name, sql in found)


def test_an_old_file_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    """Whichever way it came to be."""
    for store in (open_store(f"sqlite:///{path}"), open_store(f"sqlite:///{tmp_path / 'new.db'}")):
        store.engine.dispose()
        store.close()
    assert schema(path) == schema(tmp_path / "new.db")


def test_its_traces_are_found_by_what_they_hold(path: Path) -> None:
    """Values are listed for traces from before there was a list."""
    with TraceClient(f"sqlite:///{path}") as client:
        for text, ids in (
            ("metadata.tenant = 'acme'", "1"),
            ("metadata.tenant LIKE '%e%'", "21"),
            ("tag.team IN ('core', 'web')", "31"),
            ("metadata.note LIKE 'x%'", "2"),
            ("metadata.nul = 'a\0b'", "3"),
            ("name = 'POST /rare'", "3"),
            ("metadata.app_version = '1.0.0'", "321"),
        ):
            found = client.search_traces(filter_string=text)
            assert "".join(trace.info.trace_id[-1] for trace in found) == ids, text
    with closing(sqlite3.connect(path)) as connection:
        assert version(connection) == SCHEMA_VERSION
        listed = connection.execute("SELECT value FROM trace_values ORDER BY value").fetchall()
        unlisted = connection.execute("SELECT key, unlisted FROM known_keys WHERE unlisted").fetchall()
    assert listed == [("acme",), ("core",), ("other",), ("web",)]
    assert sorted(unlisted) == [("mlflow.traceInputs", 2), ("note", 1), ("nul", 2)]


def test_keys_that_were_left_out_without_a_word(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Version 2 listed no values of a key past the 10,000th that a process met: they are listed again."""
    path = tmp_path / "wherefrom.db"
    store = SQLiteStore(path)
    store.write([make_trace(trace_metadata={"tenant": "acme"}, tags={"late": "1"}) for _ in range(4)])
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM trace_values WHERE trace > 2")
        connection.execute("DELETE FROM known_keys WHERE key = 'late'")
        keys = ((f"k{number}",) for number in range(200_000))
        connection.executemany("INSERT INTO known_keys (family, key) VALUES ('metadata', ?)", keys)
        connection.execute("UPDATE schema_version SET version = 2")
        connection.commit()
    client = TraceClient(store)
    for text in ("metadata.tenant = 'acme'", "tag.late = '1'"):
        assert len(client.search_traces(filter_string=text)) == 4
    assert len(client.list_keys()) == MAX_KEYS
    store.close()


def test_several_that_open_it_at_once_bring_it_forward_once(path: Path) -> None:
    """The second finds it done."""
    failures: list[BaseException] = []

    def read() -> None:
        try:
            with TraceClient(f"sqlite:///{path}") as client:
                assert len(client.search_traces()) == 3
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
