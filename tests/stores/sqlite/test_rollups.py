"""Rollups: what they answer is what the traces say, whoever writes, and they outlive the traces."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from tests.stores.sqlite.rollup_traffic import HOURS, Writer, check, expected
from wherefrom import Trace, TraceInfo, keys
from wherefrom.analysis import Comparison, Verdict, compare, deployments, timeline
from wherefrom.model import Source
from wherefrom.query.fields import EXPERIMENT, METADATA, Field, find_field, with_key
from wherefrom.query.parser import parse_filter
from wherefrom.stores import Selection, Snapshot
from wherefrom.stores.sql.counts import Ways
from wherefrom.stores.sql.schema import DAY_MS, HOUR_MS
from wherefrom.stores.sqlite import rollups
from wherefrom.stores.sqlite.snapshot import SQLiteSnapshot
from wherefrom.stores.sqlite.store import SQLiteStore

NAME = find_field(None, "name")
VERSION = with_key(METADATA, keys.APP_VERSION)
FLAG = with_key(METADATA, "feature_flag_x")
REGION = with_key(METADATA, keys.REGION)
FIELDS = [NAME, VERSION, FLAG, REGION, EXPERIMENT]
MIDNIGHT = START // DAY_MS * DAY_MS
"""All traces start within five days after it."""
SELECTIONS = [
    Selection(),
    Selection(None, ("b",)),
    Selection(parse_filter("name LIKE 'GET%' AND metadata.app_version != '2'")),
    Selection(parse_filter("metadata.feature_flag_x = 'true' OR NOT name = 'GET /a'")),
    Selection(parse_filter("metadata.region IS NULL")),
    Selection(
        parse_filter(
            f"timestamp >= {MIDNIGHT + 5 * HOUR_MS + 7} AND timestamp < {MIDNIGHT + 3 * DAY_MS + 99}"
        )
    ),
    Selection(parse_filter(f"timestamp > {MIDNIGHT + HOUR_MS - 1} AND timestamp <= {MIDNIGHT + DAY_MS - 1}")),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        yield store


def traffic(count: int = 800) -> list[Trace]:
    """Five days of traces with everything that rollups tell apart, and what they do not."""
    random = Random(3)
    sources = [
        Source({keys.APP_VERSION: "1", keys.REGION: "eu"}),
        Source({keys.APP_VERSION: "2"}),
        Source({"pod": "x"}),
    ]
    flags = [{}, {"feature_flag_x": "true"}, {"feature_flag_x": "false", 'feature_flag_"y"': "é"}]
    return [
        make_trace(
            number,
            source=random.choice(sources),
            ms=random.choice([None, random.lognormvariate(4, 1)]),
            failed=random.random() < 0.2,
            at=MIDNIGHT + number * 5 * DAY_MS // count,
            name=random.choice(["GET /a", "GET /b", "POST /a"]),
            experiment=random.choice("aab"),
            metadata={
                **random.choice(flags),
                **random.choice([{}, {keys.TOKEN_USAGE: '{"input_tokens":3,"output_tokens":1.5}'}]),
                keys.USER: f"u{number % 7}",
            },
        )
        for number in range(count)
    ]


def answers(store: SQLiteStore, selections: Sequence[Selection] = SELECTIONS) -> list[Any]:
    """What rollups can answer, in any order of values."""
    with store.snapshot() as snapshot:
        return [
            *(
                sorted(snapshot.groups(selection, by, with_tokens=True), key=lambda one: str(one.value))
                for selection in selections
                for by in FIELDS
            ),
            *(
                sorted(snapshot.counts_by(selection, by, width), key=str)
                for selection in selections
                for by in FIELDS
                for width in (HOUR_MS // 2, HOUR_MS, DAY_MS)
            ),
            *(snapshot.sources(selection) for selection in selections),
            *(snapshot.bounds(selection, with_pruned=True) for selection in selections),
        ]


def ways(snapshot: Snapshot, selection: Selection = SELECTIONS[0], by: Field = NAME) -> Ways:
    assert isinstance(snapshot, SQLiteSnapshot)
    return snapshot._ways(selection, by)


def is_rolled_up(store: SQLiteStore, selection: Selection = SELECTIONS[0], by: Field = NAME) -> bool:
    """Whether the question is answered without a look at traces."""
    with store.snapshot() as snapshot:
        found = ways(snapshot, selection, by)
        return found.cover.is_used and not found.cover.stretches


@pytest.mark.parametrize("at_once", [rollups.AT_ONCE, 1])
def test_answers_from_rollups_are_those_of_the_traces(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Hours are counted at once, or in slices."""
    monkeypatch.setattr(rollups, "AT_ONCE", at_once)
    store.write(traffic())
    before = answers(store)
    assert not is_rolled_up(store)
    assert store.roll_up() == 5 * 24 + 5
    assert store.roll_up() == 0
    assert answers(store) == before
    assert all(is_rolled_up(store, selection) for selection in SELECTIONS[:5])
    with store.snapshot() as snapshot:
        cut = ways(snapshot, SELECTIONS[5])
    assert (len(cut.cover.days), len(cut.cover.hours), len(cut.cover.stretches)) == (2, 18, 2)


