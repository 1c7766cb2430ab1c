"""What handlers call: the current trace and span, new spans, and ``update_current_trace``."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.context import context
from wherefrom.exceptions import InvalidTraceError
from wherefrom.model import Source, SpanStatusCode, Trace, TraceState
from wherefrom.process import ledger, process
from wherefrom.settings import Settings
from wherefrom.sinks import MemorySink
from wherefrom.tracing.api import (
    SpanBlock,
    current_span,
    current_trace,
    record_feature_flag,
    start_span,
    update_current_trace,
)
from wherefrom.tracing.decorator import trace
from wherefrom.tracing.live import LiveSpan, LiveTrace
from wherefrom.tracing.recorder import Recorder

U = update_current_trace


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    """Where traces go that start outside a request."""
    sink = MemorySink()
    with default_recorder(Recorder(Settings(store="none"), Source({keys.SOURCE_NAME: "b.py"}), sink)):
        yield sink


@contextmanager
def default_recorder(recorder: Recorder | None = None) -> Iterator[None]:
    before, process.default_recorder = process.default_recorder, recorder
    try:
        yield
    finally:
        process.default_recorder = before


@contextmanager
def a_trace(**settings: Any) -> Iterator[LiveTrace]:
    """A trace that is going on and needs no sink."""
    live = Recorder(Settings(store="none", **settings), Source({}), MemorySink()).start("root")
    with SpanBlock(live.root):
        yield live


# --- The cases that were recorded from MLflow ---------------------------------------------------------------

RECORDED: dict[str, dict[str, Any]] = {
    case["case"]: case
    for case in json.loads((Path(__file__).parent.parent / "data" / "update_current_trace.json").read_text())[
        "cases"
    ]
}


def child(_: LiveSpan) -> None:
    with start_span("child"):
        U(metadata={"from": "child"}, tags={"c": "1"}, state="ERROR")


def mutate_dict(_: LiveSpan) -> None:
    metadata = {"a": "1"}
    U(metadata=metadata, session_id="s")
    assert metadata == {"a": "1"}


def thread_update(_: LiveSpan) -> None:
    in_thread(lambda: U(metadata={"t": "1"}))


def thread_ctx(_: LiveSpan) -> None:
    context = contextvars.copy_context()
    in_thread(lambda: context.run(U, metadata={"t": "1"}))


def in_thread(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


NOT_OFFERED = {
    "no_active": "tested below: a warning in the log and nothing else, as there",
    "nocontext_span": "start_span_no_context",
    "in_context": "mlflow.tracing.context()",
    "in_context_disabled": "mlflow.tracing.context()",
    "in_context_reenabled": "mlflow.tracing.context()",
    "context_inside_trace": "mlflow.tracing.context()",
}

DIFFERENT: dict[str, tuple[str, dict[str, Any]]] = {
    "md_override_inputs": (
        "we do not compute sizes, nor a usage where there is none, so the app's values stay",
        {"metadata": {"mlflow.trace.sizeBytes": "1", "mlflow.trace.tokenUsage": "{}"}},
    ),
    "md_nonstr_key": ("[BEAT] all metadata is lost there", {"metadata": {"1": "a"}}),
    "md_long": (
        "keys are cut to 250 characters and values to 8,000, and both say so here",
        {
            "metadata": {
                "k": "x" * 250,
                "k2": "y" * 251,
                "k3": "z" * 7997 + "...",
                "K" * 250: "longkey",
            },
            "tags": {"t": "x" * 5000, "T" * 250: "v"},
        },
    ),
    "tags_list": ("[BEAT] pairs are taken for metadata there, but not for tags", {"tags": {"a": "b"}}),
    "tags_reserved": (
        "no tag says where the spans are kept, so none needs protection",
        {
            "tags": {
                "mlflow.traceName": "renamed",
                "mlflow.user": "hacker",
                "mlflow.artifactLocation": "/evil",
                "mlflow.trace.spansLocation": "ARTIFACT_REPO",
            }
        },
    ),
    "session_int": (
        "[BEAT] all metadata is lost there",
        {"metadata": {"mlflow.trace.session": "5", "mlflow.trace.user": "6"}},
    ),
    "session_long": ("[BEAT] all metadata is lost there", {"metadata": {"mlflow.trace.session": "s" * 300}}),
}

MESSAGES = {
    "preview_nonstr": "request_preview must be a string, but got int.",
    "preview_nonstr2": "response_preview must be a string, but got dict.",
}


def expected_of(name: str) -> dict[str, Any]:
    """What MLflow left behind, in the terms of ``left_behind``."""
    there = RECORDED[name]["sqlite_direct"]
    expected: dict[str, Any] = {
        "state": there["state"],
        "client_request_id": there["client_request_id"],
        "request_preview": there["request_preview"],
        "response_preview": there["response_preview"],
        "metadata": there["metadata_extra_or_changed"],
        "tags": there["tags"],
        "raised": there["raised"] and there["raised"].partition(": ")[2],
    }
    if name in DIFFERENT:
        ours: dict[str, Any] = abbreviated(DIFFERENT[name][1])
        ours["tags"] = {keys.TRACE_NAME_TAG: name} | ours.get("tags", {})
        assert {key: expected[key] for key in ours} != ours, "no longer different"
        expected |= ours | ({"raised": None, "state": "OK"} if name == "tags_list" else {})
    if name in MESSAGES:
        expected["raised"] = MESSAGES[name]
    return expected


def left_behind(kept: Trace, raised: BaseException | None) -> dict[str, Any]:
    own = {keys.SOURCE_NAME, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS}
    info = kept.info
    assert info.trace_metadata[keys.TRACE_INPUTS] == '{"a": 1}'
    left: dict[str, Any] = abbreviated(
        {
            "state": info.state,
            "client_request_id": info.client_request_id,
            "request_preview": '{"a": 1}' if info.request_preview == '{"a": 1}' else info.request_preview,
            "response_preview": info.response_preview,
            "metadata": {key: value for key, value in info.trace_metadata.items() if key not in own},
            "tags": info.tags,
            "raised": raised and str(raised),
        }
    )
    return left


def abbreviated(value: Any) -> Any:
    """As the recording is: of long text its length and its ends."""
    if isinstance(value, Mapping):
        return {abbreviated(key): abbreviated(item) for key, item in value.items()}
    if isinstance(value, str) and len(value) >= 80 and set(value) != {"c"}:
        return f"<len {len(value)}> {value[:10]!r}..{value[-6:]!r}"
    return value


def test_every_recorded_case_is_replayed_or_not_offered() -> None:
    """No case is forgotten, and none is excused twice."""
    assert NOT_OFFERED.keys() <= RECORDED.keys()
    assert (DIFFERENT.keys() | MESSAGES.keys()) <= RECORDED.keys() - NOT_OFFERED.keys()


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - NOT_OFFERED.keys()))
def test_a_recorded_call_changes_the_trace_as_in_mlflow(name: str, sink: MemorySink) -> None:
    """State, ids, previews, metadata, tags and the errors that reach the app agree, but in DIFFERENT."""
    call = eval(RECORDED[name]["call"], {**globals(), "TraceState": TraceState})  # our own data
    raised: BaseException | None = None
    try:
        with start_span(name) as span:
            span.set_inputs({"a": 1})
            span.set_outputs("o")
            call(span)
    except InvalidTraceError as error:
        raised = error
    (kept,) = sink.traces
    assert left_behind(kept, raised) == expected_of(name)


# --- update_current_trace -----------------------------------------------------------------------------------


def test_outside_a_trace_an_update_is_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised."""
    with caplog.at_level(logging.WARNING, "wherefrom"):
        update_current_trace(tags={"a": "b"})
    assert "No active trace found" in caplog.text


