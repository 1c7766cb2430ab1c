"""Costly calls of MLflow's clients: how many run, for how long, and for whom."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from wherefrom.mlflow.serve import make_application
from wherefrom.stores import Store, open_store
from wherefrom.web.auth import Access
from wherefrom.web.queries import QueryPool

from ...web.conftest import asking
from ...web.costly import COSTLY, fill, serving, until

SEARCH = "/api/3.0/mlflow/traces/search"
LOCATIONS = [{"mlflow_experiment": {"experiment_id": "0"}}]


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('costly') / 'wherefrom.db'}")
    fill(store)
    yield store
    store.close()


def search(client: httpx.AsyncClient, filter_string: str = COSTLY) -> Any:
    return client.post(SEARCH, json={"locations": LOCATIONS, "filter": filter_string})


async def test_a_call_that_takes_too_long_is_not_asked_again(costly: Store) -> None:
    """MLflow's code for it, in a status with which its client does not repeat the call."""
    async with asking(make_application(costly, Access(), QueryPool(seconds=0.3))) as client:
        answer = await search(client)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "DEADLINE_EXCEEDED"
    assert "took longer than 0.3 s: narrow" in answer.json()["message"]


async def test_calls_beyond_the_limit_are_told_when_to_come_again(costly: Store) -> None:
    """503, which MLflow's client repeats, after the time in which a call ends."""
    pool = QueryPool(seconds=1.2, running=1, waiting=1)
    async with asking(make_application(costly, Access(), pool)) as client:
        answers = await asyncio.gather(*(search(client) for _ in range(6)))
        assert Counter(answer.status_code for answer in answers) == {400: 2, 503: 4}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert (await search(client, "")).status_code == 200


async def test_a_client_sends_32_calls_at_once(costly: Store) -> None:
    """As MLflow's does: none is refused."""
    async with asking(make_application(costly, Access())) as client:
        answers = await asyncio.gather(*(search(client, "status = 'OK'") for _ in range(64)))
    assert {answer.status_code for answer in answers} == {200}


async def test_a_call_ends_when_its_client_leaves(costly: Store) -> None:
    """The body has been read before one listens for that."""
    pool = QueryPool(seconds=60)
    body = json.dumps({"locations": LOCATIONS, "filter": COSTLY}).encode()
    head = (
        f"POST {SEARCH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    with serving(make_application(costly, Access(), pool)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"\r\n\r\n" + body[:10])
        await asyncio.sleep(0.1)
        assert pool.admitted == 0
        writer.write(body[10:])
        await until(lambda: pool.running == 1)
        writer.close()
        assert await until(lambda: pool.running == pool.admitted == 0) < 2
