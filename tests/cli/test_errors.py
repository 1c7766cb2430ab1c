"""``wherefrom errors``."""

from __future__ import annotations

import json
from collections.abc import Callable

from wherefrom.model import SpanStatus, SpanStatusCode, TraceState

from .conftest import HOSTILE, is_harmless, make_span, make_trace, run

Write = Callable[..., None]


def test_errors_are_listed_in_groups(write: Write) -> None:
    """As a table and as JSON; words and values need no quotes."""
    for number in range(1, 4):
        status = SpanStatus(SpanStatusCode.ERROR, f"case {number}" if number < 3 else HOSTILE)
        spans = [make_span("root", None, 0, 5, status=status)]
        write(make_trace(number, state=TraceState.ERROR, spans=spans))
    result = run("errors", width=120)
    assert "case #" in result.out
    assert is_harmless(result.out)
    found = json.loads(run("errors", "case status = error", "--json").out)
    assert [one["traces"] for one in found["groups"]] == [2]
    assert "No trace failed" in run("errors", "user = 'nobody'").err
