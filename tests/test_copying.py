"""A copy holds what its original holds, whatever the stores, and says where it does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engines import NewUrl
from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceInfo, TraceState, keys
from wherefrom.analysis import tail
from wherefrom.client import TraceClient
from wherefrom.copying import Copy, copy_traces
from wherefrom.exceptions import StoreError
from wherefrom.model import Source, SpanStatusCode, TraceData, new_assessment
from wherefrom.stores import Store, open_store
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]

HOSTILE = "\x00NUL\ud800 \u202e<b>'\"\\\n{}[]%_\U0001f600"


def copied(source: Store, target: Store) -> Copy:
    """The state at the end of a copy."""
    (*_, last) = copy_traces(source, target)
    return last


def varied() -> list[Trace]:
    """Traces that differ from one another in all that a trace can hold."""
    own = Source({keys.APP_VERSION: "1.0", "pod": HOSTILE.replace("\ud800", "")})
    metadata = {**own, keys.SESSION: "s", keys.USER: HOSTILE, HOSTILE: "v", "long": "x" * 5_000}
    full = TraceInfo(
        "tr-full",
        HOSTILE,
        1_700_000_000_123,
        12,
        TraceState.ERROR,
        HOSTILE,
        HOSTILE,
        "",
        metadata,
        {keys.TRACE_NAME_TAG: "POST /chat", HOSTILE: HOSTILE},
        own,
    )
    values: list[Any] = [None, True, 1, -1.5, 1e16, -0.0, 2**62, "", HOSTILE, {"b": [1], "a": {}}]
    spans = [
        Span(
            "tr-full",
            f"{number:016x}",
            None if number == 1 else f"{1:016x}",
            HOSTILE,
            "TOOL",
            1_700_000_000_123_456_789 + (number == 3),
            None if number == 2 else 1_700_000_000_135_999_999,
            SpanStatus(SpanStatusCode.ERROR, HOSTILE),
            values,
            {"z": values, "a": HOSTILE},
            {"key": values, HOSTILE: 1e16},
            [SpanEvent("exception", 1_700_000_000_125_000_000, {"message": HOSTILE})],
            [{"trace_id": "tr-other", "span_id": "1" * 16, "attributes": {"n": 1}}],
        )
        for number in (3, 2, 1)
    ]
    full.assessments = [
        new_assessment("tr-full", HOSTILE, values, rationale=HOSTILE),
        new_assessment("tr-full", "helpful", True, source="HUMAN", span_id=spans[0].span_id),
    ]
    empty = TraceInfo("tr-empty", "other", 0, None, TraceState.IN_PROGRESS)
    foreign = TraceInfo("tr-foreign", request_time=2**40, execution_duration=0, trace_metadata={"k": "v"})
    return [Trace(full, TraceData(spans)), Trace(empty), Trace(foreign)]


def test_a_copy_there_and_back_is_the_same(new_url: NewUrl, tmp_path: Path, make_trace: MakeTrace) -> None:
    """Experiments, sources, metadata, edited tags, spans and late ones; a second copy writes nothing."""
    first = open_store(f"sqlite:///{tmp_path}/first.db")
    there = open_store(url := new_url())
    back = open_store(f"sqlite:///{tmp_path}/back.db")
    late = make_trace(trace_id="tr-late")
    first.write([*varied(), late, *(make_trace(experiment=f"e{number % 3}") for number in range(150))])
    late.data.spans[0].span_id = "f" * 16
    first.write([late])
    first.set_tag("tr-empty", "reviewed", "yes")
    for source, target in ((first, there), (there, back)):
        state = copied(source, target)
        assert state.differences == []
        assert (state.written, state.source, state.done) == (154, state.target, 1.0)
        state = copied(source, target)
        assert (state.written, state.differing, state.target.traces) == (0, 0, 154)
    ids = ["tr-full", "tr-empty", "tr-foreign", "tr-late"]
    originals, copies = (TraceClient(store).get_traces(ids) for store in (first, back))
    assert originals == copies
    assert [trace.info.source for trace in originals] == [trace.info.source for trace in copies]
    assert len(copies[3].data.spans) == 2
    with first.snapshot() as one, back.snapshot() as other:
        assert {name for _, name in one.experiments()} == {name for _, name in other.experiments()}
        assert one.state().sources == other.state().sources
    for store in (first, there, back):
        store.close()
    new_url.release(url)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[SQLiteStore, SQLiteStore]:
    return SQLiteStore(tmp_path / "source.db"), SQLiteStore(tmp_path / "target.db")


def test_what_was_added_meanwhile_is_copied_the_next_time(
    pair: tuple[SQLiteStore, SQLiteStore], make_trace: MakeTrace
) -> None:
    """New traces, and late spans and feedback of old ones; what the target has besides stays."""
    source, target = pair
    target.write([make_trace(trace_id="tr-own")])
    traces = [make_trace(trace_id=f"tr-{number}") for number in range(3)]
    source.write(traces)
    assert copied(source, target).written == 3
    traces[1].data.spans[0].span_id = "f" * 16
    source.write([traces[1], make_trace(trace_id="tr-new")])
    state = copied(source, target)
    assert (state.written, state.differing, state.source.traces) == (2, 0, 4)
    assert len(TraceClient(target).get_trace("tr-1").data.spans) == 2
    assert len(TraceClient(target).search_traces()) == 5
    source.write_assessments([feedback := new_assessment("tr-0", "helpful", True)])
    state = copied(source, target)
    assert (state.written, state.differing) == (1, 0)
    assert TraceClient(target).get_trace("tr-0").info.assessments == [feedback]


def test_what_differs_is_named(pair: tuple[SQLiteStore, SQLiteStore], make_trace: MakeTrace) -> None:
    """A tag that was edited in the target stays, and a trace that the target refuses is missing."""
    source, target = pair
    traces = [make_trace(trace_id=f"tr-{number}", tags={"team": "a"}) for number in range(40)]
    source.write(traces)
    traces[3].info.tags["team"] = "b"
    target.write([traces[3]])
    target._connection().execute(
        "CREATE TRIGGER full BEFORE INSERT ON traces WHEN NEW.trace_id IN ('tr-5', 'tr-6')"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    state = copied(source, target)
    reasons = {each.trace_id: each.reason for each in state.differences}
    assert reasons.keys() == {"tr-3", "tr-5", "tr-6"}
    assert reasons["tr-3"] == "the target has other values of: tags"
    assert "no room" in reasons["tr-5"]
    assert (state.written, state.refused, state.differing) == (38, 2, 3)
    assert (state.source.traces, state.target.traces) == (40, 38)
    assert state.source.digest != state.target.digest


def test_only_the_first_differences_are_kept(
    pair: tuple[SQLiteStore, SQLiteStore], make_trace: MakeTrace
) -> None:
    """All are counted; a million of them would not fit into memory."""
    source, target = pair
    for store, team in ((source, "a"), (target, "b")):
        store.write([make_trace(trace_id=f"tr-{number}", tags={"team": team}) for number in range(30)])
    state = copied(source, target)
    assert (state.differing, len(state.differences)) == (30, 20)


def test_the_digest_is_that_of_the_content_in_any_order(
    pair: tuple[SQLiteStore, SQLiteStore], tmp_path: Path, make_trace: MakeTrace
) -> None:
    source, target = pair
    traces = [make_trace(trace_id=f"tr-{number}") for number in range(3)]
    source.write(traces)
    with closing(SQLiteStore(tmp_path / "third.db")) as third:
        third.write(traces[::-1])
        digests = {copied(store, target).source.digest for store in (source, third)}
        assert len(digests) == 1
        third.set_tag("tr-1", "k", "v")
        assert copied(third, target).source.digest not in digests


def test_a_store_is_not_copied_to_itself(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Not by another name either; a source that does not exist makes no target."""
    store = SQLiteStore(tmp_path / "a.db")
    store.write([make_trace()])
    (tmp_path / "link.db").symlink_to("a.db")
    for name in ("a.db", "link.db"):
        with pytest.raises(StoreError, match="was given twice"):
            next(copy_traces(store, SQLiteStore(tmp_path / name)))
    with pytest.raises(StoreError, match=r"no\.db does not exist"):
        next(copy_traces(SQLiteStore(tmp_path / "no.db"), SQLiteStore(tmp_path / "target.db")))
    assert not (tmp_path / "target.db").exists()


def test_batches_fit_into_memory(
    pair: tuple[SQLiteStore, SQLiteStore], make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After large traces few are read at once, after small ones more."""
    source, _ = pair
    monkeypatch.setattr(tail, "_FIRST_BATCH", 4)
    monkeypatch.setattr(tail, "_BATCH_BYTES", 100_000)
    large = [make_trace(request_preview="x" * 30_000) for _ in range(20)]
    source.write([*large, *(make_trace() for _ in range(60))])
    sizes = [len(step.traces) for step in tail.in_steps(source)]
    assert sizes[:7] == [4, 3, 3, 3, 3, 3, 3]
    assert sum(sizes) == 80
    assert max(sizes) > 10
