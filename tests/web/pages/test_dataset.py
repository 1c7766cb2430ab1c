"""Datasets as downloads: JSON lines of a selection, sent while they are read."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from wherefrom.model import Assessment
from wherefrom.stores import Store

from ..conftest import get
from ..samples import START, make_trace
from .test_conversation import make_chat

SIXTY = range(1, 61)  # three batches


@pytest.fixture
def chats(store: Store) -> None:
    """Sixty chats, of which every third was helpful, and a request that is none."""
    store.write(
        [make_chat(at, {"messages": [{"role": "user", "content": f"question {at}"}]}) for at in SIXTY]
    )
    store.write([make_trace(100)])
    store.write_assessments(
        [Assessment(trace_id=f"tr-{at:032x}", name="helpful", value=at % 3 == 0) for at in SIXTY]
    )


async def read(client: httpx.AsyncClient, path: str = "/api/dataset", **query: Any) -> list[Any]:
    answer = await client.get(path, params={"since": START, **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.headers["content-disposition"] == 'attachment; filename="dataset.jsonl"'
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.usefixtures("chats")
async def test_a_selection_is_a_file_of_its_chats(client: httpx.AsyncClient) -> None:
    """The newest first, over all batches, each once; what is no chat is left out."""
    found = await read(client)
    assert [one["messages"][0]["content"] for one in found] == [f"question {at}" for at in reversed(SIXTY)]
    assert {len(one["messages"]) for one in found} == {2}
    helpful = await read(client, filter="feedback.helpful = 'true'", format="mlflow")
    assert len(helpful) == 20
    assert {one["tags"]["feedback.helpful"] for one in helpful} == {"true"}
    assert await read(client, until=START + 500) == []
    chosen = [f"tr-{at:032x}" for at in (7, 100, 9)]
    found = await read(client, trace=chosen, format="mlflow", filter="status = 'ERROR'")
    assert [one["source"]["source_data"]["trace_id"] for one in found] == [chosen[0], chosen[2]]
    answer = await client.get("/api/dataset", params={"trace": [*chosen, "tr-gone", chosen[0]]})
    assert (answer.status_code, answer.json()["message"]) == (404, "no trace has the id 'tr-gone'")


@pytest.mark.usefixtures("chats")
async def test_the_list_offers_its_traces_as_datasets(client: httpx.AsyncClient) -> None:
    """Within the filter and the time range that it shows."""
    page = await get(client, "/traces", filter="feedback.helpful = 'true'", since=START, until=START + 31_000)
    links = [one.attributes["href"] for one in page.one("details", class_="dataset").all("a")]
    for link in links:
        answer = await client.get(link)
        assert len(answer.text.splitlines()) == 10
    assert [("openai" in link, "mlflow" in link) for link in links] == [(True, False), (False, True)]


@pytest.mark.usefixtures("chats")
async def test_a_wrong_request_is_refused_before_the_file_begins(client: httpx.AsyncClient) -> None:
    for query, message in (
        ({"format": "parquet"}, "format: "),
        ({"filter": "statsu = 'OK'"}, "statsu"),
        ({"since": "tomorrow's"}, "since: "),
    ):
        answer = await client.get("/api/dataset", params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
        assert message in answer.json()["message"]
    head = await client.head("/api/dataset", params={"since": START})
    assert head.status_code == 200
