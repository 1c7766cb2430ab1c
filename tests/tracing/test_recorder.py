"""Live traces and spans, without a request around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink, Settings, SpanStatus, Trace
from wherefrom.exceptions import InvalidTraceError
from wherefrom.model import Source, SpanStatusCode
from wherefrom.tracing.live import LiveTrace
from wherefrom.tracing.recorder import Recorder


def recorder(sink: Any, **settings: Any) -> Recorder:
    clock = settings.pop("clock", None)
    options = {"clock": clock} if clock else {}
    return Recorder(Settings(store="none", **settings), Source({"app_version": "1"}), sink, **options)


@pytest.fixture
def live(sink: MemorySink) -> LiveTrace:
    return recorder(sink).start("root")


class TestSpan:
    def test_what_is_set_is_what_it_was_then(self, live: LiveTrace) -> None:
        """Inputs, outputs and attributes are kept as they were; later changes do not show."""
        value = {"a": [1]}
        live.root.set_inputs(value)
        live.root.set_outputs(value)
        live.root.set_attributes({"x": value, "y": 2})
        value["a"].append(2)
        assert live.root.inputs == live.root.outputs == live.root.attributes["x"] == {"a": [1]}
        assert live.root.attributes["y"] == 2

    def test_anything_can_be_set(self, live: LiveTrace) -> None:
        """What JSON cannot hold is kept as its ``repr``, and odd names as text."""
        live.root.set_inputs(object())
        live.root.set_attribute("\ud800", {1: {2}})
        live.root.set_span_type("\ud800")
        assert live.root.inputs.startswith("<object object")
        assert live.root.attributes == {"?": {"1": [2]}}
        assert live.root.span_type == "?"

    @pytest.mark.parametrize(
        "status", ["ERROR", SpanStatusCode.ERROR, SpanStatus(SpanStatusCode.ERROR, "why")]
    )
    def test_its_status_can_be_said(self, live: LiveTrace, sink: MemorySink, status: Any) -> None:
        """As a name, a code or a whole status; it stays when the span ends, and is the trace's."""
        live.root.set_status(status, "why")
        live.recorder.finish(live)
        assert live.root.status == SpanStatus(SpanStatusCode.ERROR, "why")
        assert live.info.state == "ERROR"

    def test_no_other_status_can_be_said(self, live: LiveTrace) -> None:
        """A status of no known name is refused by name."""
        with pytest.raises(InvalidTraceError, match="not 'FINE'"):
            live.root.set_status("FINE")

    def test_it_ends_once(self, live: LiveTrace) -> None:
        """The first end counts; without a status it is OK."""
        span = live.start_span("a")
        span.end(live.root.start_time_ns + 5)
        span.end()
        assert span.end_time_ns == live.root.start_time_ns + 5
        assert span.status.code == "OK"

    def test_events_have_their_moment(self, live: LiveTrace) -> None:
        """An event holds its name, attributes and time; also after the trace is over."""
        live.root.add_event("a", {"k": {1}})
        live.recorder.finish(live)
        live.root.add_event("b")
        first, second = live.root.events
        assert (first.name, first.attributes, second.name) == ("a", {"k": [1]}, "b")
        assert live.root.start_time_ns <= first.timestamp <= second.timestamp

    def test_an_exception_is_an_event_and_a_status(self, live: LiveTrace) -> None:
        """``record_exception`` is OpenTelemetry's; ``add_exception`` leaves the status alone."""
        live.root.add_exception(KeyError("k"))
        assert live.root.status.code == "UNSET"
        live.root.record_exception(InvalidTraceError("x" * 2000))
        event = live.root.events[1]
        assert event.attributes["exception.type"] == "wherefrom.exceptions.InvalidTraceError"
        assert live.root.status.description.startswith("InvalidTraceError: xxx")
        assert len(live.root.status.description) == 1000

    def test_a_long_stack_keeps_both_ends(self, live: LiveTrace) -> None:
        """Of a deep recursion: where it began, and where the error is."""

        def deep(n: int, left: int) -> int:
            return deep(n + 1, left - 1) if left else n // 0

        def deeper(n: int, left: int) -> int:  # two in turn, so that the printout cannot fold them
            return deep(n, 1) if not left else other(n + 1, left - 1)

        def other(n: int, left: int) -> int:
            return deeper(n + 1, left - 1) if left else deep(n, 1)

        try:
            deeper(0, 300)
        except ZeroDivisionError as error:
            live.root.add_exception(error)
        stack = live.root.events[0].attributes["exception.stacktrace"]
        assert len(stack) < 20_100
        assert ", in test_a_long_stack_keeps_both_ends\n" in stack
        assert " frames left out\n" in stack
        assert stack.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")


