"""What every store answers through a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from wherefrom import keys
from wherefrom.exceptions import TraceNotFoundError
from wherefrom.model import Span, SpanEvent, SpanStatus, SpanStatusCode, Trace
from wherefrom.query.fields import METADATA, TAG, Operator, find_field, with_key
from wherefrom.query.order import NEWEST_FIRST
from wherefrom.query.tree import Compare
from wherefrom.stores import Selection, Snapshot, Store
from wherefrom.stores.base import TraceKey


def test_neighbours_are_found_behind_many_of_another_experiment(store: Store) -> None:
    ends = [make_trace(number, experiment="rare") for number in (0, 150)]
    store.write([*ends, *(make_trace(number, experiment="often") for number in range(1, 150))])
    with store.snapshot() as snapshot:
        assert snapshot.neighbours(ends[0].info) == (None, ends[1].info.trace_id)
        assert snapshot.neighbours(ends[1].info) == (ends[0].info.trace_id, None)


def test_neighbours_lead_through_all_traces_in_order(store: Store) -> None:
    """Those of one millisecond too; others' experiments are not on the way."""
    made = [make_trace(number, at=START + number // 3) for number in range(10)]
    store.write([*made, make_trace(11, at=START + 1, experiment="other")])
    by_id = {trace.info.trace_id: trace for trace in made}
    path = [made[9]]
    with store.snapshot() as snapshot:
        while (older := snapshot.neighbours(path[-1].info)[0]) is not None:
            assert snapshot.neighbours(by_id[older].info)[1] == path[-1].info.trace_id
            path.append(by_id[older])
        newest_first = sorted(made, key=lambda trace: (-trace.info.request_time, trace.info.trace_id))
        assert path == newest_first
        assert snapshot.neighbours(made[9].info)[1] is None


def numbers(snapshot: Snapshot, found: Sequence[TraceKey]) -> list[int]:
    """The traces' numbers, read from their rows."""
    return [int(row.trace_id.removeprefix("tr-"), 16) for row in snapshot.rows(found)]


def test_a_snapshot_sees_one_moment(store: Store) -> None:
    """What is written meanwhile is in none of its answers, and the writer does not wait."""
    store.write([make_trace(1, metadata={"k": "v"})])
    with store.snapshot() as snapshot:
        before = snapshot.cursor()
        store.write([make_trace(2, metadata={"later": "v"}, experiment="other")])
        assert snapshot.count(Selection()) == 1
        assert snapshot.keys("metadata") == ["k"]
        assert not snapshot.has_key("metadata", "later")
        assert [name for _, name in snapshot.experiments()] == ["default"]
        assert snapshot.cursor() == before
        assert snapshot.find([make_trace(2).info.trace_id]) == []


def test_pages_follow_one_another(store: Store) -> None:
    """``after`` is where a page ended; the last page has none."""
    store.write([make_trace(number, experiment=f"e{number % 2}") for number in range(10)])
    selection = Selection(experiments=("e1",))
    with store.snapshot() as snapshot:
        first = snapshot.search(selection, NEWEST_FIRST, 3)
        assert numbers(snapshot, first.keys) == [9, 7, 5]
        second = snapshot.search(selection, NEWEST_FIRST, 3, first.after)
        assert numbers(snapshot, second.keys) == [3, 1]
        assert second.after is None
        assert snapshot.search(Selection(experiments=("none",)), NEWEST_FIRST, 3).keys == []


def test_traces_are_found_by_id_in_the_order_asked_for(store: Store) -> None:
    """Each once; ids that are not stored, or could not be, are left out."""
    made = [make_trace(number) for number in range(3)]
    store.write(made)
    ids = [made[number].info.trace_id for number in (2, 0, 2)]
    with store.snapshot() as snapshot:
        found = snapshot.find([*ids, "tr-none", "\x00", "\U0010fffd"])
        assert numbers(snapshot, found) == [2, 0]
        assert [trace.info.trace_id for trace in snapshot.read(found)] == ids[:2]
        assert snapshot.read(found, include_spans=False)[0].data.spans == []


def test_spans_are_read_in_outline_and_by_id(store: Store) -> None:
    """The outline has no contents; the ids may be of any number, unknown, hostile or of another trace."""
    trace = make_trace(1)
    trace.data.spans = [make_span(trace, number) for number in range(1_200)]
    other = make_trace(2)
    store.write([trace, other])
    ids = [span.span_id for span in trace.data.spans]
    with store.snapshot() as snapshot:
        key, bare = snapshot.find([trace.info.trace_id, other.info.trace_id])
        outline = snapshot.outline(key)
        empty: dict[str, Any] = {"inputs": None, "outputs": None, "attributes": {}, "events": [], "links": []}
        assert outline == [replace(span, **empty) for span in trace.data.spans]
        assert len(snapshot.outline(bare)) == 1
        asked = [*ids[::-1], other.data.spans[0].span_id, "no such id", "' OR 1 --", "\x00"]
        assert snapshot.spans(key, asked) == trace.data.spans
        (last,) = snapshot.spans(key, ids[-1:], include_values=False)
        assert last == replace(trace.data.spans[-1], inputs=None, outputs=None)
        assert snapshot.spans(key, []) == []


def make_span(trace: Trace, number: int) -> Span:
    """A span with contents, which starts after the one before."""
    begun = START * 1_000_000 + number
    event = SpanEvent("exception", begun, {"exception.type": "ValueError"})
    return Span(
        trace.info.trace_id,
        f"{number + 1:016x}",
        f"{number:016x}" if number else None,
        f"span {number}",
        "TOOL",
        begun,
        begun + 5,
        SpanStatus(SpanStatusCode.ERROR, "broken") if number % 2 else SpanStatus(SpanStatusCode.OK),
        {"question": number},
        [number],
        {"service.name": "chat", "k": number},
        [event],
        [{"trace_id": trace.info.trace_id, "span_id": "0" * 16, "attributes": {}}],
    )


def test_a_row_is_a_trace_without_its_spans(store: Store) -> None:
    """Metadata of the source and of the trace together; the duration in ms is as fine as the span's."""
    trace = make_trace(1, version="1.0", ms=1.5, metadata={"k": "v"}, tags={"team": "core"})
    trace.data.spans[0].attributes["wherefrom.outcome"] = "completed"
    store.write([trace, make_trace(2, ms=None)])
    with store.snapshot() as snapshot:
        first, second = snapshot.rows(snapshot.find([make_trace(n).info.trace_id for n in (1, 2)]))
    assert (first.name, first.outcome, first.duration_ms) == ("GET /", "completed", 1.5)
    assert (first.metadata, first.tags) == ({keys.APP_VERSION: "1.0", "k": "v"}, {"team": "core"})
    assert (second.outcome, second.duration_ms) == (None, None)


def test_values_of_some_traces_are_counted(store: Store) -> None:
    """Of metadata, whoever has it, of tags and of columns; a trace without a value is not counted."""
    store.write(
        [
            make_trace(1, version="1", metadata={"k": "a"}, tags={"t": "x"}),
            make_trace(2, version="1", metadata={"k": "b"}),
            make_trace(3, metadata={"k": "b"}, failed=True),
        ]
    )
    fields = [
        with_key(METADATA, "k"), with_key(METADATA, keys.APP_VERSION), with_key(TAG, "t"),
        find_field(None, "status"), find_field(None, "user"),
    ]  # fmt: skip
    with store.snapshot() as snapshot:
        every = snapshot.search(Selection(), NEWEST_FIRST, 10).keys
        assert snapshot.count_values(every, fields) == [
            {"a": 1, "b": 2}, {"1": 2}, {"x": 1}, {"OK": 2, "ERROR": 1}, {},
        ]  # fmt: skip
        assert snapshot.count_values([], fields[:1]) == [{}]
        assert snapshot.values(fields[0], 10) == ["b", "a"]
        assert snapshot.values(fields[0], 1) == ["b"]


def test_the_first_failed_span_explains_an_error(store: Store) -> None:
    """A span that failed without a message does not."""
    trace = make_trace(1, failed=True)
    for number, message in enumerate(("", "first", "second"), start=2):
        span = make_trace(1).data.spans[0]
        span.span_id, span.status = f"{number:016x}", SpanStatus(SpanStatusCode.ERROR, message)
        span.start_time_ns += number
        trace.data.spans.append(span)
    store.write([trace, make_trace(2)])
    with store.snapshot() as snapshot:
        every = snapshot.search(Selection(), NEWEST_FIRST, 10).keys
        assert snapshot.errors(every) == {trace.info.trace_id: "first"}


def test_changes_end_where_they_should(store: Store) -> None:
    """From one cursor until another, some at a time, of the selection alone."""
    store.write([make_trace(1)])
    with store.snapshot() as snapshot:
        begin = snapshot.cursor()
    store.write([make_trace(number, failed=number % 2 == 1) for number in range(2, 8)])
    with store.snapshot() as snapshot:
        end = snapshot.cursor()
    store.write([make_trace(9, failed=True)])
    failed = Selection(Compare(find_field(None, "status"), Operator.EQ, "ERROR"))
    with store.snapshot() as snapshot:
        first = snapshot.changes(begin, failed, 2, until=end)
        assert numbers(snapshot, first.keys) == [3, 5]
        assert first.done < 1
        second = snapshot.changes(first.cursor, failed, 2, until=end)
        assert (numbers(snapshot, second.keys), second.cursor, second.done) == ([7], end, 1)
        assert numbers(snapshot, snapshot.changes(end, failed, 2).keys) == [9]
        assert numbers(snapshot, snapshot.changes(None, Selection(), 2).keys) == [1, 2]


def test_tags_are_edited(store: Store) -> None:
    """New keys are known at once; a missing tag or trace cannot be edited."""
    store.write([make_trace(1)])
    trace_id = make_trace(1).info.trace_id
    store.set_tag(trace_id, "team", "core")
    store.set_tag(trace_id, keys.TRACE_NAME_TAG, "renamed")
    with store.snapshot() as snapshot:
        (row,) = snapshot.rows(snapshot.find([trace_id]))
        assert (row.name, row.tags) == ("renamed", {"team": "core"})
        assert "team" in snapshot.keys("tag")
    store.delete_tag(trace_id, "team")
    for missing in (trace_id, "tr-none"):
        with pytest.raises(TraceNotFoundError):
            store.delete_tag(missing, "team")
    with pytest.raises(TraceNotFoundError):
        store.set_tag("tr-none", "team", "core")


def test_traces_of_an_experiment_are_deleted(store: Store) -> None:
    """By id or up to a time, the oldest first; those of other experiments stay."""
    made = [make_trace(number, experiment=f"e{number % 2}") for number in range(8)]
    store.write(made)
    assert store.delete("e0", trace_ids=[trace.info.trace_id for trace in made[:3]]) == 2
    assert store.delete("e1", until_ms=START + 5000, limit=2) == 2
    assert store.delete("none", until_ms=START + 5000) == 0
    with store.snapshot() as snapshot:
        assert numbers(snapshot, snapshot.search(Selection(), NEWEST_FIRST, 10).keys) == [7, 6, 5, 4]
