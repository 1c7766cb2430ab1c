"""Selections within a time range, and the filters that a comparison gives for each value."""

from __future__ import annotations

import pytest

from tests.engines import every_engine
from wherefrom import FilterError, TraceClient
from wherefrom.analysis import compare
from wherefrom.analysis.scope import find_window, limit_to, opened
from wherefrom.query import format_filter
from wherefrom.query.edit import join_filters
from wherefrom.query.order import parse_order
from wherefrom.stores import Selection, Store

from .traffic import START, make_trace


def found(store: Store, filter_string: str | None) -> list[int]:
    traces = TraceClient(store).search_traces(filter_string=filter_string, order_by=["timestamp"])
    return [(trace.info.request_time - START) // 1000 for trace in traces]


def narrow(
    store: Store, filter_string: str | None, since: int | str | None = None, until: int | None = None
) -> tuple[Selection, list[int]]:
    """The selection within a time range, and the seconds at which its traces started."""
    moments = (None if moment is None else str(moment) for moment in (since, until))
    with opened(store, filter_string) as (snapshot, selection):
        within = limit_to(snapshot, selection, find_window(snapshot, *moments))
        rows = snapshot.rows(snapshot.search(within, parse_order(["timestamp"]), 100).keys)
    return within, [(row.request_time - START) // 1000 for row in rows]


@every_engine
def test_a_filter_is_kept_within_a_window(store: Store) -> None:
    store.write([make_trace(n, version=f"1.{n % 2}") for n in range(10)])
    where = "metadata.app_version = '1.0' OR metadata.app_version = '1.1'"
    assert narrow(store, where, START + 2000, START + 5000)[1] == [2, 3, 4]
    assert narrow(store, None)[1] == list(range(10))


@every_engine
def test_what_lies_all_within_is_not_asked_for_its_time(store: Store) -> None:
    assert narrow(store, None, 0)[0].tree is not None
    store.write([make_trace(0), make_trace(9)])
    assert narrow(store, None, 0)[0].tree is None
    within, _ = narrow(store, "status = 'OK'", START, START + 9001)
    assert within.tree is not None
    assert format_filter(within.tree) == "status = 'OK'"
    for since, until in ((START + 1, START + 9001), (START, START + 9000)):
        tree = narrow(store, None, since, until)[0].tree
        assert tree is not None
        assert "timestamp" in format_filter(tree)


def test_what_cannot_be_read_is_refused(store: Store) -> None:
    store.write([make_trace(0)])
    for filter_string, since in (("nonsense ===", None), (None, "the day before")):
        with pytest.raises(FilterError):
            narrow(store, filter_string, since)


@every_engine
@pytest.mark.parametrize("value", ["1.0", "it's", 'a`b"c', "x = 'y' OR 1"])
def test_the_filter_of_a_row_finds_its_traces(store: Store, value: str) -> None:
    store.write([make_trace(0, metadata={"k e`y": value}), make_trace(1, metadata={"k e`y": "other"})])
    condition = compare("k e`y", store=store).row(value).filter
    assert condition is not None
    assert found(store, condition) == [0]
    assert found(store, join_filters("status = 'OK' OR status = 'ERROR'", condition)) == [0]
    assert found(store, compare("name", store=store).row("GET /").filter) == [0, 1]


def test_no_filter_asks_for_the_experiment(store: Store) -> None:
    store.write([make_trace(0)])
    assert compare("experiment_id", store=store).row("default").filter is None
