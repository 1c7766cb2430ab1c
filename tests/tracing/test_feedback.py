"""``log_feedback``: checked at once, stored with the traces."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from wherefrom import MemorySink, Settings, TraceMiddleware, current_trace, flush, log_feedback, stats
from wherefrom.client import TraceClient
from wherefrom.exceptions import InvalidTraceError, StoreUnavailableError, TraceNotFoundError
from wherefrom.model import Assessment, AssessmentKind, AssessmentSource, SourceType, Trace, new_assessment
from wherefrom.sinks import BackgroundSink
from wherefrom.stores import open_store

from ..conftest import MakeTrace


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": None}, "the value of feedback takes true or false, a number, text, .*, not None"),
        ({"value": float("nan")}, "the value of feedback takes .*, not nan"),
        ({"value": {"k": object()}}, "the value of feedback takes .*, not <object"),
        ({"value": {1: 2}}, "the value of feedback takes .*, not {1: 2}"),
        ({"value": 2**70}, "the value of feedback takes .*, not 1180591620717411303424"),
        ({"value": "x" * 200_000}, "a value takes at most 100,000 characters of JSON, not 200,002"),
        ({"name": ""}, "the name of feedback takes 1 to 250 characters, not ''"),
        ({"trace_id": 5}, "trace_id takes text, not 5"),
        ({"source": "ROBOT"}, "source takes HUMAN, LLM_JUDGE or CODE, or an AssessmentSource, not 'ROBOT'"),
        ({"comment": 7}, "a comment takes text, not 7"),
        ({"span_id": ""}, "span_id takes 1 to 250 characters, not ''"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTraceError, match=f"^{message}"):
        log_feedback(**{"trace_id": "tr-1", "name": "helpful", "value": True, **arguments})


class TheirSource:
    """As of MLflow: type and id are attributes."""

    source_type = "llm_judge"
    source_id = "gpt-5"


def test_who_it_is_from() -> None:
    """A type, an object of ours or of MLflow, or its JSON; without one it is a program."""
    sources = [
        "human",
        TheirSource(),
        {"source_type": "AI_JUDGE"},
        AssessmentSource(SourceType.HUMAN, "ada"),
        None,
    ]
    found = [new_assessment("tr-1", "n", 1, source=source).source for source in sources]
    assert [(str(one.source_type), one.source_id) for one in found] == [
        ("HUMAN", "default"),
        ("LLM_JUDGE", "gpt-5"),
        ("LLM_JUDGE", None),
        ("HUMAN", "ada"),
        ("CODE", "default"),
    ]
    assert new_assessment("tr-1", "n", 1, kind=AssessmentKind.EXPECTATION).source.source_type == "HUMAN"


async def test_feedback_in_a_request_is_not_lost(tmp_path: Path) -> None:
    """Before its trace has ended, and from an event loop: the queue of the traces takes it."""
    given: list[Assessment] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace = current_trace()
        assert trace is not None
        given.append(log_feedback(trace.info.trace_id, "helpful", True, comment="\ud800 é", source="HUMAN"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    settings = Settings(store=f"sqlite:///{tmp_path}/traces.db", enabled=True)
    middleware = TraceMiddleware(app, settings=settings)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(_message: Any) -> None: ...

    await middleware(scope, receive, send)
    assert await asyncio.to_thread(flush)
    with TraceClient(settings.store) as client:
        (trace,) = client.search_traces(filter_string="feedback.helpful = 'true'")
        assert trace.info.assessments == given
    assert given[0].rationale == "? é"


def test_a_sink_of_the_app_s_own_is_called_directly(make_trace: MakeTrace) -> None:
    """The sink for tests lists feedback; one that takes none costs nothing but a count."""
    sink = MemorySink()
    queue = BackgroundSink(sink)
    one = new_assessment("tr-1", "helpful", True)
    assert queue.put_assessment(one)
    queue.write([make_trace("a")])
    assert queue.flush()
    assert (sink.assessments, len(sink.traces)) == ([one], 1)
    assert queue.close()

    class TracesOnly:
        def write(self, traces: Any) -> None: ...

    assert not BackgroundSink(TracesOnly()).put_assessment(one)


def test_feedback_waits_for_a_store_out_of_reach(make_trace: MakeTrace) -> None:
    """As traces do; those that a server could not take among others are sent again alone."""
    tries: list[list[str]] = []

    class Shy(MemorySink):
        def write_assessments(self, assessments: Any) -> None:
            tries.append([one.name for one in assessments])
            if len(tries) == 1:
                raise StoreUnavailableError("not now", left=assessments[1:])
            super().write_assessments(assessments)

    sink = Shy()
    queue = BackgroundSink(sink, flush_interval_ms=1)
    before = stats().stored
    for name in ("a", "b"):
        queue.put_assessment(new_assessment("tr-1", name, 1))
    queue.write([make_trace("t")])
    assert queue.flush()
    assert tries == [["a", "b"], ["b"]]
    assert (len(sink.traces), stats().stored - before) == (1, 2)  # one by the sink, one by the queue
    assert queue.close()


def test_the_client_edits_feedback(tmp_path: Path, make_trace: MakeTrace) -> None:
    """What overrides makes the other invalid until it is removed; what cannot change is refused."""
    store = open_store(f"sqlite:///{tmp_path}/traces.db")
    client = TraceClient(store)
    trace: Trace = make_trace("a")
    trace_id = trace.info.trace_id
    first = client.log_feedback(trace_id.removeprefix("tr-"), "tone", "rude", source="HUMAN")
    store.write([trace])
    second = client.log_assessment(new_assessment(trace_id, "tone", "kind", overrides=first.assessment_id))
    assert [one.valid for one in client.get_trace(trace_id).info.assessments] == [False, True]
    changed = client.update_assessment(
        trace_id, second.assessment_id, value="warm", rationale="read again", metadata={"by": "ada"}
    )
    assert client.get_assessment(trace_id, second.assessment_id) == changed
    assert (changed.name, changed.value, changed.create_time_ms) == ("tone", "warm", second.create_time_ms)
    client.delete_assessment(trace_id, second.assessment_id)
    assert client.get_assessments([trace_id, "\ud800"]) == {trace_id: [first]}
    assert client.list_keys("feedback") == ["tone"]
    with pytest.raises(TraceNotFoundError, match="has no feedback 'a-1'"):
        client.log_assessment(new_assessment(trace_id, "tone", 1, overrides="a-1"))
    with pytest.raises(InvalidTraceError, match=r"^source of feedback cannot be changed"):
        client.update_assessment(trace_id, first.assessment_id, source="HUMAN")
    with pytest.raises(InvalidTraceError, match="the value of feedback takes"):
        client.update_assessment(trace_id, first.assessment_id, value=object())
    store.close()