def test_in_a_trace_that_is_not_recorded_an_update_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """MLflow warns at every call; here sampling is silent."""
    with a_trace(sample_rate=0, keep_errors=False):
        update_current_trace(tags={"a": "b"}, session_id="s")
        record_feature_flag("a", value=True)
    assert not caplog.records


@pytest.mark.parametrize(
    "call",
    [
        lambda: U(metadata={"a": "1"}, tags={"a": "1"}, session_id="s", state="ok"),
        lambda: U(metadata={"a": "1"}, state=TraceState.IN_PROGRESS),
        lambda: U(metadata={"a": "1"}, tags="abc"),  # type: ignore[arg-type]
        lambda: U(tags={"a": "1"}, metadata=5),  # type: ignore[arg-type]
        lambda: U(tags={"a": "1"}, metadata=[1]),  # type: ignore[list-item]
        lambda: U(tags={"a": "1"}, request_preview=b""),  # type: ignore[arg-type]
    ],
)
def test_a_call_that_cannot_be_taken_changes_nothing(call: Callable[[], None]) -> None:
    """It is refused whole, with a ``ValueError`` that says what was wrong."""
    with a_trace() as live:
        with pytest.raises(ValueError, match="must be"):
            call()
        assert (live.info.trace_metadata, live.info.tags, live.stated) == ({}, {}, None)