def test_rollups_outlive_the_traces(store: SQLiteStore) -> None:
    """Pruned in the middle of an hour, or all of them; rolled up before, or never."""
    store.write(traffic())
    whole = SELECTIONS[:5]
    before = answers(store, whole)
    hours = [row for row in before if row and isinstance(row, list)]
    assert store.prune(MIDNIGHT + 30 * HOUR_MS + 12_345) > 150
    assert answers_by_hour(answers(store, whole)) == answers_by_hour(before)
    store.roll_up()
    assert answers_by_hour(answers(store, whole)) == answers_by_hour(before)
    assert store.prune(MIDNIGHT + 5 * DAY_MS) > 500
    assert answers_by_hour(answers(store, whole)) == answers_by_hour(before)
    store.roll_up()
    assert answers_by_hour(answers(store, whole)) == answers_by_hour(before)
    assert hours
    assert is_rolled_up(store)


def answers_by_hour(found: list[Any]) -> list[Any]:
    """The answers but those for half hours, which no rollup has."""
    steps = len(FIELDS) * 5
    halves = range(steps, steps * 4, 3)
    return [one for place, one in enumerate(found) if place not in halves]


def without_verdicts(found: Comparison) -> list[Any]:
    """The rows without what was judged by process and minute, which only traces have."""
    return [
        replace(
            row, error_difference=None, latency_difference=None, tail_difference=None,
            verdict=None, reason="", strata=(),
        )
        for row in found.rows
    ]  # fmt: skip


def test_the_public_answers_outlive_the_traces(store: SQLiteStore) -> None:
    store.write(traffic())
    since, until = str(MIDNIGHT), str(MIDNIGHT + 5 * DAY_MS)

    def ask() -> list[Any]:
        return [
            without_verdicts(compare(store=store)),
            without_verdicts(compare("name", "metadata.app_version = '1'", store=store)),
            timeline(store=store),
            deployments(since, until, store=store),
        ]

    before = ask()
    store.roll_up()
    store.prune(MIDNIGHT + 5 * DAY_MS)
    assert ask() == before
    assert {row.verdict for row in compare(store=store).rows} <= {None, Verdict.TOO_FEW}
    assert deployments(store=store).window.until == before[3].window.until - 540_000 + 1


@pytest.mark.parametrize("change", ["late", "completed", "failed", "renamed", "deleted", "untagged", "flag"])
def test_a_change_of_an_hour_that_is_rolled_up_is_seen_at_once(store: SQLiteStore, change: str) -> None:
    traces = traffic(200)
    store.write(traces)
    store.roll_up()
    trace = next(one for one in traces[50:] if one.info.execution_duration is None)
    match change:
        case "late":
            store.write([make_trace(9999, at=trace.info.request_time, name="LATE")])
        case "completed":
            trace.info.execution_duration = 70
            store.write([trace])
        case "failed":
            changed = make_trace(int(trace.info.trace_id[3:], 16), at=trace.info.request_time, failed=True)
            store.write([changed])
        case "renamed":
            store.set_tag(trace.info.trace_id, keys.TRACE_NAME_TAG, "NEW")
        case "deleted":
            store.delete(trace.info.experiment, trace_ids=[trace.info.trace_id])
        case "untagged":
            store.delete_tag(trace.info.trace_id, keys.TRACE_NAME_TAG)
        case "flag":
            trace.info.trace_metadata["feature_flag_x"] = "new"
            store.write([trace])
    assert not is_rolled_up(store)
    after = answers(store)
    assert store.roll_up() == 2
    assert is_rolled_up(store)
    assert answers(store) == after


