"""Our answers are those of real MLflow 3.17.2: the same traces in the same order, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError

from . import recorded
from .asking import Asker

FILTERS = recorded.measured_filters()
ALIASES = {trace.info.trace_id: alias for alias, trace in recorded.load_traces().items()}


ORDERS = recorded.load("ordering")["order_by"]
FIRST_PAGES = [case for case in recorded.load("ordering")["pagination"] if not case["page_token"]]
TOKENS = [case["page_token"] for case in recorded.load("ordering")["pagination"] if case["page_token"]]
NOT_KEPT = ["issue.id = 'x'", "prompt = 'qa/1'"]


def search(client: TraceClient, **arguments: Any) -> list[str]:
    return [ALIASES[trace.info.trace_id] for trace in client.search_traces(max_results=500, **arguments)]


@pytest.fixture(scope="module")
def asker(recorded_client: TraceClient) -> Iterator[Asker]:
    with recorded_client._store().snapshot() as snapshot:
        yield Asker(snapshot, list(ALIASES))


@pytest.mark.parametrize("category", sorted({case["category"] for case in FILTERS}))
def test_filter(asker: Asker, category: str) -> None:
    for case in (case for case in FILTERS if case["category"] == category):
        text, locations = case["filter"] or None, tuple(case.get("locations", ["main"]))
        if "error" in case:
            with pytest.raises(FilterError):
                asker.ids(text, experiments=locations)
        else:
            found = [ALIASES[trace_id] for trace_id in asker.ids(text, experiments=locations)]
            assert found == case["match"], case
        recorded.agreed[f"{case['tier']} filters"] += 1


def test_order(asker: Asker) -> None:
    for case in ORDERS:
        order = case["order_by"]
        if "error" in case:
            with pytest.raises(FilterError):
                asker.ids(order=order, experiments=("main",))
        else:
            found = [ALIASES[trace_id] for trace_id in asker.ids(order=order, experiments=("main",))]
            assert found == case["match"], order
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
