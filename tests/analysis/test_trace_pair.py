"""Two traces side by side."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.analysis.span_tree import SpanTree
from wherefrom.analysis.trace_pair import (
    ADDED,
    REMOVED,
    SAME,
    Effort,
    align_spans,
    diff_messages,
    diff_words,
    differing_facts,
)
from wherefrom.messages.content import Conversation, Message, Part
from wherefrom.model import OK, Assessment, Span

from ..web.samples import make_trace

MS = 1_000_000


def tree(*spans: tuple[str, str | None, float, float]) -> SpanTree:
    """Spans by id and name (``id:name``), parent, begin and end in ms."""
    return SpanTree(
        [
            Span(
                "tr-1",
                *(key.split(":")[0], parent, key.split(":")[1]),
                "TOOL",
                int(start * MS),
                int(end * MS),
                OK,
            )
            for key, parent, start, end in spans
        ]
    )


def test_spans_are_aligned_by_name_and_path() -> None:
    """The second of a name with the second of it; what only one trace has keeps its place."""
    a = tree(
        ("1:GET /a", None, 0, 100), ("2:ask", "1", 1, 50), ("3:ask", "1", 50, 90), ("4:log", "3", 60, 61)
    )
    b = tree(
        ("9:GET /b", None, 5, 55), ("8:ask", "9", 6, 16), ("7:rank", "9", 20, 25), ("6:ask", "9", 30, 50),
        ("5:log", "8", 7, 8),
    )  # fmt: skip
    pairs = align_spans(a, b)
    assert [(one.name, one.depth, one.a and one.a.span_id, one.b and one.b.span_id) for one in pairs] == [
        ("GET /a", 0, "1", "9"), ("ask", 1, "2", "8"), ("log", 2, None, "5"), ("rank", 1, None, "7"),
        ("ask", 1, "3", "6"), ("log", 2, "4", None),
    ]  # fmt: skip
    assert [one.difference_ns and one.difference_ns // MS for one in pairs] == [
        -50,
        -39,
        None,
        None,
        -20,
        None,
    ]
    assert pairs[1].b is not None
    assert pairs[1].b.start_ns == MS


def test_a_span_inside_itself_and_ten_thousand_levels_are_aligned() -> None:
    ring = tree(("1:x", "2", 0, 1), ("2:y", "1", 0, 1))
    deep = tree(*((f"{at}:deeper", str(at - 1), 0, 1) for at in range(10_000)))
    assert [(one.name, one.depth) for one in align_spans(ring, ring)] == [("x", 0), ("y", 1)]
    assert max(one.depth for one in align_spans(ring, deep)) == 9_999


@given(
    st.lists(st.sampled_from(["a", "b", "的", " ", "\n", "!"])),
    st.lists(st.sampled_from(["a", "的", " ", "\n"])),
)
@settings(max_examples=150, deadline=None)
def test_runs_hold_both_texts_and_alternate(first: list[str], second: list[str]) -> None:
    """Also where only lines, or nothing at all, may be compared."""
    a, b = "".join(first), "".join(second)
    for effort in (Effort(), Effort(8), Effort(0)):
        runs = diff_words(a, b, effort)
        assert "".join(run.text for run in runs if run.kind != ADDED) == a
        assert "".join(run.text for run in runs if run.kind != REMOVED) == b
        kinds = [run.kind for run in runs]
        assert all(one != other for one, other in pairwise(kinds))
        assert (kinds in ([], [SAME])) == (a == b)


def test_words_are_compared_and_blanks_between_changes_belong_to_them() -> None:
    runs = diff_words("the quick brown fox", "the slow red fox")
    assert [(run.kind, run.text) for run in runs] == [
        (SAME, "the "), (REMOVED, "quick brown"), (ADDED, "slow red"), (SAME, " fox"),
    ]  # fmt: skip
    runs = diff_words("北京天气晴", "北京天气阴")
    assert [(run.kind, run.text) for run in runs] == [(SAME, "北京天气"), (REMOVED, "晴"), (ADDED, "阴")]


def test_which_of_two_texts_is_longer_makes_no_difference() -> None:
    """A frequent word of the longer one is no place to begin, whichever comes first: each would be tried."""
    long, short = (" ".join(f"the {word}{at}" for at in range(end)) for word, end in (("a", 5000), ("b", 99)))
    kinds = {REMOVED: ADDED, ADDED: REMOVED, SAME: SAME}
    found = [(kinds[run.kind], run.text) for run in diff_words(short, long)]
    assert sorted(found) == sorted((run.kind, run.text) for run in diff_words(long, short))
    assert len(found) == 3


def test_a_megabyte_is_compared_as_far_as_the_effort_goes() -> None:
    """Equal ends are found, and the lines and words of so much text are not compared with one another."""
    a, b = ("\n".join(f"{at * step % 99991} tail" for at in range(70_000)) for step in (7, 11))
    effort = Effort()
    runs = diff_words(f"head {a}", f"head {b}", effort)
    assert effort.left == Effort().left
    assert [run.kind for run in runs] == [SAME, REMOVED, ADDED, SAME]
    assert (runs[0].text, runs[-1].text) == ("head 0 tail\n", " tail")


def test_each_feedback_of_a_name_is_compared() -> None:
    both, one = make_trace(1), make_trace(1)
    given = [Assessment(trace_id="tr-1", name="ok", value=value) for value in (True, False)]
    both.info.assessments, one.info.assessments = given, given[1:]
    (found,), _ = differing_facts((both, ()), (one, ()))
    assert (found.a, found.b) == ("true (code); false (code)", "false (code)")


def said(role: str, text: str) -> Message:
    return Message(role, (Part("text", text),))


def test_messages_are_paired_by_role_and_answers_apart() -> None:
    """Equal ones first; more than fit are cut, and say by how much."""
    system, question = said("system", "be brief"), said("user", "why?")
    call = Message("assistant", (Part("tool_call", name="look_up", arguments={"city": "Rome"}),))
    a = Conversation((system, question), (said("assistant", "because of the sky"),))
    b = Conversation((system, said("user", "why not?"), call), (said("assistant", "because of the sea"),))
    pairs = diff_messages(a, b)
    assert [(one.role, one.is_answer, one.is_same) for one in pairs] == [
        ("system", False, True), ("user", False, False),
        ("assistant", False, False), ("assistant", True, False),
    ]  # fmt: skip
    assert [(run.kind, run.text) for run in pairs[2].runs] == [(ADDED, 'look_up(city="Rome")')]
    long = Conversation((said("user", "x" * 600_000),), (said("assistant", "answer"),))
    pairs = diff_messages(long, long)
    assert [(one.is_same, one.size, one.cut) for one in pairs] == [(True, 600_000, 100_000), (True, 6, 6)]
    other = Conversation(long.asked, (said("assistant", "another"),))
    assert not diff_messages(long, other)[1].is_same  # though nothing of them is compared
