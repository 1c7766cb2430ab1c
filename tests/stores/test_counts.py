"""What every store counts, against plain Python over the same traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from tests.engines import NewUrl, new_store
from tests.stores.blocks import each_block
from wherefrom import Trace, keys
from wherefrom._buckets import bucket_of
from wherefrom.analysis.blocks import read_traffic
from wherefrom.exceptions import QueryCancelledError
from wherefrom.model import Assessment, Source, TraceState
from wherefrom.query.fields import METADATA, TAG, Field, Operator, find_field, with_key
from wherefrom.query.parser import parse_filter
from wherefrom.query.tree import Compare
from wherefrom.stores import Selection, Store
from wherefrom.stores.base import BlockColumns
from wherefrom.stores.deadline import Deadline

SOURCES = [
    Source({keys.APP_VERSION: f"1.{number}", "tier": "gold"} if number else {keys.APP_VERSION: "1.0"})
    for number in range(3)
]
FIELDS = [
    find_field(None, "name"),
    find_field(None, "status"),
    with_key(METADATA, keys.APP_VERSION),
    with_key(METADATA, "tier"),
    with_key(TAG, "team"),
]
SELECTIONS = [
    Selection(),
    Selection(parse_filter("status = 'ERROR'")),
    Selection(parse_filter("metadata.tier = 'gold'"), ("a", "b")),
    Selection(None, ("a",)),
    Selection(None, ("nobody",)),
    Selection(parse_filter("metadata.nothing = 'x'")),
    Selection(parse_filter(f"timestamp >= {START + 20_000} AND timestamp < {START + 60_000}")),
]


@pytest.fixture(scope="module")
def filled(new_url: NewUrl) -> Iterator[tuple[Store, list[Trace]]]:
    """Eighty traces with pairs from sources and of their own, in three experiments and five sessions."""
    random = Random(5)
    made = []
    for number in range(80):
        source = random.choice(SOURCES)
        # A trace that overrides a pair of its source has another source.
        own = {} if "tier" in source else {"tier": "free"}
        made.append(
            make_trace(
                number,
                source=source,
                ms=random.choice([None, 1 + number / 1000, 10 + number / 1000]),
                failed=random.random() < 0.3,
                name=random.choice(["GET /a", "GET /b"]),
                experiment=random.choice("abc"),
                metadata=random.choice([{}, own, {keys.SESSION: f"s{number % 5}", keys.USER: "ann"}]),
                tags=random.choice([{}, {"team": "blue"}]),
            )
        )
    with new_store(new_url) as store:
        store.write(made)
        yield store, made


def value_of(trace: Trace, field: Field) -> str | None:
    if field.name == "name":
        return trace.info.name
    if field.name == "status":
        return trace.info.state.value
    return (trace.info.tags if field.name == "tag" else trace.info.trace_metadata).get(field.key or "")


def is_selected(trace: Trace, place: int) -> bool:
    info = trace.info
    return (
        True,
        info.state is TraceState.ERROR,
        info.trace_metadata.get("tier") == "gold" and info.experiment in "ab",
        info.experiment == "a",
        False,
        False,
        START + 20_000 <= info.request_time < START + 60_000,
    )[place]


def selected(traces: list[Trace], place: int) -> list[Trace]:
    return [trace for trace in traces if is_selected(trace, place)]


def took_us(trace: Trace) -> int | None:
    root = trace.data.spans[0]
    return None if root.end_time_ns is None else (root.end_time_ns - root.start_time_ns) // 1000


def buckets(traces: Iterable[Trace]) -> Counter[int]:
    known = (took for one in traces if (took := took_us(one)) is not None)
    return Counter(map(bucket_of, known))


def errors_of(traces: list[Trace]) -> int:
    return sum(trace.info.state is TraceState.ERROR for trace in traces)


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_values_of_several_fields_are_counted_at_once(filled: tuple[Store, list[Trace]], place: int) -> None:
    """Together or alone, with and without fields in JSON; the values are those of the traces selected."""
    store, traces = filled
    chosen = selected(traces, place)
    expected = [
        Counter(value for trace in chosen if (value := value_of(trace, field)) is not None)
        for field in FIELDS
    ]
    with store.snapshot() as snapshot:
        assert snapshot.count(SELECTIONS[place]) == len(chosen)
        assert snapshot.count_all_values(SELECTIONS[place], FIELDS) == expected
        assert snapshot.count_all_values(SELECTIONS[place], FIELDS[:3]) == expected[:3]


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_groups_hold_every_trace_once(filled: tuple[Store, list[Trace]], place: int) -> None:
    """By columns, tags, and metadata of sources and of traces; those without a value are a group too."""
    store, traces = filled
    for field in FIELDS:
        expected: dict[str | None, list[Trace]] = {}
        for trace in selected(traces, place):
            expected.setdefault(value_of(trace, field), []).append(trace)
        with store.snapshot() as snapshot:
            groups = {one.value: one for one in snapshot.groups(SELECTIONS[place], field)}
        assert groups.keys() == expected.keys()
        for value, own in expected.items():
            found = groups[value]
            times = [trace.info.request_time for trace in own]
            assert (found.traces, found.errors) == (len(own), errors_of(own))
            assert (found.first_seen, found.last_seen) == (min(times), max(times))
            for failed, counted in ((False, found.succeeded), (True, found.failed)):
                assert counted == buckets(
                    one for one in own if (one.info.state is TraceState.ERROR) is failed
                )


def test_the_first_trace_of_each_value_is_of_all_traces_in_the_experiments(
    filled: tuple[Store, list[Trace]],
) -> None:
    """Also by the bounds of a filter that an index serves: a source, a name, a pair of the trace's own."""
    store, traces = filled
    with store.snapshot() as snapshot:
        for field in FIELDS:
            for experiments in (None, ("a",), ("a", "b"), ("nobody",)):
                times: dict[str, list[int]] = {}
                for trace in traces:
                    value = value_of(trace, field)
                    if value is not None and (experiments is None or trace.info.experiment in experiments):
                        times.setdefault(value, []).append(trace.info.request_time)
                found = snapshot.first_seen(field, [*times, "no such"], experiments)
                assert found == {value: min(own) for value, own in times.items()}
                for value, own in times.items():
                    having = Selection(Compare(field, Operator.IN, (value, "no such")), experiments)
                    assert snapshot.bounds(having) == (min(own), max(own))


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_counts_are_those_of_each_stretch_of_time(filled: tuple[Store, list[Trace]], place: int) -> None:
    """A stretch holds its begin and not its end."""
    store, traces = filled
    edges = [(START + 5000 * n, START + 5000 * (n + 2)) for n in range(-1, 20)]
    with store.snapshot() as snapshot:
        found = list(snapshot.counts(SELECTIONS[place], edges))
        bounds = snapshot.bounds(SELECTIONS[place])
    times = [trace.info.request_time for trace in selected(traces, place)]
    assert bounds == ((min(times), max(times)) if times else None)
    for (begin, end), counted in zip(edges, found, strict=True):
        own = [one for one in selected(traces, place) if begin <= one.info.request_time < end]
        assert counted == (len(own), errors_of(own))


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_steps_are_counted_for_each_value(filled: tuple[Store, list[Trace]], place: int) -> None:
    """Each value and step comes once."""
    store, traces = filled
    for field in FIELDS:
        expected: dict[tuple[str | None, int], list[Trace]] = {}
        for trace in selected(traces, place):
            start = trace.info.request_time // 7000 * 7000
            expected.setdefault((value_of(trace, field), start), []).append(trace)
        with store.snapshot() as snapshot:
            found = list(snapshot.counts_by(SELECTIONS[place], field, 7000))
        assert Counter(found) == Counter(
            (value, start, len(own), errors_of(own)) for (value, start), own in expected.items()
        )


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_buckets_are_counted_for_each_value_and_step(filled: tuple[Store, list[Trace]], place: int) -> None:
    """Traces without a duration are counted too; a bucket may come several times."""
    store, traces = filled
    for field in FIELDS:
        expected, found = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
        for trace in selected(traces, place):
            took, start = took_us(trace), trace.info.request_time // 7000 * 7000
            where = value_of(trace, field), start, None if took is None else bucket_of(took)
            expected.update({(*where, "traces"): 1, (*where, "errors"): errors_of([trace])})
        with store.snapshot() as snapshot:
            for *key, count, errors in snapshot.buckets_by(SELECTIONS[place], field, 7000):
                found.update({(*key, "traces"): count, (*key, "errors"): errors})
        assert +found == +expected


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_sources_are_counted_with_their_durations(filled: tuple[Store, list[Trace]], place: int) -> None:
    """Counts are of the selection, the first and the last trace of all; the latest source comes first."""
    store, traces = filled
    with store.snapshot() as snapshot:
        rows = snapshot.sources(SELECTIONS[place])
    assert [row.last_seen for row in rows] == sorted((row.last_seen for row in rows), reverse=True)
    for row in rows:
        everything = [one for one in traces if one.info.source == row.metadata]
        own = [one for one in selected(traces, place) if one.info.source == row.metadata]
        times = [one.info.request_time for one in everything]
        assert (row.traces, row.errors) == (len(own), errors_of(own))
        assert (row.first_seen, row.last_seen) == (min(times), max(times))
        assert row.durations == buckets(own)
    assert sum(row.traces for row in rows) == len(selected(traces, place))


