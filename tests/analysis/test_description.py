"""What is said of one trace."""

from __future__ import annotations

from wherefrom import Span, SpanEvent
from wherefrom.analysis.description import describe, failures_of

from ..cli.conftest import make_span, make_trace


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