def test_a_tag_that_no_rollup_counts_leaves_it_as_it_is(store: SQLiteStore) -> None:
    traces = traffic(50)
    store.write(traces)
    store.roll_up()
    store.set_tag(traces[0].info.trace_id, "team", "blue")
    store.write([traces[1]])
    assert is_rolled_up(store)


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


def test_the_hour_that_is_running_is_counted_from_its_traces(store: SQLiteStore) -> None:
    with store.snapshot() as snapshot:
        now = snapshot.now_ms
    store.write([make_trace(0, at=now), make_trace(1, at=now + DAY_MS), make_trace(2, at=now - 2 * DAY_MS)])
    assert store.roll_up() == 2
    with store.snapshot() as snapshot:
        assert len(ways(snapshot).cover.stretches) == 1


def test_quiet_hours_are_rolled_up_by_the_thread(store: SQLiteStore) -> None:
    """Those that nobody has written to between two runs; none runs before ten minutes."""
    first, second = make_trace(0, at=MIDNIGHT), make_trace(1, at=MIDNIGHT + HOUR_MS)
    store.write([first, second])
    assert store._roll_up(store._stop, only_quiet=True) == 0
    store.write([make_trace(2, at=MIDNIGHT)])
    assert store._roll_up(store._stop, only_quiet=True) == 1
    store._next_upkeep = 0.0
    store.write([])
    while not is_rolled_up(store):
        pass
    assert store._next_upkeep > 0


def test_many_combinations_are_rolled_up_by_source_alone(store: SQLiteStore) -> None:
    """A name for each trace must not make a rollup of each: such a question is left to the traces."""
    count = rollups.MOST_DETAILS + 1
    store.write(
        [
            make_trace(number, version="1", at=MIDNIGHT + (number > 0) * HOUR_MS, name=f"job {number}")
            for number in range(count + 1)
        ]
    )
    store.write([make_trace(count + 5, at=MIDNIGHT + 2 * HOUR_MS, metadata={"feature_flag_x": "a\0b"})])
    before = answers(store)
    store.roll_up()
    assert answers(store) == before
    assert is_rolled_up(store, by=VERSION)
    with store.snapshot() as snapshot:
        assert ways(snapshot, by=NAME).cover.hours == [MIDNIGHT]
    store.prune(MIDNIGHT + DAY_MS)
    with store.snapshot() as snapshot:
        (found,) = [one for one in snapshot.groups(Selection(), VERSION) if one.value == "1"]
        assert found.traces == count + 1
        assert [one.value for one in snapshot.groups(Selection(), NAME)] == ["job 0"]


@pytest.mark.parametrize(
    ("filter_string", "by"),
    [
        ("status = 'ERROR'", VERSION),
        ("execution_time > 10", VERSION),
        ("metadata.`mlflow.trace.user` = 'u1'", VERSION),
        ("tag.team = 'x'", VERSION),
        ("metadata.own = 'x'", VERSION),
        ("span.name = 'x'", VERSION),
        ("timestamp != 5", VERSION),
        ("name = 'GET /a' OR timestamp > 5", VERSION),
        (None, find_field(None, "status")),
        (None, with_key(METADATA, "own")),
    ],
)
def test_other_questions_are_answered_by_traces(
    store: SQLiteStore, filter_string: str | None, by: Field
) -> None:
    store.write([*traffic(50), make_trace(5000, metadata={"own": "x"}, tags={"team": "x"})])
    store.roll_up()
    selection = Selection(None if filter_string is None else parse_filter(filter_string))
    with store.snapshot() as snapshot:
        assert ways(snapshot, selection, by).question is None
        assert not ways(snapshot, selection, by).cover.is_used


