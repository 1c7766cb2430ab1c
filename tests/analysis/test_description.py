"""The span tree of a trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wherefrom import Span, SpanEvent
from wherefrom.analysis.description import describe, failures_of, own_times

from ..cli.conftest import make_span, make_trace

Ends = tuple[int, int | None]


def span(begin: int, end: int | None) -> Span:
    return Span("tr-" + "0" * 32, "0" * 16, None, "a", start_time_ns=begin, end_time_ns=end)


def own(parent: Ends, *children: Ends) -> list[tuple[int, int]]:
    return own_times(span(*parent), [span(*child) for child in children], now_ns=100)


def test_own_time_is_when_no_child_ran() -> None:
    """Children may overlap, be in any order, begin before their parent and end after it."""
    assert own((0, 10)) == [(0, 10)]
    assert own((0, 10), (5, 7), (2, 6)) == [(0, 2), (7, 10)]
    assert own((5, 10), (0, 6), (9, 20)) == [(6, 9)]
    assert own((0, 10), (0, 10)) == []
    assert own((0, 10), (20, 30)) == [(0, 10)]
    assert own((0, None), (10, None)) == [(0, 10)]
    assert own((5, 5)) == []
    assert own((0, 10), (4, 2)) == [(0, 4), (4, 10)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6))
def test_each_moment_is_own_or_a_childs(children: list[tuple[int, int]]) -> None:
    """Compared moment by moment."""
    found = own((10, 40), *children)
    for moment in range(10, 40):
        is_own = any(begin <= moment < end for begin, end in found)
        assert is_own is not any(begin <= moment < end for begin, end in children)


def test_one_of_a_kind_is_singular() -> None:
    """Chunks, messages and dropped spans: one and several."""
    names = ("wherefrom.response.chunks", "wherefrom.websocket.messages_sent", "wherefrom.dropped_spans")
    shown = []
    for count in (1, 2):
        root = make_span("root", None, 0, 120, attributes=dict.fromkeys(names, count))
        pairs = {pair.label: pair.value for pair in next(describe(make_trace(1, spans=[root]))).pairs}
        shown.append((pairs["stream"], pairs["dropped"]))
    assert shown == [
        ("1 chunk, 1 message sent (0 B)", "1 span"),
        ("2 chunks, 2 messages sent (0 B)", "2 spans"),
    ]


def failing(name: str, parent: str | None, at: int, message: str = "late", times: int = 1) -> Span:
    """A span, named by its id, that an exception left at this time, as often as ``times`` says."""
    attributes = {"exception.type": "TimeoutError", "exception.message": message}
    events = [SpanEvent("exception", at, attributes) for _ in range(times)]
    return Span("tr-" + "0" * 32, name, parent, name, start_time_ns=1, end_time_ns=at, events=events)


def paths(*spans: Span) -> list[list[str]]:
    return [failure.spans for failure in failures_of(spans)]


def test_a_failure_goes_up_the_tree() -> None:
    """Over spans that did not record it; recorded twice, or within one tick, it counts once."""
    root, between = failing("root", None, 30, times=2), failing("between", "root", 25, times=0)
    assert paths(root, between, failing("leaf", "between", 20)) == [["leaf", "root"]]
    assert paths(failing("root", None, 20), failing("leaf", "root", 20)) == [["leaf", "root"]]
    assert paths(failing("leaf", "root", 20), failing("root", None, 30, "other")) == [["leaf"], ["root"]]


def test_equal_failures_of_spans_beside_each_other_are_several() -> None:
    """The last of them is the one that their parent let out."""
    tries = [failing(name, "root", at) for name, at in (("first", 10), ("second", 20), ("third", 30))]
    assert paths(*tries) == [["first"], ["second"], ["third"]]
    assert paths(failing("root", None, 40), *tries) == [["first"], ["second"], ["third", "root"]]


def test_a_cycle_of_spans_has_its_failures() -> None:
    assert paths(failing("a", "b", 10), failing("b", "a", 20)) == [["a", "b"]]
