"""Traces over time: by value, and all together in bars."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy.event import listens_for

from tests.engines import IN_SQL, NewUrl, every_engine, new_store
from wherefrom import FilterError
from wherefrom.analysis import timeline
from wherefrom.analysis.scope import Window, find_window, opened
from wherefrom.analysis.timeline import BARS, MAX_VALUES, Bar, Histogram, Trends, read_histogram, read_trends
from wherefrom.stores import Store
from wherefrom.stores.sql.snapshot import SQLSnapshot

from .traffic import START, make_trace, release

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def count_over_time(
    filter_string: str | None = None, *, since: str, until: str, experiment: str | None = None, store: Store
) -> Histogram:
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_histogram(snapshot, selection, find_window(snapshot, since, until), clock=float)


@every_engine
def test_traces_and_errors_are_counted_for_each_value_and_step(store: Store) -> None:
    store.write([*release("1.0", 120, errors=120), *release("1.1", 60, first=90)[30:]])
    found = timeline(buckets=3, store=store)
    assert found.width_ms == MINUTE
    begin = START // MINUTE * MINUTE
    assert [(one.value, one.start - begin, one.traces, one.errors) for one in found.buckets] == [
        ("1.0", 0, 40, 40),
        ("1.0", MINUTE, 60, 60),
        ("1.0", 2 * MINUTE, 20, 20),
        ("1.1", 2 * MINUTE, 30, 0),
    ]
    assert found.to_dict()["buckets"][0]["value"] == "1.0"


def test_steps_have_a_round_length(store: Store) -> None:
    lengths = {
        0: 1000,
        59_000: 1000,
        61_000: 2000,
        HOUR: MINUTE,
        59 * DAY: DAY,
        61 * DAY: 2 * DAY,
        600 * DAY: 10 * DAY,
    }
    for number, span in enumerate(lengths):
        ends = (START, START + span)
        store.write(
            [
                make_trace(2 * number + place, version="1", at=at, experiment=str(span))
                for place, at in enumerate(ends)
            ]
        )
    for span, width in lengths.items():
        assert timeline(experiment=str(span), store=store).width_ms == width


def test_the_filter_and_the_key_are_as_in_compare(store: Store) -> None:
    store.write([make_trace(0, metadata={"k": "a"}), make_trace(1, metadata={"k": "b"}), make_trace(2)])
    assert [one.value for one in timeline("k", store=store).buckets] == ["a", "b"]
    assert [one.value for one in timeline("k", "metadata.k = 'b'", store=store).buckets] == ["b"]
    assert timeline("k", "metadata.k = 'c'", store=store).buckets == ()
    assert timeline("k", experiment="nobody", store=store).buckets == ()


def test_only_the_values_with_the_most_traces_are_shown(store: Store) -> None:
    count = MAX_VALUES + 1
    store.write([make_trace(n, metadata={"k": f"{n % count}"}) for n in range(2 * count - 1)])
    assert str(count - 1) not in {one.value for one in timeline("k", store=store).buckets}


def test_there_are_1_to_1000_steps(store: Store) -> None:
    for buckets in (
        0,
        1001,
    ):
        with pytest.raises(FilterError, match="buckets"):
            timeline(store=store, buckets=buckets)


def test_nothing_to_count(store: Store) -> None:
    assert timeline(store=store).buckets == ()


BEGIN = START // MINUTE * MINUTE


@pytest.fixture(scope="module")
def hour(new_url: NewUrl) -> Iterator[Store]:
    """Ten traces a minute for an hour, the first of each failed, and one is a POST."""
    with new_store(new_url) as store:
        store.write(
            [
                make_trace(
                    number,
                    at=BEGIN + number * 6000,
                    failed=number % 10 == 0,
                    name="POST /" if number % 10 == 5 else "GET /",
                    version="1.0",
                )
                for number in range(600)
            ]
        )
        yield store


@every_engine
def test_each_bar_counts_its_own_time(hour: Store) -> None:
    """Whichever index answers."""
    for filter_string, traces, errors in (
        (None, 10, 1),
        ("name = 'POST /'", 1, 0),
        ("status = 'ERROR'", 1, 1),
        ("metadata.app_version = '1.0'", 10, 1),
    ):
        found = count_over_time(filter_string, since=str(BEGIN), until=str(BEGIN + 60 * MINUTE), store=hour)
        assert found.width_ms == MINUTE
        assert found.bars == tuple(Bar(BEGIN + at * MINUTE, traces, errors) for at in range(60))
        assert (found.traces, found.errors, found.is_whole) == (60 * traces, 60 * errors, True)


@every_engine
def test_the_ends_of_the_window_are_kept_to(hour: Store) -> None:
    """The first and the last bar count only traces within the range."""
    since, until = BEGIN + MINUTE // 2, BEGIN + 59 * MINUTE + MINUTE // 2
    found = count_over_time(since=str(since), until=str(until), store=hour)
    assert found.traces == 590
    assert [found.bars[0].traces, found.bars[1].traces, found.bars[-1].traces] == [5, 10, 5]


def test_time_before_the_first_trace_is_left_out(hour: Store) -> None:
    """All time is the time that there are traces of."""
    found = count_over_time(since="0", until=str(BEGIN + 60 * MINUTE), store=hour)
    assert found.bars[0].start == BEGIN
    assert len(found.bars) <= BARS + 1
    assert count_over_time(since="0", until="1000", store=hour).traces == 0


@every_engine
def test_counting_ends_in_time(hour: Store) -> None:
    """The newest bars are counted first; bars that were not counted are ``None``, not 0."""
    seconds = count()
    with opened(hour, "name = 'GET /'") as (snapshot, selection):
        window = Window(BEGIN, BEGIN + 60 * MINUTE)
        found = read_histogram(snapshot, selection, window, clock=lambda: float(next(seconds)))
    assert not found.is_whole
    assert [bar.traces for bar in found.bars[-2:]] == [None, 9]
    assert found.traces == 9


@pytest.mark.parametrize("new_url", IN_SQL, indirect=True)
def test_a_filter_is_read_a_few_times_not_once_a_bar(hour: Store) -> None:
    """Sixty bars take as many statements as there are batches."""
    statements: list[str] = []
    with opened(hour, "metadata.app_version = '1.0' AND name = 'GET /'") as (snapshot, selection):
        assert isinstance(snapshot, SQLSnapshot)

        @listens_for(snapshot.connection, "before_cursor_execute")
        def note(*told: Any) -> None:
            statements.append(told[2])

        found = read_histogram(snapshot, selection, Window(BEGIN, BEGIN + 60 * MINUTE), clock=float)
    assert (len(found.bars), found.traces, found.errors, found.is_whole) == (60, 540, 60, True)
    assert len([text for text in statements if "GROUP BY" in text.upper()]) <= 6
    assert len(statements) < 20


@every_engine
def test_what_cannot_match_is_not_counted(hour: Store) -> None:
    """An experiment that is not there has empty bars."""
    found = count_over_time(since=str(BEGIN), until=str(BEGIN + 60 * MINUTE), experiment="other", store=hour)
    assert (found.traces, found.is_whole) == (0, True)


def trends(store: Store, by: str | None = None, filter_string: str | None = None) -> Trends:
    with opened(store, filter_string) as (snapshot, selection):
        window = find_window(snapshot, str(START), str(START + HOUR))
        return read_trends(snapshot, selection, window, by)


@every_engine
def test_durations_and_errors_are_counted_for_each_step(store: Store) -> None:
    """A point for each step, also where nothing is; traces that still run have no duration."""
    store.write(
        [make_trace(at, ms=[10, 1000][at >= 50], failed=at % 10 == 0, version="1") for at in range(100)]
    )
    store.write([make_trace(100, ms=None, at=START + 30 * MINUTE, version="2")])
    found = trends(store)
    (trend,) = found.trends
    assert (found.by, found.width_ms, trend.value, trend.traces, trend.errors) == (
        None,
        MINUTE,
        None,
        101,
        10,
    )
    assert len(trend.points) == len(range(START // MINUTE * MINUTE, START + HOUR, MINUTE))
    assert sum(one.traces for one in trend.points) == 101
    first = trend.points[0]
    assert first.p50 is not None
    assert first.p50 == pytest.approx(10, rel=0.02)
    assert max(one.p99 or 0 for one in trend.points) == pytest.approx(1000, rel=0.02)
    running = next(one for one in trend.points if one.start + MINUTE > START + 30 * MINUTE)
    assert (running.traces, running.p50, running.p95, running.p99) == (1, None, None, None)
    assert [one.version for one in found.deployments] == ["2", "1"]


@every_engine
def test_values_have_trends_of_their_own_and_the_smallest_none(store: Store) -> None:
    """Those with the most traces; whatever facets offer can tell traces apart."""
    store.write(
        [
            make_trace(number, metadata={"k": f"{place}"})
            for number, place in enumerate(place for place in range(8) for _ in range(9 - place))
        ]
    )
    found = trends(store, "metadata.k")
    assert [(one.value, one.traces) for one in found.trends] == [(str(at), 9 - at) for at in range(6)]
    assert found.others == 2
    assert trends(store, "metadata.k", "metadata.k = '7'").trends[0].traces == 2
    assert [one.value for one in trends(store, "status").trends] == ["OK"]
    assert trends(store, "http_status").trends == ()
    with pytest.raises(FilterError, match="cannot be compared by"):
        trends(store, "duration")
