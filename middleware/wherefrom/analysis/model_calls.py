"""Models, tokens, cost and time to the first token of traces, as recorded or as computed now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson

from .. import keys
from ..messages.content import Conversation, Usage
from ..messages.prices import Prices, load_prices
from ..messages.totals import Totals, read_cost, sum_calls
from ..messages.usage import read_usage
from ..model import Trace
from ..settings import Settings


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The model calls of one trace; ``cost`` in dollars.

    ``unpriced`` are models whose tokens are not in the cost, because no price is known. ``first_token_ms`` is
    from the start of the first model call that streamed to its first chunk.
    """

    models: tuple[str, ...]
    usage: Usage | None
    cost: float | None
    unpriced: tuple[str, ...]
    first_token_ms: float | None


@lru_cache(maxsize=1)
def known_prices() -> Prices:
    """The prices of this process: those that are shipped, and those of the setting ``prices`` over them.

    Raises:
        SettingsError: the file cannot be used.
    """
    return load_prices(Settings().prices)


def calls_of_trace(trace: Trace, conversations: Mapping[str, Conversation] | None = None) -> ModelCalls:
    """What the trace recorded; what it did not is read from its spans."""
    return _merged(trace.info.trace_metadata, sum_calls(trace.data.spans, known_prices(), conversations))


def calls_in_metadata(metadata: Mapping[str, str]) -> ModelCalls:
    """What the metadata of a trace says; without a recorded cost, that of its one model is computed."""
    found = _merged(metadata, Totals())
    if found.cost is not None or found.usage is None:
        return found
    price = known_prices().find(found.models[0]) if len(found.models) == 1 else None
    if price is None:
        return replace(found, unpriced=found.models or ("unknown model",))
    return replace(found, cost=price.cost(found.usage).total_cost)


def sum_metadata(several: Iterable[Mapping[str, str]]) -> ModelCalls:
    """The totals of several traces; the time to the first token is not summed."""
    found = [calls_in_metadata(metadata) for metadata in several]
    usages = [one.usage for one in found if one.usage is not None]
    costs = [one.cost for one in found if one.cost is not None]
    return ModelCalls(
        tuple(dict.fromkeys(model for one in found for model in one.models)),
        sum(usages, Usage()) if usages else None,
        sum(costs) if costs else None,
        tuple(dict.fromkeys(model for one in found for model in one.unpriced)),
        None,
    )


def _merged(metadata: Mapping[str, str], totals: Totals) -> ModelCalls:
    models = metadata.get(keys.MODELS)
    cost = read_cost(_json(metadata.get(keys.COST))) or totals.cost
    return ModelCalls(
        tuple(models.split(", ")) if models else totals.models,
        read_usage(_json(metadata.get(keys.TOKEN_USAGE))) or totals.usage,
        None if cost is None else cost.total_cost,
        totals.unpriced,
        _milliseconds(metadata.get(keys.FIRST_TOKEN)) or totals.first_token_ms,
    )


def _json(text: str | None) -> Any:
    try:
        return None if text is None else orjson.loads(text)
    except ValueError:
        return None


def _milliseconds(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
