"""Rolling up in SQLite, where others write to the file meanwhile."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from tests.analysis.traffic import make_trace
from tests.stores.rollup_traffic import blocks_of
from tests.stores.test_rollups import MIDNIGHT, NAME, SELECTIONS, answers, is_rolled_up, traffic, ways
from wherefrom import keys
from wherefrom.stores import Selection
from wherefrom.stores.base import STRETCH_MS
from wherefrom.stores.sql.rollup_counts import MOST_BLOCKS
from wherefrom.stores.sql.schema import DAY_MS, HOUR_MS, block_days, blocks
from wherefrom.stores.sqlite import rollups
from wherefrom.stores.sqlite.store import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        yield store


def test_an_hour_is_counted_in_slices(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has many traces."""
    monkeypatch.setattr(rollups, "AT_ONCE", 1)
    store.write(traffic(200))
    before = answers(store, SELECTIONS[:5])
    assert store.roll_up() == 5 * 24 + 5
    assert answers(store, SELECTIONS[:5]) == before
    assert is_rolled_up(store)


def test_an_hour_with_very_many_blocks_has_none(store: SQLiteStore) -> None:
    """They would be read no faster than its traces. Of pruned traces none are kept of such an hour."""
    # In all stretches of the hour: traces are pruned in steps.
    many = [make_trace(n, at=MIDNIGHT + n * 500, name=f"{n}") for n in range(MOST_BLOCKS + 1)]
    store.write([*many, make_trace(9999, at=MIDNIGHT + HOUR_MS)])
    with store.snapshot() as snapshot:
        before = blocks_of(snapshot, Selection(), HOUR_MS)
    store.roll_up()
    with store.snapshot() as snapshot:
        assert snapshot.connection.scalars(select(blocks.c.hour)).all() == [MIDNIGHT + HOUR_MS]
        assert blocks_of(snapshot, Selection(), HOUR_MS) == before
    store.prune(MIDNIGHT + 5000)
    store.prune(MIDNIGHT + DAY_MS)
    with store.snapshot() as snapshot:
        assert [*blocks_of(snapshot, Selection(), HOUR_MS)] == [
            key for key in before if key[-1] == MIDNIGHT + HOUR_MS
        ]


