"""Rolling up in PostgreSQL, where others write, delete and drop partitions meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.analysis.traffic import make_trace
from tests.stores.test_rollups import MIDNIGHT, NAME, SELECTIONS, WIDTHS, answers, is_rolled_up, ways
from wherefrom import Trace, TraceInfo, TraceState, keys
from wherefrom.query.fields import METADATA, with_key
from wherefrom.stores import Selection
from wherefrom.stores.postgresql import rollups, schema, writer
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.sql.schema import DAY_MS, HOUR_MS

MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=40)
OLD = int(MONTH.replace(day=3).timestamp() * 1000)
"""A midnight in a month that has a partition of its own."""


def count(store: PostgreSQLStore, selection: Selection = Selection()) -> int:  # noqa: B008
    with store.snapshot() as snapshot:
        return sum(one.traces for one in snapshot.groups(selection, NAME))


@contextmanager
def held(store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch, *, before: str) -> Iterator[None]:
    """Another writer stops in its transaction before it calls a function until the block ends."""
    reached, goes_on = threading.Event(), threading.Event()
    function = getattr(rollups, before)

    def hold(*arguments: Any) -> Any:
        if threading.current_thread().name.startswith("other"):
            reached.set()
            assert goes_on.wait(60)
        return function(*arguments)

    with (
        monkeypatch.context() as patched,
        closing(PostgreSQLStore(store.url)) as other,
        ThreadPoolExecutor(1, "other") as threads,
    ):
        patched.setattr(rollups, before, hold)
        writing = threads.submit(other.write, [make_trace(2, at=MIDNIGHT + 7)])
        assert reached.wait(60)
        yield
        goes_on.set()
        writing.result(60)


def test_a_writer_who_began_before_is_waited_for(
    store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trace is not seen when the hour is marked, and it may have looked for the hour before."""
    store.write([make_trace(1, at=MIDNIGHT)])
    with monkeypatch.context() as patched:
        patched.setattr(rollups, "_LONGEST_WAIT_S", 0.0)
        with held(store, monkeypatch, before="forget"):
            assert store.roll_up() == 0
            assert count(store) == 1
    assert count(store) == 2
    assert store.roll_up() == 2
    assert (count(store), is_rolled_up(store)) == (2, True)


