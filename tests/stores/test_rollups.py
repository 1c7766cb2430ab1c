"""Rollups: what they answer is what the traces say, whoever writes, and they outlive the traces."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, select

from tests.analysis.traffic import START, make_trace
from tests.engines import IN_SQL, NewUrl
from tests.stores.rollup_traffic import (
    HOURS,
    RollingStore,
    Writer,
    amounts_of,
    blocks_of,
    check,
    expected,
    open_rolling,
)
from wherefrom import Trace, TraceInfo, TraceState, keys
from wherefrom._buckets import bucket_of, first_of, last_of
from wherefrom.analysis import compare, deployments, timeline
from wherefrom.model import Assessment, Source
from wherefrom.query.fields import EXPERIMENT, METADATA, Field, find_field, with_key
from wherefrom.query.parser import parse_filter
from wherefrom.stores import Selection, Snapshot
from wherefrom.stores.base import OF_FEEDBACK, STRETCH_MS
from wherefrom.stores.sql.rollup_counts import MOST_DETAILS
from wherefrom.stores.sql.schema import DAY_MS, HOUR_MS, block_days, blocks, rollups
from wherefrom.stores.sql.snapshot import SQLSnapshot
from wherefrom.stores.sql.ways import Ways, find_difference

pytestmark = pytest.mark.parametrize("new_url", IN_SQL, indirect=True)

NAME = find_field(None, "name")
VERSION = with_key(METADATA, keys.APP_VERSION)
FLAG = with_key(METADATA, "feature_flag_x")
REGION = with_key(METADATA, keys.REGION)
STATUS = find_field(None, "status")
FIELDS = [NAME, VERSION, FLAG, REGION, EXPERIMENT]
MIDNIGHT = START // DAY_MS * DAY_MS
"""All traces start within five days after it."""
LIVE = Selection(parse_filter("span.name != 'none'"))
"""All traces that are not pruned, counted one by one: rollups know nothing of spans."""
SELECTIONS = [
    Selection(),
    Selection(None, ("b",)),
    Selection(parse_filter("name RLIKE '^GET' AND metadata.app_version != '2'")),
    Selection(parse_filter("metadata.feature_flag_x = 'true' OR NOT name = 'GET /a'")),
    Selection(parse_filter("metadata.region IS NULL")),
    Selection(
        parse_filter(
            f"timestamp >= {MIDNIGHT + 5 * HOUR_MS + 7} AND timestamp < {MIDNIGHT + 3 * DAY_MS + 99}"
        )
    ),
    Selection(parse_filter(f"timestamp > {MIDNIGHT + HOUR_MS - 1} AND timestamp <= {MIDNIGHT + DAY_MS - 1}")),
    Selection(parse_filter("status = 'ERROR'")),
    Selection(parse_filter("status NOT IN ('OK', 'IN_PROGRESS', 'STATE_UNSPECIFIED') AND name != 'x'")),
    Selection(parse_filter("status IN ('ERROR') AND metadata.app_version = '1' AND name != 'x'"), ("a",)),
]


@pytest.fixture
def url(new_url: NewUrl) -> Iterator[str]:
    yield (url := new_url())
    new_url.release(url)


@pytest.fixture
def store(url: str) -> Iterator[RollingStore]:
    with closing(open_rolling(url)) as store:
        yield store


def traffic(count: int = 400) -> list[Trace]:
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
                # Their sums are exact in any order.
                **random.choice([{}, {keys.TOKEN_USAGE: '{"output_tokens":1.5,"total_tokens":4.5}'}]),
                **random.choice([{}, {keys.COST: '{"total_cost":0.25}'}]),
                keys.USER: f"u{number % 7}",
                "tenant": f"t{number % 5}",
                **({"tier": "silver"} if number % 9 else {}),
                **({keys.INSTANCE_ID: f"p{number % 3}"} if number % 4 else {}),
            },
        )
        for number in range(count)
    ]


def summed(rows: Iterable[Sequence[Any]]) -> Counter[tuple[Any, ...]]:
    """Traces and errors of each value, step and bucket."""
    found = Counter[tuple[Any, ...]]()
    for *where, count, errors in rows:
        found.update({(*where, "traces"): count, (*where, "errors"): errors})
    return +found


_SOME = 30
WIDTHS = HOUR_MS // 2, HOUR_MS, DAY_MS


def answers(
    store: RollingStore, selections: Sequence[Selection] = SELECTIONS, widths: Sequence[int] = WIDTHS
) -> list[Any]:
    """What rollups can answer, in any order of values."""
    with store.snapshot() as snapshot:
        return [
            *(
                sorted(snapshot.groups(selection, by, with_tokens=True), key=lambda one: str(one.value))
                for selection in selections
                for by in FIELDS
            ),
            # One width each: every selection and every field meets all of them.
            *(
                sorted(snapshot.counts_by(selection, by, widths[(place + at) % len(widths)]), key=str)
                for place, selection in enumerate(selections)
                for at, by in enumerate(FIELDS)
            ),
            *(summed(snapshot.buckets_by(selection, NAME, HOUR_MS)) for selection in selections),
            *(snapshot.sources(selection) for selection in selections),
            *(snapshot.bounds(selection, with_pruned=True) for selection in selections),
            *(snapshot.first_seen(by, sorted(values_of(snapshot, by))[:_SOME], None) for by in FIELDS),
            *(
                blocks_of(snapshot, selection, width)
                for selection in selections
                for width in (STRETCH_MS, 3 * HOUR_MS)
            ),
            *(amounts_of(snapshot, selection, HOUR_MS) for selection in selections),
        ]


def values_of(snapshot: Snapshot, by: Field) -> list[str]:
    return [one.value for one in snapshot.groups(Selection(), by) if one.value is not None]


def ways(snapshot: Snapshot, selection: Selection = SELECTIONS[0], by: Field = NAME) -> Ways:
    assert isinstance(snapshot, SQLSnapshot)
    return snapshot._ways(selection, by)


def is_rolled_up(store: RollingStore, selection: Selection = SELECTIONS[0], by: Field = NAME) -> bool:
    """Whether the question is answered without a look at traces."""
    with store.snapshot() as snapshot:
        found = ways(snapshot, selection, by)
        return found.cover.is_used and not found.cover.stretches


def values_of_traces(store: RollingStore) -> list[Any]:
    """The number of traces, and those with each value, without what is kept of pruned ones."""
    with store.snapshot() as snapshot:
        return [
            (snapshot.count(selection), snapshot.count_all_values(selection, [*FIELDS, STATUS]))
            for selection in SELECTIONS
        ]


def test_answers_from_rollups_are_those_of_the_traces(store: RollingStore) -> None:
    store.write(traffic())
    before, values = answers(store), values_of_traces(store)
    assert not is_rolled_up(store)
    assert store.roll_up() == 5 * 24 + 5
    assert store.roll_up() == 0
    assert (answers(store), values_of_traces(store)) == (before, values)
    assert all(is_rolled_up(store, selection) for selection in SELECTIONS[:5])
    with store.snapshot() as snapshot:
        cut = ways(snapshot, SELECTIONS[5])
    assert (len(cut.cover.days), len(cut.cover.hours), len(cut.cover.stretches)) == (2, 18, 2)


def test_rollups_outlive_the_traces(store: RollingStore) -> None:
    """Pruned in the middle of an hour, or all of them; rolled up before, or never."""
    store.write(traffic())
    whole = SELECTIONS[:3]
    widths = WIDTHS[1:]  # no rollup has half hours
    before = answers(store, whole, widths)
    hours = [row for row in before if row and isinstance(row, list)]
    assert store.prune(MIDNIGHT + 30 * HOUR_MS + 12_345) > 75
    assert answers(store, whole, widths) == before
    store.roll_up()
    assert answers(store, whole, widths) == before
    with store.snapshot() as snapshot:
        for selection in whole:
            for by in FIELDS:
                left, every = (
                    sum(row[2] for row in snapshot.counts_by(selection, by, 100 * DAY_MS, with_pruned=kept))
                    for kept in (False, True)
                )
                assert left == snapshot.count(selection) < every
        # Of failed traces, only those that are there are counted, whatever is kept of others.
        failed = SELECTIONS[-2]
        left = sum(row[2] for row in snapshot.counts_by(failed, NAME, DAY_MS))
        assert left == snapshot.count(failed) == sum(one.errors for one in snapshot.groups(LIVE, NAME))
    assert store.prune(MIDNIGHT + 5 * DAY_MS) > 250
    assert answers(store, whole, widths) == before
    store.roll_up()
    assert answers(store, whole, widths) == before
    assert hours
    assert is_rolled_up(store)


def test_the_public_answers_outlive_the_traces(store: RollingStore) -> None:
    store.write(traffic())
    since, until = str(MIDNIGHT), str(MIDNIGHT + 5 * DAY_MS)

    def ask() -> list[Any]:
        return [
            compare(store=store),
            compare("name", "metadata.app_version = '1'", store=store),
            timeline(store=store),
            deployments(since, until, store=store),
        ]

    before = ask()
    store.roll_up()
    store.prune(MIDNIGHT + 5 * DAY_MS)
    assert ask() == before
    assert deployments(store=store).window.until == before[3].window.until - 1_080_000 + 1


def test_a_change_of_an_hour_that_is_rolled_up_is_seen_at_once(store: RollingStore) -> None:
    """Late, completed, failed, renamed, deleted, without its name, with another flag, with tokens."""
    traces = traffic(250)
    store.write(traces)
    store.roll_up()
    unfinished = [one.info for one in traces[20:] if one.info.execution_duration is None]
    late, completed, failed, renamed, deleted, untagged, flagged, used = unfinished[:8]

    def write(info: TraceInfo, **changed: Any) -> None:
        store.write([make_trace(int(info.trace_id[3:], 16), at=info.request_time, **changed)])

    changes: list[Callable[[], object]] = [
        lambda: store.write([make_trace(9999, at=late.request_time, name="LATE")]),
        lambda: write(completed, ms=70, name="DONE"),
        lambda: write(failed, failed=True),
        lambda: store.set_tag(renamed.trace_id, keys.TRACE_NAME_TAG, "NEW"),
        lambda: store.delete(deleted.experiment, trace_ids=[deleted.trace_id]),
        lambda: store.delete_tag(untagged.trace_id, keys.TRACE_NAME_TAG),
        lambda: write(flagged, metadata={"feature_flag_x": "new"}),
        lambda: write(used, metadata={keys.TOKEN_USAGE: '{"total_tokens":1000}'}),
    ]
    before = answers(store, SELECTIONS[:1])
    for change in changes:
        change()
        assert not is_rolled_up(store)
        after = answers(store, SELECTIONS[:1])
        assert after != before
        assert store.roll_up() == 2
        assert is_rolled_up(store)
        assert answers(store, SELECTIONS[:1]) == after
        before = after


def test_blocks_of_days_are_those_of_the_traces(store: RollingStore) -> None:
    """Under any name, of any duration, several in one bucket; asked for in part, by all that blocks have."""
    random = Random(5)
    names, lengths = ["GET /a", 'get "b\\', "ä\0é", "\U0010fffd\n", "null"], [None, 0, 5, 5, 100, 7e12]
    sources = [Source({keys.APP_VERSION: "1", keys.REGION: "eu"}), Source({keys.APP_VERSION: "2"})]
    made = [
        make_trace(
            number,
            source=random.choice(sources),
            ms=random.choice(lengths),
            failed=random.random() < 0.3,
            at=MIDNIGHT + number % 48 * HOUR_MS + number,
            name=random.choice(names),
            experiment=random.choice("ab"),
            metadata=random.choice([{}, {keys.INSTANCE_ID: "p"}]),
        )
        for number in range(600)
    ]
    filters = [
        "name RLIKE '^.e?[^E]'",
        "name ILIKE 'get%' OR name IS NULL",
        f"name IN ('{names[2]}', 'null')",
        "metadata.app_version = '2' AND name != 'null'",
        "name = 'none'",
        "metadata.region IS NULL",
    ]
    selections = [Selection(), *(Selection(parse_filter(one)) for one in filters), Selection(None, ("b",))]
    groupings = product(selections, (VERSION, NAME, EXPERIMENT), (None, NAME, REGION))
    asked = [
        (selection, (HOUR_MS, 3 * HOUR_MS)[place % 2], by, stratum)
        for place, (selection, by, stratum) in enumerate(groupings)
    ]
    store.write(made)
    store.delete_tag(made[7].info.trace_id, keys.TRACE_NAME_TAG)
    with store.snapshot() as snapshot:
        before = [blocks_of(snapshot, *one) for one in asked]
    store.roll_up()
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        assert len({*snapshot.connection.scalars(select(block_days.c.start))}) == 2
        for one, blocks in zip(asked, before, strict=True):
            assert blocks_of(snapshot, *one) == blocks, one


def test_no_counts_are_left_of_hours_that_nothing_is_left_of(store: RollingStore) -> None:
    traces = [make_trace(number, at=MIDNIGHT + number * HOUR_MS) for number in range(30)]
    store.write(traces)
    store.roll_up()
    store.delete(traces[0].info.experiment, trace_ids=[one.info.trace_id for one in traces[3:26]])
    store.roll_up()
    there = [*(MIDNIGHT + number * HOUR_MS for number in (0, 1, 2, 26, 27, 28, 29))]
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        days = [MIDNIGHT, MIDNIGHT + DAY_MS]
        for query, starts in (
            (select(rollups.c.start).where(rollups.c.width == HOUR_MS), there),
            (select(rollups.c.start).where(rollups.c.width == DAY_MS), days),
            (select(blocks.c.hour), there),
            (select(block_days.c.start), days),
        ):
            assert sorted({*snapshot.connection.scalars(query)}) == starts


def test_a_tag_that_no_rollup_counts_leaves_it_as_it_is(store: RollingStore) -> None:
    """Feedback too, which is given at any time: it is read from its traces."""
    traces = traffic(50)
    store.write(traces)
    store.roll_up()
    store.set_tag(traces[0].info.trace_id, "team", "blue")
    store.write([traces[1]])
    store.write_assessments([Assessment(trace_id=traces[0].info.trace_id, name="ok", value=True)])
    assert is_rolled_up(store)
    with store.snapshot() as snapshot:
        asked = Selection(), VERSION, NAME, HOUR_MS, [OF_FEEDBACK + "ok"]
        assert [one.total for one in snapshot.amounts(*asked)] == [1.0]


def test_the_hour_that_is_running_is_counted_from_its_traces(store: RollingStore) -> None:
    with store.snapshot() as snapshot:
        now = snapshot.now_ms
    store.write([make_trace(0, at=now), make_trace(1, at=now + DAY_MS), make_trace(2, at=now - 2 * DAY_MS)])
    assert store.roll_up() == 2
    with store.snapshot() as snapshot:
        assert len(ways(snapshot).cover.stretches) == 1


def test_many_combinations_are_rolled_up_by_source_alone(store: RollingStore) -> None:
    """A name for each trace must not make a rollup of each: such a question is left to the traces."""
    count = MOST_DETAILS + 1
    store.write(
        [
            make_trace(number, version="1", at=MIDNIGHT + (number > 0) * HOUR_MS, name=f"job {number}")
            for number in range(count + 1)
        ]
    )
    store.write([make_trace(count + 5, at=MIDNIGHT + 2 * HOUR_MS, metadata={"feature_flag_x": "a\0b"})])
    before = answers(store, SELECTIONS[:5])
    store.roll_up()
    assert answers(store, SELECTIONS[:5]) == before
    assert is_rolled_up(store, by=VERSION)
    with store.snapshot() as snapshot:
        hours = ways(snapshot, by=NAME).cover.hours
        assert (MIDNIGHT in hours, MIDNIGHT + HOUR_MS in hours) == (True, False)
    store.prune(MIDNIGHT + DAY_MS)
    with store.snapshot() as snapshot:
        (found,) = [one for one in snapshot.groups(Selection(), VERSION) if one.value == "1"]
        assert found.traces == count + 1
        names = {one.value for one in snapshot.groups(Selection(), NAME)}
        assert ("job 0" in names, "job 1" in names) == (True, False)
        # Blocks know no flags, and the names of an hour are not too many for them.
        assert len({name for _, name, *_ in blocks_of(snapshot, Selection(), HOUR_MS)}) == count + 2


OTHER_QUESTIONS: list[tuple[str | None, Field]] = [
    ("status != 'ERROR'", VERSION),
    ("status IN ('ERROR', 'OK')", VERSION),
    ("NOT status = 'ERROR'", VERSION),
    ("execution_time > 10", VERSION),
    ("metadata.`mlflow.trace.user` = 'u1'", VERSION),
    ("tag.team = 'x'", VERSION),
    ("metadata.own = 'x'", VERSION),
    ("metadata.`größe` = 'x'", VERSION),
    ("span.name = 'x'", VERSION),
    ("timestamp != 5", VERSION),
    ("name = 'GET /a' OR timestamp > 5", VERSION),
    (None, find_field(None, "status")),
    (None, with_key(METADATA, "own")),
    (None, with_key(METADATA, 'say "x"')),
    (None, with_key(METADATA, keys.TOKEN_USAGE)),
]


def test_other_questions_are_answered_by_traces(store: RollingStore) -> None:
    own = {"own": "x", "größe": "x", 'say "x"': "y", keys.TOKEN_USAGE: "{}"}
    store.write([*traffic(50), make_trace(5000, metadata=own, tags={"team": "x"})])
    store.roll_up()
    for filter_string, by in OTHER_QUESTIONS:
        selection = Selection(None if filter_string is None else parse_filter(filter_string))
        with store.snapshot() as snapshot:
            assert ways(snapshot, selection, by).question is None, (filter_string, by)
            assert not ways(snapshot, selection, by).cover.is_used, (filter_string, by)


MOST_PASS = [
    "metadata.tenant != 't1'",
    "metadata.tenant RLIKE '[0-3]' AND name = 'GET /a'",
    "metadata.tenant != 'none'",
    "execution_time > 20",
    "execution_time < 100 AND execution_time >= 20 AND status = 'OK' AND name != 'POST /a'",
    "status = 'OK'",
    "status != 'ERROR'",
    "NOT status = 'ERROR' AND NOT status = 'IN_PROGRESS'",
    "status IN ('OK', 'ERROR') AND name != 'GET /a' AND metadata.app_version = '1'",
    "status != 'none'",
    f"status = 'OK' AND timestamp >= {MIDNIGHT + 18_000_007} AND timestamp < {MIDNIGHT + 3 * DAY_MS + 99}",
    "execution_time > 20 OR execution_time IS NULL",
    "(execution_time > 20 OR execution_time IS NULL) AND status = 'OK' AND name = 'GET /b'",
    f"timestamp != {MIDNIGHT}",
    f"name = 'GET /a' OR timestamp > {MIDNIGHT + 9 * HOUR_MS}",
]


def test_what_most_traces_pass_is_answered_by_rollups_less_the_others(
    store: RollingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all states, in hours that changed, and without pruned traces: as if all were counted one by one."""
    made, random = traffic(), Random(2)
    for trace in made:
        if random.random() < 0.1:
            trace.info.state = random.choice([TraceState.IN_PROGRESS, TraceState.STATE_UNSPECIFIED])

    def found(selections: list[Selection]) -> list[Any]:
        with store.snapshot() as snapshot:
            groups = [
                sorted(snapshot.groups(one, by, with_tokens=by is VERSION), key=lambda one: str(one.value))
                for place, one in enumerate(selections)
                for by in (VERSION, (REGION, NAME)[place % 2])
            ]
            blocks = [
                blocks_of(snapshot, one, *asked)
                for one in selections
                for asked in ((STRETCH_MS, VERSION, NAME), (DAY_MS, NAME, None))
            ]
        return [
            groups,
            blocks,
            *(compare(filter_string=one, store=store) for one in (MOST_PASS[0], MOST_PASS[-1])),
        ]

    def check(selections: list[Selection]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("wherefrom.stores.sql.snapshot.find_difference", lambda *_, **__: None)
            expected = found(selections)
        assert found(selections) == expected

    every = [Selection(parse_filter(one)) for one in MOST_PASS]
    every.append(replace(every[0], experiments=("b",)))
    store.write(made)
    store.roll_up()
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        for one in MOST_PASS:
            asked = Selection(parse_filter(one)), snapshot._plan, [VERSION], snapshot.comparer
            assert find_difference(*asked) is not None, one
    check(every)
    store.write([make_trace(9000 + day, version="1", at=MIDNIGHT + day * DAY_MS + 7) for day in (0, 2, 3)])
    check(every[::2])
    store.prune(MIDNIGHT + 30 * HOUR_MS + 12_345)
    check(every[1::2])
    store.roll_up()
    check(every[::3])


def test_durations_at_the_ends_of_buckets_are_compared_one_by_one(
    store: RollingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, limits = Random(4), [0, 1, 20, 21, 22, 400]
    ends = [end for limit in limits for end in (limit - 0.001, limit, limit + 0.001) if end >= 0]
    ends += [of(bucket_of(limit * 1000)) / 1000 for limit in limits for of in (first_of, last_of)]
    store.write(
        [make_trace(number, ms=random.choice([None, *ends]), failed=not number % 7) for number in range(300)]
    )
    store.roll_up()
    filters = [
        f"execution_time {operator} {limit}" for operator in ("<", "<=", ">", ">=", "=") for limit in limits
    ]
    selections = [
        Selection(parse_filter(one))
        for one in (
            *filters,
            "execution_time > 20 AND execution_time < 22",
            "execution_time > 1 AND execution_time != 21",
        )
    ]

    def found() -> list[Any]:
        with store.snapshot() as snapshot:
            return [(snapshot.groups(one, VERSION), blocks_of(snapshot, one, HOUR_MS)) for one in selections]

    answered = found()
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        asked = snapshot._plan, [VERSION], snapshot.comparer
        assert sum(find_difference(one, *asked) is not None for one in selections) > 10
    monkeypatch.setattr("wherefrom.stores.sql.snapshot.find_difference", lambda *_, **__: None)
    assert answered == found()


def test_a_comparison_reads_the_traces_that_it_counts_once(store: RollingStore) -> None:
    store.write(traffic())
    selection, statements = Selection(parse_filter("span.name != 'none'")), list[str]()
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        listen = event.listens_for(snapshot.connection, "before_cursor_execute")
        listen(lambda *arguments: statements.append(arguments[2]))
        groups = snapshot.groups(selection, VERSION, before_blocks=True)
        blocks = blocks_of(snapshot, selection, HOUR_MS)
    assert sum(group.traces for group in groups) == sum(block[0] for block in blocks.values())
    assert sum("FROM traces" in statement for statement in statements) == 1


def test_a_value_that_its_source_has_too_is_that_of_the_source(
    store: RollingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace that was written again from another process has both: no index says which traces pass."""
    sources = [Source({keys.APP_VERSION: "1"} | own) for own in ({}, {"tenant": "bad"}, {"tenant": "x"})]
    of_first = [make_trace(number, source=sources[0], metadata={"tenant": "good"}) for number in range(20)]
    store.write(of_first)
    store.write([make_trace(0, source=sources[1]), make_trace(1, source=sources[2])])
    store.roll_up()
    selection = Selection(parse_filter("metadata.tenant != 'bad'"))

    def found() -> list[Any]:
        with store.snapshot() as snapshot:
            return [snapshot.groups(selection, VERSION), blocks_of(snapshot, selection, HOUR_MS)]

    answered = found()
    monkeypatch.setattr("wherefrom.stores.sql.snapshot.find_difference", lambda *_, **__: None)
    assert answered == found()


def test_what_few_traces_pass_is_counted_one_by_one(store: RollingStore) -> None:
    store.write(traffic())
    store.roll_up()
    filters = [
        "status = 'ERROR'",
        "status != 'OK'",
        "execution_time > 500",
        "metadata.own = 'x'",
        "metadata.tier != 'gold'",  # not all have one
        "metadata.tenant = 't1'",
        "execution_time > 20 AND metadata.tenant RLIKE 't[01]'",
        "tag.a = 'b'",
    ]
    with store.snapshot() as snapshot:
        assert isinstance(snapshot, SQLSnapshot)
        for one in [*filters, "span.name != 'none'"]:
            asked = Selection(parse_filter(one)), snapshot._plan, [VERSION], snapshot.comparer
            assert find_difference(*asked) is None, one


def test_many_stretches_are_counted_at_once(store: RollingStore) -> None:
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


def test_times_before_1970_are_in_their_hour(store: RollingStore) -> None:
    store.write([make_trace(number, at=-HOUR_MS - 5 + number * 2) for number in range(6)])
    before = answers(store, SELECTIONS[:5])
    store.roll_up()
    assert is_rolled_up(store)
    groups = len(FIELDS) * 5
    assert answers(store, SELECTIONS[:5])[:groups] == before[:groups]


def test_a_time_range_may_end_anywhere(store: RollingStore) -> None:
    store.write([make_trace(0), Trace(TraceInfo("tr-far", request_time=2**61))])
    store.prune(START + HOUR_MS)
    times = ["1e30", "-1e30", str(2**63 - 1), str(-(2**63)), "1.5"]
    for operator, time in product(["<", "<=", ">", ">=", "="], times):
        selection = Selection(parse_filter(f"timestamp {operator} {time}"))
        expects = {"<": float(time) > START, ">": float(time) < START}.get(operator[0], False)
        with store.snapshot() as snapshot:
            found = sum(one.traces for one in snapshot.groups(selection, NAME))
            bounds = snapshot.bounds(selection, with_pruned=True)
            list(snapshot.counts_by(selection, NAME, HOUR_MS // 2))
        assert (found, bounds) == ((2, (START, 2**61)) if expects else (0, None)), (operator, time)


def test_traces_that_are_deleted_up_to_a_time_are_counted_no_more(store: RollingStore) -> None:
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


def test_four_processes_leave_rollups_that_say_what_the_traces_say(url: str) -> None:
    """Random writes, late spans, edits, deletions and rollups; a deleted trace may come again late."""
    code = "import sys; from tests.stores.rollup_traffic import main; main(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, url], check=True)
    with closing(open_rolling(url)) as store:
        check(store, expected(url))
        store.roll_up()
        assert is_rolled_up(store)
        truth = expected(url)
        check(store, truth)
        with store.snapshot() as snapshot:
            blocks = blocks_of(snapshot, LIVE, STRETCH_MS)
            assert blocks_of(snapshot, Selection(), STRETCH_MS) == blocks
            amounts = amounts_of(snapshot, LIVE, STRETCH_MS)
            assert amounts_of(snapshot, Selection(), STRETCH_MS) == approximately(amounts)
        store.prune(HOURS[len(HOURS) // 2] + 1_000_000)
        check(store, truth)
        store.prune(HOURS[-1] + DAY_MS)
        store.roll_up()
        check(store, truth)
        with store.snapshot() as snapshot:
            assert not blocks_of(snapshot, LIVE, STRETCH_MS)
            assert blocks_of(snapshot, Selection(), STRETCH_MS) == blocks
            assert amounts_of(snapshot, Selection(), STRETCH_MS) == approximately(amounts)


def approximately(amounts: dict[Any, list[float]]) -> dict[Any, Any]:
    """Sums of the same amounts in another order, in which the number of traces is the same."""
    assert amounts
    return {
        block: [sums[0], *(pytest.approx(one, rel=1e-9) for one in sums[1:])]
        for block, sums in amounts.items()
    }


def test_operations_are_of_all_kinds(url: str) -> None:
    """A test of the test: no kind of operation comes to nothing."""
    writer = Writer(url, 7)
    for _ in range(400):
        writer.step()
    writer.close()
    assert min(writer.done.values()) > 0
