"""Rollups say what the traces say, and still do when the traces are gone."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from tests.stores.blocks import each_block
from tests.stores.rollup_traffic import blocks_of
from wherefrom import keys
from wherefrom._buckets import RATIO, bucket_of
from wherefrom.exceptions import StoreUnavailableError
from wherefrom.model import Trace
from wherefrom.query import parse_filter
from wherefrom.query.fields import METADATA, Field, find_field, with_key
from wherefrom.query.order import NEWEST_FIRST
from wherefrom.stores import Selection
from wherefrom.stores.base import ValueCounts
from wherefrom.stores.clickhouse.rollups import rolled_hours
from wherefrom.stores.clickhouse.snapshot import ClickHouseSnapshot
from wherefrom.stores.clickhouse.store import ClickHouseStore

HOUR = 3_600_000
FLAG = "feature_flag_new"
VERSION = with_key(METADATA, keys.APP_VERSION)
NAME = find_field(None, "name")
EDGE = START // HOUR * HOUR + HOUR


def some_trace(random: Random, number: int) -> Trace:
    trace = make_trace(
        number,
        at=START + number * 400_000,
        version=random.choice(("1.0", "2.0")),
        ms=random.choice((None, 0, 1.5, 20, 300)),
        failed=random.random() < 0.3,
        metadata={
            **random.choice(({}, {FLAG: "true"}, {FLAG: 'a "b"', "tenant": "x"})),
            **random.choice(({}, {keys.INSTANCE_ID: "p1"}, {keys.INSTANCE_ID: "p2"})),
        },
    )
    trace.info.tags[keys.TRACE_NAME_TAG] = random.choice(("GET /a", "GET /b"))
    return trace


def counted(found: list[ValueCounts]) -> dict[str | None, tuple[object, ...]]:
    return {
        row.value: (row.traces, row.errors, +Counter(row.succeeded), +Counter(row.failed)) for row in found
    }


def test_a_correction_that_failed_is_made_later(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the batch is sent again, its traces are stored already as they are in it."""
    store.write([make_trace(1)])
    insert = store._connection.insert

    def fail(table: str, *others: Any) -> None:
        if table == "rollups":
            raise StoreUnavailableError("the server went away")
        insert(table, *others)

    with monkeypatch.context() as patched:
        patched.setattr(store._connection, "insert", fail)
        with pytest.raises(StoreUnavailableError):
            store.write([make_trace(1, failed=True)])
    store.write([make_trace(1, failed=True)])
    assert store._connection.rows("SELECT sum(traces), sum(errors) FROM rollups") == [[1, 1]]


def by_hand(
    snapshot: ClickHouseSnapshot, selection: Selection, by: Field
) -> dict[str | None, tuple[object, ...]]:
    """The same from the traces, one by one."""
    rows = snapshot.rows(snapshot.search(selection, NEWEST_FIRST, 1000).keys)
    groups: dict[str | None, ValueCounts] = {}
    for row in rows:
        value = row.name if by is NAME else row.metadata.get(by.key or "")
        old = groups.get(value, ValueCounts(value, 0, 0, 0, 0))
        failed = row.state == "ERROR"
        durations = [] if row.duration_ms is None else [bucket_of(round(row.duration_ms * 1000))]
        groups[value] = ValueCounts(
            value, old.traces + 1, old.errors + failed, 0, 0,
            Counter(old.succeeded) + Counter([] if failed else durations),
            Counter(old.failed) + Counter(durations if failed else []),
        )  # fmt: skip
    return counted(list(groups.values()))


FILTERS = (
    None,
    f"metadata.{FLAG} = 'true'",
    f"metadata.{FLAG} IS NULL OR name = 'GET /a'",
    f"timestamp >= {EDGE} AND timestamp < {EDGE + 3 * HOUR} AND NOT metadata.app_version = '1.0'",
    f"timestamp > {EDGE + 70_001} AND timestamp <= {EDGE + 5 * HOUR - 1} AND name LIKE 'GET%'",
)


