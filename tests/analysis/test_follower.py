"""New traces followed in the order in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wherefrom.analysis import tail
from wherefrom.analysis.tail import Follower
from wherefrom.exceptions import FilterError, StoreError
from wherefrom.model import Trace, TraceState
from wherefrom.stores import Store, open_store

from ..cli.conftest import make_trace
from ..sql import execute

Write = Callable[..., None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{file}")
    yield store
    store.close()


@pytest.fixture
def write(file: Path) -> Write:
    """Writes traces to the file by another store."""

    def _write(*traces: Trace) -> None:
        store = open_store(f"sqlite:///{file}")
        store.write(traces)
        store.close()

    return _write


def seen(follower: Follower) -> list[str | None]:
    return [trace.info.client_request_id for trace in follower.new()]


def test_a_trace_that_is_stored_again_is_not_new(store: Store) -> None:
    store.write([make_trace(1)])
    follower = Follower(store)
    follower.last(0)
    store.write([make_trace(1, state=TraceState.ERROR), make_trace(2)])
    assert seen(follower) == ["req-2"]
    assert seen(follower) == []


def test_what_is_stored_after_a_deletion_is_new(store: Store) -> None:
    """No row gets the id of one that was deleted."""
    store.write([make_trace(number) for number in range(1, 6)])
    follower = Follower(store)
    follower.last(0)
    execute(store, "DELETE FROM traces WHERE id > 3")
    store.write([make_trace(number) for number in (6, 7, 8)])
    assert seen(follower) == ["req-6", "req-7", "req-8"]
    execute(store, "DELETE FROM traces")
    assert seen(follower) == []
    store.write([make_trace(9)])
    assert seen(follower) == ["req-9"]


def test_an_empty_store_has_no_past(store: Store) -> None:
    store.write([])
    follower = Follower(store)
    assert follower.last(5) == []
    store.write([make_trace(1)])
    assert seen(follower) == ["req-1"]


def test_many_at_once_come_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_MOST_CHANGES", 10)
    follower = Follower(store)
    store.write([make_trace(0)])
    assert seen(follower) == ["req-0"]
    store.write([make_trace(number) for number in range(1, 26)])
    assert [len(seen(follower)) for _ in range(4)] == [10, 10, 5, 0]


def test_another_file_in_its_place_is_followed_from_its_beginning(
    store: Store, file: Path, write: Write
) -> None:
    store.write([make_trace(number) for number in range(1, 6)])
    follower = Follower(store)
    assert len(follower.last(10)) == 5
    for path in file.parent.glob("wherefrom.db*"):
        path.unlink()
    assert seen(follower) == []
    write(make_trace(7))
    assert seen(follower) == ["req-7"]
    for path in file.parent.glob("wherefrom.db*"):
        path.unlink()
    file.write_text("something else, long enough to be read" * 40)
    with pytest.raises(StoreError):
        follower.new()


def test_a_filter_is_read_before_the_store_is_there(store: Store) -> None:
    with pytest.raises(FilterError):
        Follower(store, "stat = 1").last(1)
