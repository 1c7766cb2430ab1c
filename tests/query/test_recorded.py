"""Our answers are those of real MLflow 3.17.2: the same traces in the same order, or an error."""

from __future__ import annotations

from typing import Any

import pytest

from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError

from . import recorded

ALIASES = {trace.info.trace_id: alias for alias, trace in recorded.load_traces().items()}


ORDERS = recorded.load("ordering")["order_by"]
FIRST_PAGES = [case for case in recorded.load("ordering")["pagination"] if not case["page_token"]]
TOKENS = [case["page_token"] for case in recorded.load("ordering")["pagination"] if case["page_token"]]
NOT_KEPT = ["issue.id = 'x'", "prompt = 'qa/1'"]


def search(client: TraceClient, **arguments: Any) -> list[str]:
    return [ALIASES[trace.info.trace_id] for trace in client.search_traces(max_results=500, **arguments)]


@pytest.mark.parametrize(
    "case", recorded.measured_filters(), ids=lambda case: f"{case['n']}-{case['category']}"
)
def test_filter(recorded_client: TraceClient, case: dict[str, Any]) -> None:
    locations = case.get("locations", ["main"])
    if "error" in case:
        with pytest.raises(FilterError):
            search(recorded_client, experiment_ids=locations, filter_string=case["filter"])
    else:
        found = search(recorded_client, experiment_ids=locations, filter_string=case["filter"])
        assert found == case["match"]
    recorded.agreed[f"{case['tier']} filters"] += 1


@pytest.mark.parametrize(
    "case", recorded.load("ordering")["order_by"], ids=lambda case: str(case["order_by"])
)
def test_order(recorded_client: TraceClient, case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(FilterError):
            search(recorded_client, experiment_ids=["main"], order_by=case["order_by"])
    else:
        assert search(recorded_client, experiment_ids=["main"], order_by=case["order_by"]) == case["match"]
    recorded.agreed["orders"] += 1


@pytest.mark.parametrize("case", FIRST_PAGES, ids=lambda case: str(case["max_results"]))
def test_first_page(recorded_client: TraceClient, case: dict[str, Any]) -> None:
    arguments = {"max_results": case["max_results"], "page_token": case["page_token"]}
    if "error" in case:
        with pytest.raises(FilterError, match="max_results takes 1 to 50,000"):
            recorded_client.search_traces(experiment_ids=["main"], **arguments)
        return
    page = recorded_client.search_traces(experiment_ids=["main"], **arguments)
    names = [ALIASES[trace.info.trace_id] for trace in page]
    assert (len(names), names[:1], names[-1:]) == (case["count"], case["first"], case["last"])
    # MLflow gives a token for an empty page after a last one that happens to be full.
    assert (page.token is not None) == (case["count"] < 60)


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_of_mlflow_is_refused_in_one_sentence(recorded_client: TraceClient, token: str) -> None:
    with pytest.raises(FilterError, match=r"^this page_token is not one that a search returned$"):
        recorded_client.search_traces(page_token=token)


@pytest.mark.parametrize("text", NOT_KEPT)
def test_what_is_not_kept_says_so(recorded_client: TraceClient, text: str) -> None:
    with pytest.raises(FilterError, match=r"^\w+ is not kept in this store: .* live in MLflow"):
        search(recorded_client, filter_string=text)
