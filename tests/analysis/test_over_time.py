from __future__ import annotations

from itertools import count

import pytest

from wherefrom.analysis.api import count_over_time
from wherefrom.analysis.scope import Window, opened
from wherefrom.analysis.timeline import BARS, Bar, read_histogram
from wherefrom.stores import Store

from .traffic import START, make_trace

MINUTE = 60_000
BEGIN = START // MINUTE * MINUTE


@pytest.fixture
def store(store: Store) -> Store:
    """Ten traces a minute for an hour, the first of each failed, and one is a POST."""
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
    return store


@pytest.mark.parametrize(
    ("filter_string", "traces", "errors"),
    [
        (None, 10, 1),
        ("name = 'POST /'", 1, 0),
        ("status = 'ERROR'", 1, 1),
        ("metadata.app_version = '1.0'", 10, 1),
    ],
)
def test_each_bar_counts_its_own_time(
    store: Store, filter_string: str | None, traces: int, errors: int
) -> None:
    """Whichever index answers."""
    found = count_over_time(filter_string, since=str(BEGIN), until=str(BEGIN + 60 * MINUTE), store=store)
    assert found.width_ms == MINUTE
    assert found.bars == tuple(Bar(BEGIN + at * MINUTE, traces, errors) for at in range(60))
    assert (found.traces, found.errors, found.is_whole) == (60 * traces, 60 * errors, True)


def test_the_ends_of_the_window_are_kept_to(store: Store) -> None:
    """A bar that the window begins or ends within counts what is inside."""
    since, until = BEGIN + MINUTE // 2, BEGIN + 59 * MINUTE + MINUTE // 2
    found = count_over_time(since=str(since), until=str(until), store=store)
    assert found.traces == 590
    assert [found.bars[0].traces, found.bars[1].traces, found.bars[-1].traces] == [5, 10, 5]


def test_time_before_the_first_trace_is_left_out(store: Store) -> None:
    """All time is the time that there are traces of."""
    found = count_over_time(since="0", until=str(BEGIN + 60 * MINUTE), store=store)
    assert found.bars[0].start == BEGIN
    assert len(found.bars) <= BARS + 1
    assert count_over_time(since="0", until="1000", store=store).traces == 0


def test_counting_ends_in_time(store: Store) -> None:
    """The newest are counted first; what was not counted is not told as none."""
    seconds = count()
    with opened(store, "name = 'GET /'") as (snapshot, selection):
        window = Window(BEGIN, BEGIN + 60 * MINUTE)
        found = read_histogram(snapshot, selection, window, clock=lambda: float(next(seconds)))
    assert not found.is_whole
    assert [bar.traces for bar in found.bars[-2:]] == [None, 9]
    assert found.traces == 9


def test_what_cannot_match_is_not_counted(store: Store) -> None:
    """An experiment that is not there has empty bars."""
    found = count_over_time(since=str(BEGIN), until=str(BEGIN + 60 * MINUTE), experiment="other", store=store)
    assert (found.traces, found.is_whole) == (0, True)