@pytest.mark.parametrize("place", range(len(SELECTIONS)))
def test_sessions_are_counted_whole(filled: tuple[Store, list[Trace]], place: int) -> None:
    """Those with a trace in the selection, the latest first; a page begins after the last one of another."""
    store, traces = filled
    selection = SELECTIONS[place]
    ids = {one.info.trace_metadata.get(keys.SESSION) for one in selected(traces, place)} - {None}
    with store.snapshot() as snapshot:
        found = snapshot.sessions(selection, 100)
        for row in found:
            own = [
                one
                for one in traces
                if one.info.trace_metadata.get(keys.SESSION) == row.session_id
                and (selection.experiments is None or one.info.experiment in selection.experiments)
            ]
            assert (row.turns, row.errors) == (len(own), errors_of(own))
            assert (row.users, row.user) == (1, "ann")
            assert snapshot.session(row.session_id, selection.experiments) == row
        assert {row.session_id for row in found} == ids
        assert [row.last_seen for row in found] == sorted((row.last_seen for row in found), reverse=True)
        after = (found[1].last_seen, found[1].session_id) if len(found) > 1 else None
        assert snapshot.sessions(selection, 100, after) == (found[2:] if after else found)
        assert snapshot.session("nobody's", None) is None


@pytest.mark.parametrize("stratum", [None, find_field(None, "name"), with_key(METADATA, "tier")])
def test_blocks_are_counted_by_value_stratum_process_and_step(store: Store, stratum: Field | None) -> None:
    random = Random(7)
    made = [
        make_trace(
            number,
            source=random.choice(SOURCES),
            ms=random.choice([None, 1, 50]),
            failed=random.random() < 0.3,
            name=random.choice(["GET /a", "GET /b"]),
            metadata=random.choice([{}, {keys.INSTANCE_ID: "p1"}, {keys.INSTANCE_ID: "p2"}]),
        )
        for number in range(60)
    ]
    store.write(made)
    expected: dict[tuple[object, ...], list[Any]] = {}
    for trace in made:
        info, root = trace.info, trace.data.spans[0]
        pairs = info.trace_metadata
        of_stratum = (
            root.name if stratum == find_field(None, "name") else pairs.get("tier", "") if stratum else ""
        )
        step = info.request_time // 7000 * 7000
        block = expected.setdefault(
            (pairs[keys.APP_VERSION], of_stratum, pairs.get(keys.INSTANCE_ID, ""), step),
            [0, 0, Counter(), Counter()],
        )
        block[0] += 1
        block[1] += info.state is TraceState.ERROR
        if root.end_time_ns is not None:
            bucket = bucket_of((root.end_time_ns - root.start_time_ns) // 1000)
            block[2][bucket] += 1
            block[3].update([bucket] * (info.state is TraceState.ERROR))
    with store.snapshot() as snapshot:
        by = with_key(METADATA, keys.APP_VERSION)
        batches = list(snapshot.block_columns(Selection(), by, stratum, 7000))
        assert not list(snapshot.block_columns(SELECTIONS[4], find_field(None, "name"), stratum, 7000))
    found: dict[tuple[object, ...], list[Any]] = {
        one[:4]: [*one[4:6], *map(Counter, one[6:])] for one in each_block(batches)
    }
    assert found == expected
    for value, own in read_traffic(batches, {str(key[0]) for key in found}, {}).items():
        blocks = [block for key, block in found.items() if key[0] == value]
        succeeded, left = own.succeeded(), [block[2] - block[3] for block in blocks]
        assert (own.total, own.errors.sum()) == tuple(
            sum(block[place] for block in blocks) for place in (0, 1)
        )
        assert (succeeded.total, succeeded.errors.sum()) == (own.total - own.errors.sum(), 0)
        for traffic, counts in ((own, [block[2] for block in blocks]), (succeeded, left)):
            buckets = [bucket for counted in counts for bucket in counted.elements()]
            cells = traffic.alone.cells["stretch"]
            timed, total, squares = (column.sum() for column in cells.sums)
            assert timed == len(buckets)
            assert (total, squares) == (sum(buckets), sum(bucket**2 for bucket in buckets))
            for limit in {*buckets, -1, 0}:
                assert cells.over(limit).sum() == sum(bucket > limit for bucket in buckets)


def test_reading_blocks_ends_when_it_is_cancelled(
    filled: tuple[Store, list[Trace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two batches of rows that the driver has read at once too, and before they are counted."""
    monkeypatch.setattr("wherefrom.stores.sql.blocks._ROWS", 1)
    batches: list[BlockColumns] = []
    with filled[0].snapshot() as snapshot, Deadline() as deadline:

        def read() -> Iterator[BlockColumns]:
            by = with_key(METADATA, keys.APP_VERSION)
            for batch in snapshot.block_columns(Selection(), by, find_field(None, "name"), 7000):
                batches.append(batch)
                yield batch
                deadline.cancel()

        with pytest.raises(QueryCancelledError):
            read_traffic(read(), ["1.0"], {})
    assert len(batches) == 1


def test_tokens_cost_and_feedback_are_summed_by_block(store: Store) -> None:
    """What is no number, or too large for one, is no amount; a trace without a model call costs nothing."""
    usages = [None, '{"total_tokens": 120}', '{"total_tokens":7.5,"x":1}', '{"total_tokens":"9"}', "[1", "{}"]
    costs = [None, '{"total_cost": 1.2e-05}', '{"total_cost":1e999}', '{"total_cost":-1}', "\0"]
    values: list[object] = [True, False, -0.5, "true", "good", {"a": 1}]
    random, made, given = Random(3), [], []
    expected: dict[tuple[str, ...], list[float]] = {}
    for number in range(120):
        usage, cost = random.choice(usages), random.choice(costs)
        pairs = {keys.TOKEN_USAGE: usage, keys.COST: cost, keys.INSTANCE_ID: random.choice([None, "p"])}
        own = {key: value for key, value in pairs.items() if value is not None}
        name = random.choice(["GET /a", "GET /b"])
        made.append(make_trace(number, source=SOURCES[number % 2], name=name, metadata=own))
        tokens = {usages[1]: 120.0, usages[2]: 7.5}.get(usage)
        amounts: list[tuple[str, float | None]] = [("tokens", tokens or 0.0)]
        if tokens is None or cost == costs[1]:
            amounts.append(("cost", 1.2e-05 if cost == costs[1] else 0.0))
        for place, value in enumerate(random.choices(values, k=number % 3)):
            trace_id = made[-1].info.trace_id
            given.append(Assessment(trace_id=trace_id, name="ok", value=value, assessment_id=f"{place}"))
            amounts.append(("feedback.ok", {"True": 1.0, "False": 0.0, "-0.5": -0.5}.get(str(value))))
        for measure, amount in amounts:
            if amount is not None:
                step = str((START + number * 1000) // 7000 * 7000)
                block = measure, f"1.{number % 2}", name, own.get(keys.INSTANCE_ID, ""), step
                sums = expected.setdefault(block, [0, 0.0, 0.0])
                sums[:] = sums[0] + 1, sums[1] + amount, sums[2] + amount**2
    store.write(made)
    store.write_assessments(given)
    of = with_key(METADATA, keys.APP_VERSION), find_field(None, "name"), 7000
    with store.snapshot() as snapshot:
        found = list(snapshot.amounts(Selection(), *of, ["tokens", "cost", "feedback.ok"]))
        only = list(snapshot.amounts(Selection(), *of, ["cost", "feedback.other"]))
    assert {(*one[:4], str(one.time)): list(one[5:]) for one in found} == {
        block: pytest.approx(sums) for block, sums in expected.items()
    }
    assert {one.measure for one in only} == {"cost"}