def test_a_stated_state_wins_over_the_outcome(sink: MemorySink) -> None:
    """In both directions; the last statement counts, and saying nothing takes none back."""

    @trace
    def fine() -> None:
        update_current_trace(state="ERROR")
        update_current_trace(state="OK")
        update_current_trace(tags={"a": "b"})
        raise KeyError

    with pytest.raises(KeyError):
        fine()
    with start_span("bad"):
        update_current_trace(state=TraceState.ERROR)
    assert [kept.info.state for kept in sink.traces] == ["OK", "ERROR"]
    assert sink.traces[0].data.spans[0].status.code is SpanStatusCode.ERROR


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"), st.sampled_from([None, True, 1.5, "x", "", "\ud800"]), max_size=3
        )
    )
)
def test_repeated_updates_merge_and_the_last_counts(updates: list[dict[str, Any]]) -> None:
    """``None`` adds nothing and removes nothing; every value becomes text."""
    expected: dict[str, str] = {}
    with a_trace() as live:
        for update in updates:
            update_current_trace(metadata=update, tags=update)
            expected |= {key: str(value) for key, value in update.items() if value is not None}
        for kept in (live.info.trace_metadata, live.info.tags):
            assert kept == {key: value.encode("utf-8", "replace").decode() for key, value in expected.items()}


def test_hostile_values_never_raise() -> None:
    """A value whose text cannot be had, lone surrogates, keys that are no text."""

    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError

    with a_trace(max_metadata_length=100) as live:
        update_current_trace(
            metadata={"a": Unprintable(), 5: [1], "\ud800": "\ud800", "long": "x" * 200},
            client_request_id="r" * 200,
            request_preview="\ud800" * 200,
        )
    info = live.info
    assert info.trace_metadata == {
        "a": "<Unprintable object, its repr failed>",
        "5": "[1]",
        "?": "?",
        "long": "x" * 97 + "...",
    }
    assert info.client_request_id == "r" * 97 + "..."
    assert info.request_preview == "?" * 97 + "..."


def test_with_a_hash_key_no_user_id_is_kept_whichever_way_it_comes() -> None:
    """Equal users stay groupable."""
    hashes = []
    for update in (
        {"user": "alice"},
        {"metadata": {keys.USER: "alice"}},
        {"metadata": [(keys.USER, "alice")]},
    ):
        with a_trace(user_hash_key="secret") as live:
            update_current_trace(**update)
        hashes.append(live.info.trace_metadata[keys.USER])
    assert set(hashes) == {live.recorder.user("alice")}
    assert "alice" not in hashes


def test_the_model_of_a_call_is_kept_under_mlflows_key() -> None:
    """The named argument wins over the same key; an empty one says nothing."""
    with a_trace() as live:
        update_current_trace(model_id="m-1", metadata={keys.MODEL_ID: "m-2"})
        update_current_trace(model_id="")
    assert live.info.trace_metadata == {keys.MODEL_ID: "m-1"}


def test_previews_that_were_given_are_not_made_from_the_root(sink: MemorySink) -> None:
    """An empty one counts as not given."""
    with start_span("x") as span:
        span.set_inputs({"a": 1})
        span.set_outputs([1])
        update_current_trace(request_preview="asked", response_preview="answered")
        update_current_trace(request_preview="", response_preview="")
    info = sink.traces[0].info
    assert (info.request_preview, info.response_preview) == ("asked", "answered")