class TestTrace:
    def test_it_has_the_process_s_metadata(self, live: LiveTrace, sink: MemorySink) -> None:
        """A trace starts from its source and shares it."""
        assert live.info.trace_metadata == {"app_version": "1"}
        assert live.info.source == Source({"app_version": "1"})
        live.recorder.finish(live)
        assert sink.traces == [live]
        assert sink.traces[0].info.source is live.info.source

    def test_time_does_not_step_back(self, sink: MemorySink) -> None:
        """A wall clock that is set back during a request does not give negative durations."""
        moments = iter([2_000_000_000, 1_000_000_000])
        live = recorder(sink, clock=lambda: next(moments)).start("x")
        assert live.info.request_time == 2000
        span = live.start_span("a")
        span.end()
        live.recorder.finish(live)
        assert live.root.start_time_ns == 2_000_000_000
        assert span.start_time_ns >= 2_000_000_000
        assert live.root.end_time_ns is not None
        assert span.end_time_ns is not None
        assert live.root.end_time_ns >= span.end_time_ns >= span.start_time_ns

    def test_a_parent_of_another_trace_is_not_taken(self, live: LiveTrace, sink: MemorySink) -> None:
        """A span whose parent is of another trace hangs below the root."""
        stranger = recorder(sink).start("other").root
        assert live.start_span("a", parent=stranger).parent_id == live.root.span_id
        child = live.start_span("b")
        assert live.start_span("c", parent=child).parent_id == child.span_id

    def test_previews_and_metadata_are_the_root_s(self, live: LiveTrace) -> None:
        """MLflow's keys hold the root's inputs and outputs as JSON; previews are cut to 1,000 characters."""
        live.root.set_inputs({"q": "é"})
        live.root.set_outputs("x" * 9000)
        live.recorder.finish(live)
        assert live.info.request_preview == live.info.trace_metadata["mlflow.traceInputs"] == '{"q": "é"}'
        assert live.info.trace_metadata["mlflow.traceOutputs"] == '"' + "x" * 7996 + "..."
        assert live.info.response_preview == '"' + "x" * 996 + "..."

    def test_odd_inputs_do_not_cost_the_trace(self, live: LiveTrace, sink: MemorySink) -> None:
        """What somebody put on the span without its methods is shown as well as it can be."""
        cycle: list[Any] = []
        cycle.append(cycle)
        live.root.inputs = object()
        live.root.outputs = cycle
        live.recorder.finish(live)
        assert len(sink.traces) == 1
        assert "object" in live.info.trace_metadata["mlflow.traceInputs"]

    def test_tokens_are_summed(self, live: LiveTrace) -> None:
        """Spans that carry token counts give the trace MLflow's sum."""
        for _ in range(2):
            span = live.start_span("llm")
            span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 2, "output_tokens": 3})
            span.end()
        live.recorder.finish(live)
        assert json.loads(live.info.trace_metadata["mlflow.trace.tokenUsage"]) == {
            "input_tokens": 4,
            "output_tokens": 6,
            "total_tokens": 10,
        }

    def test_a_name_that_the_app_gave_stays(self, live: LiveTrace) -> None:
        """The tag ``mlflow.traceName`` is the root's name unless somebody set it."""
        live.info.tags["mlflow.traceName"] = "mine"
        live.recorder.finish(live)
        assert live.info.name == "mine"


