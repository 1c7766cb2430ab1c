from __future__ import annotations

import pytest

from wherefrom.analysis import tail
from wherefrom.analysis.tail import News, Selection, news
from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError
from wherefrom.stores import Store

from .traffic import make_trace


def numbers(found: News) -> list[int]:
    return [int(trace.trace_id.removeprefix("tr-"), 16) for trace in found.traces]


def test_what_comes_after_a_mark_is_news(store: Store) -> None:
    """In the order in which it was stored, whatever its time; nothing comes twice."""
    store.write([make_trace(1), make_trace(2)])
    first = news(Selection(store))
    assert numbers(first) == []
    store.write([make_trace(4), make_trace(3)])
    second = news(Selection(store), first.mark)
    assert numbers(second) == [4, 3]
    third = news(Selection(store), second.mark)
    assert numbers(third) == []
    assert third.mark == second.mark


def test_the_first_trace_of_all_is_news(store: Store) -> None:
    """Also where the store was empty when the mark was made."""
    mark = news(Selection(store)).mark
    store.write([make_trace(1)])
    assert numbers(news(Selection(store), mark)) == [1]


def test_only_what_is_selected_is_news(store: Store) -> None:
    """What does not pass is not asked for again either."""
    selection = Selection(store, "status = 'ERROR'", "default")
    mark = news(selection).mark
    store.write([make_trace(1), make_trace(2, failed=True), make_trace(3, failed=True, experiment="other")])
    found = news(selection, mark)
    assert numbers(found) == [2]
    assert numbers(news(selection, found.mark)) == []


def test_many_at_once_come_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest comes with the next mark."""
    monkeypatch.setattr(tail, "_MOST_NEWS", 2)
    store.write([make_trace(0)])
    mark = news(Selection(store)).mark
    store.write([make_trace(number) for number in range(1, 6)])
    seen = []
    while (found := news(Selection(store), mark)).traces:
        seen += numbers(found)
        mark = found.mark
    assert seen == [1, 2, 3, 4, 5]


def test_after_a_deletion_what_ended_since_is_news(store: Store) -> None:
    """The trace that the mark was at is gone, and another may have its place."""
    store.write([make_trace(1), make_trace(2)])
    mark = news(Selection(store)).mark
    TraceClient(store).delete_traces("default", trace_ids=[make_trace(2).info.trace_id])
    store.write([make_trace(3), make_trace(4, at=tail._now_ms() + 5)])
    assert numbers(news(Selection(store), mark)) == [4]


@pytest.mark.parametrize("mark", ["", "x", "!", "W10=", "WzEsMiwzXQ==", "bnVsbA=="])
def test_a_mark_of_others_is_refused(store: Store, mark: str) -> None:
    """Whatever stands in the address."""
    with pytest.raises(FilterError, match="mark"):
        news(Selection(store), mark)
