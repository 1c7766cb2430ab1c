"""One trace in full, with its waterfall."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from wherefrom import keys
from wherefrom.analysis.span_tree import branches_of
from wherefrom.cli.show import print_waterfall
from wherefrom.cli.terminal import Terminal
from wherefrom.model import (
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
    new_assessment,
)
from wherefrom.model.parts import mark_part
from wherefrom.tracing.exceptions import exception_attributes

from .conftest import HOSTILE, is_harmless, make_exception, make_span, make_trace, run

Write = Callable[..., None]


@pytest.mark.parametrize(
    "wanted", ["tr-0002" + "a" * 28, "0002" + "A" * 28, "tr-0002", "0002", "latest", "req-2"]
)
def test_a_trace_is_found_by(write: Write, wanted: str) -> None:
    write(make_trace(1), make_trace(2))
    result = run("show", wanted)
    assert (result.code, result.err) == (0, "")
    assert "tr-0002" + "a" * 28 in result.out


def test_an_id_of_another_form_is_found_whole(write: Write) -> None:
    write(make_trace(1, trace_id="my'trace:1"))
    assert "my'trace:1" in run("show", "my'trace:1").out


def test_a_hostile_id_is_shown_as_text(write: Write) -> None:
    write(make_trace(1, trace_id=HOSTILE))
    assert is_harmless(run("search").out)
    result = run("show", HOSTILE)
    assert result.code == 0
    assert is_harmless(result.out)


def test_a_beginning_that_several_share_is_answered_with_them(write: Write) -> None:
    write(*(make_trace(number) for number in range(1, 8)))
    result = run("show", "tr-000")
    assert (result.code, result.out) == (1, "")
    first, *listed, more = result.err.splitlines()
    assert "several trace ids begin with 'tr-000'" in first
    assert len(listed) == 5
    assert listed[0].split()[0] == "tr-0007" + "a" * 28
    assert more == "  ..."
    write(make_trace(9, client_request_id="000"))
    assert "tr-0009" in run("show", "000").out


def test_of_two_traces_with_one_request_id_the_newest_is_shown(write: Write) -> None:
    write(make_trace(1, client_request_id="it's"), make_trace(2, client_request_id="it's"))
    result = run("show", "it's")
    assert "tr-0002" in result.out
    assert "newest is shown" in result.err


def test_what_is_not_there(write: Write) -> None:
    write()
    assert "holds no traces yet" in run("show", "latest").err
    write(make_trace())
    for wanted in ("tr-9", "9" * 32, "nobody", "100%", "_", HOSTILE):
        result = run("show", wanted)
        assert (result.code, result.out) == (1, "")
        assert "no trace id begins with" in result.err
        assert is_harmless(result.err)


def test_json_is_the_whole_trace(write: Write) -> None:
    trace = make_trace()
    write(trace)
    assert Trace.from_dict(json.loads(run("show", "latest", "--json").out)) == trace


def full_trace() -> Trace:
    metadata = {
        keys.SOURCE_NAME: "main:app",
        keys.SOURCE_TYPE: "production",
        keys.GIT_COMMIT: "3cb5c07" * 5,
        keys.GIT_BRANCH: "main",
        keys.GIT_DIRTY: "true",
        keys.GIT_REPO_URL: "https://example.com/shop.git",
        keys.MODEL_ID: "m-1",
        keys.DEPLOYMENT_ID: "blue",
        keys.REGION: "eu-west-1",
        keys.OS_USER: "deploy",
        keys.SCHEMA_VERSION: "3",
        keys.TRACE_INPUTS: "{}",
        keys.TOKEN_USAGE: '{"total_tokens":12}',
        "feature_flag_new_retriever": "true",
        "tenant_id": "acme",
    }
    attributes = {
        "http.request.method": "POST",
        "url.path": "/chat",
        "http.response.status_code": 200,
        "http.response.body.size": 1500,
        "wherefrom.outcome": "completed",
        "client.address": "10.0.0.1",
        "user_agent.original": "curl/8",
        "wherefrom.time_to_first_byte_ms": 12.3456,
        "wherefrom.response.chunks": 500,
        "wherefrom.response.longest_gap_ms": 80.5,
        "wherefrom.dropped_spans": 3,
    }
    spans = [
        make_span("root", None, 0, 120, name="POST /chat", span_type="SERVER", attributes=attributes),
        make_span("find", "root", 10, 40, name="retrieve", span_type="RETRIEVER"),
        make_span("late", "root", 100, None, name="save"),
    ]
    trace = make_trace(
        1, name="POST /chat", metadata=metadata, spans=spans, request_preview="what is\na trace?"
    )
    trace.info.response_preview = "word " * 200
    trace.info.tags["team"] = "search"
    return trace


def test_metadata_is_grouped(write: Write) -> None:
    write(full_trace())
    result = run("show", "latest", width=100)
    assert result.lines[0] == "POST /chat  OK  120 ms"
    assert "2026-09-21 16:13:21.000 CEST" in result.lines[1]
    groups: dict[str, dict[str, str]] = {}
    title = ""
    for line in result.lines[3 : result.lines.index("Request preview") - 1]:
        title = line[:11].strip() or title
        label, _, value = line[13:].partition("  ")
        groups.setdefault(title, {})[label.strip()] = value.strip()
    assert groups["Request"] == {
        "request id": "req-1",
        "request": "POST /chat",
        "response": "200, completed, 1.50 kB",
        "stream": "first byte after 12.3 ms, 500 chunks, longest gap 80.5 ms",
        "client": "10.0.0.1, curl/8",
        "dropped": "3 spans",
        "experiment": "default",
    }
    assert groups["User"] == {"user": "alice", "session": "s-1"}
    assert groups["Version"] == {
        "app_version": "1.1.0", "deployment_id": "blue", "model": "m-1", "entry point": "main:app",
    }  # fmt: skip
    assert groups["Environment"] == {
        "environment": "production", "region": "eu-west-1", "type": "production", "OS user": "deploy",
    }  # fmt: skip
    assert groups["Git"] == {
        "commit": "3cb5c07" * 5, "branch": "main", "dirty": "true", "repository": "https://example.com/shop.git",
    }  # fmt: skip
    assert groups["Flags"] == {"new_retriever": "true"}
    assert groups["Other"] == {"tenant_id": "acme"}
    assert groups["Model calls"] == {"tokens": "12 in all", "cost": "no price for unknown model"}
    assert groups["Tags"] == {"team": "search"}


def test_feedback_is_listed(write: Write) -> None:
    """With its source and comment, as text; what is overridden is left out."""
    trace = make_trace(1)
    trace_id, judge = trace.info.trace_id, {"source_type": "LLM_JUDGE", "source_id": "gpt-5"}
    trace.info.assessments = [
        new_assessment(trace_id, "helpful", True, source="HUMAN", rationale="short\nand right"),
        new_assessment(trace_id, "score", 0.5, source=judge, span_id="0a"),
        new_assessment(trace_id, "tone", HOSTILE),
        new_assessment(trace_id, "gone", 1, valid=False),
    ]
    write(trace)
    shown = run("show", "latest").out
    assert "Feedback" in shown
    assert re.search(r"\bhelpful +true \(human\): short", shown)
    assert "0.5 (llm judge gpt-5, on span 0a)" in shown
    assert "gone" not in shown
    assert is_harmless(shown)


@pytest.mark.parametrize("width", [40, 80, 140])
def test_it_fits_the_terminal(write: Write, width: int) -> None:
    write(full_trace())
    assert max(cell_len(line) for line in run("show", "latest", width=width).lines) <= width


def test_previews_keep_their_lines_and_are_cut_on_a_terminal_alone(write: Write) -> None:
    write(full_trace())
    shown = run("show", "latest", width=80)
    start = shown.lines.index("Request preview")
    assert shown.lines[start : start + 4] == ["Request preview", "  what is", "  a trace?", ""]
    assert shown.out.count("word") < 100
    assert "…" in shown.out
    assert run("show", "latest").out.count("word") == 200


def test_a_websocket(write: Write) -> None:
    attributes = {
        "http.response.status_code": 101,
        "wherefrom.websocket.messages_received": 3,
        "wherefrom.websocket.bytes_received": 30,
        "wherefrom.websocket.messages_sent": 1200,
        "wherefrom.websocket.bytes_sent": 2_000_000,
        "wherefrom.websocket.close_code": 1000,
        "wherefrom.websocket.close_reason": "bye",
    }
    write(make_trace(1, spans=[make_span("root", None, 0, 120, name="WS /live", attributes=attributes)]))
    out = run("show", "latest").out
    assert "101, close code 1000, bye" in out
    assert "3 messages received (30 B), 1,200 messages sent (2.00 MB)" in out


def test_figures_that_are_no_numbers_are_left_out(write: Write) -> None:
    attributes = {"wherefrom.response.chunks": "many", "http.response.body.size": True, "url.path": ["/"]}
    write(make_trace(1, spans=[make_span("root", None, 0, 120, attributes=attributes)]))
    out = run("show", "latest").out
    assert "stream" not in out
    assert re.search(r" request +\['/'\]\n", out)


def test_a_trace_of_which_little_is_known(write: Write) -> None:
    trace = make_trace(
        1, state=TraceState.IN_PROGRESS, execution_duration=None, client_request_id=None, spans=[]
    )
    trace.info.tags.clear()
    write(trace)
    result = run("show", "latest")
    assert result.lines[0] == "unnamed trace  IN_PROGRESS"
    assert "Spans" not in result.out


def test_exceptions_are_told_with_the_end_of_their_stack(write: Write) -> None:
    error = SpanStatus(SpanStatusCode.ERROR, "ValueError: bad")
    frames = "".join(
        f'  File "app.py", line {number}, in f{number}\n    f{number + 1}()\n    ~~^^\n'
        for number in range(9)
    )
    title = "Traceback (most recent call last):\n"
    stack = f"{title}  one\n\nThe above...\n\n{title}{frames}shop.ValueError: bad\nthing\n"
    event = make_exception("shop.ValueError", "bad\nthing", stack, at=5)
    spans = [
        make_span(
            "root", None, 0, 120, status=error, events=[make_exception("shop.ValueError", "bad\nthing", at=9)]
        ),
        make_span("work", "note", 0, 100, status=error, events=[event]),
        make_span("note", "root", 0, 100, events=[make_exception("KeyError", "'x'", "KeyError: 'x'"), event]),
        make_span("said", "root", 0, 50, status=SpanStatus(SpanStatusCode.ERROR, "HTTP 503")),
        make_span("mute", "root", 0, 50, status=SpanStatus(SpanStatusCode.ERROR)),
    ]
    spans[2].events.append(make_exception("", "", "", 99))
    write(make_trace(1, state=TraceState.ERROR, spans=spans))
    out = run("show", "latest", width=100).out
    assert "shop.ValueError: bad\n  thing\n  in work, then note, then root\n  ...\n" in out
    assert 'File "app.py", line 8, in f8\n      f9()\n' in out
    assert "line 4," not in out
    assert "^^" not in out
    assert out.count("shop.ValueError") == 1
    assert "\nKeyError: 'x'\n  in note\n" in out
    assert "\nHTTP 503\n  in said\n" in out


def test_causes_and_members_are_told_as_on_the_page(write: Write) -> None:
    """What was raised last is seldom what went wrong."""

    def connect() -> None:
        raise ConnectionError("no database")

    def start() -> None:
        try:
            connect()
        except ConnectionError as error:
            raise ExceptionGroup("start", [KeyError("cache"), ValueError("queue")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        start()
    event = SpanEvent("exception", 5, exception_attributes(caught.value))
    write(make_trace(1, spans=[make_span("root", None, 0, 120, events=[event])]))
    out = run("show", "latest", width=100).out
    assert (
        "ExceptionGroup: start (2 sub-exceptions): KeyError: 'cache'; ValueError: queue\n  in root\n" in out
    )
    assert "\n  in the group ValueError: queue\n" in out
    cause = out.partition("\n  caused by ConnectionError: no database\n")[2]
    assert ", in connect\n" in cause
    assert out.index("in start") < out.index("caused by")


def test_of_a_long_chain_the_last_causes_are_told(write: Write) -> None:
    """The JSON has all of them."""
    last = ValueError("number 0")
    for number in range(1, 9):
        following = ValueError(f"number {number}")
        following.__cause__ = last
        last = following
    event = SpanEvent("exception", 5, exception_attributes(last))
    write(make_trace(1, spans=[make_span("root", None, 0, 120, events=[event])]))
    out = run("show", "latest", width=100).out
    assert re.findall(r"caused by ValueError: number (\d)", out) == ["7", "6", "5", "4"]
    assert "\n  and 4 more exceptions: use --json\n" in out


def test_of_many_failures_the_first_are_told(write: Write) -> None:
    events = [make_exception("E", f"number {number}", at=number) for number in range(8)]
    write(make_trace(1, spans=[make_span("root", None, 0, 120, events=events)]))
    out = run("show", "latest").out
    assert "number 4" in out
    assert "number 5" not in out
    assert "and 3 more errors: use --json" in out


@pytest.mark.parametrize("width", [None, 40, 80, 140])
def test_what_strangers_sent_is_shown_as_text(write: Write, width: int | None) -> None:
    names = (
        "http.request.method", "url.path", "http.response.status_code", "wherefrom.outcome", "client.address",
        "user_agent.original", "wherefrom.websocket.close_code", "wherefrom.websocket.close_reason",
        "wherefrom.dropped_spans",
    )  # fmt: skip
    known = (
        keys.SESSION, keys.USER, keys.GIT_COMMIT, keys.GIT_REPO_URL, keys.SOURCE_NAME, keys.MODEL_ID,
        keys.REGION, keys.TOKEN_USAGE, "feature_flag_" + HOSTILE, HOSTILE,
    )  # fmt: skip
    failed = SpanStatus(SpanStatusCode.ERROR, HOSTILE)
    event = make_exception(HOSTILE, HOSTILE, f"Traceback\n{HOSTILE}\n  {HOSTILE}\n")
    spans = [
        make_span(
            "a", None, 0, 120, name=HOSTILE, span_type=HOSTILE, attributes=dict.fromkeys(names, HOSTILE)
        ),
        make_span("b", "a", 0, 120, name=HOSTILE, status=failed, events=[event]),
        make_span("c", "a", 0, 120, name=HOSTILE, status=failed),
    ]
    trace = make_trace(
        1,
        name=HOSTILE,
        metadata=dict.fromkeys(known, HOSTILE),
        client_request_id=HOSTILE,
        request_preview=HOSTILE,
        response_preview=HOSTILE,
        experiment=HOSTILE,
        spans=spans,
    )
    trace.info.tags[HOSTILE] = HOSTILE
    write(trace)
    result = run("show", "latest", width=width)
    assert result.code == 0
    assert is_harmless(result.out)
    if width is None:
        assert result.out.count("[bold red]x[/]") > 30
    assert is_harmless(run("show", "latest", "--json").out)


def draw_spans(spans: list[Span], width: int | None = 80) -> list[str]:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=width is not None,
        color_system=None,
        legacy_windows=False,
    )
    print_waterfall(Terminal(console=console), Trace(TraceInfo("tr-0"), TraceData(spans)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def bar(line: str) -> tuple[int, int]:
    """Where the bar begins and ends, in cells."""
    return line.index("━"), line.rindex("━") + 1


def test_each_span_of_several_services_names_its_own(write: Write) -> None:
    """In one waterfall; the services are listed with what tells them apart."""
    shop = make_trace(
        1, metadata={keys.SOURCE_NAME: "shop:app"}, source=None, spans=[make_span("a", None, 0, 100)]
    )
    own = {keys.SOURCE_NAME: "cart:app", keys.APP_VERSION: "2.0", keys.DEPLOYMENT_ID: HOSTILE}
    cart = make_trace(
        1, metadata=own, source=None, spans=[make_span("b", "a", 10, 90), make_span("c", "b", 20, 30)]
    )
    mark_part(cart.info, cart.data.spans[0])
    write(cart, shop)
    result = run("show", "latest", width=120)
    assert is_harmless(result.out)
    lines = result.lines
    header = next(place for place, line in enumerate(lines) if line.lstrip().startswith("Spans"))
    column = lines[header].index("service")
    assert [line[column : column + 8] for line in lines[header + 1 : header + 4]] == [
        "shop:app", "cart:app", "cart:app",
    ]  # fmt: skip
    (services,) = (line for line in lines if line.startswith("Services"))
    assert "shop:app" in services
    assert "1 span" in services
    assert "2 spans, version 2.0, deployment" in result.out
    write(make_trace(2))
    assert "service" not in run("show", "tr-0002", width=120).out


def test_the_tree_and_its_bars() -> None:
    header, root, find, embed, answer = draw_spans(
        [
            make_span("root", None, 0, 100, name="POST /chat", span_type="SERVER"),
            make_span("find", "root", 0, 25, name="retrieve", span_type="RETRIEVER"),
            make_span("embed", "find", 10, 20),
            make_span("answer", "root", 50, 100, status=SpanStatus(SpanStatusCode.ERROR, "x")),
        ]
    )
    assert header.split() == ["Spans", "took", "0", "100", "ms"]
    assert header.endswith(" 100 ms")
    assert root.startswith("✓ POST /chat  SERVER")
    assert find.startswith("✓ ├─ retrieve  RETRIEVER")
    assert embed.startswith("✓ │  └─ embed ")
    assert answer.startswith("✗ └─ answer ")
    assert " 25.0 ms " in find
    left, right = bar(root)
    whole = right - left
    assert whole == 32
    assert bar(find) == (left, left + whole // 4)
    assert bar(answer) == (left + whole // 2, right)
    assert left < bar(embed)[0] < bar(embed)[1] < left + whole // 4
    assert cell_len(header) == cell_len(root) <= 80


def test_a_wide_terminal_and_a_pipe_show_when_each_began() -> None:
    spans = [make_span("root", None, 0, 100), make_span("work", "root", 30, 40)]
    for width in (120, None):
        lines = draw_spans(spans, width)
        assert lines[0].split()[:3] == ["Spans", "start", "took"]
        assert "+30.0 ms" in lines[2]


def test_a_span_that_never_ended_is_open_to_the_right() -> None:
    _, root, open_ = draw_spans([make_span("root", None, 0, 100), make_span("work", "root", 50, None)])
    assert open_.startswith("… └─ work ")
    assert " open " in open_
    assert bar(open_)[1] == bar(root)[1]


def test_an_unset_status_and_a_moment() -> None:
    line = draw_spans([make_span("root", None, 0, 0, status=SpanStatus())])[1]
    assert line.startswith("· root ")
    assert line.count("━") == 1


def test_siblings_come_in_the_order_in_which_they_began() -> None:
    spans = [make_span(name, "root", start, 100) for name, start in (("c", 3), ("a", 1), ("b", 2))]
    assert [branch.span.name for branch in branches_of([*spans, make_span("root", None, 0, 100)])] == [
        "root", "a", "b", "c",
    ]  # fmt: skip


def test_a_parent_that_is_missing_makes_a_root() -> None:
    branches = list(branches_of([make_span("a", "elsewhere", 0, 1), make_span("b", None, 0, 1)]))
    assert [(branch.span.name, branch.depth) for branch in branches] == [("a", 0), ("b", 0)]


def test_circles_are_shown_once() -> None:
    spans = [make_span("a", "b", 0, 1), make_span("b", "a", 1, 2), make_span("self", "self", 2, 3)]
    assert [(branch.span.name, branch.lasts) for branch in branches_of(spans)] == [
        ("a", ()), ("b", (True,)), ("self", ()),
    ]  # fmt: skip


def test_a_chain_deeper_than_the_interpreters_stack() -> None:
    depth = sys.getrecursionlimit() + 100
    spans = [make_span("0", None, 0, depth)]
    spans += [make_span(str(number), str(number - 1), number, depth) for number in range(1, depth)]
    lines = draw_spans(spans)
    assert len(lines) == depth + 1
    assert f"…{depth - 1} deep └─ {depth - 1}" in lines[-1]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20),
            st.integers(0, 20),
            st.integers(-(10**9), 10**9),
            st.none() | st.integers(-(10**9), 10**9),
        ),
        min_size=1,
        unique_by=lambda item: item[0],
    ),
    st.sampled_from([60, 80, 140]),
)
def test_any_spans_are_each_shown_once_and_fit(
    items: list[tuple[int, int, int, int | None]], width: int
) -> None:
    spans = [make_span(str(own), str(parent), start, end) for own, parent, start, end in items]
    branches = list(branches_of(spans))
    assert sorted(branch.span.span_id for branch in branches) == sorted(span.span_id for span in spans)
    for before, after in pairwise(branches):
        assert after.depth <= before.depth + 1
    lines = draw_spans(spans, width)
    assert all(cell_len(line) <= width for line in lines)
    assert all("━" in line for line in lines[1:])
