"""The span tree of a trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wherefrom import Span
from wherefrom.analysis.span_tree import SpanTree, branches_of, own_times
from wherefrom.model import SpanStatus, SpanStatusCode

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


Parts = list[tuple[str, str | None, int, bool]]


def tree(parts: Parts) -> SpanTree:
    """Spans by name, parent, end and whether they failed; each begins at 0."""
    spans = [Span("tr-1", name, parent, name, end_time_ns=end) for name, parent, end, _ in parts]
    for span, (*_, failed) in zip(spans, parts, strict=True):
        span.status = SpanStatus(SpanStatusCode.ERROR if failed else SpanStatusCode.OK)
    return SpanTree(spans)


def origin(parts: Parts) -> str | None:
    found = tree(parts)
    index = found.origin()
    return None if index is None else found.places[index].span.name


def test_an_error_began_where_the_last_failed_child_failed() -> None:
    """A first try that failed, and an error that a span has caught, are not where it began."""
    root, call = ("root", None, 90, True), ("call", "root", 80, True)
    tries: Parts = [("first", "call", 30, True), ("second", "call", 70, True)]
    assert origin([root, call, *tries]) == "second"
    assert origin([root, ("call", "root", 80, False), *tries]) == "root"
    assert origin([("root", None, 90, False), ("call", "root", 80, False), *tries]) == "first"
    assert origin([("root", None, 90, False)]) is None
    assert origin([]) is None


def test_a_cycle_has_an_origin() -> None:
    assert origin([("a", "b", 5, True), ("b", "a", 4, True)]) == "b"


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=10))
def test_the_tree_has_every_span_once(parents: list[int | None]) -> None:
    """Whatever their parents are: missing ones, themselves, cycles."""
    spans = [Span("tr-1", str(at), None if up is None else str(up), "a") for at, up in enumerate(parents)]
    found = SpanTree(spans)
    assert sorted(place.span.span_id for place in found.places) == sorted(span.span_id for span in spans)
    assert [place.depth for place in found.places] == [branch.depth for branch in branches_of(spans)]
    for at, place in enumerate(found.places):
        assert found.index(place.span.span_id) == at
        assert len(found.above(at)) == place.depth
        inside = [other for other in range(len(spans)) if at in found.above(other)]
        assert inside == list(range(at + 1, at + 1 + found.below[at]))
