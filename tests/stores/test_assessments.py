"""Feedback in every store: written before or after its trace, read, found and deleted with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from wherefrom import keys
from wherefrom.analysis import compare
from wherefrom.client import TraceClient
from wherefrom.exceptions import TraceNotFoundError
from wherefrom.model import Assessment, AssessmentError, AssessmentKind, Trace, new_assessment
from wherefrom.query.fields import FEEDBACK, with_key
from wherefrom.stores import Store


def feedback(number: int, name: str, value: Any, **parts: Any) -> Assessment:
    made = {"create_time_ms": START + number, "assessment_id": f"a-{name}-{number}", **parts}
    return new_assessment(make_trace(number).info.trace_id, name, value, **made)


def numbers(client: TraceClient, text: str) -> list[int]:
    found = client.search_traces(None, text, 100, ["timestamp_ms ASC"], include_spans=False)
    return [int(trace.info.trace_id.removeprefix("tr-"), 16) for trace in found]


def test_feedback_is_read_with_its_trace(store: Store) -> None:
    """Every part as it was, whether it came before its trace, in it, or after; with hostile text too."""
    client = TraceClient(store)
    early = feedback(1, "early", True, source="HUMAN")
    store.write_assessments([early])
    carried = make_trace(2)
    carried.info.assessments = [
        feedback(2, "a'b\0 <b>🙂", {"k": [1, -2.5, None, "\0"]}, rationale="no \0\n'ok'", span_id="0" * 16),
        feedback(3, "answer", "Paris", kind=AssessmentKind.EXPECTATION, metadata={"by": "ada"}),
    ]
    carried.info.assessments = [
        replace(one, trace_id=carried.info.trace_id) for one in carried.info.assessments
    ]
    store.write([make_trace(1), carried, make_trace(3)])
    failed = feedback(
        3, "judge", None, error=AssessmentError("RATE", "slow down", None), overrides="a-9", valid=False
    )
    store.write_assessments([failed])
    assert [trace.info.assessments for trace in read(client, 1, 2, 3)] == [
        [early],
        carried.info.assessments,
        [failed],
    ]
    assert Trace.from_dict(carried.to_dict()).info == carried.info
    with store.snapshot() as snapshot:
        assert snapshot.assessments(["tr-none", early.trace_id]) == {early.trace_id: [early]}
        assert snapshot.keys("feedback") == ["early", "judge"]
        assert snapshot.keys("expectation") == ["answer"]
        assert {"feedback.early", "expectation.answer"} <= set(snapshot.spelled_keys())
        assert snapshot.values(with_key(FEEDBACK, "early"), 10) == ["true"]


def read(client: TraceClient, *wanted: int) -> list[Trace]:
    return client.get_traces([make_trace(number).info.trace_id for number in wanted])


def test_feedback_is_replaced_and_removed(store: Store) -> None:
    """By its id; what is not there cannot be removed."""
    client = TraceClient(store)
    store.write([make_trace(1)])
    first = feedback(1, "tone", "rude")
    store.write_assessments([first])
    better = replace(first, value="kind", name="manner", last_update_time_ms=START + 5)
    store.write_assessments([better])
    assert read(client, 1)[0].info.assessments == [better]
    assert (numbers(client, "feedback.tone = 'rude'"), numbers(client, "feedback.manner = 'kind'")) == (
        [],
        [1],
    )
    store.delete_assessment(first.trace_id, first.assessment_id)
    assert read(client, 1)[0].info.assessments == []
    for trace_id in (first.trace_id, "tr-none"):
        with pytest.raises(TraceNotFoundError, match="has no feedback 'a-tone-1'"):
            store.delete_assessment(trace_id, first.assessment_id)


def test_filters_find_feedback(store: Store) -> None:
    """Beside other conditions, by its text and by its number; what is overridden is not found."""
    client = TraceClient(store)
    store.write([make_trace(number, version=f"{number % 2}.0") for number in range(12)])
    store.write_assessments(
        [
            *(feedback(number, "helpful", number % 3 == 0, source="HUMAN") for number in range(6)),
            *(feedback(number, "score", number / 10) for number in range(6)),
            feedback(6, "tone", 'good "enough" é'),
            feedback(7, "tone", None),
            feedback(8, "tone", "bad", valid=False),
            feedback(9, "tone", "bad", metadata={keys.SESSION: "s"}),
            feedback(99, "helpful", True),
        ]
    )
    cases: dict[str, list[int]] = {
        "feedback.helpful = 'true'": [0, 3],
        "feedback.helpful != 'true'": [1, 2, 4, 5],
        "feedback.helpful IS NULL": [6, 7, 8, 9, 10, 11],
        "feedback.helpful IS NOT NULL AND metadata.app_version = '1.0'": [1, 3, 5],
        "NOT feedback.helpful = 'true' AND feedback.score >= 0.2": [2, 4, 5],
        "feedback.score > 0.1 AND feedback.score <= 0.3": [2, 3],
        "feedback.score > 0.4 OR feedback.tone ILIKE '%GOOD%'": [5, 6],
        "feedback.helpful > 0": [],
        "feedback.tone = 'good \"enough\" é'": [6],
        "feedback.tone = 'null'": [7],
        "feedback.tone RLIKE 'bad'": [9],
        "feedback.tone NOT LIKE '%bad%'": [6, 7],
        "feedback.nobody = 'x'": [],
        "feedback.nobody IS NULL AND feedback.score < 0.1": [0],
        "expectation.helpful = 'true'": [],
    }
    assert {text: numbers(client, text) for text in cases} == cases
    rows = compare(by="feedback.helpful", store=store).rows
    assert {row.value: row.traces for row in rows} == {"true": 2, "false": 4}


def test_feedback_on_a_session_covers_its_traces(store: Store) -> None:
    """Those without a session are not covered."""
    client = TraceClient(store)
    in_session = {keys.SESSION: "s"}
    store.write([make_trace(number, metadata=in_session if number < 3 else {}) for number in range(5)])
    store.write_assessments([feedback(1, "solved", True, metadata=in_session), feedback(4, "solved", False)])
    assert numbers(client, "feedback.solved = 'true'") == [0, 1, 2]
    assert numbers(client, "feedback.solved IS NOT NULL") == [0, 1, 2, 4]
    assert numbers(client, "feedback.solved IS NULL") == [3]
    assert numbers(client, "NOT feedback.solved = 'true'") == [3, 4]


def test_feedback_is_deleted_with_its_trace(store: Store) -> None:
    """By id and by age; feedback whose trace never came goes by its own age."""
    client = TraceClient(store)
    store.write([make_trace(number) for number in range(4)])
    given = [feedback(number, "helpful", True) for number in range(4)]
    stray = [feedback(50, "helpful", True, create_time_ms=time) for time in (START, START + 10_000)]
    stray[1] = replace(stray[1], assessment_id="a-later")
    store.write_assessments([*given, *stray])
    client.delete_traces("default", trace_ids=[given[2].trace_id])
    store.prune(START + 1)
    with store.snapshot() as snapshot:
        left = snapshot.assessments([one.trace_id for one in (*given, *stray)])
    assert [one for found in left.values() for one in found] == [given[1], given[3], stray[1]]
