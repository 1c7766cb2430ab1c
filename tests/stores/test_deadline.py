"""Deadlines end the queries of their block, and no others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import event

from tests.web.costly import COSTLY, COSTLY_ALIKE, TRACES, fill
from wherefrom import TraceClient
from wherefrom.exceptions import QueryCancelledError, QueryTimeoutError, StoreError
from wherefrom.query import parse_filter
from wherefrom.query.order import NEWEST_FIRST
from wherefrom.stores import Selection
from wherefrom.stores.deadline import Deadline, current_deadline
from wherefrom.stores.sqlite.snapshot import SQLiteSnapshot
from wherefrom.stores.sqlite.store import SQLiteStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path_factory.mktemp("costly") / "wherefrom.db")
    fill(store)
    yield store
    store.close()


@pytest.mark.parametrize("filter_string", COSTLY_ALIKE)
def test_a_query_ends_at_its_deadline(store: SQLiteStore, filter_string: str) -> None:
    """Whatever is slow in it: SQLite's own functions, JSON, or ours."""
    started = time.monotonic()
    with pytest.raises(QueryTimeoutError, match=r"took longer than 0\.2 s"), Deadline(0.2):
        TraceClient(store).search_traces(filter_string=filter_string)
    assert 0.15 < time.monotonic() - started < 15  # a hang guard: one LIKE of a large value runs to its end


def test_a_query_ends_when_it_is_cancelled(store: SQLiteStore) -> None:
    """From another thread."""
    with Deadline() as deadline:
        threading.Timer(0.1, deadline.cancel).start()
        with pytest.raises(QueryCancelledError):
            TraceClient(store).search_traces(filter_string=COSTLY)


def test_what_comes_after_the_deadline_fails_at_once(store: SQLiteStore) -> None:
    """Also in a snapshot that is open, between two statements; and no new one is opened."""

    def count_twice(deadline: Deadline) -> None:
        with store.snapshot() as snapshot:
            assert snapshot.count(Selection()) == TRACES
            deadline.cancel()
            snapshot.count(Selection())

    with Deadline() as deadline:
        with pytest.raises(QueryCancelledError):
            count_twice(deadline)
        with pytest.raises(QueryCancelledError):
            TraceClient(store).list_keys()
    with Deadline(0.01):
        time.sleep(0.1)
        with pytest.raises(QueryTimeoutError):
            TraceClient(store).list_keys()


def test_a_result_that_is_half_read_ends_too(store: SQLiteStore) -> None:
    """The remaining rows are not read, and the pool drops the connection."""

    def read_half(deadline: Deadline) -> None:
        with store.snapshot() as snapshot:
            rows = iter(snapshot.connection.exec_driver_sql("SELECT a.id FROM traces a, traces b, traces c"))
            next(rows)
            deadline.cancel()
            deque(rows, maxlen=0)

    with Deadline() as deadline, pytest.raises(QueryCancelledError):
        read_half(deadline)
    assert len(TraceClient(store).search_traces(max_results=2)) == 2


def test_another_reader_is_not_interrupted(store: SQLiteStore) -> None:
    """Not one beside, and not the next one to have the connection."""
    with store.snapshot() as snapshot:
        with pytest.raises(StoreError), Deadline(0.1):
            TraceClient(store).search_traces(filter_string=COSTLY)
        assert snapshot.count(Selection()) == TRACES
    with Deadline() as deadline:
        TraceClient(store).list_keys()
    deadline.cancel()
    assert TraceClient(store).list_keys()
    assert current_deadline() is None


def test_without_a_deadline_nothing_ends(store: SQLiteStore) -> None:
    """The command line waits for as long as it takes."""
    found = TraceClient(store).search_traces(
        filter_string=f"span.content LIKE '%{'a' * 26}b%'", max_results=10
    )
    assert len(found) == 3


def test_any_number_of_snapshots_may_be_open(store: SQLiteStore) -> None:
    """A reader waits for no other, as there is no deadline for that."""
    with ExitStack() as stack:
        for _ in range(40):
            snapshot = stack.enter_context(store.snapshot())
            assert snapshot.count(Selection()) == TRACES


def test_a_snapshot_may_have_a_deadline_of_its_own(store: SQLiteStore) -> None:
    """It ends that snapshot's questions, and nothing after the block."""
    selection = Selection(parse_filter(COSTLY))
    with pytest.raises(QueryTimeoutError), store.snapshot(deadline_s=0.1) as snapshot:
        snapshot.search(selection, NEWEST_FIRST, 10)
    with store.snapshot() as snapshot:
        assert len(snapshot.search(Selection(), NEWEST_FIRST, 10).keys) == 10


def test_the_state_of_a_store_has_to_be_read_in_time_too(store: SQLiteStore) -> None:
    """The deadline also applies to the cursor: all queries of SQLite are interrupted."""

    def ask_late(ask: Callable[[SQLiteSnapshot], object]) -> None:
        with Deadline() as deadline, store.snapshot() as snapshot:
            deadline.cancel()
            ask(snapshot)

    for ask in (SQLiteSnapshot.state, SQLiteSnapshot.cursor, SQLiteSnapshot.processes):
        with pytest.raises(QueryCancelledError):
            ask_late(ask)


@pytest.mark.parametrize("deadline_s", [None, 60])
def test_ctrl_c_in_a_query_is_raised_as_it_is(store: SQLiteStore, deadline_s: float | None) -> None:
    """The connection is dropped, and the next query gets another."""
    engine = store.engine

    def interrupt(*_: object) -> None:
        event.remove(engine, "after_cursor_execute", interrupt)
        raise KeyboardInterrupt

    event.listen(engine, "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt), store.snapshot(deadline_s=deadline_s) as snapshot:
        snapshot.count(Selection())
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == TRACES
