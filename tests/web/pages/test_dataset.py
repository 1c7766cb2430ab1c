"""Datasets as downloads: JSON lines of a selection, sent while they are read."""

from __future__ import annotations

import csv
import io
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
async def test_the_list_offers_its_traces_as_files(client: httpx.AsyncClient) -> None:
    """All within the filter and the time range that it shows, or those that are chosen in the table."""
    page = await get(client, "/traces", filter="feedback.helpful = 'true'", since=START, until=START + 31_000)
    form = page.one("form", id="chosen")
    fields = {one.attributes["name"]: one.attributes["value"] for one in form.all("input")}
    boxes = page.one("tbody", id="rows").all("input", type="checkbox", form="chosen", name="trace")
    chosen = [box.attributes["value"] for box in boxes[1:3]]
    assert "checked" not in boxes[0].attributes
    for button in form.all("button"):
        about = button.attributes
        address = about.get("formaction", form.attributes["action"])
        own = {about["name"]: about["value"]} if "name" in about else {}
        lines = [
            (await client.get(address, params={**fields, **own, **more})).text.splitlines()
            for more in ({}, {"trace": chosen})
        ]
        assert [len(one) - address.endswith("/traces") for one in lines] == [10, 2]


async def test_traces_are_rows_of_a_file(client: httpx.AsyncClient, store: Store) -> None:
    """With one header over all batches, as ``wherefrom export`` writes them; formulas are text."""
    store.write([make_trace(at, tags={"team": "=1+1"}) for at in SIXTY])
    answer = await client.get("/api/traces", params={"since": START})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="traces.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["trace_id"] for row in rows] == [f"tr-{at:032x}" for at in reversed(SIXTY)]
    assert {(row["http_status"], row["tag.team"]) for row in rows} == {("200", "'=1+1")}


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
