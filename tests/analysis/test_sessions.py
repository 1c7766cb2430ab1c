"""Sessions: told whole, the newest first, page by page."""

from __future__ import annotations

import pytest

from wherefrom import FilterError, Trace, keys
from wherefrom.analysis import sessions
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


def test_the_filter_picks_sessions_which_are_told_whole(store: Store) -> None:
    store.write([turn(0, "a", failed=True), turn(1, "a"), turn(2, "b")])
    (found,) = sessions("status = 'ERROR'", store=store)
    assert (found.session_id, found.turns, found.errors) == ("a", 2, 1)
    assert sessions("metadata.nothing = 'x'", store=store) == []
    (found,) = sessions("span.name LIKE 'GET%' AND session_id = 'b'", store=store)
    assert found.session_id == "b"


def test_the_experiment_limits_the_turns_too(store: Store) -> None:
    store.write([turn(0, "a"), turn(1, "a", experiment="other"), turn(2, "b")])
    assert [(one.session_id, one.turns) for one in sessions(experiment="other", store=store)] == [("a", 1)]
    assert [(one.session_id, one.turns) for one in sessions(experiment="default", store=store)] == [
        ("b", 1),
        ("a", 1),
    ]
    assert sessions(experiment="nobody", store=store) == []


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


@pytest.mark.parametrize("token", ["x", "W10=", "WyJhIiwxXQ==", "é"])
def test_a_token_of_another_kind_is_refused(store: Store, token: str) -> None:
    with pytest.raises(FilterError, match="page_token"):
        sessions(store=store, page_token=token)


def test_max_results_has_limits(store: Store) -> None:
    with pytest.raises(FilterError, match="max_results"):
        sessions(store=store, max_results=0)
