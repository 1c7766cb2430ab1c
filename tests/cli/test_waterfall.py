from __future__ import annotations

import io
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from wherefrom.analysis.span_tree import branches_of
from wherefrom.cli.terminal import Terminal
from wherefrom.cli.waterfall import print_waterfall
from wherefrom.model import Span, SpanStatus, SpanStatusCode

from .conftest import make_span


def draw(spans: list[Span], width: int | None = 80) -> list[str]:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=width is not None,
        color_system=None,
        legacy_windows=False,
    )
    print_waterfall(Terminal(console=console), spans)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def bar(line: str) -> tuple[int, int]:
    """Where the bar begins and ends, in cells."""
    return line.index("━"), line.rindex("━") + 1


def test_the_tree_and_its_bars() -> None:
    header, root, find, embed, answer = draw(
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
        lines = draw(spans, width)
        assert lines[0].split()[:3] == ["Spans", "start", "took"]
        assert "+30.0 ms" in lines[2]


def test_a_span_that_never_ended_is_open_to_the_right() -> None:
    _, root, open_ = draw([make_span("root", None, 0, 100), make_span("work", "root", 50, None)])
    assert open_.startswith("… └─ work ")
    assert " open " in open_
    assert bar(open_)[1] == bar(root)[1]


def test_an_unset_status_and_a_moment() -> None:
    line = draw([make_span("root", None, 0, 0, status=SpanStatus())])[1]
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
    lines = draw(spans)
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
    lines = draw(spans, width)
    assert all(cell_len(line) <= width for line in lines)
    assert all("━" in line for line in lines[1:])
