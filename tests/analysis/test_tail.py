from __future__ import annotations

import pytest

from tests.engines import every_engine
from wherefrom.analysis import tail
from wherefrom.analysis.scope import opened
from wherefrom.analysis.tail import Changes, read_changes
from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError
from wherefrom.stores import Store

from .traffic import make_trace


def changes(
    cursor: str | None = None,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store,
) -> Changes:
    with opened(store, filter_string, experiment) as (snapshot, selection):
        return read_changes(snapshot, selection, cursor)


def numbers(found: Changes) -> list[int]:
    return [int(trace.trace_id.removeprefix("tr-"), 16) for trace in found.traces]


@every_engine
def test_what_comes_after_a_cursor_is_a_change(store: Store) -> None:
    """Changes are in the order of storing, whatever their start times, and are returned once."""
    store.write([make_trace(1), make_trace(2)])
    first = changes(store=store)
    assert numbers(first) == []
    store.write([make_trace(4), make_trace(3)])
    second = changes(first.cursor, store=store)
    assert numbers(second) == [4, 3]
    third = changes(second.cursor, store=store)
    assert numbers(third) == []
    assert third.cursor == second.cursor


def test_the_first_trace_of_all_is_a_change(store: Store) -> None:
    """Also where the store was empty when the cursor was made."""
    cursor = changes(store=store).cursor
    store.write([make_trace(1)])
    assert numbers(changes(cursor, store=store)) == [1]


def test_only_what_is_selected_is_a_change(store: Store) -> None:
    """Traces that do not match are skipped, and not read again."""
    cursor = changes(store=store).cursor
    store.write([make_trace(1), make_trace(2, failed=True), make_trace(3, failed=True, experiment="other")])
    found = changes(cursor, "status = 'ERROR'", experiment="default", store=store)
    assert numbers(found) == [2]
    assert numbers(changes(found.cursor, "status = 'ERROR'", experiment="default", store=store)) == []


@every_engine
def test_many_at_once_come_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest comes with the next cursor."""
    monkeypatch.setattr(tail, "_MOST_CHANGES", 2)
    store.write([make_trace(0)])
    cursor = changes(store=store).cursor
    store.write([make_trace(number) for number in range(1, 6)])
    seen = []
    while (found := changes(cursor, store=store)).traces:
        seen += numbers(found)
        cursor = found.cursor
    assert seen == [1, 2, 3, 4, 5]


@every_engine
def test_after_a_deletion_what_was_stored_since_is_a_change(store: Store) -> None:
    """The trace that the cursor was at is gone, and no other has its id."""
    store.write([make_trace(1), make_trace(2)])
    cursor = changes(store=store).cursor
    TraceClient(store).delete_traces("default", trace_ids=[make_trace(2).info.trace_id])
    store.write([make_trace(3), make_trace(4)])
    assert numbers(changes(cursor, store=store)) == [3, 4]


def test_a_cursor_of_others_is_refused(store: Store) -> None:
    """An address may contain any text."""
    for cursor in (
        "",
        "x",
        "1",
        "1.",
        ".1",
        "-1.1",
        "1.1.1",
        "1.1\n",
        "9" * 11 + ".1",
        "1." + "9" * 19,
        "\u0661.1",
    ):
        with pytest.raises(FilterError, match="cursor"):
            changes(cursor, store=store)
