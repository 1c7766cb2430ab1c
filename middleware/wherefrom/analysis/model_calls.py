"""Models, tokens, cost and time to the first token of traces, as recorded or as computed now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import orjson

from .. import keys
from ..messages.content import Conversation, Usage
from ..messages.prices import Prices, load_prices
from ..messages.totals import Totals, read_cost, sum_calls
from ..messages.usage import read_usage
from ..model import Trace
from ..query.fields import ASSESSED, METADATA, Family, Field, Operator, with_key
from ..query.order import NEWEST_FIRST
from ..query.tree import And, Compare
from ..settings import Settings
from ..stores import Selection, Snapshot
from ..stores.base import TraceRow
from .scope import find_grouping


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
    totals = sum_calls(trace.data.spans, known_prices(), conversations)
    return _priced(_merged(trace.info.trace_metadata, totals))


def calls_in_metadata(metadata: Mapping[str, str]) -> ModelCalls:
    """What the metadata of a trace says; without a recorded cost, that of its one model is computed."""
    return _priced(_merged(metadata, Totals()))


def _priced(found: ModelCalls) -> ModelCalls:
    if found.cost is not None or found.usage is None or found.unpriced:
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


MOST_TRACES: Final = 5_000
"""The most traces whose tokens and cost are summed, the newest first: each is read for itself."""


@dataclass(frozen=True, slots=True)
class ValueCalls:
    """The model calls of the traces with one value of a field."""

    value: str
    traces: int
    calls: ModelCalls


@dataclass(frozen=True, slots=True)
class CallTotals:
    """Tokens and cost by the values of ``by``, the most expensive first, over the traces that have tokens.

    ``is_whole`` says whether the newest ``traces``, over which they are summed, are all of the selection.
    """

    by: str
    values: tuple[ValueCalls, ...]
    traces: int
    is_whole: bool


def read_totals(snapshot: Snapshot, selection: Selection, by: str, limit: int = MOST_TRACES) -> CallTotals:
    """The totals by user, session, version, route (``name``), or any other field, metadata key or tag.

    Raises:
        FilterError: nothing is named ``by``.
    """
    field = find_grouping(by, snapshot)
    has_tokens = Compare(with_key(METADATA, keys.TOKEN_USAGE), Operator.IS_NOT_NULL)
    tree = has_tokens if selection.tree is None else And((has_tokens, selection.tree))
    page = snapshot.search(replace(selection, tree=tree), NEWEST_FIRST, limit)
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in snapshot.rows(page.keys):
        if (value := _value(row, field)) is not None:
            groups.setdefault(value, []).append(row.metadata)
    values = (ValueCalls(value, len(found), sum_metadata(found)) for value, found in groups.items())
    in_order = sorted(values, key=lambda one: (-(one.calls.cost or 0), -_tokens(one), one.value))
    return CallTotals(by, tuple(in_order), len(page.keys), page.after is None)


def _tokens(one: ValueCalls) -> int:
    return 0 if one.calls.usage is None else one.calls.usage.total_tokens


def _value(row: TraceRow, field: Field) -> str | None:
    if field.family in ASSESSED:
        return None  # rows have no feedback
    if field.key is not None:
        named = {keys.SESSION: row.session, keys.USER: row.user}
        found = row.tags if field.family is Family.TAG else named | row.metadata
        return found.get(field.key)
    return {
        "name": row.name,
        "status": row.state,
        "user": row.user,
        "session_id": row.session,
        "request_id": row.trace_id,
        "client_request_id": row.request_id,
    }.get(field.name)


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