def test_pruning_leaves_the_blocks_of_other_stretches_alone(store: SQLiteStore) -> None:
    """An hour may have thousands, and a step of pruning may be 20 traces."""
    store.write([make_trace(n, at=MIDNIGHT + n * STRETCH_MS // 2) for n in range(4)])
    found = []
    for count in range(1, 5):
        store.prune(MIDNIGHT + count * STRETCH_MS // 2)
        with store.snapshot() as snapshot:
            query = select(blocks.c.id, blocks.c.start, blocks.c.traces).order_by(blocks.c.start)
            found.append([tuple(row) for row in snapshot.connection.execute(query)])
    assert [row[1:] for row in found[-1]] == [(MIDNIGHT, 2), (MIDNIGHT + STRETCH_MS, 2)]
    assert found[1][0] == found[2][0] == found[3][0]


def test_a_day_has_all_blocks_of_an_hour_that_was_pruned_in_part(store: SQLiteStore) -> None:
    """Those of pruned traces and those of the others are few enough each, and too many together."""
    many = range(MOST_BLOCKS + 1)
    store.write([make_trace(n, at=MIDNIGHT + n, metadata={keys.INSTANCE_ID: f"{n}"}) for n in many])
    store.roll_up()
    with store.snapshot() as snapshot:
        assert not snapshot.connection.scalars(select(blocks.c.id)).all()
        before = blocks_of(snapshot, Selection(), HOUR_MS)
    store.prune(MIDNIGHT + MOST_BLOCKS // 2)
    store.roll_up()
    with store.snapshot() as snapshot:
        of_day = snapshot.connection.scalars(select(block_days.c.blocks)).all()
        assert of_day == [len(before)] == [MOST_BLOCKS + 1]
        assert blocks_of(snapshot, Selection(), HOUR_MS) == before


def test_what_changes_while_it_is_counted_is_not_stored(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes to the hour between two steps."""
    store.write([make_trace(0, at=MIDNIGHT), make_trace(1, at=MIDNIGHT + HOUR_MS)])
    count, others = rollups.count_period, [make_trace(2, at=MIDNIGHT + 5)]

    def counting(connection: sqlite3.Connection, start: int, width: int) -> Iterator[None]:
        for step in count(connection, start, width):
            yield step
            if others and start == MIDNIGHT:
                with closing(SQLiteStore(path)) as other:
                    other.write([others.pop()])

    monkeypatch.setattr(rollups, "count_period", counting)
    assert store.roll_up() == 1
    with store.snapshot() as snapshot:
        assert ways(snapshot).cover.hours == [MIDNIGHT + HOUR_MS]
        assert sum(one.traces for one in snapshot.groups(Selection(), NAME)) == 3
    assert store.roll_up() == 2


def test_what_changes_and_is_marked_again_while_it_is_counted_is_not_stored(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes to the hour, and is about to roll it up itself."""
    store.write([make_trace(0, at=MIDNIGHT)])
    count, others = rollups.count_period, [make_trace(1, at=MIDNIGHT + 5)]

    def counting(connection: sqlite3.Connection, start: int, width: int) -> Iterator[None]:
        for step in count(connection, start, width):
            yield step
            if others:
                with closing(SQLiteStore(path)) as other:
                    other.write([others.pop()])
                    other._mark(HOUR_MS, other._stop)

    monkeypatch.setattr(rollups, "count_period", counting)
    store.roll_up()
    with store.snapshot() as snapshot:
        assert sum(one.traces for one in snapshot.groups(Selection(), NAME)) == 2
    store.roll_up()
    with store.snapshot() as snapshot:
        assert sum(one.traces for one in snapshot.groups(Selection(), NAME)) == 2
    assert is_rolled_up(store)


def test_what_was_counted_on_a_connection_that_is_gone_is_not_stored(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a fork, or where the file was replaced: half of an hour would pass for the whole."""
    store.write([make_trace(0, at=MIDNIGHT), make_trace(1, at=MIDNIGHT + HOUR_MS - 1)])
    count, closes = rollups.count_period, [True]

    def counting(connection: sqlite3.Connection, start: int, width: int) -> Iterator[None]:
        for step in count(connection, start, width):
            if closes:
                closes.pop()
                store._open.close()
            yield step

    monkeypatch.setattr(rollups, "count_period", counting)
    assert store.roll_up() == 0
    assert store.roll_up() == 2
    with store.snapshot() as snapshot:
        assert sum(one.traces for one in snapshot.groups(Selection(), NAME)) == 2


def test_quiet_hours_are_rolled_up_by_the_thread(store: SQLiteStore) -> None:
    """Those that nobody has written to between two runs; none runs before ten minutes."""
    first, second = make_trace(0, at=MIDNIGHT), make_trace(1, at=MIDNIGHT + HOUR_MS)
    store.write([first, second])
    assert store._roll_up(store._stop, only_quiet=True) == 0
    store.write([make_trace(2, at=MIDNIGHT)])
    assert store._roll_up(store._stop, only_quiet=True) == 1
    store._next_retention = store._next_upkeep = 0.0
    store.write([])
    while not is_rolled_up(store):
        pass
    assert store._next_upkeep > 0


def test_a_stretch_that_is_read_has_no_bounds_but_its_own(store: SQLiteStore) -> None:
    """Of two lower bounds SQLite would search its index by the first: that of the whole time range."""
    store.write(traffic())
    store.roll_up()
    with store.snapshot() as snapshot:
        found = ways(snapshot, SELECTIONS[5])
        stretches = list(found.conditions(snapshot.comparer))
    assert len(stretches) == 2
    for conditions in stretches:
        text = " AND ".join(map(str, conditions))
        for operator in (">=", ">", "<", "<="):
            assert len(re.findall(rf"(?<!\+ )traces\.request_time {operator} ", text)) <= 1
        assert len(re.findall(r"(?<!\+ )traces\.request_time [<>]", text)) == 2


def test_of_traces_not_rolled_up_the_index_is_read_within_their_hours(store: SQLiteStore) -> None:
    """It is in the order of blocks, so SQLite would read all of it and sort nothing."""
    store.write([make_trace(0, version="1", at=MIDNIGHT)])
    store.roll_up()
    with store.snapshot() as snapshot:
        store.write([make_trace(1, version="1", at=snapshot.now_ms)])
    statements: list[tuple[str, Any]] = []
    with store.snapshot() as snapshot:
        listen = event.listens_for(snapshot.connection, "before_cursor_execute")
        listen(lambda *arguments: statements.append(arguments[2:4]))
        assert len(blocks_of(snapshot, Selection(), HOUR_MS)) == 2
        (query,) = (query for query in statements if "FROM traces" in query[0])
        (plan,) = snapshot.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query[0]}", query[1]).all()
    assert re.search(r"ix_traces_blocks \(source_id=\? AND <expr>", plan.detail)
