"""Filters made from filters."""

from __future__ import annotations

import pytest

from wherefrom import FilterError, TraceClient
from wherefrom.analysis.filters import both, find_condition, narrow
from wherefrom.stores import Store

from .traffic import START, make_trace


def found(store: Store, filter_string: str | None) -> list[int]:
    traces = TraceClient(store).search_traces(filter_string=filter_string, order_by=["timestamp"])
    return [(trace.info.request_time - START) // 1000 for trace in traces]


def test_a_filter_is_kept_within_a_window(store: Store) -> None:
    store.write([make_trace(n, version=f"1.{n % 2}") for n in range(10)])
    where = "metadata.app_version = '1.0' OR metadata.app_version = '1.1'"
    narrowed = narrow(where, str(START + 2000), str(START + 5000), store=store)
    assert (narrowed.window.since, narrowed.window.until) == (START + 2000, START + 5000)
    assert found(store, narrowed.filter_string) == [2, 3, 4]
    assert found(store, narrow(None, None, None, store=store).filter_string) == list(range(10))


def test_what_lies_all_within_is_not_asked_for_its_time(store: Store) -> None:
    assert narrow(None, "0", None, store=store).filter_string is not None
    store.write([make_trace(0), make_trace(9)])
    assert narrow(None, "0", None, store=store).filter_string is None
    assert (
        narrow("status = 'OK'", str(START), str(START + 9001), store=store).filter_string == "status = 'OK'"
    )
    for since, until in ((START + 1, START + 9001), (START, START + 9000)):
        assert "timestamp" in (narrow(None, str(since), str(until), store=store).filter_string or "")


def test_what_cannot_be_read_is_refused(store: Store) -> None:
    store.write([make_trace(0)])
    for filter_string, since in (("nonsense ===", None), (None, "the day before")):
        with pytest.raises(FilterError):
            narrow(filter_string, since, None, store=store)


@pytest.mark.parametrize("value", ["1.0", "it's", 'a`b"c', "x = 'y' OR 1"])
def test_a_condition_finds_the_traces_with_a_value(store: Store, value: str) -> None:
    store.write([make_trace(0, metadata={"k e`y": value}), make_trace(1, metadata={"k e`y": "other"})])
    condition = find_condition("k e`y", store=store)
    assert condition is not None
    assert found(store, both(None, condition(value))) == [0]
    assert found(store, both("status = 'OK' OR status = 'ERROR'", condition(value))) == [0]
    by_name = find_condition("name", store=store)
    assert by_name is not None
    assert found(store, by_name("GET /")) == [0, 1]


def test_of_the_experiment_no_filter_asks(store: Store) -> None:
    assert find_condition("experiment_id", store=store) is None
