from __future__ import annotations

import time

import pytest

from tests.engines import every_engine
from wherefrom.analysis.listing import Listing, ListQuery, check_query, read_listing
from wherefrom.analysis.scope import DAY_MS, Window, opened
from wherefrom.exceptions import FilterError
from wherefrom.stores import Store

from .traffic import START, make_trace


def numbers(listing: Listing) -> list[int]:
    return [int(row.trace_id.removeprefix("tr-"), 16) for row in listing.traces]


def listed(
    store: Store, filter_string: str | None = None, *, experiment: str | None = None, **wanted: object
) -> Listing:
    query = ListQuery(**wanted)  # type: ignore[arg-type] # each test names its own
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_listing(snapshot, selection, query)


def test_a_row_tells_a_trace_without_its_spans(store: Store) -> None:
    """A row has metadata of source and trace, the root span's outcome, and a duration below a millisecond."""
    trace = make_trace(1, version="1.0", ms=12.5, metadata={"tier": "gold"}, tags={"team": "search"})
    trace.data.spans[0].attributes["wherefrom.outcome"] = "completed"
    store.write([trace])
    (row,) = listed(store).traces
    assert (row.trace_id, row.name, row.state, row.outcome) == (
        trace.info.trace_id,
        "GET /",
        "OK",
        "completed",
    )
    assert row.duration_ms == 12.5
    assert row.metadata == {"app_version": "1.0", "tier": "gold"}
    assert row.tags == {"team": "search"}


@every_engine
@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_pages_lead_forth_and_back(store: Store, order: str) -> None:
    """Each page back is the one that was left, also among traces of the same millisecond."""
    store.write([make_trace(number, at=START + number // 4) for number in range(30)])
    pages = [listed(store, size=7, order=order)]
    while pages[-1].next_page:
        pages.append(listed(store, size=7, order=order, page=pages[-1].next_page))
    assert sorted(number for page in pages for number in numbers(page)) == list(range(30))
    assert len(pages) == 5
    assert pages[0].previous_page is None
    for before, page in zip(pages[-2::-1], pages[:0:-1], strict=True):
        back = listed(store, size=7, order=order, page=page.previous_page, is_back=True)
        assert numbers(back) == numbers(before)
        assert back.next_page == before.next_page
        assert (back.previous_page is None) == (before is pages[0])


@every_engine
def test_the_slowest_may_come_first(store: Store) -> None:
    """By duration there is a way forth alone: what still runs comes last in both directions."""
    store.write([make_trace(1, ms=5), make_trace(2, ms=50), make_trace(3, ms=None), make_trace(4, ms=20)])
    first = listed(store, order="slowest", size=2)
    second = listed(store, order="slowest", size=2, page=first.next_page)
    assert numbers(first) + numbers(second) == [2, 4, 1, 3]
    assert second.previous_page is None
    assert numbers(listed(store, order="fastest")) == [1, 4, 2, 3]


def test_without_a_range_it_is_the_last_day(store: Store) -> None:
    """Up to now, or where that has nothing up to the newest trace."""
    now = time.time_ns() // 1_000_000
    store.write([make_trace(1, at=START), make_trace(2, at=START + DAY_MS + 1)])
    assert numbers(listed(store)) == [2]
    assert listed(store).window.until == START + DAY_MS + 2
    store.write([make_trace(3, at=now - 1000)])
    window = listed(store).window
    assert numbers(listed(store)) == [3]
    assert now <= window.until <= now + 60_000
    assert window.until - window.since == DAY_MS


def test_a_range_is_kept_to(store: Store) -> None:
    """From since on, and before until; one end alone leaves a day."""
    store.write([make_trace(number, at=START + number) for number in range(5)])
    assert numbers(listed(store, since=str(START + 1), until=str(START + 3))) == [2, 1]
    assert numbers(listed(store, until=str(START + 2))) == [1, 0]
    assert numbers(listed(store, since="2023-11-14T22:13:20.003+00:00", until="now")) == [4, 3]
    assert listed(store, since="0", until="now").window.since == START
    assert listed(store, since="0", until="1000").window.since == 0
    with pytest.raises(FilterError, match="time range is empty"):
        listed(store, since="1h ago", until="2h ago")
    for wrong in ({"since": "sometime"}, {"until": "9" * 400}, {"since": "1e99"}):
        with pytest.raises(FilterError):
            listed(store, **wrong)


@every_engine
def test_a_filter_an_experiment_and_a_range_are_all_kept_to(store: Store) -> None:
    """A filter of alternatives stays one condition within the range."""
    store.write(
        [make_trace(1, failed=True), make_trace(2, ms=500), make_trace(3), make_trace(4, experiment="x")]
    )
    asked = "status = 'ERROR' OR execution_time > 400"
    assert numbers(listed(store, filter_string=asked)) == [2, 1]
    assert numbers(listed(store, experiment="x")) == [4]
    assert listed(store, experiment="none").traces == ()
    with pytest.raises(FilterError, match="did you mean"):
        listed(store, filter_string="statu = 'OK'")
    with pytest.raises(FilterError, match="order takes one of"):
        listed(store, order="best")


def check(store: Store, query: ListQuery) -> Window:
    with opened(store) as (snapshot, _):
        return check_query(snapshot, query)


def test_what_is_wanted_is_checked_before_it_is_searched_for(store: Store) -> None:
    """The check refuses what a listing refuses, and returns the listing's time range."""
    store.write([make_trace(1, at=START)])
    assert check(store, ListQuery()) == listed(store).window
    token = listed(store, size=1).next_page or "x"
    for wrong in (
        ListQuery(since="sometime"),
        ListQuery(order="best"),
        ListQuery(page=token, order="slowest"),
    ):
        with pytest.raises(FilterError):
            check(store, wrong)
