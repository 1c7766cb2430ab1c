"""What templates draw of what a page has found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wherefrom import keys
from wherefrom.analysis import deployments
from wherefrom.analysis.comparison import Report, make_report
from wherefrom.analysis.scope import find_window, opened
from wherefrom.model import Source
from wherefrom.stores import Store
from wherefrom.web.plots import deployed_axis, draw_latencies, draw_times, events, traces_of

from .samples import START, make_traces


def report(store: Store) -> Report:
    with opened(store) as (snapshot, selection):
        return make_report(snapshot, selection, find_window(snapshot, None, None), keys.APP_VERSION)


def to(path: str, **query: Any) -> str:
    return f"{path}?{query}"


def test_traces_that_went_while_the_page_was_made_are_not_drawn(store: Store) -> None:
    store.write(make_traces(40))
    found = report(store)
    assert draw_times(found, to) is not None
    assert draw_times(replace(found, timeline=replace(found.timeline, buckets=())), to) is None
    rows = [replace(row, histogram=()) for row in found.comparison.rows]
    assert draw_latencies(replace(found, comparison=replace(found.comparison, rows=tuple(rows))), to) is None


def test_versions_are_marked_once_with_how_often_they_were_deployed(store: Store) -> None:
    for place, region in enumerate(("eu", "us")):
        traces = make_traces(2, version="1.1.0")
        for trace in traces:
            number = int(trace.info.trace_id[3:], 16) + 10 * place
            trace.info.trace_id = trace.data.spans[0].trace_id = f"tr-{number:032x}"
            trace.info.request_time += 10_000 * place
            trace.info.source = Source({keys.APP_VERSION: "1.1.0", keys.REGION: region})
            trace.info.trace_metadata = dict(trace.info.source)
        store.write(traces)
    found = deployments(store=store).found
    (event,) = events(found)
    assert (event.at, event.name, event.href) == (START + 1000, "1.1.0 (2)", None)
    (linked,) = events(found, to)
    assert linked.href is not None
    assert "metadata.region = 'eu'" in linked.href
    axis = deployed_axis(found, 0, START * 2)
    assert (axis.low, axis.high) == (START + 1000, START + 12_000)


def test_a_condition_longer_than_any_name_is_no_link(store: Store) -> None:
    store.write(make_traces(1, version="1" * 2000))
    found = report(store)
    assert traces_of(found, to, found.comparison.rows[0]) is None
