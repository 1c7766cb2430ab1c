"""Sessions, each counted whole, the latest first, page by page; and the turns of one."""

from __future__ import annotations

import pytest

from tests.engines import every_engine
from wherefrom import FilterError, Span, SpanStatus, Trace, keys
from wherefrom.analysis import read_session, sessions, turns
from wherefrom.exceptions import TraceNotFoundError
from wherefrom.model import SpanStatusCode
from wherefrom.stores import Store

from .traffic import START, make_trace


def turn(
    number: int,
    session: str,
    *,
    user: str | None = None,
    ms: float = 100,
    failed: bool = False,
    experiment: str = "default",
    at: int | None = None,
) -> Trace:
    pairs = {keys.SESSION: session} | ({} if user is None else {keys.USER: user})
    return make_trace(number, ms=ms, failed=failed, metadata=pairs, experiment=experiment, at=at)


@every_engine
def test_a_session_is_its_turns(store: Store) -> None:
    store.write(
        [
            turn(0, "a", user="ann"),
            turn(1, "b", user="bob", failed=True),
            turn(2, "a", user="ann", ms=5000.25),
            turn(3, "a", user="ann", failed=True),
            make_trace(4),
        ]
    )
    first, second = sessions(store=store)
    assert (first.session_id, first.turns, first.errors) == ("a", 3, 1)
    assert (first.first_seen, first.last_seen) == (START, START + 3000)
    assert first.duration == 7000.25  # the third turn came in before the second had been answered
    assert (first.users, first.user) == (1, "ann")
    assert (second.session_id, second.turns, second.errors, second.duration) == ("b", 1, 1, 100)
    assert first.to_dict()["session_id"] == "a"


def test_users_of_a_session(store: Store) -> None:
    store.write([turn(0, "a", user="ann"), turn(1, "a", user="bob"), turn(2, "none")])
    none, both = sessions(store=store)
    assert (none.users, none.user) == (0, None)
    assert (both.users, both.user) == (2, None)


@every_engine
def test_the_filter_picks_sessions_which_are_told_whole(store: Store) -> None:
    store.write([turn(0, "a", failed=True), turn(1, "a"), turn(2, "b")])
    (found,) = sessions("status = 'ERROR'", store=store)
    assert (found.session_id, found.turns, found.errors) == ("a", 2, 1)
    assert sessions("metadata.nothing = 'x'", store=store) == []
    (found,) = sessions("span.name LIKE 'GET%' AND session_id = 'b'", store=store)
    assert found.session_id == "b"


@every_engine
def test_the_experiment_limits_the_turns_too(store: Store) -> None:
    store.write([turn(0, "a"), turn(1, "a", experiment="other"), turn(2, "b")])
    assert [(one.session_id, one.turns) for one in sessions(experiment="other", store=store)] == [("a", 1)]
    assert [(one.session_id, one.turns) for one in sessions(experiment="default", store=store)] == [
        ("b", 1),
        ("a", 1),
    ]
    assert sessions(experiment="nobody", store=store) == []


@every_engine
def test_pages_hold_every_session_once_though_turns_arrive(store: Store) -> None:
    store.write([turn(n, f"s{n % 25:02}", at=START + n % 5) for n in range(50)])
    seen: list[str] = []
    token = None
    for page_number in range(4):
        page = sessions(store=store, max_results=7, page_token=token)
        seen += [one.session_id for one in page]
        token = page.token
        store.write([turn(100 + page_number, f"new{page_number}")])
    assert token is None
    assert seen == sorted(seen, key=lambda name: (-(int(name[1:]) % 5), name))
    assert len(seen) == len(set(seen)) == 25


def test_a_full_last_page_has_no_token(store: Store) -> None:
    store.write([turn(n, f"s{n}") for n in range(4)])
    assert sessions(store=store, max_results=4).token is None


def test_many_sessions_are_told_in_batches(store: Store) -> None:
    store.write([turn(n, f"s{n}") for n in range(1100)])
    assert [one.session_id for one in sessions(store=store, max_results=2000)] == [
        f"s{n}" for n in reversed(range(1100))
    ]


def test_a_token_of_another_kind_is_refused(store: Store) -> None:
    for token in (
        "x",
        "W10=",
        "WyJhIiwxXQ==",
        "é",
    ):
        with pytest.raises(FilterError, match="page_token"):
            sessions(store=store, page_token=token)


def test_max_results_has_limits(store: Store) -> None:
    with pytest.raises(FilterError, match="max_results"):
        sessions(store=store, max_results=0)


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


@every_engine
def test_a_filter_selects_turns(store: Store) -> None:
    """The pause is that after the previous turn that is shown; pages hold every turn that matches once."""
    store.write([turn(n, "a", failed=n % 2 == 0) for n in range(6)] + [turn(9, "b", failed=True)])
    found = turns("a", "status = 'ERROR'", store=store)
    assert [one.trace.request_time - START for one in found] == [0, 2000, 4000]
    assert [one.pause_ms for one in found] == [None, 1900, 1900]
    page = turns("a", "status = 'ERROR' OR user = 'nobody'", store=store, max_results=2)
    (rest,) = turns("a", "status = 'ERROR'", store=store, max_results=2, page_token=page.token)
    assert rest.trace.request_time - START == 4000
    with pytest.raises(FilterError):
        turns("a", "status =", store=store)


@every_engine
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


@every_engine
def test_any_text_may_name_a_session(store: Store) -> None:
    names = ["it's", 'a"b`c', "x' OR '1'='1", "\u202e"]
    store.write([turn(number, session) for number, session in enumerate([*names, "other"])])
    for session in names:
        assert len(turns(session, store=store)) == 1
        assert read_session(session, store=store).turns == 1


def test_the_experiment_limits_them(store: Store) -> None:
    store.write([turn(0, "a"), turn(1, "a", experiment="other")])
    assert len(turns("a", experiment="other", store=store)) == 1
    assert read_session("a", experiment="other", store=store).turns == 1
    for experiment in ("nobody", None):
        with pytest.raises(TraceNotFoundError, match="no trace has the session"):
            read_session("a" if experiment else "nobody's", experiment=experiment, store=store)


@every_engine
def test_a_session_id_that_no_text_can_be(store: Store) -> None:
    """A lone surrogate, as from bytes of an argument that are no UTF-8: no trace has it."""
    with pytest.raises(TraceNotFoundError, match="no trace has the session"):
        read_session("\ud800", store=store)
