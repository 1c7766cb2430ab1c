"""Failed traces in groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines import every_engine
from wherefrom import SpanEvent, SpanStatus, Trace, keys
from wherefrom.analysis import ErrorGroups, errors
from wherefrom.analysis.error_groups import mask
from wherefrom.model import SpanStatusCode
from wherefrom.stores import Store

from .traffic import START, make_trace

STACK = """Traceback (most recent call last):
  File "/app/shop/orders.py", line {line}, in answer
    await call()
  File "/usr/lib/python3.11/site-packages/httpx/_client.py", line 7, in send
    raise
TimeoutError: late"""


def failing(number: int, message: str, kind: str = "TimeoutError", line: int = 1, **changes: str) -> Trace:
    version = changes.pop("version", "1.0")
    trace = make_trace(number, version=version, failed=True, metadata=changes)
    (root,) = trace.data.spans
    root.status = SpanStatus(SpanStatusCode.ERROR, f"{kind}: {message}")
    root.attributes = {"error.type": kind, "http.response.status_code": 500}
    attributes = {"exception.type": kind, "exception.message": message,
                  "exception.stacktrace": STACK.format(line=line)}  # fmt: skip
    root.events = [SpanEvent("exception", root.start_time_ns, attributes)]
    return trace


def grouped(store: Store, filter_string: str | None = None) -> ErrorGroups:
    return errors(filter_string, since="0", until=str(START + 10**9), store=store)


@every_engine
def test_errors_that_differ_in_values_are_one_group(store: Store) -> None:
    """With counts, users, versions, the first and the last, and whether the newest version alone has it."""
    store.write([make_trace(0, version="1.0"), *(failing(n, f"order '{n}' took {n}.5 s", line=n,
        **{keys.USER: f"u{n % 2}"}) for n in range(1, 5))])  # fmt: skip
    store.write([failing(9, "no such key", "KeyError", version="2.0")])
    found = grouped(store)
    first, second = found.groups
    assert (found.errors, found.traces, found.is_whole) == (5, 5, True)
    assert (first.kind, first.message, first.where) == (
        "TimeoutError", "order '…' took # s", "shop/orders.py:answer",
    )  # fmt: skip
    assert (first.traces, first.users, first.versions, first.is_new) == (4, 2, ("1.0",), False)
    assert (first.first_seen, first.last_seen) == (START + 1000, START + 4000)
    assert first.example == make_trace(4).info.trace_id
    assert (second.kind, second.versions, second.is_new) == ("KeyError", ("2.0",), True)
    assert [row["kind"] for row in found.records()] == ["TimeoutError", "KeyError"]
    assert second.to_dict()["is_new"] is True


@every_engine
def test_the_filter_of_a_group_finds_its_traces(store: Store) -> None:
    """By the message, or else by the type or the status."""
    bare = make_trace(7, failed=True)
    bare.data.spans[0].attributes = {"http.response.status_code": 503}
    store.write([failing(1, "order '1' is 100% late"), failing(2, "order '2' is 50% late"),
                 failing(3, "", "EmptyError"), failing(4, "another"), bare,
                 make_trace(8, failed=True)])  # fmt: skip
    for group in grouped(store).groups:
        if group.kind == "error":
            continue  # nothing is known of it
        (again,) = grouped(store, group.filter).groups
        assert (again.kind, again.message, again.traces) == (group.kind, group.message, group.traces)
    kinds = [group.kind for group in grouped(store).groups]
    assert sorted(kinds) == ["EmptyError", "HTTP 503", "TimeoutError", "TimeoutError", "error"]


def test_only_failed_traces_that_match_are_grouped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([failing(n, f"case {n % 2}{'x' * (n % 2)}") for n in range(6)] + [make_trace(7)])
    assert grouped(store, "timestamp < 0").groups == ()
    monkeypatch.setattr("wherefrom.analysis.error_groups.MOST_READ", 4)
    found = grouped(store)
    assert (found.errors, found.traces, found.is_whole) == (6, 4, False)


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("took 1,234.5 s of 3", "took # s of #"),
        ("user 3f2a9c1b7d5e and 0x7f3a", "user <id> and <id>"),
        ("id 123e4567-e89b-12d3-a456-426614174000!", "id <id>!"),
        ('no key \'a"b\' in "c"', "no key '…' in '…'"),
        ("it isn't there", "it isn't there"),
        ("deadbeef is a word", "deadbeef is a word"),
        ("", ""),
    ],
)
def test_values_are_masked(message: str, masked: str) -> None:
    assert mask(message) == masked


@given(st.text(max_size=400))
def test_any_message_can_be_read(text: str) -> None:
    assert len(mask(text)) <= 1200