class TestRecord:
    """What the sink got does not change any more, whatever the app does to what it still has."""

    def test_spans(self, live: LiveTrace, sink: MemorySink) -> None:
        """Attributes, events, links, inputs and outputs are the sink's own."""
        child = live.start_span("child")
        for span in (live.root, child):
            span.set_inputs({"a": 1})
            span.set_outputs([1])
            span.set_attribute("a", 1)
            span.add_event("e", {"a": 1})
            span.links.append({"trace_id": "tr-1", "span_id": "2", "attributes": {}})
        child.end()
        live.recorder.finish(live)
        before = sink.traces[0].to_json()
        for span in (live.root, child):
            span.set_attribute("b", 2)
            span.attributes.clear()
            span.add_event("f")
            span.events[0].attributes["b"] = 2
            span.links[0]["span_id"] = "3"
            span.links.clear()
            span.inputs["b"] = 2
            span.outputs.append(2)
            span.set_status("ERROR")
            span.name = "other"
            span.record_exception(ValueError())
            span.end(1)
        assert sink.traces[0].to_json() == before

    def test_info(self, live: LiveTrace, sink: MemorySink) -> None:
        """So are metadata, tags, previews and state."""
        info = live.info
        live.recorder.finish(live)
        before = sink.traces[0].to_json()
        info.trace_metadata["a"] = "b"
        info.tags["a"] = "b"
        info.request_preview = info.client_request_id = "x"
        live.add_metadata({"c": "d"})
        live.start_span("after")
        live.take_identity("tr-" + "0" * 32, "1" * 16, None)
        assert sink.traces[0].to_json() == before

    def test_late_spans(self, live: LiveTrace, sink: MemorySink) -> None:
        """A span that ended after its trace is final too, and brings what was set on the trace since."""
        span = live.start_span("late")
        live.recorder.finish(live)
        live.add_metadata({"a": "b"})
        batches: list[Trace] = []

        class Batches:
            def write(self, traces: Any) -> None:
                batches.extend(traces)

        assert isinstance(live.recorder, Recorder)
        live.recorder.sink = Batches()
        span.end()
        before = batches[0].to_json()
        assert batches[0].info.trace_metadata["a"] == "b"
        span.set_attribute("a", 1)
        live.add_metadata({"a": "c"})
        assert batches[0].to_json() == before


class TestLate:
    def test_a_span_that_ends_after_its_trace_comes_by_itself(self, live: LiveTrace) -> None:
        """It is handed over in a trace of the same info."""
        batches: list[Trace] = []

        class Batches:
            def write(self, traces: Any) -> None:
                batches.extend(traces)

        assert isinstance(live.recorder, Recorder)
        live.recorder.sink = Batches()
        span = live.start_span("late")
        live.recorder.finish(live)
        after = live.start_span("started after the end")
        span.end()
        after.end()
        assert [[span.name for span in batch.data.spans] for batch in batches] == [
            ["root", "late"],
            ["late"],
            ["started after the end"],
        ]
        assert [batch.data.spans[-1].end_time_ns is None for batch in batches] == [True, False, False]
        assert [batch.info == live.info for batch in batches] == [True, True, False]

    def test_a_sink_gets_the_late_span_in_its_place(self, live: LiveTrace, sink: MemorySink) -> None:
        """The span that was still open when its trace ended is replaced by the complete one."""
        span = live.start_span("late")
        live.recorder.finish(live)
        assert [span.end_time_ns is None for span in sink.traces[0].data.spans] == [False, True]
        span.end()
        assert [span.end_time_ns is None for span in sink.traces[0].data.spans] == [False, False]
        assert len(sink.traces) == 1

    def test_a_span_beyond_the_limit_does_not(self, sink: MemorySink) -> None:
        """What was left out of the trace is not stored late either."""
        live = recorder(sink, max_spans_per_trace=1).start("root")
        span = live.start_span("left out")
        live.recorder.finish(live)
        span.end()
        assert [span.name for span in live.data.spans] == ["root"]
        assert wherefrom.stats().recorded == 1


def test_a_sink_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Handing over raises nothing."""

    class Failing:
        def write(self, _traces: Any) -> None:
            raise RuntimeError("no")

    failing = recorder(Failing())
    failing.finish(failing.start("x"))
    assert wherefrom.stats().dropped == {"sink_failed": 1}
    assert wherefrom.stats().errors == {"sink": 1}


def test_users_are_hashed_only_under_a_key(sink: MemorySink) -> None:
    """Without a key the user id is kept as it is; with one as the first 32 hex of its HMAC-SHA256."""
    assert recorder(sink).user("alice") == "alice"
    assert recorder(sink, user_hash_key="k").user("alice") == "ec631a55bb81f5b9dc96aa930a45628d"