def test_flags_are_recorded_as_the_words_that_configurations_use() -> None:
    """Outside a trace nothing happens."""
    record_feature_flag("ignored", value=True)
    with a_trace() as live:
        record_feature_flag("new_model", value=True)
        record_feature_flag("old_model", value=False)
        record_feature_flag("variant", "B")
        record_feature_flag("share", 0.5)
        record_feature_flag("nothing", None)
    assert live.info.trace_metadata == {
        "feature_flag_new_model": "true",
        "feature_flag_old_model": "false",
        "feature_flag_variant": "B",
        "feature_flag_share": "0.5",
    }


# --- Spans --------------------------------------------------------------------------------------------------


def test_a_block_is_a_span_with_its_type_and_attributes(sink: MemorySink) -> None:
    """Blocks in it are below it, and what was current before is current after."""
    assert current_span() is None
    with start_span("outer", span_type="CHAIN", attributes={"k": [1]}) as outer:
        assert current_span() is outer is context.span
        assert current_trace() is outer.trace is context.trace
        with start_span("inner") as inner:
            assert current_span() is inner
        assert current_span() is outer
    assert current_span() is None
    assert current_trace() is None
    assert inner.parent_id == outer.span_id
    assert (outer.span_type, outer.attributes) == ("CHAIN", {"k": [1]})
    assert sink.traces[0].info.trace_metadata[keys.SOURCE_NAME] == "b.py"
    assert sink.traces[0].data.spans == [outer, inner]


@pytest.mark.parametrize("error", [ValueError("v"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_a_block_raises_is_recorded_and_raised_on(error: BaseException, sink: MemorySink) -> None:
    """Cancellation and the like are no success either."""
    with pytest.raises(type(error)) as raised, start_span("x"):
        raise error
    assert raised.value is error
    assert error.__context__ is None
    (span,) = sink.traces[0].data.spans
    assert span.status.code is SpanStatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert sink.traces[0].info.state is TraceState.ERROR


def test_a_closed_generator_is_no_error_of_a_block_in_it(sink: MemorySink) -> None:
    """Its consumer wanted no more."""

    def steps() -> Iterator[int]:
        with start_span("block"):
            yield 1

    items = steps()
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert sink.traces[0].info.state is TraceState.OK


def test_a_block_that_ends_in_another_context_leaves_nothing_of_its_own_there(sink: MemorySink) -> None:
    """What is current there stays current."""

    def steps() -> Iterator[int]:
        with start_span("block"):
            yield 1

    items = steps()
    contextvars.copy_context().run(next, items)
    with start_span("elsewhere") as elsewhere:
        assert next(items, None) is None
        assert current_span() is elsewhere


def test_a_block_outlives_the_context_that_it_began_in(sink: MemorySink) -> None:
    """A traced generator is stepped in two contexts: after the block its own span is current again."""
    after: list[LiveSpan | None] = []

    @trace
    def steps() -> Iterator[int]:
        with start_span("block"):
            yield 1
        after.append(current_span())

    items = steps()
    contextvars.Context().run(next, items)
    contextvars.Context().run(next, items, None)
    assert [span and span.name for span in after] == ["steps"]


def test_a_block_around_everything_outlives_its_context_too(sink: MemorySink) -> None:
    """There was nothing before it, and there is nothing after it."""
    block = start_span("block")
    inside = contextvars.Context()
    inside.run(block.__enter__)
    copy = inside.copy()
    copy.run(block.__exit__, None, None, None)
    assert copy.run(current_span) is None
    assert [kept.info.state for kept in sink.traces] == ["OK"]


# --- Failures of our own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["WHEREFROM_STORE", "WHEREFROM_SAMPLE_RATE"])
def test_settings_that_cannot_be_used_do_not_cost_the_app_its_call(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call runs untraced, and the log has the sentence that names the variable."""
    monkeypatch.setenv(variable, "nonsense")

    @trace
    def double(x: int) -> int:
        with start_span("inside"):
            update_current_trace(tags={"a": "b"})
        return 2 * x

    with default_recorder():
        assert double(2) == 4
    assert variable in caplog.text
    assert ledger.read().errors == {"recorder": 1}
    assert ledger.read().recorded == 0


def test_what_the_app_breaks_on_a_span_does_not_cost_it_its_call(
    sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is counted."""

    @trace
    def broken() -> None:
        span = current_span()
        assert span is not None
        span.events = None  # type: ignore[assignment]
        raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert ledger.read().errors == {"end of a span": 1}
