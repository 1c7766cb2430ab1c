"""The Deployments page and its twin."""

from __future__ import annotations

from typing import Any

import httpx

from wherefrom import Trace, keys
from wherefrom.model import Source
from wherefrom.stores import Store

from ..conftest import HOSTILE, get
from ..samples import START, make_traces

COMMIT = "91680b57f0e6ef8ffccb594f82742789910725e2"


def deployed(count: int, source: dict[str, str], **facts: Any) -> list[Trace]:
    traces = make_traces(count, **facts)
    for trace in traces:
        trace.info.source = Source(source)
        trace.info.trace_metadata = dict(source)
    return traces


FULL = {
    keys.APP_VERSION: "1.1.0",
    keys.DEPLOYMENT_ID: "deploy-42",
    keys.REGION: "eu-1",
    keys.ENVIRONMENT: "production",
    keys.GIT_COMMIT: COMMIT,
    keys.GIT_BRANCH: "main",
    keys.GIT_REPO_URL: "git@github.com:org/app.git",
    keys.GIT_DIRTY: "true",
}


async def test_a_deployment_is_told_in_a_row(client: httpx.AsyncClient, store: Store) -> None:
    store.write(deployed(3, FULL, failed=True))
    page = await get(client, "/deployments")
    assert "1 deployment with traces from" in page.one("caption").text
    (row,) = page.one("tbody").all("tr")
    for told in (
        "deploy-42 · 1.1.0",
        COMMIT[:12],
        "+ uncommitted changes",
        "main",
        "eu-1",
        "production",
        "100 %",
        "120 ms",
    ):
        assert told in row.text
    commit = row.one("a", class_="mono").attributes
    assert commit["href"] == f"https://github.com/org/app/commit/{COMMIT}"
    assert "noreferrer" in commit["rel"]


async def test_its_figures_lead_to_its_traces(client: httpx.AsyncClient, store: Store) -> None:
    store.write(deployed(3, FULL, failed=True))
    page = await get(client, "/deployments")
    links = [
        one.attributes["href"] for one in page.one("main").all("a") if "/traces" in one.attributes["href"]
    ]
    assert len(links) == 3
    for link in links:
        answer = await client.get(link)
        assert "3 traces" in answer.text, link


async def test_the_twin_holds_what_the_page_shows(client: httpx.AsyncClient, store: Store) -> None:
    store.write(deployed(3, FULL))
    found = (await client.get("/deployments.json")).json()
    (one,) = found["deployments"]
    assert (one["name"], one["commit_url"]) == (
        "deploy-42 · 1.1.0",
        f"https://github.com/org/app/commit/{COMMIT}",
    )
    assert (one["deployment"]["traces"], one["deployment"]["first_seen"]) == (3, START + 1000)
    assert (found["others"], found["until"] - found["since"]) == (0, 86_400_000)


async def test_what_is_not_known_is_said(client: httpx.AsyncClient, store: Store) -> None:
    store.write(deployed(1, {"pod": "a"}, execution_duration=None, spans=[]))
    (row,) = (await get(client, "/deployments")).one("tbody").all("tr")
    assert "unknown" in row.text
    assert "unknown" in row.text
    assert "none" in row.text


async def test_hostile_values_are_text_and_no_link(client: httpx.AsyncClient, store: Store) -> None:
    value = HOSTILE.replace("\x00", "")
    store.write(deployed(1, dict.fromkeys(FULL, value)))
    page = await get(client, "/deployments")
    assert not page.all("img")
    assert all(one.attributes["src"].startswith("/static/") for one in page.all("script"))
    assert "\u202e" not in page.text
    assert all(one.attributes["href"].startswith("/") for one in page.one("main").all("a"))


async def test_without_traces_it_says_what_to_do(client: httpx.AsyncClient) -> None:
    assert "DEPLOYMENT_ID" in (await get(client, "/deployments")).one("div", class_="empty").text


async def test_a_time_that_cannot_be_read_is_said(client: httpx.AsyncClient) -> None:
    page = await get(client, "/deployments", since="the day before")
    assert "the day before" in page.one("div", class_="failed").text
    assert (await client.get("/deployments.json", params={"since": "the day before"})).status_code == 400
