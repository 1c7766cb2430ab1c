"""Sums tokens and cost of the model calls of a trace, and names the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import keys
from ..model import Span
from .attributes import model_in_attributes
from .bodies import abridged
from .content import Conversation, Reading, Usage
from .parts import text_in
from .prices import Cost, Prices
from .shapes import UNREADABLE, read_value
from .usage import read_usage, usage_in_attributes

_USAGE: Final = ("usage", "usageMetadata", "usage_metadata", "llm_output", "response_metadata")
MODEL_CALLS: Final = frozenset({"LLM", "CHAT_MODEL", "EMBEDDING"})
"""The types of spans that are one model call."""
# Of MLflow, OpenInference and OpenLLMetry.
_FIRST_CHUNK: Final = frozenset(
    {
        f"{keys.CHUNK_EVENT_PREFIX}0",
        "First Token Stream Event",
        "gen_ai.content.completion.chunk",
        "llm.content.completion.chunk",
    }
)
_FIRST_TOKEN: Final = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
_MOST_MODELS: Final = 20


@dataclass(frozen=True, slots=True)
class Call:
    """What one span says about a model call; ``is_told`` says that its attributes do, not its outputs.

    ``response_id`` is the provider's.
    """

    model: str | None
    usage: Usage
    cost: Cost | None
    is_told: bool
    response_id: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a trace: its models in the order of their first calls, tokens, cost and time to the first token.

    ``cost`` is ``None`` where no call has one. ``unpriced`` are the models whose tokens are not in the cost.
    ``first_token_ms`` is from the start of the first model call that streamed to its first chunk.
    """

    models: tuple[str, ...] = ()
    usage: Usage | None = None
    cost: Cost | None = None
    unpriced: tuple[str, ...] = ()
    first_token_ms: float | None = None


def sum_calls(
    spans: Sequence[Span],
    prices: Prices | None = None,
    conversations: Mapping[str, Conversation] | None = None,
) -> Totals:
    """The totals of a trace.

    Counts in attributes include those of descendants, as in MLflow: a span reports for the calls inside it.
    Counts in outputs are those of one response, so there the innermost span counts. ``conversations`` are
    those that were read already, by span id.
    """
    calls: dict[str, Call] = {}
    models: dict[str, None] = {}
    known = conversations or {}
    # Most spans of a large trace are read without what they hold.
    telling = [one for one in spans if one.attributes or one.outputs is not None or one.span_id in known]
    for span in telling:
        call, model = _call_of(span, known.get(span.span_id), prices)
        if model is not None and len(models) < _MOST_MODELS:
            models[model] = None
        if call is not None:
            calls[span.span_id] = call
    counted = _counted(calls, spans) if calls else []
    costs = [call.cost for call in counted if call.cost is not None]
    return Totals(
        tuple(models),
        sum((call.usage for call in counted), Usage()) if counted else None,
        sum(costs, Cost()) if costs else None,
        tuple(dict.fromkeys(call.model or "unknown model" for call in counted if call.cost is None)),
        _first_token_ms(spans),
    )


def token_usage(spans: Sequence[Span]) -> dict[str, int] | None:
    """The tokens of a trace as MLflow writes them, or ``None`` when no span has counts."""
    usage = sum_calls(spans).usage
    return None if usage is None else usage.to_dict()


def _call_of(
    span: Span, conversation: Conversation | None, prices: Prices | None
) -> tuple[Call | None, str | None]:
    attributes = span.attributes
    model = model_in_attributes(attributes) if attributes else None
    usage = usage_in_attributes(attributes) if attributes else None
    is_told = usage is not None
    if conversation is not None:
        model, usage = model or conversation.model, usage or conversation.usage
    elif usage is None or model is None:
        found = _response_in(span)
        if found is not None:
            model, usage = model or found.model, usage or found.usage
    if usage is None:
        return None, model
    if model is None and isinstance(span.inputs, dict):
        model = text_in(span.inputs, "model")
    cost = _recorded_cost(attributes)
    if cost is None and prices is not None and model is not None:
        price = prices.find(model)
        cost = None if price is None else price.cost(usage)
    return Call(model, usage, cost, is_told, _response_id(span)), model


def _response_id(span: Span) -> str | None:
    outputs = span.outputs if span.span_type in MODEL_CALLS else None
    told = span.attributes.get("gen_ai.response.id")
    return told if isinstance(told, str) else text_in(outputs, "id") if isinstance(outputs, dict) else None


def _response_in(span: Span) -> Reading | None:
    """What the outputs of a model call say about it; those of other spans only if they have its counts."""
    outputs = span.outputs
    if outputs is None:
        return None
    if span.span_type in MODEL_CALLS or (
        isinstance(outputs, dict) and any(name in outputs for name in _USAGE)
    ):
        try:
            found = read_value(abridged(outputs))
        except UNREADABLE:
            return None
        if found is None and isinstance(outputs, dict):
            return Reading(model=text_in(outputs, "model"), usage=read_usage(outputs.get("usage")))
        return found
    return None


def _recorded_cost(attributes: Mapping[str, Any]) -> Cost | None:
    cost = attributes.get(keys.LLM_COST)
    return read_cost(cost) if isinstance(cost, Mapping) else None


def read_cost(cost: Any) -> Cost | None:
    """A cost as MLflow writes it; ``None`` for anything else."""
    if not isinstance(cost, Mapping):
        return None
    figures = [cost.get(name) for name in ("input_cost", "output_cost", "total_cost")]
    sent, received, total = (
        float(one) if isinstance(one, (int, float)) and 0 <= one < _MOST_COST else 0.0 for one in figures
    )
    if not sent and not received:
        sent = total
    return Cost(sent, received) if any(one is not None for one in figures) else None


_MOST_COST: Final = 1e12


def _counted(calls: Mapping[str, Call], spans: Sequence[Span]) -> list[Call]:
    """The calls that count: none below one that attributes tell of, and none of outputs above another one."""
    parents = {span.span_id: span.parent_id for span in spans}
    covered: set[str] = set()
    for span_id in calls:
        seen = {span_id}
        above = parents.get(span_id)
        while above is not None and above not in seen:
            seen.add(above)
            if above in calls:
                covered.add(span_id if calls[above].is_told else above)
            above = parents.get(above)
    counted = {span_id: call for span_id, call in calls.items() if span_id not in covered}
    for span_id in list(_repeated(counted, spans)):
        del counted[span_id]
    return list(counted.values())


def _repeated(calls: Mapping[str, Call], spans: Sequence[Span]) -> Iterator[str]:
    """Yield the spans whose response a later span reports too, which begins before they end.

    These are a span of an instrumentation that does not make it current, and the client's own one beside it.
    A server may give all its responses one id, so the id alone is not enough.
    """
    known: dict[str, Span] = {}
    for span in spans:
        call = calls.get(span.span_id)
        if call is not None and call.response_id:
            other = known.get(call.response_id)
            is_other = other is not None and other.span_id != span.span_id  # hostile spans may share an id
            if other is not None and is_other and span.start_time_ns < (other.end_time_ns or 0):
                yield other.span_id
            known[call.response_id] = span


def _first_token_ms(spans: Sequence[Span]) -> float | None:
    for span in spans:
        for name in _FIRST_TOKEN if span.attributes else ():
            value = span.attributes.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST_COST:
                return round(value * 1000, 3)
        if span.span_type in MODEL_CALLS:
            for event in span.events:
                if event.name in _FIRST_CHUNK and event.timestamp >= span.start_time_ns:
                    return (event.timestamp - span.start_time_ns) / 1e6
    return None
