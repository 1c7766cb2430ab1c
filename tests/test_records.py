"""Results as flat records and as HTML tables."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from wherefrom import TraceClient, analysis, keys
from wherefrom.client import PagedList
from wherefrom.stores import Store, open_store

from .analysis.traffic import START, make_trace, release


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'traces.db'}")


def test_traces_are_records_of_the_fields_of_a_filter(store: Store) -> None:
    """All records have the same keys, whatever a trace lacks."""
    store.write(
        [
            make_trace(1, version="1.0", ms=12.5, metadata={"tier": "gold", keys.SESSION: "s"}),
            make_trace(2, ms=None, tags={"team": "search"}),
        ]
    )
    newest, oldest = TraceClient(store).search_traces().records()
    assert list(newest) == list(oldest)
    assert (oldest["timestamp"], oldest["execution_time_ms"], oldest["session_id"]) == (
        START + 1000,
        12.5,
        "s",
    )
    assert (oldest["metadata.tier"], oldest["metadata.app_version"], oldest["tag.team"]) == (
        "gold",
        "1.0",
        None,
    )
    assert (newest["execution_time_ms"], newest["metadata.tier"], newest["tag.team"]) == (
        None,
        None,
        "search",
    )


def results(store: Store) -> list[Any]:
    store.write([*release("1.0", 60), *release("1.1", 60, first=60, errors=30)])
    store.write([make_trace(200, metadata={keys.SESSION: "chat", "feature_flag_x": "on"})])
    return [
        TraceClient(store).search_traces(),
        TraceClient(store).search_experiments(),
        analysis.compare(store=store),
        analysis.versions(store=store),
        analysis.timeline(store=store),
        analysis.deployments(store=store),
        analysis.sessions(store=store),
        analysis.turns("chat", store=store),
    ]


def test_records_are_flat_and_make_a_typed_table(store: Store) -> None:
    """Every result: a value is text, a number, a boolean, nothing, or a list of these."""
    for result in results(store):
        records = result.records()
        assert records, result
        assert all(record.keys() == records[0].keys() for record in records)
        values = [value for record in records for value in record.values()]
        assert all(value is None or isinstance(value, (str, int, float, bool, list)) for value in values)
        table = pa.Table.from_pylist(records)
        assert table.num_rows == len(records)
        assert table.to_pylist() == records


def test_nested_values_are_columns_with_dots(store: Store) -> None:
    """Intervals, differences and metadata."""
    results(store)
    baseline, worse = analysis.compare(store=store).records()
    assert (baseline["verdict"], worse["verdict"]) == (None, "worse")
    assert type(worse["verdict"]) is str
    assert worse["error_rate_interval.low"] < worse["error_rate"] < worse["error_rate_interval.high"]
    assert baseline["error_difference.p_value"] is None
    assert worse["error_difference.p_value"] < 0.01
    (turn,) = analysis.turns("chat", store=store).records()
    assert (turn["trace.trace_id"], turn["flags.x"]) == (make_trace(200).info.trace_id, "on")


def test_every_result_is_a_table_in_a_notebook(store: Store) -> None:
    """The columns that are not empty, times in UTC."""
    for result in results(store):
        html = result._repr_html_()
        assert html.startswith(f"<table><caption>{type(result).__name__}: {len(result.records())} row")
        assert html.count("<tr>") == 1 + min(len(result.records()), 50)
    html = analysis.compare(store=store)._repr_html_()
    assert "<td>1.1</td><td>60</td><td>30</td><td>0.5</td>" in html


def test_a_time_is_shown_in_utc(store: Store) -> None:
    """Milliseconds since the epoch are for programs."""
    store.write([make_trace(0)])
    assert "<td>2023-11-14 22:13:20.000 UTC</td>" in TraceClient(store).search_traces()._repr_html_()


def test_untrusted_text_is_escaped_and_truncated(store: Store) -> None:
    """A client names its user and its path."""
    store.write([make_trace(1, name="<script>\x1b[2J" + "x" * 500)])
    html = TraceClient(store).search_traces()._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;\\x1b[2J" in html
    assert "x" * 100 not in html


@pytest.mark.parametrize("to_frame", ["to_pandas", "to_polars"])
def test_every_result_is_a_data_frame(store: Store, to_frame: str) -> None:
    """The rows and columns of the records; a time is a datetime in UTC."""
    for result in results(store):
        frame = getattr(result, to_frame)()
        records = result.records()
        assert list(frame.columns) == list(records[0])
        assert len(frame) == len(records)
        for name in records[0]:
            kept = [value for value in records_of(frame, name) if value is not None and value == value]
            expected = [record[name] for record in records if record[name] is not None]
            if name.rpartition(".")[2] in {"timestamp", "first_seen", "last_seen", "start", "request_time"}:
                assert [value.timestamp() * 1000 for value in kept] == expected
                assert all(value.utcoffset() == dt.timedelta() for value in kept)
            else:
                assert kept == expected


def records_of(frame: Any, name: str) -> list[Any]:
    column = frame[name]
    return [None if value is pd.NaT else value for value in column.to_list()]


def test_metadata_named_like_a_time_stays_text(store: Store) -> None:
    """Also a number that is mixed with text in a column of its own."""
    store.write([make_trace(1, metadata={"start": "5", "timestamp": "x"}), make_trace(2)])
    page = TraceClient(store).search_traces()
    for frame in (page.to_pandas(), page.to_polars()):
        assert [value for value in frame["metadata.start"].to_list() if isinstance(value, str)] == ["5"]


def test_no_results_are_an_empty_frame(store: Store) -> None:
    """With the columns of the table, where these are known."""
    empty: PagedList[Any] = PagedList([], None)
    for result in (empty, analysis.compare(store=store), analysis.sessions(store=store)):
        assert len(result.to_pandas()) == len(result.to_polars()) == 0
        assert list(result.to_pandas().columns) == list(result.to_polars().columns) == list(result._columns)


def test_no_results_are_an_empty_table(store: Store) -> None:
    """Neither records nor rows."""
    empty: PagedList[Any] = PagedList([], None)
    assert empty.records() == []
    assert empty._repr_html_() == "<table><caption>PagedList: 0 rows, 0 columns</caption><tr></tr></table>"
    assert analysis.compare(store=store).records() == []


def test_a_page_is_a_list_all_the_same(store: Store) -> None:
    """It compares with one, and its representation as text is that of a list."""
    page = PagedList([1, 2], "token")
    assert page == [1, 2]
    assert repr(page) == "[1, 2]"