def test_a_writer_who_comes_while_an_hour_is_counted_forgets_it(
    store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it before the counts are stored or after."""
    store.write([make_trace(1, at=MIDNIGHT), make_trace(5, at=MIDNIGHT + HOUR_MS)])
    roll_up_period, traces = rollups._roll_up_period, [make_trace(2, at=MIDNIGHT + 7)]

    def counting(connection: psycopg.Connection[Any], start: int, width: int, mark: int) -> bool:
        with closing(PostgreSQLStore(store.url)) as other:
            if traces:
                other.write([traces.pop()])
            return roll_up_period(connection, start, width, mark)

    monkeypatch.setattr(rollups, "_roll_up_period", counting)
    assert store.roll_up() == 1
    with store.snapshot() as snapshot:
        assert ways(snapshot).cover.hours == [MIDNIGHT + HOUR_MS]
    assert (count(store), store.roll_up(), count(store)) == (3, 2, 3)
    store.write([make_trace(3, at=MIDNIGHT + 9)])
    assert (count(store), is_rolled_up(store)) == (4, False)


def test_one_process_rolls_up_at_a_time(store: PostgreSQLStore) -> None:
    """While it does, the others leave it to do so; they prune none the less."""
    store.write([make_trace(1, at=MIDNIGHT), make_trace(2, at=OLD)])
    with store._connected() as connection, rollups._alone(connection) as is_alone:
        assert is_alone
        assert store.roll_up() == 0
        assert store.prune(OLD + 40 * DAY_MS) == 2
    assert count(store) == 2
    assert store.roll_up() > 0


def test_quiet_hours_are_rolled_up_by_the_thread(store: PostgreSQLStore) -> None:
    """Those that nobody has written to between two runs; none runs before ten minutes."""
    store.write([make_trace(0, at=MIDNIGHT), make_trace(1, at=MIDNIGHT + HOUR_MS)])
    now = MIDNIGHT + 3 * DAY_MS
    with store._connected() as connection:
        assert rollups.roll_up(connection, now, store._stop, only_quiet=True) == 0
        store.write([make_trace(2, at=MIDNIGHT)])
        assert rollups.roll_up(connection, now, store._stop, only_quiet=True) == 1
    store._next_upkeep = 0.0
    store.write([make_trace(3)])
    for thread in threading.enumerate():
        if thread.name == "wherefrom-upkeep":
            thread.join(60)
    with store.snapshot() as snapshot:
        assert len(ways(snapshot).cover.stretches) == 1  # what was written last
    assert store._next_upkeep > 0


def test_two_prune_at_the_same_time(store: PostgreSQLStore) -> None:
    """Each trace is kept once, as it was when it was deleted."""
    store.write([make_trace(number, at=MIDNIGHT + number, failed=number > 3) for number in range(9)])
    with store._connected() as connection:
        doomed = writer.find_before(connection, MIDNIGHT + 5, 100)
        store.write([make_trace(0, at=MIDNIGHT, failed=True)])
        assert writer.delete(connection, doomed, are_kept=True) == 5
        assert writer.delete(connection, doomed, are_kept=True) == 0
    with store.snapshot() as snapshot:
        (found,) = snapshot.groups(Selection(), NAME)
    assert (found.traces, found.errors) == (9, 6)


def test_a_partition_that_is_dropped_is_still_counted(
    store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours that were rolled up, pruned in part, changed since, or never counted."""
    tokens = {keys.TOKEN_USAGE: '{"input_tokens":3}'}
    store.write(
        [
            make_trace(number, at=OLD + number * HOUR_MS // 3, name=f"job {number % 2}", metadata=tokens)
            for number in range(40)
        ]
    )

    def ask() -> list[Any]:
        return answers(store, SELECTIONS[:3], WIDTHS[1:])

    before = ask()
    with store._connected() as connection:
        doomed = writer.find_before(connection, OLD + HOUR_MS - 1, 2)
        writer.delete(connection, doomed, are_kept=True)
    store.roll_up()
    store.set_tag(f"tr-{20:032x}", keys.TRACE_NAME_TAG, "job 1")
    store.set_tag(f"tr-{20:032x}", keys.TRACE_NAME_TAG, "job 0")
    assert not is_rolled_up(store)
    monkeypatch.setattr(rollups, "may_roll_up", lambda _: False)
    deleted: list[int] = []
    assert store.prune(OLD + 40 * DAY_MS, on_progress=deleted.append) == 38
    assert deleted[0] == 38
    assert ask() == before
    assert store.roll_up() == 1
    assert ask() == before
    assert is_rolled_up(store)


def test_nobody_writes_while_a_partition_is_counted_and_dropped(
    store: PostgreSQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace that comes meanwhile is counted, or stored in the default partition."""
    store.write([make_trace(1, at=OLD)])
    (suffix,) = (name for name in partitions(store) if name < f"{datetime.now(UTC):%Y_%m}")
    keep_all = rollups.keep_all

    def keep(*arguments: Any) -> None:
        keep_all(*arguments)
        threads.submit(other.write, [make_trace(2, at=OLD + 1)])

    with ThreadPoolExecutor(1) as threads, closing(PostgreSQLStore(store.url)) as other:
        other.write([make_trace(3)])
        monkeypatch.setattr(rollups, "keep_all", keep)
        with store._connected() as connection:
            assert schema.drop_partitions(connection, suffix) == 1
        threads.shutdown()
    assert count(store) == 3


def partitions(store: PostgreSQLStore) -> list[str]:
    with store._connected() as connection:
        return list(schema.partitions_before(connection, 2**60))


@pytest.mark.parametrize(
    "usage",
    [
        "",
        "{",
        "[3]",
        "null",
        '{"input_tokens":true}',
        '{"input_tokens":"3"}',
        '{"input_tokens":1e300}',
        '{"input_tokens":' + "9" * 400 + "}",
        "[" * 20_000,
        '{"output_tokens":null,"total_tokens":2.9,"x":"\\u0000"}',
        '{"input_tokens":-1.9}',
    ],
)
def test_any_text_may_stand_where_tokens_do(store: PostgreSQLStore, usage: str) -> None:
    """What is no object of numbers counts as none, as when the traces are read."""
    store.write([make_trace(1, at=MIDNIGHT, metadata={keys.TOKEN_USAGE: usage})])

    def tokens() -> Any:
        with store.snapshot() as snapshot:
            return [one.tokens for one in snapshot.groups(Selection(), NAME, with_tokens=True)]

    before = tokens()
    store.roll_up()
    assert is_rolled_up(store)
    assert tokens() == before


def test_the_first_and_the_last_time_that_there_can_be(store: PostgreSQLStore) -> None:
    """Their hours are no integers of 64 bits; and small numbers are not added as such."""
    times = [-(2**63), -(2**62) - 5, -1, 0, 2_100_000_000, 2**62, 2**63 - 1]
    store.write([Trace(TraceInfo(f"tr-{time}", request_time=time)) for time in times])
    store.roll_up()
    assert count(store) == len(times)
    store.write([Trace(TraceInfo(f"tr-{time}", request_time=time, state=TraceState.ERROR)) for time in times])
    assert count(store) == len(times)
    assert store.prune(2**62) == 5
    assert count(store) == len(times)


def test_sources_of_pruned_traces_stay(store: PostgreSQLStore) -> None:
    """Those of deleted traces go."""
    store.write([make_trace(1, version="pruned", at=MIDNIGHT), make_trace(2, version="gone", at=OLD)])
    store.delete("default", trace_ids=[f"tr-{2:032x}"])
    store.prune(MIDNIGHT + 1)
    with store.snapshot() as snapshot:
        found = snapshot.groups(Selection(), with_key(METADATA, keys.APP_VERSION))
    assert [(one.value, one.traces) for one in found] == [("pruned", 1)]
    with store._connected() as connection:
        assert connection.execute("SELECT count(*) FROM sources").fetchone() == (1,)