def test_many_stretches_are_counted_at_once(store: SQLiteStore) -> None:
    """Every other hour has changed: a query for each would cost more than one for all."""
    store.write([make_trace(number, at=MIDNIGHT + number * HOUR_MS) for number in range(60)])
    store.prune(MIDNIGHT + 3 * HOUR_MS)
    store.roll_up()
    store.write([make_trace(100 + number, at=MIDNIGHT + number * HOUR_MS) for number in range(5, 60, 2)])
    with store.snapshot() as snapshot:
        found = ways(snapshot)
        assert (found.cover.days, found.cover.hours, found.cover.stretches) == ([], [], [(None, None)])
        assert len(found.cover.kept) == 3
        assert sum(one.traces for one in snapshot.groups(Selection(), NAME)) == 60 + 28


def test_times_before_1970_are_in_their_hour(store: SQLiteStore) -> None:
    store.write([make_trace(number, at=-HOUR_MS - 5 + number * 2) for number in range(6)])
    before = answers(store, SELECTIONS[:5])
    store.roll_up()
    assert is_rolled_up(store)
    groups = len(FIELDS) * 5
    assert answers(store, SELECTIONS[:5])[:groups] == before[:groups]


@pytest.mark.parametrize("time", ["1e30", "-1e30", str(2**63 - 1), str(-(2**63)), "1.5"])
@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "="])
def test_a_time_range_may_end_anywhere(store: SQLiteStore, operator: str, time: str) -> None:
    store.write([make_trace(0), Trace(TraceInfo("tr-far", request_time=2**61))])
    store.prune(START + HOUR_MS)
    selection = Selection(parse_filter(f"timestamp {operator} {time}"))
    expects = {"<": float(time) > START, ">": float(time) < START}.get(operator[0], False)
    with store.snapshot() as snapshot:
        found = sum(one.traces for one in snapshot.groups(selection, NAME))
        bounds = snapshot.bounds(selection, with_pruned=True)
        list(snapshot.counts_by(selection, NAME, HOUR_MS // 2))
    assert (found, bounds) == ((2, (START, 2**61)) if expects else (0, None))


def test_traces_that_are_deleted_up_to_a_time_are_counted_no_more(store: SQLiteStore) -> None:
    """Those that were pruned before, too, of the experiment, in whole hours; single traces leave them."""
    traces = traffic(300)
    store.write(traces)
    store.roll_up()
    store.prune(MIDNIGHT + 2 * DAY_MS)
    gone = [one for one in traces if one.info.experiment == "a"]
    store.delete("a", trace_ids=[one.info.trace_id for one in gone])
    with store.snapshot() as snapshot:
        counts = {one.value: one.traces for one in snapshot.groups(Selection(), FIELDS[-1])}
    assert counts["a"] == sum(one.info.request_time < MIDNIGHT + 2 * DAY_MS for one in gone)
    store.roll_up()
    store.delete("a", until_ms=MIDNIGHT + DAY_MS - 1)
    with store.snapshot() as snapshot:
        counts = {one.value: one.traces for one in snapshot.groups(Selection(), FIELDS[-1])}
    assert counts["a"] == sum(
        MIDNIGHT + DAY_MS <= one.info.request_time < MIDNIGHT + 2 * DAY_MS for one in gone
    )
    assert counts["b"] == len(traces) - len(gone)


def test_four_processes_leave_rollups_that_say_what_the_traces_say(path: Path) -> None:
    """Random writes, late spans, edits, deletions and rollups; a deleted trace may come again late."""
    code = "import sys; from tests.stores.sqlite.rollup_traffic import main; main(*sys.argv[1:])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number), "150"]) for number in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    with closing(SQLiteStore(path)) as store:
        check(store, expected(path))
        store.roll_up()
        assert is_rolled_up(store)
        truth = expected(path)
        check(store, truth)
        store.prune(HOURS[len(HOURS) // 2] + 1_000_000)
        check(store, truth)
        store.prune(HOURS[-1] + DAY_MS)
        store.roll_up()
        check(store, truth)


def test_operations_are_of_all_kinds(path: Path) -> None:
    """A test of the test: no kind of operation comes to nothing."""
    writer = Writer(path, 7)
    for _ in range(400):
        writer.step()
    writer.close()
    assert min(writer.done.values()) > 0
