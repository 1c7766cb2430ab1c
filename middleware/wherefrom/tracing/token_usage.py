"""Sums the token counts of spans for their trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import keys
from ..model import Span

_MOST = 1e15
_FIELDS = ("input_tokens", "output_tokens", "total_tokens")


def token_usage(spans: Iterable[Span]) -> dict[str, int] | None:
    """Return the tokens of a trace, or ``None`` when no span has counts.

    Counts are read from ``mlflow.chat.tokenUsage`` or OpenTelemetry's ``gen_ai.usage.*``. Those of a span
    include its descendants', as in MLflow: a model call reports for the calls inside it.
    """
    spans = list(spans)
    usages = {span.span_id: usage for span in spans if (usage := _span_usage(span.attributes))}
    if not usages:
        return None
    parents = {span.span_id: span.parent_id for span in spans}
    counted = [usage for span_id, usage in usages.items() if not _covered(span_id, parents, usages)]
    return {name: sum(usage[name] for usage in counted) for name in _FIELDS}


def _span_usage(attributes: Mapping[str, Any]) -> dict[str, int] | None:
    usage = attributes.get(keys.CHAT_TOKEN_USAGE)
    if isinstance(usage, Mapping):
        counts = {name: _count(usage.get(name)) for name in _FIELDS}
    elif keys.GEN_AI_INPUT_TOKENS in attributes or keys.GEN_AI_OUTPUT_TOKENS in attributes:
        counts = {
            "input_tokens": _count(attributes.get(keys.GEN_AI_INPUT_TOKENS)),
            "output_tokens": _count(attributes.get(keys.GEN_AI_OUTPUT_TOKENS)),
            "total_tokens": 0,
        }
    else:
        return None
    counts["total_tokens"] = counts["total_tokens"] or counts["input_tokens"] + counts["output_tokens"]
    return counts


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < _MOST else 0


def _covered(span_id: str, parents: Mapping[str, str | None], usages: Mapping[str, Any]) -> bool:
    seen = {span_id}
    parent = parents.get(span_id)
    while parent is not None and parent not in seen:
        if parent in usages:
            return True
        seen.add(parent)
        parent = parents.get(parent)
    return False