def test_rollups_are_what_the_traces_say(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After late spans, other outcomes, edits and deletions; blocks too, of whole hours."""

    def blocks(snapshot: ClickHouseSnapshot, text: str | None) -> list[dict[Any, list[Any]]]:
        selection = Selection(None if text is None else parse_filter(text))
        return [
            blocks_of(snapshot, selection, width, VERSION, stratum)
            for width, stratum in ((HOUR, NAME), (3 * HOUR, None))
        ]

    random = Random(5)
    traces = [some_trace(random, number) for number in range(60)]
    store.write(traces[:40])
    store.write(traces[30:])
    store.write([some_trace(random, number) for number in random.sample(range(60), 20)])
    store.delete("default", trace_ids=[trace.info.trace_id for trace in random.sample(traces, 8)])
    with store.snapshot() as snapshot:
        for text in FILTERS:
            selection = Selection(None if text is None else parse_filter(text))
            for by in (NAME, VERSION, with_key(METADATA, FLAG)):
                assert rolled_hours(snapshot, selection, by) is not None
                assert counted(snapshot.groups(selection, by)) == by_hand(snapshot, selection, by)
            from_rollups = blocks(snapshot, text)
            with monkeypatch.context() as patched:
                patched.setattr("wherefrom.stores.clickhouse.counts.rolled_hours", lambda *_: None)
                assert from_rollups == blocks(snapshot, text)
        before = counted(snapshot.groups(Selection(), VERSION)), blocks(snapshot, None)
    assert store.prune(START + 60 * 400_000) == 52
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == 0
        assert (counted(snapshot.groups(Selection(), VERSION)), blocks(snapshot, None)) == before


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("status = 'ERROR'", NAME),
        ("metadata.tenant = 'x'", NAME),
        ("timestamp != 5", NAME),
        ("timestamp > 5 OR name = 'x'", NAME),
        (f"timestamp > {START} AND timestamp < {START + 10}", NAME),
        ("span.name = 'x'", NAME),
        ("name = 'x'", with_key(METADATA, keys.SESSION)),
        ("metadata.mlflow.trace.infoFinalized = 'true'", NAME),
    ],
)
def test_other_questions_are_answered_by_the_traces(store: ClickHouseStore, text: str, by: Field) -> None:
    with store.snapshot() as snapshot:
        assert rolled_hours(snapshot, Selection(parse_filter(text)), by) is None


def test_an_edited_name_is_counted_by_the_traces(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    store.set_tag(make_trace(1).info.trace_id, keys.TRACE_NAME_TAG, "renamed")
    with store.snapshot() as snapshot:
        assert rolled_hours(snapshot, Selection(), NAME) is None
        assert [row.value for row in snapshot.groups(Selection(), NAME)] == ["renamed"]
        assert rolled_hours(snapshot, Selection(), VERSION) is not None


def test_blocks_have_every_duration(store: ClickHouseStore) -> None:
    """Of buckets whose characters have a byte that is 0, too, and of traces without a value or duration."""
    times = (None, 0, *(RATIO**bucket * 1.01 / 1000 for bucket in (5, 253, 254, 255, 509, 510, 511, 900)))
    traces = [
        make_trace(number, at=START, ms=ms, failed=number % 2 == 1, version=None if number % 3 else "1.0")
        for number, ms in enumerate(times)
    ]
    store.write(traces)
    with store.snapshot() as snapshot:
        found = list(each_block(snapshot.block_columns(Selection(), VERSION, NAME, HOUR)))
        rows = snapshot.rows(snapshot.search(Selection(), NEWEST_FIRST, 100).keys)
    timed = [row for row in rows if row.duration_ms is not None]
    everyone = Counter(bucket_of(round((row.duration_ms or 0) * 1000)) for row in timed)
    failed = Counter(bucket_of(round((row.duration_ms or 0) * 1000)) for row in timed if row.state == "ERROR")
    assert sum((Counter(block.durations) for block in found), Counter[int]()) == everyone
    assert sum((Counter(block.failed) for block in found), Counter[int]()) == failed
    assert {block.value for block in found} == {None, "1.0"}
    assert sum(block.traces for block in found) == len(times)
