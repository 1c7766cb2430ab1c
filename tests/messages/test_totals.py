"""Tokens, cost and models of the calls in a trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.messages.content import Usage
from wherefrom.messages.prices import Cost, load_prices
from wherefrom.messages.totals import Totals, read_cost, sum_calls, token_usage
from wherefrom.model import Span, SpanEvent

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


# Responses, models, cost and time to the first token

PRICES = load_prices()
RESPONSE = {
    "object": "chat.completion", "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 100_000, "total_tokens": 1_100_000},
}  # fmt: skip


def call(span_id: str, parent_id: str | None = None, outputs: Any = None, **attributes: Any) -> Span:
    made = span(span_id, parent_id, **attributes)
    made.span_type, made.outputs = "LLM", outputs
    return made


def test_counts_of_a_response_are_read_from_the_outputs() -> None:
    """Of several spans that return one response, the innermost counts."""
    spans = [call("a", None, RESPONSE), call("b", "a", RESPONSE), call("c", "b", RESPONSE)]
    totals = sum_calls(spans, PRICES)
    assert totals.models == ("gpt-4o-2024-08-06",)
    assert totals.usage == Usage(1_000_000, 100_000, 1_100_000)
    assert totals.cost == Cost(2.5, 1.0)


def test_long_outputs_are_abridged() -> None:
    """What a span below recorded is not parsed as a whole: text of JSON that is too long has no counts."""
    long = {"padding": "x" * 70_000, **RESPONSE}
    assert sum_calls([call("a", None, json.dumps(RESPONSE))]).usage == Usage(1_000_000, 100_000, 1_100_000)
    assert sum_calls([call("a", None, json.dumps(long))]).usage is None


def test_attributes_come_before_outputs() -> None:
    """What an instrumentation says counts, above and below a span that returns the response."""
    inner = span("c", "b", **{keys.GEN_AI_INPUT_TOKENS: 3, "gen_ai.request.model": "gpt-4o"})
    assert sum_calls([call("a", None, RESPONSE), span("b", "a"), inner]).usage == Usage(3, 0, 3)
    outer = counted("a", read=10)
    assert sum_calls([outer, call("b", "a", RESPONSE)]).usage == Usage(10, 0, 10)


def test_a_response_that_two_spans_report_counts_once() -> None:
    """A client's own span is beside that of an instrumentation; calls one after another count each."""

    def timed(span_id: str, start: int, end: int, outputs: Any = None, **attributes: Any) -> Span:
        made = call(span_id, "root", outputs, **attributes)
        made.start_time_ns, made.end_time_ns = start, end
        return made

    told: dict[str, Any] = {keys.GEN_AI_INPUT_TOKENS: 5, "gen_ai.response.id": "msg_1"}
    beside = [timed("a", 0, 9, {"id": "msg_1", "usage": {"input_tokens": 7}}), timed("b", 1, 8, **told)]
    assert token_usage(beside) == usage(5, 0, 5)
    assert token_usage([*beside, timed("c", 9, 12, **told)]) == usage(10, 0, 10)
    other = {**told, "gen_ai.response.id": "msg_2"}
    assert token_usage([*beside, timed("c", 1, 8, **other)]) == usage(10, 0, 10)
    assert token_usage([*beside, beside[1], beside[1]]) == usage(5, 0, 5)  # a file may repeat a span


def test_models_without_a_price_are_named() -> None:
    """Their tokens count, and cost nothing."""
    other = span("b", None, **{keys.GEN_AI_INPUT_TOKENS: 5, "gen_ai.request.model": "my-model"})
    nameless = span("c", None, **{keys.GEN_AI_INPUT_TOKENS: 5})
    totals = sum_calls([call("a", None, RESPONSE), other, nameless], PRICES)
    assert totals.models == ("gpt-4o-2024-08-06", "my-model")
    assert totals.cost == Cost(2.5, 1.0)
    assert totals.unpriced == ("my-model", "unknown model")
    assert sum_calls([other], PRICES).cost is None
    assert sum_calls([other]).unpriced == ("my-model",)


def test_a_cost_that_was_recorded_is_kept() -> None:
    """MLflow's ``mlflow.llm.cost`` comes before the table."""
    cost = {"input_cost": 1.5, "output_cost": 0.5, "total_cost": 2.0}
    recorded = call("a", None, RESPONSE, **{keys.LLM_COST: cost})
    assert sum_calls([recorded], PRICES).cost == Cost(1.5, 0.5)
    assert read_cost({"total_cost": 2}) == Cost(2.0, 0.0)
    assert read_cost({"input_cost": "x", "total_cost": float("nan")}) == Cost()
    assert read_cost({}) is read_cost("x") is None


def test_the_model_of_a_request() -> None:
    """A response that does not name its model is priced as that of the request."""
    made = call(
        "a", None, {"embedding": [0.1], "usage": {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000}}
    )
    made.inputs = {"model": "text-embedding-3-small", "input": "x"}
    totals = sum_calls([made], PRICES)
    assert totals.models == ("text-embedding-3-small",)
    assert totals.cost == Cost(0.02, 0.0)


def test_outputs_of_other_spans_are_not_looked_into() -> None:
    """Only those of model calls, and objects that have counts."""
    other = span("a")
    other.outputs = [RESPONSE]
    assert sum_calls([other]) == Totals()
    other.outputs = {"usage": "none"}
    assert sum_calls([other]) == Totals()
    nested: Any = "x"
    for _ in range(2_000):
        nested = {"usage": nested}
    other.outputs = nested
    assert sum_calls([other]) == Totals()


def test_time_to_the_first_token() -> None:
    """From an attribute in seconds, or from the first item of a stream."""
    told = span("a", **{"gen_ai.response.time_to_first_chunk": 0.25})
    assert sum_calls([told]).first_token_ms == 250
    streamed = call("b")
    streamed.start_time_ns = 1_000_000
    streamed.events = [SpanEvent("mlflow.chunk.item.0", 41_000_000)]
    assert sum_calls([span("root"), streamed]).first_token_ms == 40
    streamed.events = [SpanEvent("First Token Stream Event", 31_000_000)]
    assert sum_calls([span("root"), streamed]).first_token_ms == 30
    streamed.events = [SpanEvent("mlflow.chunk.item.0", 0), SpanEvent("other", 5)]
    assert (
        sum_calls([streamed, span("c", **{"gen_ai.server.time_to_first_token": "x"})]).first_token_ms is None
    )
