"""Reads token counts as OpenAI, Anthropic, Gemini, LangChain, MLflow and OpenTelemetry report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import keys
from .content import Usage

_MOST: Final = 1e15
_INPUT: Final = ("input_tokens", "prompt_tokens", "promptTokenCount", "prompt_token_count")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "candidatesTokenCount", "candidates_token_count")
_THOUGHTS: Final = ("thoughtsTokenCount", "thoughts_token_count")
_TOTAL: Final = ("total_tokens", "totalTokenCount", "total_token_count")
_READ: Final = ("cache_read_input_tokens", "cachedContentTokenCount", "cached_content_token_count")
_CREATED: Final = ("cache_creation_input_tokens",)
_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OTEL_READ: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_OTEL_CREATED: Final = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_OTEL_INPUT: Final = (keys.GEN_AI_INPUT_TOKENS, "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OTEL_OUTPUT: Final = (
    keys.GEN_AI_OUTPUT_TOKENS,
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)


def read_usage(value: Any) -> Usage | None:
    """The counts in a ``usage`` object of any provider; ``None`` if there are none.

    Anthropic does not count tokens of the cache as input; here they are, as with everybody else.
    """
    if not isinstance(value, Mapping) or not any(name in value for name in (*_INPUT, *_OUTPUT, *_TOTAL)):
        return None
    read, created = _first(value, _READ), _first(value, _CREATED)
    sent = _first(value, _INPUT)
    # MLflow's counts have Anthropic's names and a total: in them, input includes the cache already.
    if any(name in value for name in ("cache_read_input_tokens", *_CREATED)) and "total_tokens" not in value:
        sent += read + created
    for name in _DETAILS:
        if isinstance(details := value.get(name), Mapping):
            read = read or _first(details, ("cached_tokens", "cache_read"))
            created = created or _first(details, ("cache_creation",))
    received = _first(value, _OUTPUT) + _first(value, _THOUGHTS)
    return _usage(sent, received, _first(value, _TOTAL), read, created)


def usage_in_attributes(attributes: Mapping[str, Any]) -> Usage | None:
    """The counts in the attributes of a span: ``mlflow.chat.tokenUsage``, or OpenTelemetry's."""
    recorded = attributes.get(keys.CHAT_TOKEN_USAGE)
    if isinstance(recorded, Mapping):
        return _usage(
            _first(recorded, _INPUT[:1]),
            _first(recorded, _OUTPUT[:1]),
            _first(recorded, _TOTAL[:1]),
            _first(recorded, _READ[:1]),
            _first(recorded, _CREATED),
        )
    if not any(name in attributes for name in (*_OTEL_INPUT, *_OTEL_OUTPUT)):
        return None
    return _usage(
        _first(attributes, _OTEL_INPUT),
        _first(attributes, _OTEL_OUTPUT),
        0,
        _first(attributes, _OTEL_READ),
        _first(attributes, _OTEL_CREATED),
    )


def _usage(sent: int, received: int, total: int, read: int, created: int) -> Usage:
    return Usage(sent, received, total or sent + received, read, created)


def _first(counts: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((_count(counts[name]) for name in names if counts.get(name) is not None), 0)


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < _MOST else 0
