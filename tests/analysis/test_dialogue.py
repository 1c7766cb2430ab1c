"""The turns of a session, in their order."""

from __future__ import annotations

import pytest

from wherefrom import FilterError, Span, SpanStatus
from wherefrom.analysis import read_session, turns
from wherefrom.exceptions import TraceNotFoundError
from wherefrom.model import SpanStatusCode
from wherefrom.stores import Store

from .test_sessions import turn
from .traffic import START


def test_turns_come_in_their_order_with_the_pauses_between_them(store: Store) -> None:
    store.write([turn(5, "a", ms=500), turn(0, "a", ms=1500), turn(1, "a"), turn(2, "b")])
    found = turns("a", store=store)
    assert [one.trace.request_time - START for one in found] == [0, 1000, 5000]
    assert [one.pause_ms for one in found] == [None, -500, 3900]
    assert found.token is None


def test_a_turn_tells_its_flags_and_the_first_error(store: Store) -> None:
    trace = turn(0, "a", failed=True)
    trace.info.trace_metadata |= {"feature_flag_new": "true", "tenant": "x"}
    root = trace.data.spans[0]
    root.status = SpanStatus(SpanStatusCode.ERROR, "the first")
    inner = Span(root.trace_id, "f" * 16, root.span_id, "inner", "TOOL", root.start_time_ns + 1)
    inner.status = SpanStatus(SpanStatusCode.ERROR, "the second")
    trace.data.spans.append(inner)
    store.write([trace, turn(1, "a")])
    first, second = turns("a", store=store)
    assert (first.flags, first.error) == ({"new": "true"}, "the first")
    assert (second.flags, second.error) == ({}, None)


def test_a_turn_that_still_runs_has_taken_no_time(store: Store) -> None:
    running = turn(0, "a")
    running.info.execution_duration, running.data.spans[0].end_time_ns = None, None
    store.write([running, turn(1, "a")])
    assert [one.pause_ms for one in turns("a", store=store)] == [None, 1000]


def test_pages_hold_every_turn_once(store: Store) -> None:
    store.write([turn(n, "a") for n in range(7)])
    seen: list[int] = []
    token = None
    for _ in range(3):
        page = turns("a", store=store, max_results=3, page_token=token)
        seen += [(one.trace.request_time - START) // 1000 for one in page]
        token = page.token
    assert (seen, token) == (list(range(7)), None)
    with pytest.raises(FilterError):
        turns("a", store=store, page_token="nonsense")


@pytest.mark.parametrize("session", ["it's", 'a"b`c', "x' OR '1'='1", "\u202e"])
def test_any_text_may_name_a_session(store: Store, session: str) -> None:
    store.write([turn(0, session), turn(1, "other")])
    assert len(turns(session, store=store)) == 1
    assert read_session(session, store=store).turns == 1


def test_the_experiment_limits_them(store: Store) -> None:
    store.write([turn(0, "a"), turn(1, "a", experiment="other")])
    assert len(turns("a", experiment="other", store=store)) == 1
    assert read_session("a", experiment="other", store=store).turns == 1
    for experiment in ("nobody", None):
        with pytest.raises(TraceNotFoundError, match="no trace has the session"):
            read_session("a" if experiment else "nobody's", experiment=experiment, store=store)
