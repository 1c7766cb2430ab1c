"""Token counts of spans, summed for the trace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.model import Span
from wherefrom.tracing.token_usage import token_usage

COUNTS = st.integers(min_value=0, max_value=10_000)


def span(span_id: str, parent_id: str | None = None, /, **attributes: Any) -> Span:
    return Span("tr-" + "0" * 32, span_id, parent_id, span_id, attributes=attributes)


def counted(
    span_id: str, parent_id: str | None = None, *, read: Any = 0, written: Any = 0, total: Any = None
) -> Span:
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": total}
    return span(span_id, parent_id, **{keys.CHAT_TOKEN_USAGE: usage})


def usage(read: int, written: int, total: int) -> dict[str, int]:
    return {"input_tokens": read, "output_tokens": written, "total_tokens": total}


def test_a_trace_without_counts_has_no_usage() -> None:
    """Which is not the same as a usage of zero."""
    assert token_usage([]) is None
    assert token_usage([span("a"), span("b", "a", model="m")]) is None


def test_counts_are_read_under_mlflows_and_opentelemetrys_names() -> None:
    """A total that is not given is the sum of the other two; MLflow's names win where both are there."""
    assert token_usage([counted("a", read=1, written=2, total=5)]) == usage(1, 2, 5)
    assert token_usage([counted("a", read=1, written=2)]) == usage(1, 2, 3)
    semantic: dict[str, Any] = {keys.GEN_AI_INPUT_TOKENS: 3, keys.GEN_AI_OUTPUT_TOKENS: 4}
    assert token_usage([span("a", None, **semantic)]) == usage(3, 4, 7)
    assert token_usage([span("a", None, **{keys.GEN_AI_OUTPUT_TOKENS: 4})]) == usage(0, 4, 4)
    both = counted("a", read=1).attributes | semantic
    assert token_usage([span("a", **both)]) == usage(1, 0, 1)


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5))
def test_siblings_are_summed(counts: list[tuple[int, int]]) -> None:
    """Each model call counts once."""
    root = span("root")
    calls = [
        counted(f"call{i}", "root", read=read, written=written) for i, (read, written) in enumerate(counts)
    ]
    read, written = (sum(column) for column in zip(*counts, strict=True))
    assert token_usage([root, *calls]) == usage(read, written, read + written)


def test_a_span_with_counts_hides_those_below_it() -> None:
    """An agent reports for the calls inside it, however deep; spans in between need no counts."""
    spans = [
        span("root"),
        counted("agent", "root", read=10),
        span("step", "agent"),
        counted("call", "step", read=4),
        counted("other", "root", read=1),
    ]
    assert token_usage(spans) == usage(11, 0, 11)


@pytest.mark.parametrize("odd", [-1, float("nan"), float("inf"), 1e300, "7", None, [1], {"a": 1}])
def test_what_is_not_a_count_counts_nothing(odd: Any) -> None:
    """Nothing is raised, and the other counts stay."""
    assert token_usage([counted("a", read=odd, written=2)]) == usage(0, 2, 2)
    assert token_usage([span("a", **{keys.CHAT_TOKEN_USAGE: odd})]) in (None, usage(0, 0, 0))


def test_parents_that_are_unknown_or_go_in_circles_do_no_harm() -> None:
    """A trace from elsewhere may hold anything."""
    assert token_usage([counted("a", "gone", read=1)]) == usage(1, 0, 1)
    circle = [span("x", "y"), span("y", "x"), counted("a", "x", read=2)]
    assert token_usage(circle) == usage(2, 0, 2)
