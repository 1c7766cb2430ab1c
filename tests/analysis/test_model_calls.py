"""Tokens and cost by value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherefrom import keys
from wherefrom.analysis.model_calls import (
    ModelCalls,
    calls_in_metadata,
    calls_of_trace,
    read_totals,
)
from wherefrom.exceptions import FilterError
from wherefrom.messages.content import Usage
from wherefrom.model import Span, Trace, TraceData, TraceInfo
from wherefrom.stores import Selection, open_store

USAGE = json.dumps({"input_tokens": 1_000_000, "output_tokens": 100_000, "total_tokens": 1_100_000})


def make(number: int, *, model: str = "gpt-4o", **changes: Any) -> Trace:
    metadata = {keys.TOKEN_USAGE: USAGE, keys.MODELS: model, keys.USER: f"user-{number % 2}"} | changes
    info = TraceInfo(f"tr-{number:032x}", request_time=1_790_000_000_000 + number, trace_metadata=metadata)
    info.tags[keys.TRACE_NAME_TAG] = "POST /chat"
    info.tags["team"] = "chat"
    return Trace(info, TraceData([]))


@pytest.mark.parametrize(
    ("by", "values"),
    [
        ("user", ["user-1", "user-0"]),
        ("name", ["POST /chat"]),
        ("tag.team", ["chat"]),
        ("app_version", ["2", "1"]),
        ("mlflow.trace.user", ["user-1", "user-0"]),
    ],
)
def test_totals_by_value(tmp_path: Path, by: str, values: list[str]) -> None:
    """The most expensive value comes first; traces without tokens are left out."""
    store = open_store(f"sqlite:///{tmp_path / 'w.db'}")
    traces = [make(number, app_version="2" if number > 2 else "1") for number in range(1, 6)]
    idle = make(9)
    del idle.info.trace_metadata[keys.TOKEN_USAGE]
    store.write([*traces, idle])
    with store.snapshot() as snapshot:
        found = read_totals(snapshot, Selection(), by)
        assert [one.value for one in found.values] == values
        assert (found.traces, found.is_whole) == (5, True)
        assert sum(one.calls.cost or 0 for one in found.values) == pytest.approx(5 * 3.5)
        newest = read_totals(snapshot, Selection(), by, limit=2)
        assert (newest.traces, newest.is_whole) == (2, False)
        with pytest.raises(FilterError):
            read_totals(snapshot, Selection(), "nobody.knows")
    store.close()


def test_costs_that_are_recorded_computed_and_unknown() -> None:
    """What was recorded counts; without it the price of the one model does; other models are named."""
    assert calls_in_metadata(make(1).info.trace_metadata).cost == 3.5
    recorded = make(1, **{keys.COST: '{"total_cost": 1}'}).info.trace_metadata
    assert calls_in_metadata(recorded).cost == 1
    assert calls_in_metadata(make(1, model="mine").info.trace_metadata).unpriced == ("mine",)
    several = calls_in_metadata(make(1, model="gpt-4o, mine").info.trace_metadata)
    assert (several.cost, several.unpriced) == (None, ("gpt-4o", "mine"))
    assert calls_in_metadata({keys.FIRST_TOKEN: "x"}) == ModelCalls((), None, None, (), None)


def test_calls_of_a_trace() -> None:
    """What the metadata lacks is read from the spans."""
    attributes = {keys.GEN_AI_INPUT_TOKENS: 1_000_000, "gen_ai.response.model": "gpt-4o"}
    info = TraceInfo("tr-1")
    trace = Trace(info, TraceData([Span("tr-1", "a", None, "model", "LLM", attributes=attributes)]))
    assert calls_of_trace(trace) == ModelCalls(("gpt-4o",), Usage(1_000_000, 0, 1_000_000), 2.5, (), None)
